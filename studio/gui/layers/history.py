"""PlanHistory: the steps of undo and redo, each from one state of the plan to the next."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import QObject, QSignalBlocker
from PySide6.QtGui import QUndoCommand, QUndoStack

from studio.gui.layers.choices import PlanState

STEPS = 500
"""Steps of undo and redo together: each holds a byte per layer."""
STEPS_KEPT = 100
"""Steps of undo, and as many of redo, that outlive the window."""

History = tuple[tuple[PlanState, ...], tuple[str, ...], int, int]
"""States of the plan, what each step between them is called, which state is in force, which is saved (-1 for none)."""


class PlanHistory(QUndoStack):
    """Calls `apply` with the state that a step leads to."""

    def __init__(self, apply: Callable[[PlanState], object], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.setUndoLimit(STEPS)
        self._apply = apply
        self._standing = False

    def add(self, text: str, before: PlanState, after: PlanState) -> None:
        """Take a step."""
        self.push(_Change(self, text, before, after))

    def reach(self, state: PlanState) -> None:
        """A step leads to `state`."""
        if not self._standing:
            self._apply(state)

    def kept(self, now: PlanState) -> History:
        """The states that undo and redo reach, as far as they are kept; `now` is in force when there are no steps."""
        first = max(self.index() - STEPS_KEPT, 0)
        steps = [self.command(number) for number in range(first, min(self.count(), self.index() + STEPS_KEPT))]
        changes = [step for step in steps if isinstance(step, _Change)]
        states = (changes[0].before, *(step.after for step in changes)) if changes else (now,)
        saved = self.cleanIndex() - first
        reached = 0 <= saved < len(states)
        return states, tuple(step.text() for step in changes), self.index() - first, saved if reached else -1

    def restore(self, states: Sequence[PlanState], texts: Sequence[str], at: int, saved: int) -> None:
        """Take over what `kept` gave, where state number `at` is in force already."""
        self._standing = True
        with QSignalBlocker(self):
            for before, after, text in zip(states, states[1:], texts, strict=False):
                self.add(text, before, after)
            self.setIndex(max(saved, 0))
            (self.setClean if saved >= 0 else self.resetClean)()
            self.setIndex(at)
        self._standing = False
        self.indexChanged.emit(at)


class _Change(QUndoCommand):
    def __init__(self, history: PlanHistory, text: str, before: PlanState, after: PlanState) -> None:
        super().__init__(text)
        self._history, self.before, self.after = history, before, after

    def redo(self) -> None:
        self._history.reach(self.after)

    def undo(self) -> None:
        self._history.reach(self.before)
