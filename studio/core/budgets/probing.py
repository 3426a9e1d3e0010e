"""Probing: a few plans are run on a text to learn what damage means in tokens; what was run once is not run again."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import kernels
from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import KEPT, Decision, Option
from studio.core.budgets.parts import MOST_PARTS, coarse, part_names
from studio.core.budgets.records import Records
from studio.core.budgets.rules import planned
from studio.core.budgets.sensitivity import Probed, Sensitivity, fit
from studio.core.events import EvaluationDone, Event, ModelDone
from studio.core.planning.plan import KEEP
from studio.core.quality.candidates import Candidate, as_stored
from studio.core.quality.evaluation import Reading, evaluate
from studio.core.quality.metrics import Tally
from studio.core.quality.noise import divergence, divergences
from studio.core.quality.window_records import identity
from studio.core.running.engine import Engine
from studio.core.statistics.digest import choices_digest

_TOGETHER = "together"

DRAWS = 100
"""Draws of windows by which the noise of predictions is found."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A plan to run: the option of each decision; what it tells of is a `part` or an `option`, or neither ("")."""

    name: str
    options: tuple[Option, ...]
    part: str = ""
    option: str = ""


def probes(costs: Costs, most_parts: int = MOST_PARTS) -> list[Probe]:
    """What to run: each part of the model alone in few bits, all of it so, and all of it in each option."""
    items = costs.decisions.items
    parts = part_names(costs, most_parts)
    few_bits = [coarse(costs, item) for item in items]
    found = [
        Probe(part, tuple(one if mine == part else KEPT for one, mine in zip(few_bits, parts, strict=True)), part=part)
        for part in dict.fromkeys(parts)
    ]
    found.append(Probe(_TOGETHER, tuple(few_bits)))
    named = dict.fromkeys(str(option) for item in items for option in item.options if option.format != KEEP)
    return found + [Probe(name, tuple(_named(item, name) for item in items), option=name) for name in named]


def _named(item: Decision, name: str) -> Option:
    return next((option for option in item.options if str(option) == name), KEPT)


class Probing:
    """The probes of a model on a text, with what is known of their KL to the source."""

    def __init__(
        self,
        costs: Costs,
        reading: Reading,
        runtime: str = "",
        *,
        parts: int = MOST_PARTS,
        records: Records | None = None,
    ) -> None:
        self._costs, self._reading, self._runtime, self._parts = costs, reading, runtime, parts
        self._records = records or Records(self._key())

    def _key(self) -> dict[str, Any]:
        digests = [digest for _, digest in self._texts]
        cut = [self._reading.windows, self._reading.length, self._reading.seed, self._runtime]
        model = identity(self._costs.decisions.model)
        return {"probes": 2, "program": kernels.__version__, "model": model, "text": digests, "cut": cut}

    @cached_property
    def _texts(self) -> tuple[tuple[str, str], ...]:
        return self._reading.digests()

    @cached_property
    def _probes(self) -> dict[Probe, str]:
        """What is to be run, with what tells its weights from others: a while for many layers."""
        costs, decisions = self._costs, self._costs.decisions
        found = [one for one in probes(costs, self._parts) if any(option.format != KEEP for option in one.options)]
        return {one: choices_digest(decisions.choices(one.options)) for one in found}

    def known(self) -> Sensitivity | None:
        """What all probes told; None where some were not run."""
        kl = {line["plan"]: [Tally(*window) for window in line["windows"]] for line in self._records if "plan" in line}
        if not kl or not all(digest in kl for digest in self._probes.values()):
            return None
        return self._told({one: kl[digest] for one, digest in self._probes.items()})

    def run(
        self, started: Engine, *, folder: Path | None = None, max_memory: int = 0
    ) -> Generator[Event, None, Sensitivity]:
        """Run the probes that were not run before; see `evaluate`, which stops and goes on likewise."""
        known = {line.get("plan") for line in self._records}
        todo = {digest: _candidate(self._costs, one) for one, digest in self._probes.items() if digest not in known}
        if todo:
            yield from self._evaluate(started, todo, folder, max_memory)
        found = self.known()
        assert found is not None
        return found

    def _evaluate(
        self, started: Engine, todo: Mapping[str, Candidate], folder: Path | None, max_memory: int
    ) -> Iterator[Event]:
        source, waiting = as_stored(self._costs.decisions.model), iter(todo)
        run = partial(evaluate, runtime=self._runtime, folder=folder, max_memory=max_memory)
        for event in run(started, source, list(todo.values()), self._reading):
            match event:
                case ModelDone(row, windows) if row.kl:
                    self._records.add({"plan": next(waiting), "windows": [astuple(window) for window in windows]})
                case ModelDone() | EvaluationDone():
                    pass
                case _:
                    yield event

    def _told(self, found: Mapping[Probe, Sequence[Tally]]) -> Sensitivity:
        parts = part_names(self._costs, self._parts)
        measured = {one: _probed(windows, _damages(self._costs, parts, one)) for one, windows in found.items()}
        alone = {one.part: found for one, found in measured.items() if one.part}
        together = next((found for one, found in measured.items() if one.name == _TOGETHER), None)
        whole = {one.option: found for one, found in measured.items() if one.option}
        return replace(fit(alone, together, whole), texts=self._texts)


def _probed(windows: Sequence[Tally], damages: Mapping[tuple[str, str], float]) -> Probed:
    kl = divergence(windows)
    draws = divergences(windows, DRAWS).tolist() if len(windows) > 1 else ()
    return Probed(kl.value, kl.noise or 0.0, damages, tuple(draws))


def _damages(costs: Costs, parts: Sequence[str], one: Probe) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for item, part, option in zip(costs.decisions.items, parts, one.options, strict=True):
        if option.format != KEEP:
            found[part, str(option)] += costs.damage(item, option)
    return dict(found)


def _candidate(costs: Costs, one: Probe) -> Candidate:
    decisions = costs.decisions
    plan = planned(decisions, one.options, one.name)
    return Candidate(one.name, decisions.model, decisions.choices(one.options), plan)
