"""Two checkpoints of one model by their weights: each against a source, or one against the other."""

import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from kernels import FORMATS, METHODS
from kernels.fidelity import relative_error
from studio.core.events import Compared, Event, Progress, Started, Warned
from studio.core.insight.comparison import Comparison, Pair, by_gain
from studio.core.insight.measured import Measured, Side
from studio.core.model import Model
from studio.core.names import printable
from studio.core.opening.exports import exported, unlifted
from studio.core.planning.edits import hand_rules
from studio.core.planning.plan import KEEP, Plan, Rule, choice_text
from studio.core.running.differences import Counterparts, Couple, Difference, differences, itself, stored_as
from studio.core.running.engine import Engine


def compare_checkpoints(engine: Engine, a: Model, b: Model, source: Model | None = None) -> Iterator[Event]:
    """Decode both and compare them, layer by layer; the last event is `Compared`.

    Raises CheckpointError for what can not be read.
    """
    a, b = unlifted(a), unlifted(b)
    reference = source or a
    work = _Work(engine, reference, sum(layer.nbytes for layer in reference.layers))
    sides = 2 if source else 1
    yield Started("compare", work.nbytes * sides, len(reference.layers) * sides)
    own = (yield from work.differences(a)) if source else [Difference(itself(layer)) for layer in a.layers]
    other = yield from work.differences(b)
    yield Compared(_measured(a, b, own, other, source))


@dataclass(slots=True)
class _Work:
    engine: Engine
    reference: Model
    nbytes: int
    done: int = 0

    def differences(self, model: Model) -> Generator[Event, None, list[Difference]]:
        places, found = Counterparts(model), []
        for difference in differences(self.engine, map(places.of, self.reference.layers)):
            found.append(difference)
            self.done += difference.layer.nbytes
            if difference.nonfinite_there:
                what = f"{difference.nonfinite_there:,} of its weights are NaN or Inf, left out of its error"
                yield Warned(f"{printable(model.name)}: {printable(difference.layer.name)}: {what}")
            yield Progress("compare", self.done, difference.layer.name)
        return found


def _measured(
    a: Model, b: Model, found_a: list[Difference], found_b: list[Difference], source: Model | None
) -> Measured:
    methods_a, methods_b = _methods(a), _methods(b)
    both = [(x, y) for x, y in zip(found_a, found_b, strict=True) if not (x.couple.obstacle or y.couple.obstacle)]
    told = by_gain(_pair(x, y, methods_a, methods_b) for x, y in both if not _same(x, y))
    only_a, only_b = _alone(a, found_a, found_b), _alone(b, found_b, found_a)
    comparison = Comparison(a.name, b.name, told, only_a, only_b)
    plan, untaken = _plan_of(b, found_b, methods_b)
    sides = _side(a, found_a if source else None), _side(b, found_b)
    lost = tuple(x.layer.name for x, y in zip(found_a, found_b, strict=True) if x.couple.obstacle and y.couple.obstacle)
    return Measured(comparison, sides, len(both) - len(told), source.name if source else "", plan, untaken, lost)


def _same(x: Difference, y: Difference) -> bool:
    """True for layers with the weights of the reference on both sides, plain or stored in one way."""
    plain = x.couple.is_plain and y.couple.is_plain
    return x.is_equal and y.is_equal and (plain or x.couple.stored_as == y.couple.stored_as)


def _methods(model: Model) -> dict[str, str]:
    """Layer -> how its codes were chosen, as far as a plan knows such a method."""
    own = exported(model)
    return {c.layer.name: c.method for c in own.choices if c.method in METHODS} if own else {}


def _pair(x: Difference, y: Difference, methods_a: Mapping[str, str], methods_b: Mapping[str, str]) -> Pair:
    return Pair(
        x.layer.name,
        x.couple.stored_as,
        y.couple.stored_as,
        _error(x),
        _error(y),
        x.couple.nbytes,
        y.couple.nbytes,
        _method(x.couple, methods_a),
        _method(y.couple, methods_b),
        x.layer.count,
    )


def _error(found: Difference) -> float:
    """Inf where a number became none, or the reverse."""
    return math.inf if found.unlike else found.rel_err


def _method(couple: Couple, methods: Mapping[str, str]) -> str:
    found = {methods.get(part.other.name, "") for part in couple.parts}
    return found.pop() if len(found) == 1 else ""


def _alone(model: Model, found: list[Difference], others: list[Difference]) -> tuple[str, ...]:
    """The layers that a model has and the other one, or the reference, has not; with the reason where there is one."""
    used = {part.other.name for one in found for part in one.couple.parts}
    lacking = [y.couple for x, y in zip(found, others, strict=True) if y.couple.obstacle and not x.couple.obstacle]
    told = [c.layer.name if c.obstacle == "missing" else f"{c.layer.name}: {c.obstacle}" for c in lacking]
    return (*told, *(layer.name for layer in model.layers if layer.name not in used))


def _plan_of(b: Model, found: list[Difference], methods: Mapping[str, str]) -> tuple[Plan, dict[str, int]]:
    formats = {one.layer.name: one.couple.stored_as for one in found if not one.couple.obstacle}
    quantized = {one.layer.name for one in found if not one.couple.is_plain}
    edits = {
        one.layer.name: choice_text(formats[one.layer.name], _method(one.couple, methods))
        for one in found
        if formats.get(one.layer.name) in FORMATS
    }
    untaken = Counter(formats[name] for name in quantized if name not in edits)
    rest = Rule(format=KEEP, reason="kept in the checkpoint that the plan is of", optional=True)
    rules = hand_rules(edits, [one.layer.name for one in found])
    return Plan((*rules, rest), name="taken over", title=f"The formats of {printable(b.name)}"), dict(untaken)


def _side(model: Model, found: list[Difference] | None) -> Side:
    counts: Counter[str] = Counter()
    for layer in model.layers:
        counts[stored_as(layer)] += layer.count
    compared = [one for one in found or () if not one.couple.obstacle]
    error = relative_error(sum(one.error for one in compared), sum(one.squares for one in compared))
    formats = tuple(counts.most_common())
    return Side(model.name, len(model.layers), model.count, model.nbytes, formats, None if found is None else error)
