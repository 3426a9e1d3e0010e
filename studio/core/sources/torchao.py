"""torchao's NVFP4: parts named after the attributes of its tensors, scales in the tiles that tensor cores want."""

from collections.abc import Iterator, Mapping, Sequence

from kernels import FORMATS
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.block_floats import block_float, check_rows, tensor_scale_of
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, Unread, UnreadError
from studio.core.sources.in_format import InFormat
from studio.core.sources.orders import Tiled
from studio.core.sources.packed import PackedSource

CODES, SCALES, TENSOR_SCALE = "_weight_qdata", "_weight_scale", "_weight_per_tensor_scale"
_MAKER = "torchao"


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != CODES:
            continue
        scales, third = (stored.get(f"{path}.{part}") for part in (SCALES, TENSOR_SCALE))
        parts = (name, *(part.tensor.name for part in (scales, third) if part))
        try:
            yield Found(f"{path}.weight", _source(codes, scales, third), parts)
        except UnreadError as error:
            yield Unread(f"{path}.weight", f"torchao: {error}", parts)


def _source(codes: Stored, scales: Stored | None, third: Stored | None) -> PackedSource:
    if scales is None:
        raise UnreadError("codes without scales")
    *rows, width = codes.tensor.shape or (0,)
    tensor_scale = tensor_scale_of(third, "multiplier", rows) if third else None
    if scales.tensor.shape[:-1] == tuple(rows):
        return block_float(codes, scales, tensor_scale, maker=_MAKER)
    row = FORMATS["nvfp4-3t" if tensor_scale else "nvfp4-2t"]
    if len(rows) != 1 or scales.tensor.shape != _in_tiles(rows[0], 2 * width // row.block) or 2 * width % row.block:
        shapes = f"{printable(list(codes.tensor.shape))} with scales {printable(list(scales.tensor.shape))}"
        raise UnreadError(f"codes {shapes}, which lie neither in rows nor in tiles")
    if (codes.tensor.dtype, scales.tensor.dtype) != ("U8", "F8_E4M3") or not rows[0]:
        raise UnreadError(f"codes of {codes.tensor.dtype} with scales of {scales.tensor.dtype}")
    tiled = InFormat(row, 2 * width, codes, scales, tensor_scale=tensor_scale, maker=_MAKER, scale_order=Tiled())
    check_rows(tiled, (*rows, 2 * width))
    return PackedSource(tiled, (*rows, 2 * width))


def _in_tiles(rows: int, blocks: int) -> tuple[int, int]:
    """The shape in which torchao stores the tiles of rows x blocks scales."""
    return 32 * -(-rows // 128), 16 * -(-blocks // 4)
