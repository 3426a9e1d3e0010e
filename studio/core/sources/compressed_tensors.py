"""compressed-tensors: block floats as `weight_packed`, NVFP4 with the divisor 1 / g; auto-round stores them alike."""

from collections.abc import Iterator, Mapping, Sequence

from studio.core.model import Stored
from studio.core.sources.block_floats import block_float, input_parts, tensor_scale_of, with_inputs
from studio.core.sources.declared import Section, formats, methods
from studio.core.sources.found import Found, MissingPartError, Unread, UnreadError
from studio.core.sources.packed import PackedSource

CODES, SCALES, TENSOR_SCALE = "weight_packed", "weight_scale", "weight_global_scale"
INPUT_SCALE = "input_global_scale"
_OTHER_MAKER = "auto-round"
_E5M3 = "e5m3"


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    maker = _OTHER_MAKER if _OTHER_MAKER in methods(sections) else "compressed-tensors"
    e5m3 = any(_E5M3 in name for name in formats(sections))
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        scales = stored.get(f"{path}.{SCALES}") if leaf == CODES else None
        if scales is None or codes.tensor.dtype != "U8":
            continue
        third = stored.get(f"{path}.{TENSOR_SCALE}")
        parts = (name, *(part.tensor.name for part in (scales, third) if part))
        try:
            inputs = stored.get(f"{path}.{INPUT_SCALE}") if third else None
            source = with_inputs(_source(codes, scales, third, maker, e5m3=e5m3), inputs, "divisor")
            yield Found(f"{path}.weight", source, (*parts, *input_parts(source)))
        except UnreadError as error:
            yield Unread(f"{path}.weight", f"{maker}: {error}", parts, error.fault)


def _source(codes: Stored, scales: Stored, third: Stored | None, maker: str, *, e5m3: bool) -> PackedSource:
    if e5m3 and scales.tensor.dtype == "U8" and 8 * scales.tensor.nbytes == codes.tensor.nbytes:
        raise UnreadError("NVFP4 with scales of E5M3, which are not read")
    if third is None and scales.tensor.dtype == "F8_E4M3":
        raise MissingPartError(f"NVFP4 without its {TENSOR_SCALE}")
    tensor_scale = tensor_scale_of(third, "divisor", codes.tensor.shape[:-1]) if third else None
    return block_float(codes, scales, tensor_scale, maker=maker)
