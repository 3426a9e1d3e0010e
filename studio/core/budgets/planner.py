"""Planner: the best mix of formats and methods for a size, a KL or a relative error, and the curve of all of them."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.methods import method_of
from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import Decision, Option
from studio.core.budgets.knapsack import MOST_STATES, Knapsack, Solution
from studio.core.budgets.parts import MOST_PARTS, part_names
from studio.core.budgets.prediction_noise import PredictionNoise
from studio.core.budgets.rules import block_ranges, planned
from studio.core.budgets.sensitivity import Sensitivity
from studio.core.counting import counted
from studio.core.errors import PlanError
from studio.core.exporting.export import refuse
from studio.core.exporting.sizes import files_nbytes
from studio.core.layouts import fitted
from studio.core.model import Model
from studio.core.names import printable
from studio.core.planning.plan import KEEP, Choice, Plan, Prediction, Rule
from studio.core.statistics.digest import choices_digest
from studio.core.statistics.guides import StatisticsGuide

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_TOLD_POINTS = 17
"""Places on the curve that a plan holds."""

CURVE_POINTS = 64
"""Places on the curve where its noise is found."""

_ROUNDING = 1e-12
"""Share of a limit that is no whole number by which sums of such may miss it."""


@dataclass(frozen=True, eq=False)
class Mix:
    """An option for every decision.

    picks: int64, the place of each option among those of its decision. nbytes: of all tensors. damage: the sum of
    relative squared errors of outputs, weighted by what is known of their effect. kl: what that means per token in
    nats, None where no probes told; noise: its standard error by the text of the probes, None where one window can not
    tell it. rel_err: the largest relative error of a layer. gap: by what share of the damage, or of the bytes where
    these were to be least, a better mix could be better at most; 0 where none is.
    """

    options: tuple[Option, ...]
    picks: Integers
    nbytes: int
    damage: float
    kl: float | None
    noise: float | None
    rel_err: float
    gap: float = 0.0

    @property
    def lost(self) -> float:
        """KL, or damage where no probes told."""
        return self.damage if self.kl is None else self.kl


@dataclass(frozen=True, slots=True)
class Trade:
    """Another option for a decision: by how many bytes it is larger, and by how much less its damage, both signed."""

    option: Option
    nbytes: int
    gain: float

    @property
    def rate(self) -> float:
        """Damage per byte."""
        return self.gain / self.nbytes


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a decision has its option: what the best steps to a larger and to a smaller one would come to.

    share: of the damage of the mix. rel_err: the largest of its layers. finer, coarser: None where there is none.
    """

    item: Decision
    option: Option
    share: float
    rel_err: float
    finer: Trade | None
    coarser: Trade | None


@dataclass(frozen=True, slots=True)
class Change:
    """What changes alike between two mixes: decisions of a `kind` in these `blocks` ("0-3,7"), from `old` to `new`.

    layers: their places in the model. nbytes, damage: how much more they take and lose, signed.
    """

    kind: str
    old: str
    new: str
    blocks: str
    layers: tuple[int, ...]
    nbytes: int
    damage: float


def budget_title(mix: Mix, model: Model) -> str:
    """What a mix is, in words."""
    kl = "" if mix.kl is None else f", predicted KL {mix.kl:.3g}"
    return f"A mix of {8 * mix.nbytes / max(model.count, 1):.2f} bits per weight{kl}"


