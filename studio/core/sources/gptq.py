"""GPTQ and AWQ: integers as `qweight`, stored inputs first, with `qzeros` and `scales` per group; auto-round's too."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.declared import OLD_AWQ, OLD_GPTQ, Section
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside, found_or_unread
from studio.core.sources.integers import Integers, group_of
from studio.core.sources.packed import PackedSource
from studio.core.sources.tables import WORD, Along, Down, Packing, Table

CODES, ZEROS, SCALES, ORDER = "qweight", "qzeros", "scales", "g_idx"
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""The nibble of a word in which AWQ has each of its eight codes."""

_WIDTHS = (2, 3, 4, 5, 6, 7, 8)
_AWQ_PACKINGS = {4: Packing(4, AWQ_ORDER), **{bits: Packing(bits, places=AWQ_ORDER) for bits in (5, 6, 7)}}
"""By width. Source: auto_round/export/export_to_awq of auto-round 0.16, bit_packing.py."""

_METHODS = ("gptq", "awq", "auto-round", "intel/auto-round")
_OF_FILES = {OLD_GPTQ: "gptq", OLD_AWQ: "awq"}
_LESS_ONE = {
    "gptq": {"gptq": 1, "gptq_v2": 0},
    "auto-round": {"auto": 1, "auto_round:gptq": 1, "auto_round:auto_gptq": 1}
    | {"auto_round": 0, "auto_round:gptqmodel": 0},
}
"""What is added to stored zeros, by method and form; the first where none is named."""

_FORMS = {
    "gptq": ("checkpoint_format", "format"),
    "awq": ("version", "checkpoint_format", "format"),
    "auto-round": ("packing_format", "backend"),
}
"""The keys of the form, by method, the likeliest first."""

_AWQ_FORMS = ("gemm", "auto", "auto_round:awq", "auto_round:auto_awq")


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    said = next((section for section in sections if _method(section)), None)
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != CODES:
            continue
        others = beside(stored, path, (ZEROS, SCALES, ORDER))
        yield found_or_unread(f"{path}.weight", "GPTQ or AWQ", codes, others, partial(_source, codes, others, said))


def _method(section: Section) -> str:
    """Which of the methods a section describes, or an empty text."""
    named = str(section.content.get("quant_method", _OF_FILES.get(section.place, ""))).lower()
    return named.removeprefix("intel/") if named in _METHODS else ""


def _forms(section: Section, method: str) -> list[str]:
    """All forms that a section names."""
    return [str(form).lower() for key in _FORMS[method] if (form := section.content.get(key))]


def _source(codes: Stored, others: Mapping[str, Stored], said: Section | None) -> PackedSource:
    missing = [part for part in (ZEROS, SCALES) if part not in others]
    if missing:
        raise MissingPartError(f"{CODES} without {' and '.join(missing)}")
    zeros, scales = others[ZEROS], others[SCALES]
    parts = (codes.tensor, zeros.tensor, scales.tensor)
    dtypes = [part.dtype for part in parts]
    if dtypes[:2] != ["I32", "I32"] or dtypes[2] not in WEIGHT_DTYPES:
        raise MisfitError(f"{CODES}, {ZEROS} and {SCALES} of {', '.join(dtypes)}")
    shapes = [part.shape for part in parts]
    if any(len(shape) != 2 or 0 in shape or shape[1] > LONGEST_ROW for shape in shapes) or shapes[1][0] != shapes[2][0]:
        raise MisfitError(_shapes(*parts))
    if codes.tensor.shape[1] == scales.tensor.shape[1]:
        return _gptq(codes, zeros, scales, others.get(ORDER), said)
    return _awq(codes, zeros, scales, said)


def _shapes(*parts: Any) -> str:
    return " with ".join(f"{part.name.rpartition('.')[2]} {list(part.shape)}" for part in parts)


