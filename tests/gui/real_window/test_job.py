"""A person does the whole job: the program on a screen of its own, with real keys and clicks."""

import configparser
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtGui import QImage

from studio import core
from studio.gui.shell.settings import Settings
from tests.gui.real_window import job
from tests.gui.real_window.person import SETTINGS, Person
from tests.gui.real_window.screen import missing, own_screen

ENTRY = Path(__file__).parents[3] / "packaging" / "linux" / "org.nvfp4studio.Studio.desktop"
FEWEST_COLORS = 12

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")


def test_a_person_does_the_whole_job(tmp_path: Path) -> None:
    home, target = tmp_path / "home", tmp_path / "export"
    home.mkdir()
    shown: list[QImage] = []
    with own_screen(tmp_path) as screen, Person(screen, home, {"theme": "light"}) as person:

        def show(word: str) -> None:
            shown.append(person.picture(unlike=shown[-1] if shown else None))
            shown[-1].save(str(tmp_path / f"{word}.png"))

        job.do(person, target, show)
        person.press("ctrl+shift+d")
        show("dark")
        assert person.is_called(_window_class())
        person.press("ctrl+q")
        assert person.wait_for_end() == 0
        assert person.faults == ""
    assert all(len(np.unique(_pixels(picture))) > FEWEST_COLORS for picture in shown)
    assert _brightness(shown[-1]) < _brightness(shown[-2]) / 2
    _check_export(target)
    assert Settings(home / SETTINGS).texts("last") == [str(core.demo_checkpoint())]


def _window_class() -> str:
    """The class by which a desktop finds the entry, and with it the icon, of a window."""
    entry = configparser.ConfigParser(interpolation=None)
    entry.read(ENTRY)
    return entry["Desktop Entry"]["StartupWMClass"]


def _pixels(picture: QImage) -> np.ndarray:
    return np.frombuffer(picture.constBits(), np.uint32)


def _brightness(picture: QImage) -> float:
    return float(np.frombuffer(picture.constBits(), np.uint8).mean())


def _check_export(target: Path) -> None:
    command = (sys.executable, "-m", "studio", "verify", str(target), "--source", str(core.demo_checkpoint()))
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    layers = json.loads((target / "nvfp4_studio.json").read_text())["layers"]
    formats = {layer["name"]: layer["format"] for layer in layers}
    assert [formats[f"model.layers.{block}.mlp.down_proj"] for block in range(4)] == ["mxfp8"] * 4
    assert formats["model.layers.0.self_attn.v_proj"] == "keep"
    assert list(formats.values()).count("nvfp4-3t") == 23
