"""Input scales: how large the inputs of every layer in NVFP4 become, where runtimes are to quantize these too."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kernels.formats import E4M3_MAX, TENSOR_SCALE_DIVISOR
from kernels.reference import tensor_scale
from studio.core.counting import counted
from studio.core.errors import CheckpointError, PlanError
from studio.core.exporting.shard_writer import agreed_scale
from studio.core.layouts import LAYOUTS, Target
from studio.core.model import Matrix
from studio.core.names import some_of
from studio.core.opening.export_sources import Packed
from studio.core.planning.plan import Choice
from studio.core.sources.packed import PackedSource

FEW_TOKENS = 64
"""Inputs fewer than these do not tell how large others become."""

_LEFT_OUT = "scales of inputs are left out, which then stay as they are"
_NUMBER = re.compile(r"\d+")
_CALIBRATE = "gather statistics: nvfp4-studio calibrate SRC --out FILE, then --statistics FILE"
_Peaks = dict[str, tuple[int, float]]
"""Fused group or matrix -> tokens seen, largest magnitude."""


def with_input_scales(
    choices: Sequence[Choice], layout: Target, activations: str
) -> tuple[tuple[Choice, ...], list[str]]:
    """The choices with a scale for the inputs of every layer that is to have one, and what takes that of its peers.

    Those are all layers in NVFP4 where `activations` are "fp4", and those that readers of the layout want it for.

    A scale is that of the largest input seen, equal over a fused group, as readers of the layout compute it. Peers of
    an expert are those of its stack; if they tell nothing, and for other layers, those of the same name in other
    blocks. Raises PlanError where the layout has no place for it, nothing takes one, or nothing is known.
    """
    if activations:
        _check_activations(choices, layout)
    chosen = [c for c in choices if (activations and is_nvfp4(c)) or c.format in layout.static_inputs]
    if not chosen:
        return tuple(choices), []
    peaks = _peaks(chosen)
    if not any(peak for _, peak in peaks.values()):
        wanted = "activations in four bits need" if activations else f"{chosen[0].format} of {layout.title} needs"
        raise PlanError(f"{wanted} the largest inputs of layers, which are not known", hint=_CALIBRATE)
    lent = _lent(chosen, peaks)
    known = {group: lent.get(group, peak) for group, (_, peak) in peaks.items()}
    for matrix in _matrices(chosen):
        if not known[_group(matrix)]:
            what = "nothing is known of its inputs, nor of those of its peers"
            raise PlanError(what, tensor=matrix.name, hint=f"--exclude it, or {_CALIBRATE}")
    names = [matrix.name for matrix in _matrices(chosen) if _group(matrix) in lent]
    scaled = {choice.layer.name: _with_peaks(choice, known, layout) for choice in chosen}
    return tuple(scaled.get(choice.layer.name, choice) for choice in choices), list(_told(names))


@dataclass(frozen=True, slots=True)
class _Read:
    """What readers quantize inputs with: the multiplier and the divisor, each as they compute it in float32."""

    multiplier: np.float32
    divisor: np.float32

    @classmethod
    def of(cls, stored: np.float32, *, divides: bool) -> "_Read":
        """Of the number that is stored, which is one of them."""
        with np.errstate(divide="ignore", over="ignore"):
            other = np.float32(1) / stored
        return cls(other, stored) if divides else cls(stored, other)

    @classmethod
    def from_layout(cls, layout: Target, g: float) -> "_Read":
        """Of what a layout stores of a multiplier."""
        stored = layout.store_scale(g)
        return cls.of(stored, divides=bool(layout.multiplier(stored) != stored))


_Known = dict[str, tuple[float, _Read]]
"""Matrix -> the multiplier of its inputs, as near as float64 comes to it, and what is read now."""


def carried_over(choices: Sequence[Choice], layout: Target) -> tuple[tuple[Choice, ...], str]:
    """The choices of a conversion with the scales of inputs that are stored, and what is rounded, or left out and why.

    All layers in NVFP4 have one, or none has: readers take it of every layer.
    """
    try:
        known = {name: found for choice in choices for name, found in _known(choice)}
    except CheckpointError as error:
        return tuple(choices), f"{_LEFT_OUT}: {error.tensor}: {error.what}"
    chosen = [c for c in choices if is_nvfp4(c) or c.format in layout.static_inputs]
    if not known:
        return tuple(choices), ""
    if why := _misplaced(chosen, known, layout):
        return tuple(choices), f"{_LEFT_OUT}: {why}"
    scaled = {choice.layer.name: _with_known(choice, known, layout) for choice in chosen}
    pairs = (
        (known[m.name][1], g) for c in scaled.values() for m, g in zip(c.layer.matrices, c.input_scales, strict=True)
    )
    rounded = sum(before != _Read.from_layout(layout, g) for before, g in pairs)
    what = counted(rounded, "scale of inputs", "scales of inputs")
    told = f"{what} read up to one unit in the last place of float32 off" if rounded else ""
    return tuple(scaled.get(choice.layer.name, choice) for choice in choices), told


def _known(choice: Choice) -> Iterator[tuple[str, tuple[float, _Read]]]:
    """What is stored of the inputs of a layer. Raises CheckpointError for a number that is no scale."""
    source = choice.layer.source
    if isinstance(source, Packed):
        for name, g in source.input_scales.items():
            yield name, (g, _Read.from_layout(source.layout, g))
    elif isinstance(source, PackedSource) and source.inputs:
        divides = source.inputs.convention == "divisor"
        read = _Read.of(np.float32(source.inputs.number(0)), divides=divides)
        for matrix in choice.layer.matrices:
            yield matrix.name, (source.inputs.multiplier(0), read)


def _misplaced(chosen: Sequence[Choice], known: _Known, layout: Target) -> str:
    """Why a layout does not hold the scales of inputs that are known; "" where it does."""
    if layout.input_scale is None:
        return f"the layout {layout.name} has no place for them"
    if not chosen:
        return "no layer that would want one keeps its codes"
    missing = [matrix.name for matrix in _matrices(chosen) if matrix.name not in known]
    return f"not all layers that would want it have one, as {some_of(missing, 1)}" if missing else ""


def _with_peaks(choice: Choice, peaks: dict[str, float], layout: Target) -> Choice:
    divisor = TENSOR_SCALE_DIVISOR if is_nvfp4(choice) else E4M3_MAX
    wanted = (float(tensor_scale(peaks[_group(matrix)], divisor)) for matrix in choice.layer.matrices)
    return replace(choice, input_scales=tuple(agreed_scale(layout, g) for g in wanted))


def is_nvfp4(choice: Choice) -> bool:
    """True for a layer in NVFP4, whose inputs can be quantized like it."""
    return choice.recipe is not None and (choice.recipe.format.element, choice.recipe.format.scale) == ("e2m1", "e4m3")


def _check_activations(choices: Sequence[Choice], layout: Target) -> None:
    if not any(map(is_nvfp4, choices)):
        raise PlanError("activations in four bits go with weights in NVFP4, and no layer here has them")
    if layout.input_scale is None:
        able = ", ".join(other.name for other in LAYOUTS.values() if other.input_scale)
        what = f"the layout {layout.name} has no place for the scales of inputs"
        raise PlanError(what, hint=f"layouts that store activations in four bits: {able}")


def _matrices(choices: Sequence[Choice]) -> Iterator[Matrix]:
    return (matrix for choice in choices for matrix in choice.layer.matrices)


def _group(matrix: Matrix) -> str:
    return matrix.group or f"={matrix.name}"


def _peers(matrix: Matrix) -> tuple[str, str]:
    """What the nearest peers of a matrix have in common, then what others have."""
    return f"{matrix.stack} {_alike(matrix.name)}", _alike(matrix.name)


def _alike(name: str) -> str:
    return _NUMBER.sub("*", name)


def _peaks(choices: Sequence[Choice]) -> _Peaks:
    found: _Peaks = {}
    for choice in choices:
        for matrix in choice.layer.matrices:
            tokens, peak = choice.layer.guide.peak(matrix) if choice.layer.guide else (0, 0.0)
            known = found.get(_group(matrix), (0, 0.0))
            found[_group(matrix)] = max(tokens, known[0]), max(peak, known[1])
    return found


def _lent(choices: Sequence[Choice], peaks: _Peaks) -> dict[str, float]:
    """Group -> the peak that it takes where too little was seen of it."""
    largest: dict[str, float] = defaultdict(float)
    for matrix in _matrices(choices):
        for key in _peers(matrix):
            largest[key] = max(largest[key], peaks[_group(matrix)][1])
    found: dict[str, float] = {}
    for matrix in _matrices(choices):
        tokens, peak = peaks[_group(matrix)]
        if tokens < FEW_TOKENS or not peak:
            of_peers = next((largest[key] for key in _peers(matrix) if largest[key]), 0.0)
            found[_group(matrix)] = max(found.get(_group(matrix), 0.0), peak, of_peers)
    return found


def _with_known(choice: Choice, known: _Known, layout: Target) -> Choice:
    return replace(choice, input_scales=tuple(_agreed(layout, known[m.name][0]) for m in choice.layer.matrices))


def _agreed(layout: Target, g: float) -> float:
    """The multiplier itself where readers of the layout compute it, so that what is stored stays as it is."""
    return g if layout.multiplier(layout.store_scale(g)) == np.float32(g) else agreed_scale(layout, g)


def _told(lent: list[str]) -> Iterator[str]:
    if lent:
        what = f"the inputs of {counted(len(lent), 'matrix', 'matrices')} take the scale of their peers"
        yield f"{what}, as fewer than {FEW_TOKENS} were seen: {some_of(lent, 8)}"
