"""Soak: open, run, cancel, export, close, again and again in one window; nothing is left over, and memory stays flat.

Usage: python -m tests.faults.soak [CYCLES]; the default is 200 cycles.
"""

import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEventLoop, QTimer

from studio import core
from studio.gui.app import make_application
from studio.gui.layers.document import Document
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import checkpoint, llama
from tests.faults.held import Held, held, leaks, slope

CYCLES, WARM = 200, 2
"""How many cycles, and after how many everything was made once."""
LINES = 10
PATIENCE_SECONDS = 60
FORMATS = tuple(core.FORMATS)[:4]


class Soak:
    """A window with everything that it writes inside `place`, and two checkpoints."""

    def __init__(self, place: Path) -> None:
        self._exports = place / "exports"
        self._exports.mkdir()
        sizes = ((4, 512, 1024), (6, 384, 768))
        self._models = [
            checkpoint(place / f"model{i}", llama(blocks, hidden, inner), shards=2)
            for i, (blocks, hidden, inner) in enumerate(sizes)
        ]
        self._faults: list[str] = []
        sys.excepthook = lambda kind, error, _trace: self._faults.append(f"{kind.__name__}: {error}")
        self._commands = Commands(Settings(place / "settings.ini"), make_application())
        self._commands.settings["confirm_quit"] = False
        self._commands.start()
        self._wait(lambda: self._commands.studio is not None, "loading")

    @property
    def _studio(self) -> Studio:
        assert self._commands.studio is not None
        return self._commands.studio

    def cycle(self, number: int) -> None:
        """Everything that a person does to a checkpoint, some of it cut short."""
        self._open(self._models[number % 2])
        self._choose(number)
        self._quantize()
        self._look(number)
        self._export(self._exports / f"export{number}", cancelled=number % 3 == 0)
        self._close()
        assert not self._faults, self._faults

    def end(self) -> None:
        """Close the window."""
        self._commands.window.close()
        self._commands.window.deleteLater()
        self._rest()

    def _open(self, path: Path) -> None:
        self._commands.open_path(path)
        self._commands.perform("stop")
        self._wait(lambda: self._studio.opening.path is None, "cancelling to open")
        self._commands.open_path(path)
        self._wait(lambda: self._document.model is not None, f"opening {path}")

    @property
    def _document(self) -> Document:
        return self._studio.document

    def _choose(self, number: int) -> None:
        """What is kept goes, so that there is something to do; then some steps, back and forth."""
        self._commands.perform("afresh")
        document = self._document
        for step, name in enumerate(document.store.names[number % 5 : number % 5 + 4]):
            document.set_format([name], FORMATS[(number + step) % len(FORMATS)])
        self._studio.editing.set_plan_format(FORMATS[number % len(FORMATS)])
        for key in ("undo", "undo", "redo"):
            self._commands.perform(key)

    def _quantize(self) -> None:
        self._commands.perform("quantize")
        self._wait(lambda: self._document.store.figures().done > 0, "quantizing")
        self._commands.perform("stop")
        self._wait_for_runs()
        self._commands.perform("quantize")
        self._wait_for_runs()
        figures = self._document.store.figures()
        assert figures.done == figures.chosen, f"{figures.done} of {figures.chosen} layers done"

    def _look(self, number: int) -> None:
        names = self._document.store.names
        self._document.select([names[number % len(names)]])
        for key in ("inspect", "compare", "overview"):
            self._commands.perform(key)
        self._wait(lambda: not self._studio.details.active, "looking at a layer")

    def _export(self, target: Path, *, cancelled: bool) -> None:
        """Write an export, after one that is cancelled on its way if so."""
        if cancelled:
            self._start_export(target)
            self._wait(lambda: bool(list(self._exports.iterdir())), "beginning to export")
            self._commands.perform("stop")
            self._wait_for_runs()
        if not target.exists():
            self._start_export(target)
            self._wait_for_runs()
        assert (target / "config.json").is_file(), f"{target} is not there"
        shutil.rmtree(target)

    def _start_export(self, target: Path) -> None:
        self._commands.perform("export")
        dialog = self._studio.exporting.dialog
        assert dialog is not None
        dialog.set_target(target)
        self._wait(dialog.export.isEnabled, "checking the export")
        dialog.export.click()

    def _close(self) -> None:
        self._commands.perform("close")
        assert self._document.model is None
        self._rest()

    def _rest(self) -> None:
        """Let what was closed go."""
        loop = QEventLoop()
        QTimer.singleShot(50, loop.quit)
        loop.exec()
        gc.collect()

    def _wait_for_runs(self) -> None:
        self._wait(lambda: not self._studio.runs.active, "a run")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        loop, poll, limit = QEventLoop(), QTimer(interval=5), time.monotonic() + PATIENCE_SECONDS
        poll.timeout.connect(lambda: loop.quit() if done() or time.monotonic() > limit else None)
        poll.start()
        loop.exec()
        poll.stop()
        if not done():
            raise TimeoutError(f"{what} took more than {PATIENCE_SECONDS} s")


def soak(place: Path, cycles: int, tell: Callable[[str], object] = print) -> list[str]:
    """Run the cycles in `place`; what leaked."""
    window = Soak(place)
    moments: list[Held] = []
    try:
        for number in range(cycles):
            window.cycle(number)
            moments.append(held(place))
            if found := moments[-1].more_than(moments[min(number, WARM)]):
                return found
            if (number + 1) % max(cycles // LINES, 1) == 0:
                tell(_line(number + 1, moments))
    finally:
        window.end()
    return leaks(moments[min(WARM, cycles - 1)], moments[-1], [one.memory for one in moments])


def _line(done: int, moments: list[Held]) -> str:
    last, memory = moments[-1], [one.memory for one in moments]
    counts = f"{last.descriptors.total()} descriptors, {last.threads.total()} threads, {last.files.total()} files"
    return f"{done} cycles: {counts}, {last.memory / 1e6:.1f} MB, {slope(memory) / 1000:+.1f} kB a cycle"


def main() -> int:
    """Print figures, and what leaked."""
    cycles = int(sys.argv[1]) if len(sys.argv) > 1 else CYCLES
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = os.environ["TMPDIR"] = place  # so that temporary files are seen
        started = time.monotonic()
        found = soak(Path(place), cycles)
    for leak in found:
        print(f"leaked: {leak}")
    print(f"{cycles} cycles in {time.monotonic() - started:.0f} s: {'nothing' if not found else len(found)} leaked")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
