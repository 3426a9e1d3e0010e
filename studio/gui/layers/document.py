"""Document: the checkpoint that is open, what is chosen for it, what is known of it, and what is selected."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.layers.by_name import ByName
from studio.gui.layers.choices import (
    BY_PLAN,
    CODES,
    METHOD_CODES,
    METHOD_NAMES,
    Choices,
    Chooser,
    Edits,
    Indices,
    PlanState,
)
from studio.gui.layers.history import History, PlanHistory
from studio.gui.layers.known import Known
from studio.gui.layers.method_words import method_lines
from studio.gui.layers.store import DONE, KEPT, QUEUED, RUNNING, LayerStore

_NONE: Indices = np.zeros(0, np.int64)
RESULTS_OF_OTHERS = 20_000
"""Results of checkpoints that are not open any more, about 2 kB each."""


@dataclass(frozen=True)
class Order:
    """What one run works on: name -> choice and the layers that share its tensor scale, as they were at its start."""

    choices: Mapping[str, core.Choice]
    peers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Ready:
    """All that is made of the layers of a checkpoint before it is shown, for one state of the plan; used once.

    It takes a while for tens of thousands of layers, and is made on any thread.
    """

    state: PlanState
    chooser: Chooser
    choices: Choices
    store: LayerStore


def make_ready(model: core.Model, state: PlanState, exported: core.Exported | None = None) -> Ready:
    """What `Document.open` shows of `model`, for the same arguments."""
    chooser = Chooser(model.layers)
    choices = chooser.take(exported.choices) if exported else chooser.choose(state)
    store = LayerStore(model, choices)
    if exported is not None:
        store.set_sizes_before(exported.results)
    return Ready(state, chooser, choices, store)


class Document(QObject):
    """What every view shows. It knows no widget; everything that changes is told by a signal.

    Layers are told by their places in the store, as arrays.

    close_files: closes a checkpoint, once nothing reads from it.

    Signals:
        opened(): another checkpoint is open, or none.
        chosen(Indices): layers with another choice.
        measured(Indices): layers with another result or state.
        selected(Indices): the selected layers, the current one last.
        hidden(list): names of layers that were to be selected, all of which the filter hides.
        saved_changed(): the plan differs from the saved one, or no longer does.
        proposed(): another proposal stands beside the plan, or none.
        learned(list): (choice, names of the layers that share its tensor scale, result) of what was measured just now.
    """

    opened = Signal()
    chosen = Signal(object)
    measured = Signal(object)
    selected = Signal(object)
    hidden = Signal(list)
    saved_changed = Signal()
    learned = Signal(list)
    proposed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.model: core.Model | None = None
        self.undo = PlanHistory(self.apply, self)
        self.undo.cleanChanged.connect(lambda _clean: self.saved_changed.emit())
        self.cache = core.ResultCache()
        self.selected_indices = _NONE
        self._selection: list[str] | None = None
        self._shown: NDArray[np.bool_] | None = None
        self.proposal: LayerStore | None = None
        self.exported: core.Exported | None = None
        self.statistics: Path | None = None
        self.warning_line = 0.12
        self.close_files: Callable[[core.Model], object] = lambda model: model.close()

    @property
    def near(self) -> Path | None:
        """Where questions for a folder begin: where the open checkpoint lies, None when that is on a store."""
        return None if self.model is None or core.is_remote(self.model.path) else self.model.folder.parent

    def open(
        self,
        model: core.Model,
        groups: core.ScaleGroups,
        state: PlanState,
        exported: core.Exported | None = None,
        statistics: Path | None = None,
        ready: Ready | None = None,
    ) -> None:
        """Show another checkpoint, or the same anew; one before is closed. What the cache knows by now is shown.

        exported: what an export of ours says of itself; nothing of it can be chosen otherwise. statistics: the file
        that tells the layers of `model` of their inputs. ready: what was made before, which holds for its own state.
        """
        if self.model is not model:
            self.close_model()
        self._clear()
        self.model, self._groups, self.exported, self.statistics = model, groups, exported, statistics
        if ready is None or ready.state is not state:
            ready = make_ready(model, state, exported)
        self.state, self._chooser, self.choices, self.store = state, ready.chooser, ready.choices, ready.store
        self._marks = groups.marks(self.choices.tiered)
        self.cache.trim(model, RESULTS_OF_OTHERS)
        self._known = Known(self.cache, groups, len(self.choices))
        self._recall(np.arange(len(self.choices)))
        self.opened.emit()

    def close_model(self) -> None:
        """Close the checkpoint's files; nothing is open afterwards."""
        self._clear()
        if self.model is not None:
            self.close_files(self.model)
            self.model = self.exported = self.statistics = None

    def _clear(self) -> None:
        self.undo.clear()
        self._set_selection(_NONE)
        self._shown = self.proposal = None

    # what is chosen

    def propose(self, proposal: LayerStore | None) -> None:
        """Let the table show choices that are not made; None lets it show those that are."""
        if proposal is not self.proposal:
            self.proposal = proposal
            self.proposed.emit()

    @property
    def looked_at(self) -> LayerStore:
        """What the table shows: the layers as they are chosen, or as it is proposed."""
        return self.proposal or self.store

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
        return core.hand_rules(dict(self._hand_choices()), self.store.names)

    def _hand_choices(self) -> Iterator[tuple[str, str]]:
        """What is chosen by hand, with the plan's format where only the method is; a kept layer has no method."""
        edits, store = self.state.edits, self.store
        quantized = store.methods != METHOD_CODES[""]
        for name in store.names.of(np.flatnonzero((edits.codes != BY_PLAN) | (edits.mask & quantized))):
            format_name, _, method = edits[name].partition("/")
            chosen = format_name or store.format_of(store.index[name])
            yield name, core.choice_text(chosen, "" if chosen == core.KEEP else method)

    def set_format(self, names: Sequence[str], format_name: str) -> None:
        """Choose a format for layers, or "keep"; one step of undo."""
        self.set_format_at(self.store.names.places(names), format_name)

    def set_format_at(self, indices: Indices, format_name: str) -> None:
        """Choose a format for the layers at these places, or "keep"; one step of undo."""
        self._edit(self.state.edits.changed(indices, CODES[format_name]), f"{format_name} for {self._called(indices)}")

    def set_method_at(self, indices: Indices, method: str) -> None:
        """Choose a method for the layers at these places; their formats stay as they are. One step of undo."""
        edits = self.state.edits.with_methods(indices, METHOD_CODES[method])
        self._edit(edits, f"{method} for {self._called(indices)}")

    def _called(self, indices: Indices) -> str:
        one = len(indices) == 1
        return core.printable(self.store.names[int(indices[0])]) if one else core.counted(len(indices), "layer")

    def set_choices(self, choices: Mapping[str, str], text: str) -> None:
        """Choose "format" or "format/method" for each layer named; one step of undo."""
        said = [one.partition("/") for one in choices.values()]
        codes = np.array([CODES[format_name] for format_name, _, _ in said], np.int8)
        methods = np.array([METHOD_CODES[method] if method else BY_PLAN for _, _, method in said], np.int8)
        places = self.store.names.places(list(choices))
        self._edit(self.state.edits.changed(places, codes).with_methods(places, methods), text)

    def reset_choices(self, names: Iterable[str]) -> None:
        """Go back to what the plan says for layers."""
        places = self.store.names.places(list(names))
        self._edit(self.state.edits.changed(places, BY_PLAN).with_methods(places, BY_PLAN), "back to the plan")

    def _edit(self, edits: Edits, text: str) -> None:
        self._push(text, PlanState(self.state.plan, self.state.rules, edits))

    def set_plan(self, plan: core.Plan, text: str, edits: Edits | None = None) -> None:
        """Follow another plan with `edits` by hand; without, undo brings those of now back. Raises PlanError."""
        self._push(text, PlanState(plan, self._rules_of(plan), edits or Edits(self.store.names)))

    def _rules_of(self, plan: core.Plan) -> NDArray[np.int32]:
        """The rule of a plan that decides for each layer; with the rules of now the same ones decide."""
        assert self.model is not None
        if plan.rules == self.state.plan.rules:
            return self.state.rules
        return np.array(core.deciding_rules(plan, self.model), np.int32)

    def _push(self, text: str, state: PlanState) -> None:
        if not state.same(self.state):
            self.undo.add(text, self.state, state)

    def history(self) -> History:
        """The states of the plan that undo and redo reach, as far as they are kept."""
        return self.undo.kept(self.state)

    def restore(self, states: Sequence[PlanState], texts: Sequence[str], at: int, saved: int) -> None:
        """Take over what `history` gave, for a checkpoint that was just opened in the state number `at`."""
        self.undo.restore(states, texts, at, saved)
        self.saved_changed.emit()

    def apply(self, state: PlanState) -> None:
        """Take over a state of the plan: the layers that it changes get their choice, and a known result at once."""
        before, self.state = self.choices, state
        self.choices = self._chooser.choose(state)
        self._marks = self._groups.marks(self.choices.tiered)
        changed = before.contents != self.choices.contents
        self.store.set_choices(self.choices, np.flatnonzero(changed))
        affected = np.flatnonzero(self._groups.spread(changed))
        self._recall(affected)
        self.chosen.emit(affected)

    # what is known

    def _recall(self, indices: Indices) -> None:
        for shelf, members in self._known.shelves(self.choices, self._marks, indices):
            if shelf is None:
                self.store.set_unknown(members)
            else:
                self.store.set_results(shelf, members)

    def wanted_method(self, index: int) -> str:
        """The method asked for a layer by hand, by its rule or by the plan; it may come to another one."""
        state = self.state
        by_hand, rule = METHOD_NAMES[state.edits.methods[index]], int(state.rules[index])
        by_rule = state.plan.rules[rule].method if rule >= 0 and state.edits.codes[index] == BY_PLAN else ""
        return by_hand or by_rule or state.plan.method

    def method_lines(self, index: int) -> list[str]:
        """What the method of a layer that is quantized looks at."""
        choice = self.choices[index]
        wanted = choice.method if self.exported else self.wanted_method(index)
        return method_lines(choice, wanted, self.statistics)

    def order(self, names: Iterable[str] | None = None) -> Order:
        """What is left to quantize, among `names` and the layers that share a tensor scale with them."""
        return self.order_for(self.choices, names)

    def order_for(self, choices: Sequence[core.Choice], names: Iterable[str] | None = None) -> Order:
        """What is left to quantize for other choices for the same layers."""
        taken = self._chooser.take(choices)
        return self._order(taken, self._left(taken, names))

    def _order(self, taken: Choices, indices: Indices) -> Order:
        groups, names = self._groups, self.store.names
        peers = ByName(names, indices, lambda i: groups.peers(i, taken))
        return Order(ByName(names, indices, taken.__getitem__), peers)

    def choices_for(self, plan: core.Plan, rules: Sequence[int], method: str = "") -> Choices:
        """What a plan chooses for the layers without choices by hand, when these rules of it decide.

        `method` takes the place of those that plan and rules name.
        """
        state = PlanState(plan, np.array(rules, np.int32), Edits(self.store.names))
        return self._chooser.choose(self._by_method(state, method))

    def choices_by(self, method: str) -> Choices:
        """What is chosen now, but all of it by this method."""
        return self._chooser.choose(self._by_method(self.state, method))

    def _by_method(self, state: PlanState, method: str) -> PlanState:
        if not method:
            return state
        edits = state.edits.with_methods(np.arange(len(self.store)), METHOD_CODES[method])
        return PlanState(state.plan, state.rules, edits)

    def order_of(self, choices: Sequence[core.Choice]) -> Order:
        """Everything that these choices quantize, known or not."""
        taken = self._chooser.take(choices)
        return self._order(taken, np.flatnonzero(taken.recipes >= 0))

    def left(self) -> Indices:
        """The layers that `order` would quantize."""
        return self._left(self.choices, None)

    def _left(self, choices: Choices, names: Iterable[str] | None) -> Indices:
        marks = self._groups.marks(choices.tiered)
        left = (choices.recipes >= 0) & ~self._known.there(choices, marks)
        if names is not None:
            wanted = np.zeros(len(choices), np.bool_)
            wanted[self.store.names.places(list(names))] = True
            left &= wanted
        return np.flatnonzero(self._groups.spread(left) & (left | (marks != 0)))

    def results_for(self, choices: Sequence[core.Choice]) -> list[core.LayerResult]:
        """What is known of other choices for the same layers; kept layers have a result without errors."""
        taken = self._chooser.take(choices)
        found = self._known.results(taken, self._groups.marks(taken.tiered))
        kept = {i: core.result_of(taken[i]) for i in np.flatnonzero(taken.recipes < 0).tolist()}
        return [one for i, result in enumerate(found) if (one := result or kept.get(i)) is not None]

    def peers(self, name: str) -> tuple[str, ...]:
        """Names of the layers that share the tensor scale of a layer now."""
        return self._groups.peers(self.store.index[name], self.choices)

    def begin(self, order: Order) -> None:
        """Mark the layers of `order` that are not done as queued."""
        indices = self._places(order)
        indices = indices[~np.isin(self.store.state[indices], (DONE, KEPT))]
        self.store.set_state(indices, QUEUED)
        self.measured.emit(indices)

    def take(self, order: Order, results: Sequence[core.LayerResult]) -> None:
        """Take over results of a run; those of a choice that changed since are remembered, not shown.

        Those of layers that the order does not quantize say nothing new.
        """
        mine = [one for one in results if one.name in order.choices]
        known = [(order.choices[one.name], order.peers[one.name], one) for one in mine]
        shown = [index for one in known if (index := self._take(*one)) is not None]
        if shown:
            indices = np.array(shown, np.int64)
            self._recall(indices)
            self.measured.emit(indices)
        self.learned.emit(known)

    def _take(self, choice: core.Choice, peers: tuple[str, ...], result: core.LayerResult) -> int | None:
        """Remember a result; the place of its layer when it is for what is chosen now."""
        self.cache.add(choice, peers, result)
        index = self.store.index[result.name]
        recipe, mark = self._chooser.number(choice), self._groups.mark_of(index, peers)
        self._known.add(index, recipe, mark, result)
        return index if self.choices.recipes[index] == recipe and int(self._marks[index]) == mark else None

    def take_running(self, name: str) -> None:
        """Mark a queued layer as the one at hand."""
        index = self.store.index[name]
        if self.store.state[index] == QUEUED:
            self.store.state[index] = RUNNING
            self.measured.emit(np.array([index]))

    def take_failure(self, name: str, problem: str) -> None:
        """Mark a layer as failed."""
        index = self.store.index[name]
        self.store.set_failed(index, problem)
        self.measured.emit(np.array([index]))

    def end(self, order: Order) -> None:
        """Give layers that were not reached their state back."""
        indices = self._places(order)
        left = indices[np.isin(self.store.state[indices], (QUEUED, RUNNING))]
        self._recall(left)
        self.measured.emit(left)

    def _places(self, order: Order) -> Indices:
        """The layers of an order that the open checkpoint has."""
        found = [i for i in map(self.store.index.get, order.choices) if i is not None]
        return np.array(found, np.int64)

    def valid_result(self, name: str) -> core.LayerResult | None:
        """The result of a layer that belongs to its choice of now, None while there is none."""
        index = self.store.index[name]
        return self.store.results[index] if self.store.state[index] in (DONE, KEPT) else None

    def outcome(self) -> core.Outcome:
        """The results that belong to the choices of now."""
        return core.Outcome(tuple(self.store.shown_results()))

    # what is selected

    @property
    def selection(self) -> list[str]:
        """Names of the selected layers, the current one last."""
        if self._selection is None:
            self._selection = self.store.names.of(self.selected_indices)
        return self._selection

    def select(self, names: Sequence[str]) -> None:
        """Select those of the layers that the filter shows, so that no key acts on others; every view follows."""
        if self.model is not None:
            self.select_at(self.store.names.places(names))

    def select_at(self, indices: Indices) -> None:
        """Select those of the layers at these places that the filter shows."""
        found = indices if self._shown is None else indices[self._shown[indices]]
        if len(indices) and not len(found):
            self.hidden.emit(self.store.names.of(indices))
        elif not np.array_equal(found, self.selected_indices):
            self._set_selection(found)
            self.selected.emit(found)

    def select_around(self, indices: Indices) -> None:
        """Select layers; the current one stays the current one, or else the first of them is."""
        last = self.selected_indices[-1:]
        last = last if np.isin(last, indices).any() else indices[:1]
        self.select_at(np.append(indices[~np.isin(indices, last)], last))

    def make_current(self, name: str) -> None:
        """Show details for a layer: the last of the selection, or alone when it was not part of it."""
        index = self.store.index[name]
        others = self.selected_indices[self.selected_indices != index]
        kept = others if len(others) < len(self.selected_indices) else _NONE
        self.select_at(np.append(kept, index))

    def _set_selection(self, indices: Indices) -> None:
        self.selected_indices = indices
        self._selection = None if len(indices) else []

    def show_only(self, shown: NDArray[np.bool_]) -> None:
        """Take over what the filter shows, a truth per layer; layers that it hides are selected no longer."""
        self._shown = shown
        left = self.selected_indices[shown[self.selected_indices]]
        if len(left) != len(self.selected_indices):
            self._set_selection(left)
            self.selected.emit(left)

    @property
    def current(self) -> str:
        """The layer that details are shown for, or an empty text."""
        return self.store.names[int(self.selected_indices[-1])] if len(self.selected_indices) else ""
