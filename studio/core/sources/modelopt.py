"""ModelOpt's unified Hugging Face export: NVFP4 with the multiplier g as `weight_scale_2`; Quark names it alike."""

from collections.abc import Iterator, Mapping, Sequence

from kernels import FORMATS
from studio.core.model import Stored
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, Unread
from studio.core.sources.in_format import InFormat, TensorScale
from studio.core.sources.packed import PackedSource

WEIGHT, SCALES, TENSOR_SCALE = "weight", "weight_scale", "weight_scale_2"
_UNNEEDED = ("input_scale", "input_scale_2")


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, third in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != TENSOR_SCALE:
            continue
        codes, scales = stored.get(f"{path}.{WEIGHT}"), stored.get(f"{path}.{SCALES}")
        if codes is None or scales is None:
            continue
        unneeded = (f"{path}.{part}" for part in _UNNEEDED if f"{path}.{part}" in stored)
        parts = (codes.tensor.name, scales.tensor.name, name, *unneeded)
        yield nvfp4(codes.tensor.name, codes, scales, TensorScale(third, "multiplier"), parts)


def nvfp4(weight: str, codes: Stored, scales: Stored, third: TensorScale, parts: tuple[str, ...]) -> Found | Unread:
    """Codes uint8 [..., K / 2] with E4M3 scales [..., K / 16] and a tensor scale, if that is what the parts are."""
    *rows, width = codes.tensor.shape or (0,)
    row = FORMATS["nvfp4-3t"]
    wanted = (*rows, 2 * width // row.block)
    dtypes = codes.tensor.dtype, scales.tensor.dtype, third.stored.tensor.dtype
    if dtypes not in (("U8", "F8_E4M3", "F32"), ("U8", "U8", "F32")):
        return Unread(weight, f"codes, scales and tensor scale of {', '.join(dtypes)}", parts)
    if scales.tensor.shape != wanted or 2 * width % row.block or not rows:
        shapes = f"{list(codes.tensor.shape)} with scales {list(scales.tensor.shape)}"
        return Unread(weight, f"NVFP4 codes {shapes}, which should be {list(wanted)}", parts)
    if third.stored.tensor.nbytes != 4:
        return Unread(weight, f"NVFP4 with tensor scales {list(third.stored.tensor.shape)}", parts)
    encoding = InFormat(row, 2 * width, codes, scales, tensor_scale=third)
    return Found(weight, PackedSource(encoding, (*rows, 2 * width)), parts)
