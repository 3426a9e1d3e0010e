"""MX formats under the names of plain weights: codes of four bits with a scale of exponents beside them.

ModelOpt and Quark store MXFP4 as U8, DeepSeek V4 as I8, which dtype and shape of the scale tell from integers.
"""

from collections.abc import Iterator, Mapping, Sequence

from studio.core.model import Stored
from studio.core.sources.block_floats import block_float
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, Unread, UnreadError
from studio.core.sources.modelopt import maker_of
from studio.core.sources.scale_names import scale_names
from studio.core.sources.scales import EXPONENTS

_CODES = ("U8", "I8")


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`; what is no such pair is left to others."""
    makers = {"U8": maker_of(sections), "I8": "DeepSeek"}
    for name, codes in stored.items():
        if codes.tensor.dtype not in _CODES or len(codes.tensor.shape) < 2:
            continue
        known = [other for other in scale_names(name) if other in stored]
        if len(known) != 1 or stored[known[0]].tensor.dtype not in EXPONENTS:
            continue
        parts = (name, known[0])
        try:
            source = block_float(codes, stored[known[0]], maker=makers[codes.tensor.dtype], may_turn=True)
        except UnreadError:
            continue
        if source.format is not None:
            yield Found(name, source, parts)
