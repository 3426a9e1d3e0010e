"""Work: what a person did to a checkpoint, step by step, and how it was looked at; as JSON and back. No Qt."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.keeping.ranges import numbers_of, ranges
from studio.gui.layers.choices import (
    BY_PLAN,
    CODES,
    FORMAT_NAMES,
    METHOD_CODES,
    METHOD_NAMES,
    Codes,
    Edits,
    Indices,
    Names,
    PlanState,
)

SCHEMA = 2
MOST_PLANS = 12
"""Plans that undo can go back to after opening: each is worked out for every layer."""

_encode = json.JSONEncoder(separators=(",", ":")).encode
NO_RULES: NDArray[np.int32] = np.zeros(0, np.int32)
"""Of a state of the plan that was read: which rule decides for each layer is worked out for a model."""


class NewerError(ValueError):
    """A later version of the program wrote this."""


@dataclass(frozen=True)
class Work:
    """The states of the plan, oldest first; step i, called texts[i], led from states[i] to states[i + 1].

    `at` is the state of now, `saved` the one that a plan file holds, -1 for none. `view` is what `view_state` gave,
    `statistics` the path of the file that tells of the inputs of layers, "" for none.
    """

    states: tuple[PlanState, ...]
    texts: tuple[str, ...] = ()
    at: int = 0
    saved: int = 0
    view: Mapping[str, Any] = field(default_factory=dict)
    statistics: str = ""

    @property
    def now(self) -> PlanState:
        """The state of the plan that is in force."""
        return self.states[self.at]

    @property
    def by_hand(self) -> int:
        """How many layers have something chosen by hand."""
        return len(self.now.edits)

    @property
    def is_fresh(self) -> bool:
        """True when there is nothing in it that a person would miss."""
        return len(self.states) == 1 and not self.by_hand and not self.statistics

    def resolved(self, model: core.Model) -> "Work":
        """The same for the layers of `model`: choices for layers that are gone go, and steps that no longer fit.

        Raises PlanError when the plan of now does not fit.
        """
        resolver = _Resolver(model)
        now = resolver.state(self.now)
        later = _while_fitting(resolver, self.states[self.at + 1 :])
        earlier = _while_fitting(resolver, self.states[: self.at][::-1])[::-1]
        first = self.at - len(earlier)
        states = (*earlier, now, *later)
        saved = self.saved - first if first <= self.saved < first + len(states) else -1
        return replace(
            self, states=states, texts=self.texts[first : first + len(states) - 1], at=len(earlier), saved=saved
        )


class _Resolver:
    def __init__(self, model: core.Model) -> None:
        self._model = model
        self._names = Names([layer.name for layer in model.layers])
        self._places: list[tuple[Names, Indices]] = []
        self._plans: list[tuple[core.Plan, NDArray[np.int32]]] = []

    def state(self, state: PlanState) -> PlanState:
        edits = state.edits.moved(self._names, self._places_in(state.edits.names))
        return PlanState(state.plan, self._rules(state.plan), edits)

    def _places_in(self, names: Names) -> Indices:
        for known, places in self._places:
            if known is names:
                return places
        self._places.append((names, self._names.places_in(names)))
        return self._places[-1][1]

    def _rules(self, plan: core.Plan) -> NDArray[np.int32]:
        for known, rules in self._plans:
            if known == plan:
                return rules
        if len(self._plans) == MOST_PLANS:
            raise core.PlanError(f"more than {MOST_PLANS} plans")
        self._plans.append((plan, np.array(core.deciding_rules(plan, self._model), np.int32)))
        return self._plans[-1][1]


def _while_fitting(resolver: _Resolver, states: Sequence[PlanState]) -> tuple[PlanState, ...]:
    found: list[PlanState] = []
    for state in states:
        try:
            found.append(resolver.state(state))
        except core.PlanError:
            break
    return tuple(found)


class Encoder:
    """Work as JSON, for the layers called `names`. What was encoded for an earlier save is not worked out again."""

    def __init__(self, names: Sequence[str]) -> None:
        self._index = {name: i for i, name in enumerate(names)}
        self._names = _encode(list(names))
        self.written = b""  # what the disk holds
        self._known: dict[tuple[int, int], tuple[PlanState | None, PlanState, dict[str, Any]]] = {}

    def encode(self, work: Work) -> bytes:
        """The bytes of a file."""
        plans: list[core.Plan] = []
        steps = list(self._steps(work, plans))
        view = {**work.view, "selection": self._ranges(work.view.get("selection", ()))}
        said = {"schema": SCHEMA, "at": work.at, "saved": work.saved, "plans": [plan.to_json() for plan in plans]}
        body = _encode({**said, "steps": steps, "view": view, "statistics": work.statistics})
        return f'{body[:-1]},"layers":{self._names}}}\n'.encode()

    def _steps(self, work: Work, plans: list[core.Plan]) -> Iterator[dict[str, Any]]:
        known, self._known = self._known, {}
        before: PlanState | None = None
        for state, text in zip(work.states, ("", *work.texts), strict=True):
            key = id(before), id(state)
            found = known.get(key) or (before, state, self._change(before.edits if before else None, state.edits))
            self._known[key] = found
            yield {"text": text, "plan": _place(plans, state.plan), **found[2]}
            before = state

    def _change(self, before: Edits | None, after: Edits) -> dict[str, Any]:
        found, drop = _difference(before.codes if before else BY_PLAN, after.codes, FORMAT_NAMES)
        methods, drop_methods = _difference(before.methods if before else BY_PLAN, after.methods, METHOD_NAMES)
        how = {"methods": methods, "drop_methods": drop_methods} if methods or drop_methods else {}
        return {"set": found, "drop": drop, **how}

    def _ranges(self, names: Sequence[str]) -> str:
        return ranges(self._index[name] for name in names if name in self._index)


def _difference(before: Codes | int, after: Codes, names: Sequence[str]) -> tuple[dict[str, str], str]:
    """The layers that have something else by hand, by what it is, and those that have nothing any more."""
    changed = after != before
    chosen = np.unique(after[changed & (after != BY_PLAN)]).tolist()
    found = {names[code]: ranges(np.flatnonzero(changed & (after == code))) for code in chosen}
    return found, ranges(np.flatnonzero(changed & (after == BY_PLAN)))


def _place(plans: list[core.Plan], plan: core.Plan) -> int:
    if plan not in plans:
        plans.append(plan)
    return plans.index(plan)


def decode(data: bytes) -> Work:
    """The work in a file; its states have no choices yet, see `Work.resolved`.

    Raises NewerError for a later schema, ValueError or PlanError for what is damaged.
    """
    try:
        said = json.loads(data)
        if said["schema"] > SCHEMA:
            raise NewerError(f"schema {said['schema']}, this version reads {SCHEMA}")
        return _decoded(said)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a kept work: {type(error).__name__} {error}") from None


def _decoded(said: dict[str, Any]) -> Work:
    names = Names([str(name) for name in said["layers"]])
    plans = [core.plan_from_json(plan) for plan in said["plans"]]
    states: list[PlanState] = []
    edits = Edits(names)
    for step in said["steps"]:
        edits = _changed(edits, step)
        states.append(PlanState(plans[step["plan"]], NO_RULES, edits))
    at, saved, view = int(said["at"]), int(said["saved"]), dict(said["view"])
    if not 0 <= at < len(states) or not -1 <= saved < len(states):
        raise ValueError(f"state {at} of {len(states)}")
    view["selection"] = names.of(numbers_of(view["selection"], len(names)))
    texts = tuple(str(step["text"]) for step in said["steps"][1:])
    return Work(tuple(states), texts, at, saved, view, str(said.get("statistics", "")))


def _changed(edits: Edits, step: Mapping[str, Any]) -> Edits:
    count = len(edits.codes)
    found = edits.changed(numbers_of(step["drop"], count), BY_PLAN)
    found = found.with_methods(numbers_of(step.get("drop_methods", ""), count), BY_PLAN)
    for value, numbers in step["set"].items():
        if value not in (*core.FORMATS, core.KEEP):
            raise ValueError(f"unknown format {value}")
        found = found.changed(numbers_of(numbers, count), CODES[value])
    for value, numbers in step.get("methods", {}).items():
        if value not in core.METHODS:
            raise ValueError(f"unknown method {value}")
        found = found.with_methods(numbers_of(numbers, count), METHOD_CODES[value])
    return found