class Planner:
    """Answers what mix is best, for one budget after another: all that does not depend on it is computed once."""

    def __init__(self, costs: Costs, sensitivity: Sensitivity | None = None, *, parts: int = MOST_PARTS) -> None:
        """`parts`: the number of them that `sensitivity` was probed with."""
        self.costs, self.decisions = costs, costs.decisions
        self.sensitivity = sensitivity or Sensitivity()
        items = self.decisions.items
        self._rows = np.arange(len(items))
        shape = len(items), max(len(item.options) for item in items)
        self._damage, self._nbytes, self._rel_err = (np.full(shape, np.inf) for _ in range(3))
        self._noise = PredictionNoise(self.sensitivity, shape)
        self._texts = list(dict.fromkeys(str(option) for item in items for option in item.options))
        self._names, self._layers = np.zeros(shape, np.int64), np.array([len(item.layers) for item in items])
        numbers = {text: number for number, text in enumerate(self._texts)}
        for row, (item, part) in enumerate(zip(items, part_names(costs, parts), strict=True)):
            damages, rel_errs = (part.tolist() for part in costs.damages(item))
            for column, (option, damage, rel_err) in enumerate(zip(item.options, damages, rel_errs, strict=True)):
                self._names[row, column] = numbers[str(option)]
                if not np.isfinite(damage + rel_err):
                    continue
                self._noise.add((row, column), part, option, damage)
                self._damage[row, column] = damage * self.sensitivity.weight(part, option)
                self._nbytes[row, column] = option.nbytes
                self._rel_err[row, column] = rel_err

        self._allowed = self._priced = np.isfinite(self._nbytes)

    def narrowed(self, pins: Mapping[int, Option], forbidden: Collection[str] = ()) -> "Planner":
        """The same with decisions, by their place, pinned to an option each, the others without some formats.

        Takes milliseconds, as nothing is priced again. Raises PlanError where a decision is left without an option.
        """
        found = copy(self)
        found._allowed = self._allowed.copy()
        for row, item in enumerate(self.decisions.items):
            pin = pins.get(row)
            left = [option == pin if pin else option.format not in forbidden for option in item.options]
            if not any(left):
                layer = self.decisions.model.layers[item.layers[0]].name
                raise PlanError(
                    f"{printable(layer)} is left without a format", hint="forbid fewer, or pin it to another"
                )
            found._allowed[row, : len(left)] &= left
        for name in ("_by_size", "_by_damage", "_drawn"):
            found.__dict__.pop(name, None)
        return found

    def pinned(self, rules: Iterable[Rule]) -> "Planner":
        """The same with decisions pinned as rules that name formats say; see `narrowed`.

        Raises PlanError for formats that a decision can not have, or that contradict each other.
        """
        pins: dict[int, Option] = {}
        owner = {index: row for row, item in enumerate(self.decisions.items) for index in item.layers}
        for rule in rules:
            matches = rule.matcher()
            for index in (index for index in owner if matches(self.decisions.model.layers[index])):
                option = _named(self.decisions.items[owner[index]].options, rule)
                if option is None or pins.setdefault(owner[index], option) != option:
                    name = printable(self.decisions.model.layers[index].name)
                    why = f"it can not have {rule.format}" if option is None else "its others have another format"
                    raise PlanError(f"{name} can not be pinned: {why}", hint="choose one format for all of them")
        return self.narrowed(pins)

    @cached_property
    def _by_size(self) -> Knapsack:
        return Knapsack(*self._left(self._damage, self._nbytes))

    @cached_property
    def _by_damage(self) -> Knapsack:
        return Knapsack(*self._left(self._nbytes, self._damage))

    def _left(self, *tables: Floats) -> Iterator[Floats]:
        """Tables of all options with Inf for those that can not be taken."""
        return (np.where(self._allowed, table, np.inf) for table in tables)

    @property
    def cautions(self) -> list[str]:
        """What is not as well known as the rest, one sentence each."""
        options = (option for item in self.decisions.items for option in item.options)
        blind = any(option.method == "feedback" and str(option) not in self.sensitivity.factors for option in options)
        return ["feedback is priced as hessian: --probe tells what it gains beyond that"] if blind else []

    @property
    def is_blind(self) -> bool:
        """True where options name methods that need statistics, and there are none: they come to what is known."""
        needy = any(
            option.method and method_of(option.method).needs for item in self.decisions.items for option in item.options
        )
        return needy and not statistics_digest(self.decisions.model)

    @property
    def least_nbytes(self) -> int:
        """The bytes of tensors of the smallest mix."""
        return self.decisions.settled_nbytes + int(self._by_size.least_weight)

    @property
    def least_kl(self) -> float:
        """The KL of the mix with the least damage."""
        return self.sensitivity.kl(self._by_damage.least_weight)

    def curve(self) -> tuple[Floats, Floats]:
        """(bytes of tensors, KL or, where no probes told it, damage) of the mixes on the convex hull, by size."""
        nbytes, damages = self._by_size.hull
        return nbytes + self.decisions.settled_nbytes, self._effect(damages)

    def curve_noise(self, most: int = CURVE_POINTS) -> tuple[Floats, Floats, Floats]:
        """(bytes of tensors, KL, its standard error) at some mixes of the curve; none where no probes told of noise."""
        nbytes, kl = self.curve()
        if not self.sensitivity.draws:
            return nbytes[:0], kl[:0], kl[:0]
        wanted = np.linspace(nbytes[0], nbytes[-1], min(most, len(nbytes)))
        places = np.unique(np.searchsorted(nbytes, wanted, side="right") - 1)
        noise = [self._noise.of(self._by_size.on_hull(place)) for place in places.tolist()]
        return nbytes[places], kl[places], np.array(noise, np.float64)

    def _effect(self, damages: Floats) -> Floats:
        if not self.sensitivity.is_known:
            return damages
        return np.array([self.sensitivity.kl(damage) for damage in damages])

    def within_nbytes(self, nbytes: int, most_states: int = MOST_STATES) -> Mix:
        """The mix with the least damage whose tensors take at most `nbytes`. Raises PlanError where none does."""
        solution = self._by_size.solve(nbytes - self.decisions.settled_nbytes, most_states)
        if solution is None:
            bits = math.floor(8000 * self.least_nbytes / max(self.decisions.model.count, 1) + 1) / 1000
            what = f"no mix takes {counted(nbytes, 'byte')} or less: the smallest takes {self.least_nbytes:,}"
            what += f", {bits:g} bits per weight"
            raise PlanError(what, hint=self._smaller())
        return self._mix(solution, solution.gap / solution.value if solution.gap else 0.0)

    def within_file_nbytes(self, nbytes: int, most_states: int = MOST_STATES) -> Mix:
        """The same for the safetensors files of an export, whose headers depend on the mix."""
        mix = self.within_nbytes(max(nbytes, self.least_nbytes), most_states)
        while (over := self.file_nbytes(mix) - nbytes) > 0:
            if mix.nbytes == self.least_nbytes:
                what = f"no mix fits into {counted(nbytes, 'byte')}: the smallest export takes {nbytes + over:,}"
                raise PlanError(what, hint=self._smaller())
            mix = self.within_nbytes(max(mix.nbytes - over, self.least_nbytes), most_states)
        return mix

    def _smaller(self) -> str:
        kept, pinned = self.decisions.settled_nbytes, self._pinned_nbytes
        pins = f", {pinned:,} bytes those that have one format to choose: pin less or forbid less" if pinned else ""
        what = f"{kept:,} bytes of it are layers that the plan keeps{pins}"
        return f"{what}; --preset all quantizes embeddings and head, too"

    @property
    def _pinned_nbytes(self) -> int:
        """The least bytes of decisions all of whose options have one format."""
        return sum(
            min(option.nbytes for option, there in zip(item.options, allowed, strict=False) if there)
            for item, allowed in zip(self.decisions.items, self._allowed.tolist(), strict=True)
            if len({option.format for option, there in zip(item.options, allowed, strict=False) if there}) == 1
        )

    def file_nbytes(self, mix: Mix) -> int:
        """The exact bytes of the files of weights of an export."""
        decisions = self.decisions
        return files_nbytes(decisions.model, decisions.choices(mix.options), decisions.layout)

    def within_kl(self, kl: float, most_states: int = MOST_STATES) -> Mix:
        """The smallest mix with a predicted KL of at most `kl`. Raises PlanError where none has, or none is known."""
        if not self.sensitivity.is_known:
            raise PlanError("nothing is known of what damage means in tokens", hint="run probes first: --probe")
        solution = self._by_damage.solve(self.sensitivity.total(kl) * (1 + _ROUNDING), most_states)
        if solution is None:
            what = f"no mix has a KL of {kl:g} or less: the finest is predicted to have {self.least_kl:.3g}"
            raise PlanError(what, hint="forbid fewer formats, or keep more layers")
        return self._mix(solution, solution.gap / solution.value if solution.gap else 0.0)

    def within_rel_err(self, most: float) -> Mix:
        """The smallest mix in which no layer has a relative error above `most`, of these the one with least damage.

        Raises PlanError where there is none.
        """
        (rel_err,) = self._left(self._rel_err)
        allowed = rel_err <= most
        if not allowed.any(axis=1).all():
            worst = float(rel_err.min(axis=1).max())
            what = f"no mix keeps every layer at a relative error of {most:g} or less: the finest has {worst:.3g}"
            raise PlanError(what, hint="forbid fewer formats, or keep more layers")
        found = Knapsack(np.where(allowed, self._damage, np.inf), np.where(allowed, self._nbytes, np.inf))
        solution = found.solve(found.least_weight)
        assert solution is not None
        return self._mix(solution)

    def _mix(self, solution: Solution | None, gap: float = 0.0) -> Mix:
        assert solution is not None
        picks = solution.picks
        items = zip(self.decisions.items, picks.tolist(), strict=True)
        damage = float(self._damage[self._rows, picks].sum())
        return Mix(
            tuple(item.options[pick] for item, pick in items),
            picks,
            self.decisions.settled_nbytes + int(self._nbytes[self._rows, picks].sum()),
            damage,
            self.sensitivity.kl(damage) if self.sensitivity.is_known else None,
            self._noise.of(picks),
            float(self._rel_err[self._rows, picks].max()),
            gap,
        )

    def mix_of(self, choices: Sequence[Choice]) -> Mix | None:
        """The mix that gives the layers of decisions what `choices` give them; None where no options do."""
        picks = [self._pick_of(row, item, choices) for row, item in enumerate(self.decisions.items)]
        return None if -1 in picks else self._mix(Solution(np.array(picks), 0.0, 0.0))

    def _pick_of(self, row: int, item: Decision, choices: Sequence[Choice]) -> int:
        def has(option: Option) -> bool:
            return all(self.decisions.choice(i, option).recipe == choices[i].recipe for i in item.layers)

        priced = (column for column in range(len(item.options)) if self._priced[row, column])
        return next((column for column in priced if has(item.options[column])), -1)

    def shares(self, mix: Mix) -> list[tuple[str, int, int]]:
        """(option, layers that have it, their bytes) for each option of a mix, by name."""
        there = self._names[self._rows, mix.picks]
        layers, nbytes = (
            np.bincount(there, weights, len(self._texts)).astype(np.int64).tolist()
            for weights in (self._layers, self._nbytes[self._rows, mix.picks])
        )
        return sorted(row for row in zip(self._texts, layers, nbytes, strict=True) if row[1])

    def changes(self, before: Mix, after: Mix) -> list[Change]:
        """What falls otherwise in one mix than in another, those that grow or shrink most first."""
        alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        rows = np.flatnonzero(before.picks != after.picks)
        old, new = (self._names[rows, mix.picks[rows]].tolist() for mix in (before, after))
        for row, one, other in zip(rows.tolist(), old, new, strict=True):
            alike[self.decisions.items[row].kind, self._texts[one], self._texts[other]].append(row)
        found = [self._change(key, np.array(places), before, after) for key, places in alike.items()]
        return sorted(found, key=lambda change: -abs(change.nbytes))

    def _change(self, key: tuple[str, str, str], rows: Integers, before: Mix, after: Mix) -> Change:
        items = [self.decisions.items[row] for row in rows.tolist()]
        nbytes, damage = (
            float((table[rows, after.picks[rows]] - table[rows, before.picks[rows]]).sum())
            for table in (self._nbytes, self._damage)
        )
        layers = tuple(index for item in items for index in item.layers)
        blocks = block_ranges(item.block for item in items if item.block is not None)
        return Change(*key, blocks, layers, int(nbytes), damage)

    def uniforms(self) -> list[tuple[str, Mix]]:
        """All single options with their mixes, by rising size; see `uniform`."""
        names = dict.fromkeys(str(option) for item in self.decisions.items for option in item.options)
        found = [(name, mix) for name in names if (mix := self.uniform(name))]
        return sorted(found, key=lambda pair: pair[1].nbytes)

    def uniform(self, name: str) -> Mix | None:
        """The mix in which all decisions have the option called `name`; those that can not are kept, or as pinned.

        None where one can be neither.
        """
        picks = [self._place(row, name) for row in range(len(self.decisions.items))]
        if None in picks:
            return None
        return self._mix(Solution(np.array(picks), 0.0, 0.0))

    def _place(self, row: int, name: str) -> int | None:
        """The option called `name` of a decision, or to keep it, or the only one that it has."""
        both = zip(self.decisions.items[row].options, self._allowed[row], strict=False)
        there = [str(option) if found else "" for option, found in both]
        if sum(map(bool, there)) == 1:
            return there.index(next(filter(None, there)))
        return next((there.index(text) for text in (name, KEEP) if text in there), None)

    def reasons(self, mix: Mix) -> list[Reason]:
        """Why each decision has the option that it has."""
        rows = enumerate(zip(self.decisions.items, mix.options, strict=True))
        return [self._reason(row, item, item.options.index(option), mix.damage) for row, (item, option) in rows]

    def _reason(self, row: int, item: Decision, pick: int, whole: float) -> Reason:
        damages, nbytes = self._damage[row], self._nbytes[row]
        trades = [
            Trade(option, int(nbytes[place] - nbytes[pick]), float(damages[pick] - damages[place]))
            for place, option in enumerate(item.options)
            if self._allowed[row, place] and nbytes[place] != nbytes[pick]
        ]
        finer = max((trade for trade in trades if trade.nbytes > 0), key=lambda trade: trade.rate, default=None)
        coarser = min((trade for trade in trades if trade.nbytes < 0), key=lambda trade: trade.rate, default=None)
        share = float(damages[pick]) / whole if whole else 0.0
        return Reason(item, item.options[pick], share, float(self._rel_err[row, pick]), finer, coarser)

    def plan(self, mix: Mix, name: str = "", title: str = "") -> Plan:
        """The ordinary plan of a mix, with what is expected of it. Raises PlanError where the layout refuses it."""
        decisions, choices = self.decisions, self.decisions.choices(mix.options)
        _, refusals = fitted(decisions.layout, decisions.reader, decisions.model, choices)
        if refusals:
            refuse(decisions.model, choices, decisions.layout, refusals)
        digest = choices_digest(choices, decisions.model)
        plan = planned(decisions, mix.options, name, title)
        own = len(plan.rules) - len(decisions.plan.rules)
        told = Prediction(
            digest, mix.nbytes, mix.rel_err, mix.damage, mix.kl, own, mix.noise, *self._told_of, *self._drawn
        )
        return replace(plan, prediction=told)

    @property
    def _told_of(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return statistics_digest(self.decisions.model), self.sensitivity.texts

    @cached_property
    def _drawn(self) -> tuple[tuple[tuple[int, float], ...], tuple[tuple[str, int, float], ...]]:
        """Some of the curve, and single formats, as a plan holds them."""
        nbytes, lost = self.curve()
        places = np.unique(np.searchsorted(nbytes, np.linspace(nbytes[0], nbytes[-1], _TOLD_POINTS)))
        singles = tuple((name, mix.nbytes, mix.lost) for name, mix in self.uniforms() if name != KEEP)
        return tuple(zip(nbytes[places].astype(int).tolist(), lost[places].tolist(), strict=True)), singles


def statistics_digest(model: Model) -> str:
    """The digest of the statistics that tell of the inputs of layers, "" where none do."""
    guides = (layer.guide for layer in model.layers)
    return next((guide.digest for guide in guides if isinstance(guide, StatisticsGuide)), "")


def _named(options: Sequence[Option], rule: Rule) -> Option | None:
    """The first option in the format, and by the method, that a rule names."""
    wanted = (option for option in options if option.format == rule.format)
    return next((option for option in wanted if rule.method in ("", option.method)), None)
