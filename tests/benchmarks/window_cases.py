"""What the window is measured on: checkpoints made for it, and a window that is driven."""

import json
import math
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QEventLoop, Qt, QTimer

from studio import core
from studio.gui.app import make_application
from studio.gui.layers.document import Order
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings

if TYPE_CHECKING:
    from studio.gui.shell.studio import Studio

TICK_MS = 5
KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj")
LAYERS_PER_BLOCK = len(KINDS) + 1
TINY_LAYERS = 4704


def heavy_checkpoint(folder: Path, layers: int = 40) -> Path:
    """Layers of 16 MB, so that quantizing takes seconds."""
    folder.mkdir()
    weight = np.random.default_rng(5).normal(size=(2048, 4096)).astype(np.float16)
    shapes = {f"model.layers.{i}.mlp.down_proj.weight": weight for i in range(layers)}
    _write(folder, dict.fromkeys(shapes, (weight.shape, weight)))
    return folder


def tiny_checkpoint(folder: Path, blocks: int = 32, experts: int = 49) -> Path:
    """Experts of 64 x 64 weights, `TINY_LAYERS` of them with the defaults."""
    folder.mkdir()
    weight = np.random.default_rng(5).normal(0, 0.02, (64, 64)).astype(np.float16)
    each = [f"mlp.experts.{e}.{leaf}.weight" for e in range(experts) for leaf in ("gate_proj", "up_proj", "down_proj")]
    _write(folder, {f"model.layers.{b}.{name}": (weight.shape, weight) for b in range(blocks) for name in each})
    return folder


def wide_checkpoint(folder: Path, layers: int) -> Path:
    """Many small layers."""
    folder.mkdir()
    weight = np.full((16, 64), 0.25, np.float16)
    names = [f"model.layers.{i // 7}.{(*KINDS, 'mlp.down_proj')[i % 7]}.weight" for i in range(layers)]
    _write(folder, dict.fromkeys(names, (weight.shape, weight)))
    return folder


def expert_checkpoint(folder: Path, blocks: int = 120, experts: int = 128) -> Path:
    """A mixture of experts whose weights are holes in the file: 47,163 layers with the defaults."""
    folder.mkdir()
    own = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate")
    norms = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    each = [f"mlp.experts.{e}.{leaf}" for e in range(experts) for leaf in ("gate_proj", "up_proj", "down_proj")]
    shapes = {"model.embed_tokens": (64, 64), "lm_head": (64, 64), "model.norm": (64,)}
    shapes |= {f"model.layers.{b}.{name}": (16, 64) for b in range(blocks) for name in (*own, *each)}
    shapes |= {f"model.layers.{b}.{name}": (64,) for b in range(blocks) for name in norms}
    header, offset = {}, 0
    for name in sorted(shapes):
        end = offset + 2 * math.prod(shapes[name])
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + offset)
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": blocks}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _write(folder: Path, tensors: dict[str, tuple[tuple[int, ...], np.ndarray]]) -> None:
    header, offset = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + data.nbytes]}
        offset += data.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, data in tensors.values():
            file.write(data.data)
    (folder / "config.json").write_text('{"architectures": ["BenchmarkForCausalLM"]}')


def fill_results(studio: "Studio") -> None:
    """Results for every layer, as if they had been measured."""
    store, document = studio.document.store, studio.document
    rng = np.random.default_rng(1)
    order = document.order()
    results = [
        core.LayerResult(
            name,
            "linear",
            int(store.blocks[i]),
            "F16",
            (16, 64),
            store.formats[i],
            "",
            1024,
            2048,
            580,
            store.method_names[i],
            sum_squares=1.0,
            sum_error=float(error),
        )
        for i, (name, error) in enumerate(zip(store.names, rng.normal(0.01, 0.001, len(store)), strict=True))
        if name in order.choices
    ]
    document.take(order, results)


