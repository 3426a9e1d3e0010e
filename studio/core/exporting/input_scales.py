"""Input scales: how large the inputs of every layer in NVFP4 become, where runtimes are to quantize these too."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from kernels.reference import tensor_scale
from studio.core.counting import counted
from studio.core.errors import PlanError
from studio.core.exporting.shard_writer import agreed_scale
from studio.core.layouts import LAYOUTS, Target
from studio.core.model import Matrix
from studio.core.names import some_of
from studio.core.opening.exports import Packed
from studio.core.planning.plan import Choice

FEW_TOKENS = 64
"""Inputs fewer than these do not tell how large others become."""

_NUMBER = re.compile(r"\d+")
_CALIBRATE = "gather statistics: nvfp4-studio calibrate SRC --out FILE, then --statistics FILE"
_Peaks = dict[str, tuple[int, float]]
"""Fused group or matrix -> tokens seen, largest magnitude."""


def with_input_scales(choices: Sequence[Choice], layout: Target) -> tuple[tuple[Choice, ...], list[str]]:
    """The choices with a scale for the inputs of every layer in NVFP4, and a sentence on what takes that of its peers.

    A scale is that of the largest input seen, equal over a fused group, as readers of the layout compute it. Peers of
    an expert are those of its stack; if they tell nothing, and for other layers, those of the same name in other
    blocks. Raises PlanError where the layout has no place for it, nothing takes one, or nothing is known.
    """
    _check_layout(layout)
    chosen = [choice for choice in choices if takes_input_scale(choice)]
    if not chosen:
        raise PlanError("activations in four bits go with weights in NVFP4, and no layer here has them")
    peaks = _peaks(chosen)
    if not any(peak for _, peak in peaks.values()):
        what = "activations in four bits need the largest inputs of layers, which are not known"
        raise PlanError(what, hint=_CALIBRATE)
    lent = _lent(chosen, peaks)
    known = {group: lent.get(group, peak) for group, (_, peak) in peaks.items()}
    for matrix in _matrices(chosen):
        if not known[_group(matrix)]:
            what = "nothing is known of its inputs, nor of those of its peers"
            raise PlanError(what, tensor=matrix.name, hint=f"--exclude it, or {_CALIBRATE}")
    scales = {group: agreed_scale(layout, float(tensor_scale(peak))) for group, peak in known.items()}
    names = [matrix.name for matrix in _matrices(chosen) if _group(matrix) in lent]
    return tuple(_with_scales(choice, scales) for choice in choices), list(_told(names))


def carried_over(choices: Sequence[Choice], layout: Target) -> tuple[tuple[Choice, ...], str]:
    """The choices of a conversion with the scales of inputs that an export of ours has; or why none of them has any.

    All layers in NVFP4 have one, or none has: readers take it of every layer.
    """
    known = {
        name: g
        for c in choices
        if isinstance(c.layer.source, Packed)
        for name, g in c.layer.source.input_scales.items()
    }
    chosen = [choice for choice in choices if takes_input_scale(choice)]
    if not known or not chosen:
        return tuple(choices), ""
    why = "" if layout.input_scale else f"the layout {layout.name} has no place for them"
    if not why and any(matrix.name not in known for matrix in _matrices(chosen)):
        why = "not all layers that are in NVFP4 now have one"
    if why:
        return tuple(choices), f"scales of inputs are left out, which then stay as they are: {why}"
    scales = {_group(matrix): agreed_scale(layout, known[matrix.name]) for matrix in _matrices(chosen)}
    return tuple(_with_scales(choice, scales) for choice in choices), ""


def takes_input_scale(choice: Choice) -> bool:
    """True for a layer in NVFP4, whose inputs can be quantized like it."""
    return choice.recipe is not None and (choice.recipe.format.element, choice.recipe.format.scale) == ("e2m1", "e4m3")


def _check_layout(layout: Target) -> None:
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


def _with_scales(choice: Choice, scales: dict[str, float]) -> Choice:
    if not takes_input_scale(choice):
        return choice
    return replace(choice, input_scales=tuple(scales[_group(matrix)] for matrix in choice.layer.matrices))


def _told(lent: list[str]) -> Iterator[str]:
    if lent:
        what = f"the inputs of {counted(len(lent), 'matrix', 'matrices')} take the scale of their peers"
        yield f"{what}, as fewer than {FEW_TOKENS} were seen: {some_of(lent, 8)}"
