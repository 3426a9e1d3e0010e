"""Opening: a checkpoint is read on the background thread; meanwhile nothing else starts, and it can be cancelled."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.job import MEASURE
from studio.gui.jobs.turns import Ending, Steps, Task
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of
from studio.gui.shell.places import Place, is_address, shown_name
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import sentence

HINT = "Choose a folder with config.json and .safetensors, or one .safetensors or .gguf file, downloaded in full."
SEALED = "Look around; to quantize, start from the checkpoint before it was quantized."
MOST_WARNINGS = 3
Fixes = tuple[tuple[str, Callable[[], object]], ...]


class Found(Protocol):
    """A checkpoint and what belongs to it; `close` lets go of both."""

    model: core.Model
    exported: core.Exported | None

    def close(self) -> None:
        """Nobody wants it."""


class Opening(QObject):
    """Opens one checkpoint at a time; the one asked for last is the one that opens.

    `offers` gives the buttons of the card of one that can not be opened, `keeps` those of one that is quantized.

    Signals:
        changed(): something is being opened, or no longer is.
        opened(Path or str, Found): a checkpoint was read from there; whoever listens shows it.
        told(Message): something to show.
    """

    changed = Signal()
    opened = Signal(object, object)
    told = Signal(object)

    def __init__(self, compute: Compute, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._compute = compute
        self._task: Task | None = None
        self._asked: dict[Task, Place] = {}
        self.offers: Callable[[Path], Fixes] = lambda _path: ()
        self.keeps: Fixes = ()
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    @property
    def path(self) -> Place | None:
        """What is being opened."""
        return self._asked[self._task] if self._task is not None else None

    @property
    def reason(self) -> str:
        """Why nothing else can start, "" when nothing is being opened."""
        return "a checkpoint is being opened" if self._task is not None else ""

    def open(self, path: Place, steps: Callable[[], Steps]) -> None:
        """Open a checkpoint, instead of the one that is being opened; what `steps` yields at last is a `Found`."""
        self._drop()
        task = Task("open", "Opening", steps, discard=_close)
        self._task, self._asked[task] = task, path
        self._compute.submit(task)
        self.changed.emit()

    def cancel(self) -> None:
        """Open nothing; what is open stays."""
        if (path := self.path) is not None:
            self._drop()
            self.told.emit(Message("info", f"{shown_name(path)} is not opened: you cancelled"))
            self.changed.emit()

    def close(self) -> None:
        """Open nothing any more: the window closes."""
        self._drop()
        self.changed.emit()

    def _drop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._compute.cancel(task)

    def _reported(self, task: Task, reports: list[Any]) -> None:
        if task not in self._asked or reports[-1] is None:  # a place to stop
            return
        found: Found = reports[-1]
        if task is not self._task:
            self._compute.release(found.close)
            return
        self._task = None
        self.opened.emit(self._asked[task], found)
        self.changed.emit()
        self._warn(found.model, found.exported)

    def _warn(self, model: core.Model, exported: core.Exported | None) -> None:
        usual = [warning for warning in model.warnings if core.is_usual(warning)]
        if usual:
            text = "\n".join(sentence(core.printable(warning, 400)) for warning in usual)
            self.told.emit(Message("info", "Beside the weights, and not copied to an export", text))
        odd = [warning for warning in model.warnings if warning not in usual]
        for warning in odd[:MOST_WARNINGS]:
            self.told.emit(Message("warning", "Odd in this checkpoint", core.printable(warning, 400)))
        if exported is not None:
            self.told.emit(_about(model, exported))
        elif model.quantized_by:
            title = f"Already quantized: {core.printable(model.quantized_by)}"
            self.told.emit(Message("warning", title, hint=SEALED))
        elif stored := core.stored_codes(model):
            kept = any(layer.source.format for layer in model.layers)
            message = _about_codes(stored, len(model.layers), kept=kept)
            self.told.emit(replace(message, fixes=self.keeps if kept else ()))

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        path = self._asked.pop(task, None)
        if path is None or task is not self._task:
            return
        self._task = None
        if ending == "failed":
            message = message_of(error, "This can not be opened", "" if is_address(path) else HINT)
            self.told.emit(
                replace(message, fixes=self.offers(path) if isinstance(path, Path) and path.exists() else ())
            )
        self.changed.emit()


def _about(model: core.Model, exported: core.Exported) -> Message:
    """What an export of ours is, and where it runs."""
    runs = [claim.runtime for claim in core.claims(model, exported.choices, exported.layout) if claim.verdict == "runs"]
    where = f"Runs on {', '.join(runs)}." if runs else "No runtime was tried with this architecture and layout."
    text = f"Layout {exported.layout.name}; formats and errors are those of its manifest. {where}"
    hint = f"{keys_of('verify')} proves every byte and weight, {keys_of('export')} stores it in another layout without "
    hint += "loss; the page Compare sets it beside another export."
    return Message("info", "An export of NVFP4 Studio", text, hint)


def _about_codes(stored: dict[str, int], layers: int, *, kept: bool) -> Message:
    """What is quantized already: doing it again loses once more, and converting need not, where codes can be kept."""
    title = f"Quantized already: {core.printable(next(iter(stored)) if len(stored) == 1 else f'in {len(stored)} ways')}"
    first = list(stored.items())[:MOST_WARNINGS]
    ways = "; ".join(f"{count:,} as {core.printable(meaning)}" for meaning, count in first)
    ways += f"; {len(stored) - len(first):,} more" if len(stored) > len(first) else ""
    text = f"{sum(stored.values()):,} of {core.counted(layers, 'layer')}" + (f": {ways}." if len(stored) > 1 else ".")
    hint = "Quantizing decodes them and loses once more"
    if kept:
        return Message("warning", title, text, f"{hint}; converting keeps the codes.", run=MEASURE.key)
    return Message("info", title, text, f"{hint}, as far as the format is coarser.", run=MEASURE.key)


def _close(found: Found | None) -> None:
    """Let go of what was found, if anything was by now."""
    if found is not None:
        found.close()