def _gptq(codes: Stored, zeros: Stored, scales: Stored, order: Stored | None, said: Section | None) -> PackedSource:
    (words, rows), (groups, across) = codes.tensor.shape, zeros.tensor.shape
    bits = WORD * across // rows
    columns = words * WORD // bits if bits in _WIDTHS else 0
    if WORD * across != rows * bits or columns * bits != words * WORD or not 0 < columns <= LONGEST_ROW:
        raise MisfitError(_shapes(codes.tensor, zeros.tensor, scales.tensor))
    if order and order.tensor.nbytes == 0:
        order = None
    if order and (order.tensor.dtype, order.tensor.shape) != ("I32", (columns,)):
        raise MisfitError(f"{ORDER} of {order.tensor.dtype} {list(order.tensor.shape)} for {columns} inputs")
    if order is None and groups > 1 and _is_reordered(said):
        raise MissingPartError(f"groups in the order of activations without {ORDER}")
    group = _group(columns, groups, said, ordered=order is not None)
    more, maker = _convention(said)
    packing = Packing(bits)
    along = Along(Table(codes, rows, words, turned=True), packing, columns)
    down = Down(Table(zeros, across, groups, turned=True), packing, rows, more)
    table = Table(scales, rows, groups, turned=True)
    encoding = Integers(
        columns,
        bits,
        group,
        along,
        table,
        down,
        maker,
        order,
        in_order=not _is_reordered(said),
        centred=_is_symmetric(said),
    )
    return as_source(encoding, rows)


def _is_reordered(said: Section | None) -> bool:
    return said is not None and bool(said.content.get("desc_act"))


def _convention(said: Section | None) -> tuple[int, str]:
    """What is added to stored zeros, and who stores them so."""
    method = _method(said) if said else ""
    if said is None or method not in _LESS_ONE:
        raise UnreadError("no config says whether zeros are stored less one")
    form = next(iter(_forms(said, method) or _LESS_ONE[method]))
    if form not in _LESS_ONE[method]:
        raise UnreadError(f"in the form {printable(form)}, which is not read")
    more = _LESS_ONE[method][form]
    return more, ("GPTQ" if more else "GPTQ v2") if method == "gptq" else f"auto-round, GPTQ{'' if more else ' v2'}"


def _awq(codes: Stored, zeros: Stored, scales: Stored, said: Section | None) -> PackedSource:
    (columns, words), (groups, rows) = codes.tensor.shape, scales.tensor.shape
    method = _method(said) if said else ""
    forms = _forms(said, method)[: 1 if method == "auto-round" else None] if said else []
    if odd := [form for form in ([method] if method == "gptq" else forms) if form not in _AWQ_FORMS]:
        kind = MisfitError if method == "gptq" else UnreadError
        raise kind(f"AWQ in the form {printable(odd[0])}, which is not read")
    packing = _AWQ_PACKINGS.get(WORD * words // rows)
    if packing is None or packing.bits * rows != words * WORD or zeros.tensor.shape[1] != words:
        raise MisfitError(_shapes(codes.tensor, zeros.tensor, scales.tensor))
    if rows % packing.together[0] or columns > LONGEST_ROW:
        raise MisfitError(_shapes(codes.tensor, zeros.tensor, scales.tensor))
    maker = "auto-round, AWQ" if method == "auto-round" else "AWQ"
    found = input_first(codes, scales, zeros, packing, _group(columns, groups, said), maker)
    return as_source(replace(found, centred=_is_symmetric(said)), rows)


def input_first(
    codes: Stored, scales: Stored, zeros: Stored | None, packing: Packing, group: int, maker: str, flip: int = 0
) -> Integers:
    """Codes [inputs, words of outputs], scales [groups, outputs] and zeros like codes, or none: then they are zero."""
    (columns, words), (groups, rows) = codes.tensor.shape, scales.tensor.shape
    down = Down(Table(codes, words, columns, turned=True), packing, rows, flip=flip)
    table = Table(scales, rows, groups, turned=True)
    zero = Down(Table(zeros, words, groups, turned=True), packing, rows, flip=flip) if zeros else flip
    return Integers(columns, packing.bits, group, down, table, zero, maker)


def _is_symmetric(said: Section | None) -> bool:
    return said is not None and said.content.get("sym") is True


def as_source(encoding: Integers, rows: int) -> PackedSource:
    """So many rows of integers, kept in the dtype of their scales."""
    return PackedSource(encoding, (rows, encoding.columns), encoding.scales.stored.tensor.dtype)


def _group(columns: int, groups: int, said: Section | None, *, ordered: bool = False) -> int:
    """How many columns share a scale; where an order tells the group of each column, any number does."""
    sizes = [said.content.get(key) for key in ("group_size", "q_group_size")] if said else []
    try:
        return group_of(columns, groups, [size for size in sizes if type(size) is int])
    except UnreadError:
        if not ordered:
            raise
    return -(-columns // groups)
