"""Transcoding: a checkpoint in another layout without losing a bit; what is not exact is told before it is written.

A layer that is stored in a format of the layout keeps its codes; so does one whose format can be cast exactly. Every
other one is decoded, and kept in a dtype that holds what it decodes to.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from kernels import STORED, STORED_FORMATS, Format, recipe
from kernels.casts import Span, multiplier
from studio.core.errors import PlanError
from studio.core.events import Event, Progress, Started, Transcoded
from studio.core.exporting.export import check_stores_any
from studio.core.exporting.gguf_metadata import row_of
from studio.core.exporting.input_scales import carried_over
from studio.core.exporting.mlx_names import check_names
from studio.core.layouts import GGUF, Target, fitted
from studio.core.model import Layer, Matrix, Model
from studio.core.names import printable
from studio.core.opening.exports import check_decodable
from studio.core.planning.conversion import Loss, Transcoding
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine
from studio.core.running.proving import (
    Castable,
    Count,
    Counts,
    Question,
    answers,
    answers_elsewhere,
    exponents,
    rounded,
)
from studio.core.running.spread import Spread
from studio.core.sources.plain import Plain

_CASTS: Mapping[str, tuple[str, ...]] = {
    "mxfp4": ("nvfp4-3t", "nvfp4-2t"),
    "nvfp4-2t": ("nvfp4-3t", "mxfp4"),
    "nvfp4-3t": ("nvfp4-2t", "mxfp4"),
    **{f"int{bits}-g{block}": (f"int{bits}-sym-g{block}",) for bits in (4, 8) for block in (32, 64, 128)},
    **{f"int{bits}-sym-g{block}": (f"int{bits}-g{block}",) for bits in (4, 8) for block in (32, 64, 128)},
}
"""The formats that may hold the codes of another one, the likeliest first."""

_NOT_LINEAR = "its readers take linear layers only"
_UNKNOWN = "its codes are in no format that the layout stores"


def transcode(
    engine: Engine, model: Model, layout: Target, reader: str = "", dtype: str = "", spread: Spread | None = None
) -> Iterator[Event]:
    """Decide what becomes of every layer of `model` in `layout`, and prove it; `dtype`: that of decoded weights.

    Reads what is cast or decoded once, by `spread` where there is one; the last event is `Transcoded`. Raises
    CheckpointError, and PlanError for what can not be stored at all.
    """
    check_decodable(model)
    check_names(model, layout)
    fitting = _Fitting(model, layout)
    wanted = tuple(map(fitting.wanted, model.layers))
    run = _Transcoding(engine, fitting, reader or _reader_of_most(fitting, wanted), dtype, spread)
    choices = run.fit(wanted)
    asked = (c for c in choices if _changes(c) or (c.recipe is None and c.layer.widened))
    yield Started("prove", sum(choice.layer.nbytes for choice in asked), 0)
    choices = run.fit((yield from run.casts(choices)))
    choices = tuple(run.kept_in(choice) for choice in choices)
    losses = yield from run.losses(choices)
    choices, inputs = carried_over(choices, layout)
    yield Transcoded(Transcoding(choices, losses, run.reader, run.rounded_scales(choices), inputs))


def prospect(model: Model, layout: Target) -> Transcoding:
    """What `transcode` would do with every layer as far as headers and tensor scales tell; nothing is proved.

    Raises as that does, and PlanError where the target holds nothing of it.
    """
    check_decodable(model)
    check_names(model, layout)
    if layout is GGUF:
        row_of(model)
    fitting = _Fitting(model, layout)
    wanted = tuple(map(fitting.wanted, model.layers))
    reader = _reader_of_most(fitting, wanted)
    choices = fitting.fit(wanted, reader)
    if layout is not GGUF:
        check_stores_any(layout, choices)
    return Transcoding(choices, reader=reader)


def _reader_of_most(fitting: "_Fitting", wanted: Sequence[Choice]) -> str:
    """The reader of a layout for which most weights keep their codes; the first that it is for, if that is one."""

    def taken(reader: str) -> int:
        with suppress(PlanError):
            found = fitting.fit(wanted, reader)
            return sum(c.layer.count for c in found if c.recipe and c.recipe.format == c.layer.source.format)
        return -1

    return max(fitting.layout.readers, key=taken)


@dataclass(frozen=True, slots=True)
class _Fitting:
    """What readers of a layout can take over of a model."""

    model: Model
    layout: Target

    def wanted(self, layer: Layer) -> Choice:
        """The codes of a layer in a format of the layout, as long as nothing but data speaks against it."""
        own = layer.source.format
        if own is None or not layer.matrices:
            return Choice(layer, None, "" if own is None else layer.obstacle)
        if self.layout.joins and (layer.role in ("embedding", "router") or self._is_tied_head(layer)):
            return Choice(layer, None, _NOT_LINEAR)
        taken = [name for name in (own.name, *_CASTS.get(own.name, ())) if name in self.layout.formats]
        if own.name == "nvfp4-3t" and "nvfp4-2t" in taken and set(map(layer.source.multiplier, layer.matrices)) == {1}:
            taken.insert(0, "nvfp4-2t")
        for name in taken:
            if not any(STORED_FORMATS[name].misfit((m.rows, m.columns)) for m in layer.matrices):
                return self._taken_over(layer, name)
        return Choice(layer, None, _UNKNOWN)

    def _is_tied_head(self, layer: Layer) -> bool:
        return layer.role == "head" and self.model.is_tied

    def _taken_over(self, layer: Layer, name: str) -> Choice:
        row, own = STORED_FORMATS[name], layer.source.format
        multipliers: tuple[float, ...] = ()
        if row.tensor_scale and own is not None and own.scale != "e8m0":
            multipliers = tuple(map(layer.source.multiplier, layer.matrices))
        told = replace(layer, kept_as=_scale_dtype(layer, row)) if row.affine else layer
        return Choice(told, recipe(name, method=STORED), multipliers=multipliers)

    def fit(self, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """What a reader of the layout can load; the codes of groups that it joins must have one tensor scale."""
        if self.layout.joins:
            choices = _without_unequal(choices)
        found, refusals = fitted(self.layout, reader, self.model, choices)
        if refusals:
            raise PlanError(printable("; ".join(refusals[:3]), 400))
        return found


@dataclass(slots=True)
class _Transcoding:
    engine: Engine
    fitting: _Fitting
    reader: str
    dtype: str
    spread: Spread | None = None
    done: int = 0

    @property
    def layout(self) -> Target:
        return self.fitting.layout

    def fit(self, choices: Sequence[Choice]) -> tuple[Choice, ...]:
        """See `_Fitting.fit`."""
        return self.fitting.fit(choices, self.reader)

    def casts(self, choices: Sequence[Choice]) -> Generator[Event, None, tuple[Choice, ...]]:
        """The choices with every cast proved: those that are not exact are kept, with the share that would be."""
        powers = [c for c in choices if _changes(c) and c.recipe and c.recipe.format.tensor_scale and _is_mx(c)]
        bins = yield from self._asked(powers, lambda _choice: exponents)
        scaled = self._scaled(choices, bins)
        others = [c for c in scaled if _changes(c) and c.layer.name not in bins]
        shares = yield from self._asked(others, _castable)
        return tuple(self._proved(choice, shares.get(choice.layer.name)) for choice in scaled)

    def _asked(
        self, choices: Sequence[Choice], count: Callable[[Choice], Count]
    ) -> Generator[Event, None, dict[str, Counts]]:
        """Layer -> what was counted of all its matrices."""
        found: dict[str, Counts] = {}
        questions = [Question(c.layer, m, count(c)) for c in choices for m in _parts(c)]
        for question, numbers in (yield from self._answered(questions)):
            name = question.layer.name
            found[name] = numbers + found[name] if name in found else numbers
        return found

    def _answered(self, questions: Sequence[Question]) -> Generator[Event, None, list[tuple[Question, Counts]]]:
        """The questions with what was counted; here, or elsewhere with its own progress."""
        found, before = [], self.done
        told = answers_elsewhere(self.spread, questions) if self.spread else answers(self.engine, questions)
        for one in told:
            if not isinstance(one, tuple):
                yield replace(one, done=before + one.done) if isinstance(one, Progress) else one
                continue
            found.append(one)
            self.done += one[0].nbytes
            if not self.spread:
                yield Progress("prove", self.done, one[0].layer.name)
        return found

    def _scaled(self, choices: Sequence[Choice], bins: Mapping[str, Counts]) -> tuple[Choice, ...]:
        """MX codes with the one tensor scale that suits their fused group; kept where none does."""
        groups: dict[str, Span | None] = {}
        for choice in choices:
            if choice.layer.name in bins:
                key, own = _group(choice), _span(bins[choice.layer.name])
                groups[key] = own.joined(groups.get(key)) if own else groups.get(key)
        return tuple(
            self._with_multiplier(choice, multiplier(groups[_group(choice)]), groups[_group(choice)])
            if choice.layer.name in bins
            else choice
            for choice in choices
        )

    def _with_multiplier(self, choice: Choice, g: float | None, span: Span | None) -> Choice:
        if g is None and span is not None:
            why = f"its block scales span {span.high - span.low} octaves, and E4M3 scales hold 17 of them exactly"
            return replace(choice, recipe=None, reason=why)
        return replace(choice, multipliers=(g or 1.0,) * len(choice.layer.matrices))

    def _proved(self, choice: Choice, share: Counts | None) -> Choice:
        if share is None or share[0] == share[1] or choice.recipe is None:
            return choice
        why = f"{share[0] / share[1]:.1%} of its blocks are exact in {choice.recipe.format.name}"
        return replace(choice, recipe=None, multipliers=(), reason=why)

    def kept_in(self, choice: Choice) -> Choice:
        """A decoded layer in the dtype that was asked for."""
        layer = choice.layer
        if choice.recipe or not self.dtype or not layer.widened or isinstance(layer.source, Plain):
            return choice
        return replace(choice, layer=replace(layer, kept_as=self.dtype))

    def rounded_scales(self, choices: Sequence[Choice]) -> int:
        """How many tensor scales the convention of the layout has no number for that reads as g to the bit."""
        scales = (g for choice in choices for g in choice.multipliers)
        return sum(bool(self.layout.multiplier(self.layout.store_scale(g)) != np.float32(g)) for g in scales)

    def losses(self, choices: Sequence[Choice]) -> Generator[Event, None, tuple[Loss, ...]]:
        """What decoded layers lose in the dtype that they are kept in."""
        decoded = [c for c in choices if c.recipe is None and c.layer.widened]
        counts = yield from self._asked(decoded, lambda _choice: rounded)
        found = []
        for choice in decoded:
            exact, of, error, squares = counts.get(choice.layer.name, np.array([0.0, 0.0, 0.0, 0.0]))
            if exact != of:
                rel_err = float(np.sqrt(error / squares)) if squares else 0.0
                layer = choice.layer
                found.append(Loss(layer.name, layer.source.meaning, layer.kept_dtype, exact / of, rel_err))
        return tuple(found)


def _scale_dtype(layer: Layer, row: Format) -> str:
    """The dtype of the scales of integers; around zero no bias needs more digits than the scales have."""
    own = layer.source.scale_dtype
    return layer.source.kept_dtype if row.symmetric and own == "F32" else own


def _castable(choice: Choice) -> Count:
    assert choice.recipe is not None
    return Castable(choice.recipe.format, choice.multipliers[0] if choice.multipliers else 1.0)


def _changes(choice: Choice) -> bool:
    """True for codes that get other block scales."""
    return choice.recipe is not None and choice.recipe.format != choice.layer.source.format


def _is_mx(choice: Choice) -> bool:
    own = choice.layer.source.format
    return own is not None and own.scale == "e8m0"


def _parts(choice: Choice) -> Sequence[Matrix]:
    return choice.layer.matrices if choice.recipe else [choice.layer.whole]


def _group(choice: Choice) -> str:
    return choice.layer.group or f"={choice.layer.name}"


def _span(bins: Counts) -> Span | None:
    filled = np.flatnonzero(bins)
    return Span(int(filled[0]) - 127, int(filled[-1]) - 127) if filled.size else None


def _without_unequal(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices without codes of fused groups whose members were stored with tensor scales of their own."""
    scales: dict[str, set[float]] = defaultdict(set)
    for choice in choices:
        for matrix, g in zip(choice.layer.matrices, choice.multipliers, strict=False):
            if matrix.group:
                scales[matrix.group].add(g)
    unequal = {group for group, found in scales.items() if len(found) > 1}
    return tuple(
        replace(c, recipe=None, multipliers=(), reason="its readers join it with others, whose tensor scales differ")
        if c.recipe and any(matrix.group in unequal for matrix in c.layer.matrices)
        else c
        for c in choices
    )
