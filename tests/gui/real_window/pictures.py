"""Renews the pictures that the documentation shows: python -m tests.gui.real_window.pictures FOLDER."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PySide6.QtCore import QRect
from PySide6.QtGui import QImage

from tests.core.checkpoints import tensors_of
from tests.gui.real_window import job
from tests.gui.real_window.person import Person
from tests.gui.real_window.screen import missing, own_screen

WINDOWS = ("welcome", "quantized", "inspector", "compare", "quality", "budget", "exported", "doctor")
PLOTS = {"scale regimes": "Scale regimes"}
THEMES = ("light", "dark")
COLORS, COARSE = 256, 0xE0E0E0


def main() -> int:
    """Do the job once in each theme, and save what the documentation shows of it."""
    if missing():
        sys.stderr.write(f"not installed: {', '.join(missing())}\n")
        return 1
    models = Path(tempfile.gettempdir(), "models")
    for theme in THEMES:
        models.mkdir()
        try:
            _take(Path(sys.argv[1]), theme, models / "demo-llama-nvfp4")
        finally:
            shutil.rmtree(models)
    return 0


def _take(folder: Path, theme: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place, "home")
        home.mkdir()
        with own_screen(Path(place)) as screen, Person(screen, home, {"theme": theme}) as person:

            def show(word: str) -> None:
                if word in WINDOWS or word in PLOTS:
                    person.rest()
                    picture = person.picture(_part(person, word))
                    _with_few_colors(picture).save(str(folder / f"{word.replace(' ', '-')}-{theme}.png"), quality=0)

            job.do(person, target, show, models=True, spoil=_spoilt)


def _spoilt(export: Path) -> Path:
    """A copy of an export that went through bad hands."""
    folder = export.with_name("llama-from-elsewhere")
    shutil.copytree(export, folder)
    for name in ("SHA256SUMS", "nvfp4_studio.json", "tokenizer.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float16"
    config["quantization"]["model.layers.2.self_attn.o_proj"] = False
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    for tensor in tensors_of(weights).values():
        if tensor.name.endswith(("1.mlp.gate_proj.scales", "3.mlp.up_proj.scales")):
            raw[tensor.start : tensor.start + 40] = b"\x7f" * 40
    weights.write_bytes(raw)
    return folder


def _part(person: Person, word: str) -> QRect:
    """Where the window is, or the plot."""
    if word not in PLOTS:
        return person.wait_to_see("*", "Window").rectangle
    found = [item.rectangle for item in person.sees(PLOTS[word], "Client")]
    return max(found, key=lambda part: part.width() * part.height())


def _with_few_colors(picture: QImage) -> QImage:
    """The picture in 256 colours, a third of the bytes: one for each coarse colour, and the most frequent ones."""
    found, counts = np.unique(np.frombuffer(picture.constBits(), np.uint32), return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")]
    coarse = np.sort(np.unique(frequent & COARSE, return_index=True)[1])
    palette = [*frequent[coarse], *np.delete(frequent, coarse)][:COLORS]
    return picture.convertToFormat(QImage.Format.Format_Indexed8, [int(color) for color in palette])


if __name__ == "__main__":
    sys.exit(main())
