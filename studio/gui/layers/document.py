"""Document: the checkpoint that is open, what is chosen for it, what is known of it, and what is selected."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, QSignalBlocker, Signal
from PySide6.QtGui import QUndoCommand, QUndoStack

from studio import core
from studio.gui.layers.store import DONE, KEPT, QUEUED, RUNNING, LayerStore

MERGE_MS = 800
STEPS_KEPT = 100
"""Steps of undo, and as many of redo, that outlive the window."""


@dataclass(frozen=True)
class PlanState:
    """A plan, what it chooses for each layer, and the formats chosen by hand instead (name -> format)."""

    plan: core.Plan
    base: tuple[core.Choice, ...]
    edits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What one run works on: name -> choice and the layers that share its tensor scale, as they were at its start."""

    choices: Mapping[str, core.Choice]
    peers: Mapping[str, tuple[str, ...]]


History = tuple[tuple[PlanState, ...], tuple[str, ...], int, int]
"""States of the plan, what each step between them is called, which state is in force, which is saved (-1 for none)."""


class Document(QObject):
    """What every view shows. It knows no widget; everything that changes is told by a signal.

    Signals:
        opened(): another checkpoint is open, or none.
        chosen(list): indices of layers with another choice.
        measured(list): indices of layers with another result or state.
        selected(list): names of the selected layers.
        hidden(list): names of layers that were to be selected, all of which the filter hides.
        saved_changed(): the plan differs from the saved one, or no longer does.
        learned(list): (choice, names of the layers that share its tensor scale, result) of what was measured just now.
    """

    opened = Signal()
    chosen = Signal(list)
    measured = Signal(list)
    selected = Signal(list)
    hidden = Signal(list)
    saved_changed = Signal()
    learned = Signal(list)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.model: core.Model | None = None
        self.undo = QUndoStack(self)
        self.undo.cleanChanged.connect(lambda _clean: self.saved_changed.emit())
        self.cache = core.ResultCache()
        self.selection: list[str] = []
        self._shown: NDArray[np.bool_] | None = None
        self.choices: list[core.Choice] = []
        self.warning_line = 0.12
        self._standing = False

    def open(self, model: core.Model, groups: core.ScaleGroups, state: PlanState) -> None:
        """Show another checkpoint, or the same anew; one before is closed."""
        if self.model is not model:
            self.close_model()
        self.undo.clear()
        self.selection, self._shown = [], None
        self.model, self._groups = model, groups
        self.state = state
        self.choices = [self._choice(choice) for choice in state.base]
        self.store = LayerStore(model, self.choices)
        self._recall(range(len(self.choices)))
        self.opened.emit()

    def close_model(self) -> None:
        """Close the checkpoint's files; nothing is open afterwards."""
        self.undo.clear()
        self.selection, self._shown = [], None
        if self.model is not None:
            self.model.close()
            self.model = None

    # what is chosen

    @property
    def is_saved(self) -> bool:
        """True when nothing would be lost: no checkpoint is open, or its plan is the one that was saved."""
        return self.model is None or self.undo.isClean()

    @property
    def plan(self) -> core.Plan:
        """The plan with the choices made by hand as its first rules."""
        return self.state.plan.preceded_by(self.hand_rules())

    def hand_rules(self) -> tuple[core.Rule, ...]:
        """The choices made by hand, as rules."""
        return core.hand_rules(self.state.edits, self.store.names)

    def set_format(self, names: Sequence[str], format_name: str) -> None:
        """Choose a format for layers, or "keep"; one step of undo."""
        shown = core.printable(names[0]) if len(names) == 1 else f"{len(names):,} layers"
        self.set_formats(dict.fromkeys(names, format_name), f"{format_name} for {shown}")

    def set_formats(self, formats: Mapping[str, str], text: str) -> None:
        """Choose a format for each layer named; one step of undo."""
        edits = {**self.state.edits, **formats}
        self._push(text, PlanState(self.state.plan, self.state.base, edits))

    def reset_formats(self, names: Iterable[str]) -> None:
        """Go back to what the plan says for layers."""
        dropped = set(names)
        edits = {name: value for name, value in self.state.edits.items() if name not in dropped}
        self._push("back to the plan", PlanState(self.state.plan, self.state.base, edits))

    def set_plan(self, plan: core.Plan, text: str, *, by_hand: bool = False) -> None:
        """Follow another plan; choices by hand stay with `by_hand`, else undo brings them back. Raises PlanError."""
        assert self.model is not None
        self._push(text, PlanState(plan, core.resolve(plan, self.model), self.state.edits if by_hand else {}))

    def _push(self, text: str, state: PlanState) -> None:
        if state != self.state:
            self.undo.push(_Change(self, text, self.state, state))

    def history(self) -> History:
        """The states of the plan that undo and redo reach, as far as they are kept."""
        stack = self.undo
        first = max(stack.index() - STEPS_KEPT, 0)
        steps = [stack.command(number) for number in range(first, min(stack.count(), stack.index() + STEPS_KEPT))]
        changes = [step for step in steps if isinstance(step, _Change)]
        states = (changes[0].before, *(step.after for step in changes)) if changes else (self.state,)
        saved = stack.cleanIndex() - first
        reached = 0 <= saved < len(states)
        return states, tuple(step.text() for step in changes), stack.index() - first, saved if reached else -1

    def restore(self, states: Sequence[PlanState], texts: Sequence[str], at: int, saved: int) -> None:
        """Take over what `history` gave, for a checkpoint that was just opened in the state number `at`."""
        self._standing = True
        with QSignalBlocker(self.undo):
            for before, after, text in zip(states, states[1:], texts, strict=False):
                self.undo.push(_Change(self, text, before, after))
            self.undo.setIndex(max(saved, 0))
            (self.undo.setClean if saved >= 0 else self.undo.resetClean)()
            self.undo.setIndex(at)
        self._standing = False
        self.undo.indexChanged.emit(at)
        self.saved_changed.emit()

    def apply(self, state: PlanState) -> None:
        """Take over a state of the plan: the layers that it changes get their choice, and a known result at once."""
        if self._standing:
            return
        before, self.state = self.choices, state
        self.choices = [self._choice(choice) for choice in state.base]
        changed = [i for i, (old, new) in enumerate(zip(before, self.choices, strict=True)) if old != new]
        for index in changed:
            self.store.set_choice(index, self.choices[index])
        affected = sorted(self._groups.affected(changed))
        self._recall(affected)
        self.chosen.emit(affected)

    def _choice(self, base: core.Choice) -> core.Choice:
        name = self.state.edits.get(base.layer.name)
        return core.choose_format(base.layer, name, self.state.plan.exponent) if name else base

    # what is known

    def _recall(self, indices: Iterable[int]) -> None:
        for index in indices:
            choice = self.choices[index]
            self.store.set_result(index, self.cache.find(choice, self._groups.peers(index, self.choices)))

    def order(self, names: Iterable[str] | None = None) -> Order:
        """What is left to quantize, among `names` and the layers that share a tensor scale with them."""
        return self.order_for(self.choices, names)

    def order_for(self, choices: Sequence[core.Choice], names: Iterable[str] | None = None) -> Order:
        """What is left to quantize for other choices for the same layers."""
        wanted = range(len(choices)) if names is None else sorted(self.store.index[name] for name in names)
        peers = {i: self._groups.peers(i, choices) for i in self._groups.affected(wanted)}
        left = {i for i in wanted if choices[i].recipe and self.cache.find(choices[i], peers[i]) is None}
        whole = sorted(i for i in self._groups.affected(left) if i in left or peers[i])
        return Order(
            {choices[i].layer.name: choices[i] for i in whole}, {choices[i].layer.name: peers[i] for i in whole}
        )

    def results_for(self, choices: Sequence[core.Choice]) -> list[core.LayerResult]:
        """What is known of other choices for the same layers; kept layers have a result without errors."""
        found = (self.cache.find(choice, self._groups.peers(i, choices)) for i, choice in enumerate(choices))
        both = zip(choices, found, strict=True)
        return [result or _kept(choice) for choice, result in both if result is not None or choice.recipe is None]

    def peers(self, name: str) -> tuple[str, ...]:
        """Names of the layers that share the tensor scale of a layer now."""
        return self._groups.peers(self.store.index[name], self.choices)

    def begin(self, order: Order) -> None:
        """Mark the layers of `order` as queued."""
        self._mark(order.choices, QUEUED)

    def take(self, order: Order, results: Sequence[core.LayerResult]) -> None:
        """Take over results of a run; those of a choice that changed since are remembered, not shown."""
        shown = []
        for result in results:
            choice, peers = order.choices[result.name], order.peers[result.name]
            self.cache.add(choice, peers, result)
            index = self.store.index[result.name]
            if self.choices[index] == choice and self._groups.peers(index, self.choices) == peers:
                self.store.set_result(index, result)
                shown.append(index)
        if shown:
            self.measured.emit(shown)
        self.learned.emit([(order.choices[one.name], order.peers[one.name], one) for one in results])

    def take_running(self, name: str) -> None:
        """Mark a queued layer as the one at hand."""
        index = self.store.index[name]
        if self.store.state[index] == QUEUED:
            self.store.state[index] = RUNNING
            self.measured.emit([index])

    def take_failure(self, name: str, problem: str) -> None:
        """Mark a layer as failed."""
        index = self.store.index[name]
        self.store.set_failed(index, problem)
        self.measured.emit([index])

    def end(self, order: Order) -> None:
        """Give layers that were not reached their state back."""
        left = [i for i in map(self.store.index.get, order.choices) if i is not None]
        left = [i for i in left if self.store.state[i] in (QUEUED, RUNNING)]
        self._recall(left)
        self.measured.emit(left)

    def _mark(self, names: Iterable[str], state: int) -> None:
        indices = [self.store.index[name] for name in names]
        self.store.set_state(indices, state)
        self.measured.emit(indices)

    def valid_result(self, name: str) -> core.LayerResult | None:
        """The result of a layer that belongs to its choice of now, None while there is none."""
        index = self.store.index[name]
        return self.store.results[index] if self.store.state[index] in (DONE, KEPT) else None

    def outcome(self) -> core.Outcome:
        """The results that belong to the choices of now."""
        return core.Outcome(tuple(self.store.shown_results()))

    # what is selected

    def select(self, names: list[str]) -> None:
        """Select those of the layers that the filter shows, so that no key acts on others; every view follows."""
        found = names if self._shown is None else [name for name in names if self._shown[self.store.index[name]]]
        if names and not found:
            self.hidden.emit(names)
        elif found != self.selection:
            self.selection = found
            self.selected.emit(found)

    def show_only(self, shown: NDArray[np.bool_]) -> None:
        """Take over what the filter shows, a truth per layer; layers that it hides are selected no longer."""
        self._shown = shown
        left = [name for name in self.selection if shown[self.store.index[name]]]
        if left != self.selection:
            self.selection = left
            self.selected.emit(left)

    @property
    def current(self) -> str:
        """The layer that details are shown for, or an empty text."""
        return self.selection[-1] if self.selection else ""


def _kept(choice: core.Choice) -> core.LayerResult:
    layer = choice.layer
    return core.LayerResult(
        layer.name,
        layer.role,
        layer.block,
        layer.tensor.dtype,
        layer.shape,
        core.KEEP,
        choice.reason,
        layer.count,
        layer.nbytes,
        choice.nbytes,
    )


class _Change(QUndoCommand):
    def __init__(self, document: Document, text: str, before: PlanState, after: PlanState) -> None:
        super().__init__(text)
        self._document, self.before, self.after = document, before, after

    def redo(self) -> None:
        self._document.apply(self.after)

    def undo(self) -> None:
        self._document.apply(self.before)
