"""ModelOpt's unified Hugging Face export: NVFP4 with the multiplier g as `weight_scale_2`; Quark names it alike."""

from collections.abc import Iterator, Mapping, Sequence

from studio.core.model import Stored
from studio.core.sources.block_floats import block_float, input_parts, tensor_scale_of, with_inputs
from studio.core.sources.declared import Section, methods
from studio.core.sources.found import Found, Unread, UnreadError, beside
from studio.core.sources.packed import PackedSource
from studio.core.sources.smoothed import INPUT_FACTORS, smoothed

WEIGHT, SCALES, TENSOR_SCALE, INPUT_SCALE = "weight", "weight_scale", "weight_scale_2", "input_scale"
_ATTRIBUTE = f"_{TENSOR_SCALE}"
"""Stacks of experts are attributes of their module, and so are their scales: `gate_up_proj_weight_scale_2`."""

_TWO_IN_ONE = "gate_up_proj"


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    maker = maker_of(sections)
    for name, third in stored.items():
        if not name.endswith(TENSOR_SCALE):
            continue
        stack = name.endswith(_ATTRIBUTE)
        weight = name.removesuffix(_ATTRIBUTE) if stack else name.removesuffix(TENSOR_SCALE) + WEIGHT
        codes, scales = stored.get(weight), stored.get(name.removesuffix("_2"))
        if codes is None or scales is None:
            continue
        others = {} if stack else beside(stored, weight.rpartition(".")[0], (INPUT_FACTORS,))
        parts = (weight, scales.tensor.name, name, *(part.tensor.name for part in others.values()))
        try:
            inputs = None if stack or others else stored.get(name.removesuffix(TENSOR_SCALE) + INPUT_SCALE)
            source = with_inputs(smoothed(_source(codes, scales, third, maker), others), inputs, "multiplier")
            yield Found(weight, source, (*parts, *input_parts(source)))
        except UnreadError as error:
            yield Unread(weight, f"{maker} NVFP4: {error}", parts, error.fault)


def maker_of(sections: Sequence[Section]) -> str:
    """Who stores weights under names that ModelOpt and Quark have in common."""
    return "Quark" if "quark" in methods(sections) else "ModelOpt"


def _source(codes: Stored, scales: Stored, third: Stored, maker: str) -> PackedSource:
    """A stack may be stored with its inputs first; then it has as many rows as it has columns."""
    shape = codes.tensor.shape
    in_order = scales.tensor.shape[:-1] == shape[:-1]
    rows = shape[:-1] if in_order else shape[::2]
    by_half = in_order and codes.tensor.name.endswith(_TWO_IN_ONE)
    tensor_scale = tensor_scale_of(third, "multiplier", rows, by_half=by_half)
    return block_float(codes, scales, tensor_scale, maker=maker, may_turn=True)
