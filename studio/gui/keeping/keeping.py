"""Keeping: what is done to the open checkpoint is written as it changes, and is there again the next time."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from studio import core
from studio.gui.jobs.evaluating import Evaluating
from studio.gui.keeping import words
from studio.gui.keeping.kept_row import KeptRow
from studio.gui.keeping.recall import DEFAULT_PRESET, ELSEWHERE, Found, Known, fresh_work, replaced
from studio.gui.keeping.saving import Save
from studio.gui.keeping.shelf import Entry, Shelf
from studio.gui.keeping.view_state import restore_view, view_changed, view_state
from studio.gui.keeping.words import AFRESH, PICKED_UP
from studio.gui.keeping.work import Work
from studio.gui.layers.document import Document
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.cards import Message
from studio.gui.shell.settings import Settings

SAVE_MS, RETRY_MS = 1000, 10_000
EVALUATION = "evaluation"
"""Under which an evaluation is kept beside how a checkpoint is looked at."""


class Keeping(QObject):
    """Writes on a thread of its own, a second after a change, and before anything is closed.

    Signals:
        told(Message): something to show.
        changed(): whether work is kept is another matter now.
        afresh_wanted(): the user wants nothing of what was kept.
    """

    told = Signal(object)
    changed = Signal()
    afresh_wanted = Signal()
    _ended = Signal(object)

    def __init__(
        self, document: Document, workspace: Workspace, settings: Settings, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._workspace, self._settings = document, workspace, settings
        self.shelf = Shelf(settings.data / "checkpoints")
        self._found: Found | None = None
        self._evaluating: Evaluating | None = None
        self._unsaved = False
        self._learned: list[Known] = []
        self._saves: list[Save] = []
        self._problem = ""
        self._thread = ThreadPoolExecutor(1, "keeping")
        self._thread.submit(int)  # starts it
        self._soon = QTimer(self, singleShot=True, interval=SAVE_MS)
        self._soon.timeout.connect(self.save)
        self._ended.connect(self._settle)
        document.learned.connect(self._learn)
        document.undo.indexChanged.connect(lambda _: self.keep_soon())
        document.undo.cleanChanged.connect(lambda _: self.keep_soon())
        document.selected.connect(lambda _: self.keep_soon())
        view_changed(workspace, self.keep_soon)
        settings.changed.connect(self._setting_changed)

    # what is kept

    @property
    def keeps(self) -> bool:
        """True when what is done now will be there the next time."""
        return self._entry is not None and not self._problem

    @property
    def _entry(self) -> Entry | None:
        """The entry of the open checkpoint, when this window writes it."""
        return self.held if self._settings["remember"] else None

    @property
    def held(self) -> Entry | None:
        """The entry that this window holds."""
        entry = self._found.entry if self._found is not None else None
        return entry if entry is not None and entry.is_held else None

    @property
    def shelf_in_use(self) -> Shelf | None:
        """Where to look for what is kept; None when nothing is to be remembered."""
        return self.shelf if self._settings["remember"] else None

    def work(self) -> Work:
        """What was done up to now."""
        states, texts, at, saved = self._document.history()
        statistics = str(self._document.statistics or "")
        evaluated = self._evaluating.kept() if self._evaluating is not None else {}
        view = {**view_state(self._workspace), EVALUATION: evaluated}
        return Work(states, texts, at, saved, view, statistics)

    def keep_evaluations(self, evaluating: Evaluating) -> None:
        """Keep what these evaluations found, too."""
        self._evaluating = evaluating
        evaluating.changed.connect(self.keep_soon)

    # opening and leaving

    def show(self, found: Found, *, again: bool = False) -> None:
        """Show a checkpoint with what is kept of it; the one before is left."""
        self._leave(found.entry)
        if again:
            self._bring_along(found)
        self._found, self._problem = found, found.problem
        self._show(found.work, found.results)
        for note in found.notes:
            self.told.emit(note)
        if found.problem:
            self._warn()
        elif found.recalled and not again:
            self._greet(found)
        self.changed.emit()

    def _bring_along(self, found: Found) -> None:
        """Take over into what was read again what was done meanwhile."""
        work = self.work()
        with suppress(core.PlanError):
            if found.asked is None or _plans(found.asked) != _plans(work):
                found.work = replace(work.resolved(found.model), statistics=found.work.statistics)
        found.work = replace(found.work, view=work.view)
        if self._found is not None and self._found.lines.fingerprint == found.lines.fingerprint:
            found.known = found.known or self._found.known
        else:  # results of other bytes
            self._learned = []

    def _show(self, work: Work, results: core.ResultCache) -> None:
        assert self._found is not None
        self._document.cache.update(results)
        statistics = Path(work.statistics) if work.statistics else None
        found, ready = self._found, self._found.ready
        found.ready = None
        self._document.open(found.model, found.groups, work.now, found.exported, statistics, ready)
        self._document.restore(work.states, work.texts, work.at, work.saved)
        restore_view(self._workspace, work.view)
        if self._evaluating is not None:
            self._evaluating.restore(work.view.get(EVALUATION))

    def _greet(self, found: Found) -> None:
        if found.work.is_fresh and not found.known:
            return
        done = self._document.store.figures().done
        text = words.greeting(found.work.by_hand, done, found.work.at)
        self.told.emit(Message("info", PICKED_UP, text, fixes=(("Start afresh", self.afresh_wanted.emit),)))

    def start_afresh(self) -> None:
        """The standard plan, no history, no results; a card offers to take that back."""
        found = self._found
        if found is None or self._document.model is None:
            return
        self.keep_now()
        before, known = self.work(), found.known
        if (entry := self._entry) is not None:
            try:
                entry.forget()
            except OSError as error:
                self._fail(f"{entry.folder}: {error.strerror}")
        found.encoder.written = b""
        self._document.cache.forget(found.model)
        found.known = []
        fresh = replace(fresh_work().resolved(found.model), statistics=before.statistics)
        self._show(fresh, core.ResultCache())
        self.keep_soon()
        fix = ("Take it back", lambda: self._take_back(found, before, known))
        gone = f"{core.counted(before.by_hand, 'choice')} by hand and {core.counted(len(known), 'result')} are gone"
        text = f"The plan is the preset {DEFAULT_PRESET}; {gone}."
        self.told.emit(Message("info", AFRESH, text, fixes=(fix,)))

    def _take_back(self, found: Found, before: Work, known: list[Known]) -> None:
        if self._document.model is not found.model:
            return
        found.known = [*known, *found.known]
        self._learned += known
        self._show(before, core.ResultCache(known))
        self.keep_soon()

    def leave(self) -> None:
        """The checkpoint is about to be closed: write what is not written."""
        self._leave(None)
        self._found, self._problem = None, ""
        self.changed.emit()

    def _leave(self, following: Entry | None) -> None:
        if self._found is None:
            return
        self.keep_now()
        if (entry := self._found.entry) is not None and entry is following:
            return
        self._learned, self._unsaved = [], False
        self._soon.stop()
        if entry is not None:
            entry.release()

    def close(self) -> None:
        """Write what is not written, and end the thread."""
        self.leave()
        self._thread.shutdown()

    # writing

    def keep_soon(self) -> None:
        """Something changed."""
        if self._document.model is not None and self._found is not None:
            self._unsaved = True
            self._start(SAVE_MS)

    def _start(self, milliseconds: int) -> None:
        if self._entry is not None and not self._soon.isActive():
            self._soon.start(milliseconds)

    def _learn(self, known: list[Known]) -> None:
        if self._found is not None:
            self._found.known += known
            self._learned += known
            self._start(SAVE_MS)

    def keep_now(self) -> bool:
        """Write at once; True when everything is kept."""
        self._wait()
        if self._entry is not None and (self._unsaved or self._learned):
            self.save()
            self._wait()
        return self.keeps

    def _wait(self) -> None:
        for save in list(self._saves):
            save.future.exception()
            self._settle(save)

    def save(self) -> None:
        """Hand what changed to the thread that writes."""
        if (entry := self._entry) is None or self._document.model is None or self._found is None:
            return
        work = self.work() if self._unsaved else None
        save = Save(entry, self._found.encoder, self._found.lines, work, self._learned)
        self._learned, self._unsaved = [], False
        self._saves.append(save)
        save.future = self._thread.submit(save.write)
        save.future.add_done_callback(lambda _: self._ended.emit(save))

    def _settle(self, save: Save) -> None:
        """A write is over."""
        if save not in self._saves:
            return
        self._saves.remove(save)
        error = save.future.exception()
        if error is None:
            self._succeed()
            return
        if not isinstance(error, OSError):
            raise error
        self._learned = [*save.results, *self._learned]
        self._unsaved = self._unsaved or save.work is not None
        self._fail(f"{save.entry.folder}: {error.strerror or error}")
        self._start(RETRY_MS)

    def _succeed(self) -> None:
        if self._problem:
            self._problem = ""
            self.told.emit(Message("good", "Work is kept again", "All that was done up to now is on the disk."))
            self.changed.emit()

    def _fail(self, problem: str) -> None:
        told, self._problem = bool(self._problem), problem
        if not told:
            self._warn()
            self.changed.emit()

    def _warn(self) -> None:
        seconds = RETRY_MS // 1000 if self._entry is not None else 0
        self.told.emit(words.not_kept(self._problem, seconds))

    # settings

    def _setting_changed(self, key: str) -> None:
        if key != "remember" or self._found is None:
            return
        if self._settings["remember"]:
            self._begin(self._found)
        else:
            self._stop(self._found)
        self.changed.emit()

    def _stop(self, found: Found) -> None:
        self._wait()
        self._problem = ""
        if found.entry is not None:
            found.entry.release()

    def _begin(self, found: Found) -> None:
        """Keep what is open from now on, and all that was done before."""
        path, fingerprint = found.model.path, found.lines.fingerprint
        try:
            found.entry = self.shelf.entry(path, fingerprint)
            self._problem = "" if found.entry.hold() else ELSEWHERE
            if not self._problem:
                found.entry.identify(path.absolute(), fingerprint)
                for note in replaced(found.entry, found.encoder.written):
                    self.told.emit(note)
        except OSError as error:
            self._problem = f"{self.shelf.folder}: {error.strerror or error}"
        self._learned, found.encoder.written = list(found.known), b""
        self._warn() if self._problem else self.keep_soon()

    def kept_row(self) -> KeptRow:
        """What is kept, and a button to forget it, for the settings."""
        self.keep_now()
        return KeptRow(self.shelf)

    def saved_text(self) -> tuple[str, str]:
        """What the status line says of the plan, and what that means."""
        if self._document.is_saved:
            return "", ""
        if self.keeps:
            return "plan kept, not in a file", words.KEPT
        return "plan not saved", self._problem or words.LOST


def _plans(work: Work) -> tuple[object, ...]:
    return work.states, work.at, work.saved
