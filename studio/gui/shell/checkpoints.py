"""Checkpoints: which checkpoint is open: opening, reading again, starting afresh, closing, leaving."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs.opening import Opening
from studio.gui.jobs.runs import Runs
from studio.gui.keeping import recall
from studio.gui.keeping.keeping import Keeping
from studio.gui.keeping.words import AFRESH, PICKED_UP
from studio.gui.pages.details import Details
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.ask import ask_file, confirm
from studio.gui.shell.cards import Card, Message
from studio.gui.shell.main_window import MainWindow
from studio.gui.shell.places import Place, place_of
from studio.gui.shell.session import Session
from studio.gui.shell.settings import Settings
from studio.gui.shell.specs import keys_of


class Checkpoints(QObject):
    """Goes from one checkpoint to the next, or to none; asks where something would be lost.

    Signals:
        told(Message): something to show.
        opened(Path or str): the checkpoint from there is open and shown.
    """

    told = Signal(object)
    opened = Signal(object)

    def __init__(self, window: MainWindow, settings: Settings, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._window, self._settings, self._session = window, settings, session
        self._former: list[Card] = []

    def serve(self, workspace: Workspace, runs: Runs, details: Details, opening: Opening, keeping: Keeping) -> None:
        """Work with these parts."""
        self._workspace, self._document = workspace, workspace.document
        self._runs, self._details, self._opening, self._keeping = runs, details, opening, keeping
        opening.opened.connect(self._show_opened)
        keeping.afresh_wanted.connect(self.start_afresh)
        for signal in (self._document.undo.indexChanged, runs.changed):
            signal.connect(lambda *_: self._drop_offers())

    def open(self, path: Place) -> None:
        """Open a checkpoint in the background; the one that is open stays until it is read."""
        if path == self._opening.path or not self._may_open():
            return
        if self._is_open(path):
            self._open(path)
        else:
            self.unless_lost("Open another checkpoint?", "Open it", lambda: self._open(path))

    def _may_open(self) -> bool:
        if self._runs.active:
            hint = f"Cancel it ({keys_of('stop')}) or wait, then open the other one."
            self.told.emit(Message("warning", "Work is still running", hint=hint))
        return not self._runs.active

    def unless_lost(self, question: str, yes: str, proceed: Callable[[], object]) -> None:
        """Proceed at once, or, where a plan would go that is neither saved nor kept, when the user agrees."""
        if not self._settings["confirm_quit"] or self._document.is_saved or self._keeping.keep_now():
            proceed()
            return
        count = len(self._document.state.edits)
        held = f" {core.counted(count, 'choice')} by hand would go." if count else ""
        text = f"The plan is not saved.{held} Save it with {keys_of('save_plan')}."
        confirm(self._window, question, text, f"{yes} without saving", proceed)

    def _open(self, path: Place, statistics: Path | None = None, *, bare: bool = False) -> None:
        """Open a checkpoint, with `statistics` where they are given; `bare`: without those used before."""
        keeping = self._keeping
        keeping.keep_now()  # it may be the same checkpoint by another path
        self._former = list(self._window.cards.shown)
        shelf, held, work = keeping.shelf_in_use, keeping.held, keeping.work() if self._is_open(path) else None
        if work is not None and bare:
            work = replace(work, statistics="")
        self._opening.open(path, lambda: recall.opening(path, shelf, held, work, statistics))

    def _is_open(self, path: Place) -> bool:
        return self._document.model is not None and str(self._document.model.path) == str(path)

    def _show_opened(self, path: Place, found: recall.Found) -> None:
        self._window.cards.clear(self._former)
        self._window.show_workspace(True)
        self._keeping.show(found, again=self._is_open(found.model.path))
        self._workspace.layers.setFocus()
        self.opened.emit(path)

    def reload(self) -> None:
        """Read the headers again; plan, undo and view stay, and choices by hand where their layers still are."""
        if self._document.model is not None:
            self.open(place_of(str(self._document.model.path)))

    def use_statistics(self, statistics: Path | None) -> None:
        """Let a file tell of the inputs of layers, or None; the checkpoint is read again, plan, undo and view stay."""
        model = self._document.model
        if model is None or model.quantized_by or self._document.exported:
            hint = "Open the checkpoint that they are of first."
            self.told.emit(Message("info", "Statistics are used with a checkpoint that is not quantized", hint=hint))
        elif self._may_open():
            self._open(place_of(str(model.path)), statistics, bare=statistics is None)

    def ask_statistics(self) -> None:
        """Ask for a file of statistics, and use it."""
        model = self._document.model
        assert model is not None
        kinds = "Statistics (*.safetensors *.gguf *.dat *.imatrix);;All files (*)"
        near = None if core.is_remote(model.path) else model.folder
        ask_file(self._window, "Open statistics", kinds, self.use_statistics, near)

    def close(self) -> None:
        """Back to the welcome page; what goes on is stopped first."""
        if self._runs.active:
            self.stop()
            return
        self._opening.cancel()
        self.unless_lost("Close the checkpoint?", "Close it", self._close)

    def start_afresh(self) -> None:
        """The standard plan, without history and results."""
        if self._runs.active or self._opening.reason:
            hint = f"Cancel it ({keys_of('stop')}) or wait."
            self.told.emit(Message("warning", "Work is still running", hint=hint))
        else:
            self._keeping.start_afresh()

    def _drop_offers(self) -> None:
        cards = self._window.cards
        cards.clear([card for card in cards.shown if card.message.title in (PICKED_UP, AFRESH)])

    def _close(self) -> None:
        self._keeping.leave()
        self._document.close_model()
        self._document.opened.emit()
        self._session.note_closed()
        self._window.cards.clear()
        self._window.show_workspace(False)

    def leave(self) -> None:
        """The window closes: keep what is not kept yet, close the files, and what is being opened."""
        self._opening.close()
        if (model := self._document.model) is not None:
            core.abandon(model.path)  # the program would not end while it waits for a store
        self._keeping.close()
        self._document.close_model()

    def stop(self) -> None:
        """Stop whatever goes on: opening, a run, a look at a layer."""
        self._opening.cancel()
        self._details.stop()
        self._runs.stop()