class Driver:
    """A window without a person."""

    def __init__(self, settings: Path) -> None:
        self.application = make_application()
        self.commands = Commands(Settings(settings), self.application)
        self.commands.start()
        self.commands.window.resize(1600, 1000)
        self.wait(lambda: self.commands.studio is not None)
        assert self.commands.studio is not None
        self.studio: Studio = self.commands.studio
        self._refreshed = 0

    def open(self, path: Path) -> None:
        """Open a checkpoint and wait for it."""
        self.commands.open_path(path)
        self.wait(lambda: self.studio.document.model is not None)
        self.application.processEvents()

    def perform(self, key: str) -> None:
        """Do an action."""
        self.commands.perform(key)

    def times_of(self, keys: Sequence[str]) -> list[float]:
        """Processor time of this thread for each of these actions in turn, painting included; the plan is put back."""
        times = []
        for key in keys:
            self.settle()
            began = time.thread_time()
            self.perform(key)
            self.application.processEvents()
            times.append(time.thread_time() - began)
        while self.studio.document.undo.canUndo():
            self.perform("undo")
        return times

    def settle(self) -> None:
        """Let what was put off happen: what is left, and the plots."""
        ends = time.monotonic() + 1
        self.wait(lambda: time.monotonic() > ends)

    def gaps_while(self, key: str) -> list[float]:
        """Seconds between ticks of a timer until the run that `key` starts is over."""
        ticks: list[float] = []
        timer = QTimer(interval=TICK_MS, timerType=Qt.TimerType.PreciseTimer)
        timer.timeout.connect(lambda: ticks.append(time.monotonic()))
        timer.start()
        self.perform(key)
        self.wait(lambda: not self.studio.runs.active)
        timer.stop()
        return [after - before for before, after in pairwise(ticks)]

    def gaps_for(self, seconds: float) -> list[float]:
        """What `gaps_while` gives for quantizing to every format in turn, until it went on for so long."""
        gaps: list[float] = []
        for name in cycle(core.FORMATS):
            self.studio.editing.set_plan_format(name)
            self.settle()
            gaps += self.gaps_while("quantize")
            if sum(gaps) > seconds:
                return gaps
            if name == tuple(core.FORMATS)[-1]:
                self.perform("afresh")
        return gaps

    def seconds_of_runs(self, count: int) -> tuple[list[int], list[float]]:
        """Bytes read, and seconds from the key to the end, of each of `count` runs from nothing known."""
        nbytes, seconds = [], []
        for _ in range(count):
            self.perform("afresh")
            self.settle()
            began, left = time.monotonic(), self.studio.document.left()
            nbytes.append(2 * int(self.studio.document.store.nbytes_in[left].sum()))  # once per pass
            self.perform("quantize")
            self.wait(lambda: not self.studio.runs.active)
            seconds.append(time.monotonic() - began)
        return nbytes, seconds

    def refresh(self) -> None:
        """What happens ten times a second while layers are done: ten new results, and everything in sight again."""
        document = self.studio.document
        self._refreshed += 10
        chosen = range(self._refreshed % 5000, self._refreshed % 5000 + 10)
        old = [result for i in chosen if (result := document.store.results[i]) is not None]
        order = Order(
            {r.name: document.choices[document.store.index[r.name]] for r in old},
            {r.name: document.peers(r.name) for r in old},
        )
        document.take(order, [replace(result, sum_error=result.sum_error * 1.01) for result in old])
        self.studio.workspace.refresh()

    def change_formats(self) -> None:
        """Another format for a thousand layers."""
        document = self.studio.document
        names = document.store.names[:1000]
        other = "mxfp8" if document.store.formats[0] != "mxfp8" else "mxfp4"
        document.set_format(names, other)

    def keep(self) -> None:
        """What happens a second after a change; the disk is the matter of another thread."""
        self.studio.keeping.keep_soon()
        self.studio.keeping.save()

    def wait(self, done: Callable[[], bool]) -> None:
        """Run the event loop until `done`."""
        loop, poll = QEventLoop(), QTimer(interval=20)
        poll.timeout.connect(lambda: loop.quit() if done() else None)
        poll.start()
        loop.exec()
        poll.stop()

    def close(self) -> None:
        """Close the window and its thread."""
        self.commands.settings["confirm_quit"] = False
        self.commands.window.close()
        self.application.processEvents()
