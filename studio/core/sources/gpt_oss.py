"""gpt-oss: MXFP4 as `_blocks` and `_scales`, stored [experts, out, in] for weights that are [experts, in, out]."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from kernels import FORMATS
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.block_floats import check_rows
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, MisfitError, Unread, found_or_unread
from studio.core.sources.in_format import InFormat
from studio.core.sources.packed import PackedSource
from studio.core.sources.scales import EXPONENTS

CODES, SCALES = "_blocks", "_scales"


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, codes in stored.items():
        weight = name.removesuffix(CODES)
        scales = stored.get(weight + SCALES) if weight != name else None
        if scales is None or codes.tensor.dtype != "U8":
            continue
        yield found_or_unread(weight, "gpt-oss", codes, {SCALES: scales}, partial(_source, codes, scales))


def _source(codes: Stored, scales: Stored) -> PackedSource:
    """The codes of a block of 32 have a dimension of their own."""
    row, shape = FORMATS["mxfp4"], codes.tensor.shape
    fits = len(shape) == 4 and shape[3] == row.block // 2 and shape[:3] == scales.tensor.shape and all(shape)
    if not fits or scales.tensor.dtype not in EXPONENTS:
        found = f"{printable(list(shape))} with {scales.tensor.dtype} {printable(list(scales.tensor.shape))}"
        raise MisfitError(f"blocks {found}")
    experts, outputs, blocks, _ = shape
    encoding = InFormat(row, blocks * row.block, codes, scales, maker="gpt-oss")
    check_rows(encoding, (outputs, encoding.columns))
    return PackedSource(encoding, (experts, encoding.columns, outputs), turned=True)
