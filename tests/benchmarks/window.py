"""Figures of the window: start, memory, the event loop while work runs, the table at 10,000 rows, refreshing.

    python -m tests.benchmarks.window [--large FOLDER]

Wall times depend on what else the machine does; times of the table are processor time of the GUI thread.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.window_cases import Driver

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")

QUANTIZED_SECONDS = 5.0
START = """
import time, os, sys
began = time.monotonic()
from studio.gui.app import make_application
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from pathlib import Path
application = make_application()
commands = Commands(Settings(Path(sys.argv[1])), application)
commands.start()
application.processEvents()
shown = time.monotonic() - began
status = Path("/proc/self/status")
memory = status.read_text().split("VmRSS:")[1].split()[0] if status.exists() else "0"
commands.ready.connect(lambda: (print(shown, time.monotonic() - began, memory), commands.window.close()))
application.exec()
"""


def main() -> int:
    """Print every figure with the bound that the window promises."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=10_000, help="rows of the large table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_all(Path(folder), options.layers)
    for figure in figures:
        print(figure.line())
    return 0


@dataclass(frozen=True)
class Figure:
    """What was measured, and what the window promises: at most `bound`, or at least."""

    name: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    def line(self) -> str:
        """The figure as a line of the output."""
        kept = self.value >= self.bound if self.at_least else self.value <= self.bound
        verdict, side = "ok" if kept else "MISSED", "at least" if self.at_least else "at most"
        part = f"{self.value / self.bound:.2f} of it"
        return f"{self.name:<58}{self.value:>9.1f} {self.unit:<4} {verdict} ({side} {self.bound:g}, {part})"


def measure_all(folder: Path, layers: int) -> list[Figure]:
    """Everything measured."""
    return [*_start(folder), *_loop(folder), *_tiny(folder), *_table(folder, layers), *_experts(folder)]


def _start(folder: Path) -> list[Figure]:
    runs = []
    for number in range(5):
        command = [sys.executable, "-c", START, str(folder / f"start{number}.ini")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append([float(word) for word in done.stdout.split()])
    shown, ready, memory = (min(column) for column in zip(*runs, strict=True))
    return [
        Figure("window visible, imports included", 1000 * shown, 300, "ms"),
        Figure("plots and table ready", 1000 * ready, 800, "ms"),
        Figure("memory of the empty window", memory / 1000, 100, "MB"),
    ]


def _loop(folder: Path) -> list[Figure]:
    """Gaps between ticks of a 5 ms timer while layers of 16 MB are quantized, in format after format."""
    from tests.benchmarks.window_cases import Driver, heavy_checkpoint

    driver = Driver(folder / "loop.ini")
    try:
        driver.open(heavy_checkpoint(folder / "heavy"))
        ordered = sorted(driver.gaps_for(QUANTIZED_SECONDS))
    finally:
        driver.close()
    what = f"event-loop gap, {sum(ordered):.0f} s of quantizing"
    return [
        Figure(f"{what}, 99 % below", 1000 * ordered[int(0.99 * len(ordered))], 25, "ms"),
        Figure(f"{what}, largest", 1000 * ordered[-1], 80, "ms"),
    ]


def _tiny(folder: Path) -> list[Figure]:
    """Thousands of small layers: what each costs besides its weights."""
    from tests.benchmarks.window_cases import TINY_LAYERS, Driver, tiny_checkpoint

    driver = Driver(folder / "tiny.ini")
    try:
        driver.open(tiny_checkpoint(folder / "tiny"))
        driver.settle()
        nbytes, seconds = driver.seconds_of_runs(3)
    finally:
        driver.close()
    what, rates = f"{TINY_LAYERS:,} layers of 64 x 64", [n / s / 1e6 for n, s in zip(nbytes, seconds, strict=True)]
    return [
        Figure(f"{what}, bytes read, as the strip says", max(rates), 40, "MB/s", at_least=True),
        Figure(f"{what}, all of them", min(seconds), 2, "s"),
    ]


def _table(folder: Path, layers: int) -> list[Figure]:
    from studio.gui.layers.columns import KEYS
    from tests.benchmarks.window_cases import Driver, fill_results, wide_checkpoint

    driver = Driver(folder / "table.ini")
    try:
        began = time.monotonic()
        driver.open(wide_checkpoint(folder / "wide", layers))
        opened = time.monotonic() - began
        fill_results(driver.studio)
        table, workspace = driver.studio.workspace.layers.table, driver.studio.workspace
        column = KEYS.index("err")
        field = workspace.filter_bar.field
        words = iter(["d", "do", "down", "down_proj", "err>0.1", "block:8-15", ""] * 10)
        return [
            Figure(f"open {layers:,} layers, headers to table (wall)", 1000 * opened, 1500, "ms"),
            Figure(f"sort {layers:,} rows by error", _processor(lambda: table.sort_by(column)), 25, "ms"),
            Figure(f"filter {layers:,} rows, one keystroke", _processor(lambda: field.setText(next(words))), 25, "ms"),
            Figure("fold all blocks", _processor(lambda: driver.perform("fold_all")), 25, "ms"),
            Figure("refresh of summary, table and views", _processor(driver.refresh), 15, "ms"),
            Figure("one format for 1,000 layers", _processor(driver.change_formats, 4), 60, "ms"),
            Figure("keep what changed, on the thread of the window", _processor(driver.keep), 5, "ms"),
        ]
    finally:
        driver.close()


def _experts(folder: Path) -> list[Figure]:
    """Choices for every layer of a mixture of experts, all of which has results."""
    from tests.benchmarks.window_cases import Driver, expert_checkpoint, fill_results

    driver = Driver(folder / "experts.ini")
    try:
        driver.open(expert_checkpoint(folder / "experts"))
        count = f"{len(driver.studio.document.store):,} layers"
        left = Figure(f"what a run works on, {count}", _processor(driver.studio.document.order), 50, "ms")
        fill_results(driver.studio)
        steps = ("select_all", "format:mxfp8", "undo", "redo", "by_kind", "clear")
        times = [driver.times_of(steps) for _ in range(5)]
        presets = [_presets(driver, name, count) for name in ("mlp", "linear")]
    finally:
        driver.close()
    names = ("select all", "one format for all", "undo it", "redo it", "group by kind")
    medians = [1000 * sorted(column)[2] for column in zip(*times, strict=True)]
    both = zip(names, medians, strict=False)
    return [left, *(Figure(f"{name}, {count}", value, 100, "ms") for name, value in both), *presets]


def _presets(driver: "Driver", name: str, count: str) -> Figure:
    """Another preset picked in the tool bar, from the one that holds for all."""
    editing, times = driver.studio.editing, []
    for _ in range(5):
        editing.set_preset("all")
        driver.settle()
        times.append(_processor(lambda: editing.set_preset(name), 1))
    return Figure(f"preset {name}, {count}", sorted(times)[2], 50, "ms")


def _processor(work: Callable[[], object], rounds: int = 15) -> float:
    """Median processor time of this thread in ms, painting included."""
    from PySide6.QtWidgets import QApplication

    times = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        QApplication.processEvents()
        times.append(time.thread_time() - began)
    return 1000 * sorted(times)[len(times) // 2]


if __name__ == "__main__":
    sys.exit(main())
