"""Exports of ours, opened: layers as its manifest tells them, with weights that are decoded as they are read."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import METHODS, STORED, STORED_FORMATS, Format, Quantized, recipe
from kernels.backend import Backend
from kernels.machines import choose
from studio.core.containers.dtypes import BITS, WEIGHT_DTYPES
from studio.core.containers.safetensors import Header, Tensor
from studio.core.errors import CheckpointError
from studio.core.exporting.checks import Check, check_parts
from studio.core.exporting.contents import MANIFEST
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import StoredMatrix, read_quantized, stored_scale, usable_multiplier
from studio.core.exporting.records import Entry
from studio.core.layouts import Layout
from studio.core.layouts.placement import Placement, stored_number
from studio.core.model import Layer, Matrix, Model, Source, Stored, Unpacked
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult
from studio.core.running.scratch import Scratch
from studio.core.sources.plain import Plain, read_rows

_STACKED = 3
_AT_ONCE = 1 << 20
"""Weights that are decoded at once where only some columns are wanted."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Matrices that an export holds in a format, see `Source`; rows are decoded to float32.

    multipliers: the tensor scales that its manifest states, input_scales: those of inputs, by matrix.
    """

    stored: Stored
    shape: tuple[int, ...]
    kept_dtype: str
    format: Format
    nbytes: int
    matrices: Mapping[str, StoredMatrix]
    header: Header
    layout: Layout
    own: tuple[Matrix, ...]
    multipliers: Mapping[str, float]
    input_scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """See `Source`."""
        return "F32"

    @property
    def bits(self) -> int:
        """See `Source`."""
        return self.format.bits

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.format.name

    @property
    def scale_dtype(self) -> str:
        """See `Source`."""
        parts = next(iter(self.matrices.values())).parts if self.format.affine else ()
        return next((part.dtype for part in parts if part.content == "scales"), "")

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        if matrix.name in self.matrices:
            decoded: NDArray[np.float32] = _decoder().decode(self.packed(matrix, start, stop))
            return decoded
        return _gathered(self.rows, self.own, np.dtype(np.float32), matrix, start, stop)

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`."""
        own = self.matrices[matrix.name]
        return read_quantized(self.stored.file, self.header, self.layout, own, start, stop)

    def multiplier(self, matrix: Matrix) -> float:
        """See `Source.multiplier`: what the manifest says, as long as that is what is stored."""
        numbers = (part for part in self.matrices[matrix.name].parts if part.content in ("tensor_scale", "multiplier"))
        part = next(numbers, None)
        if part is None or not self.format.tensor_scale:
            return 1.0
        stored = stored_scale(self.stored.file, self.header, part)
        said = self.multipliers.get(matrix.name, 0.0)
        if said > 0 and stored_number(self.layout, part.content, said) == stored:
            return said
        return float(usable_multiplier(self.layout, stored, self.stored.file, part))


@dataclass(frozen=True, slots=True)
class _Pieces(Unpacked):
    """A kept weight of `shape` that lies in pieces, by name, see `Source`."""

    shape: tuple[int, ...]
    pieces: Mapping[str, Stored]

    @property
    def stored(self) -> Stored:
        """See `Source`: the first piece, of a dtype that says that it is not all."""
        first = next(iter(self.pieces.values()))
        tensor = replace(first.tensor, dtype=f"{self.dtype} in {len(self.pieces):,} pieces")
        return replace(first, tensor=tensor)

    @property
    def dtype(self) -> str:
        """See `Source`."""
        return next(iter(self.pieces.values())).tensor.dtype

    @property
    def kept_dtype(self) -> str:
        """See `Source`."""
        return self.dtype

    @property
    def bits(self) -> int:
        """See `Source`."""
        return BITS[self.dtype]

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return sum(piece.tensor.nbytes for piece in self.pieces.values())

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.stored.tensor.dtype


@dataclass(frozen=True, slots=True)
class Cut(_Pieces):
    """Matrices that lie apart, each in rows of its own, which are the pieces by the names of these."""

    own: tuple[Matrix, ...]

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """See `Source.rows`."""
        if piece := self.pieces.get(matrix.name):
            return read_rows(piece, Matrix("", matrix.rows, matrix.columns), start, stop, scratch)
        return _gathered(self.rows, self.own, WEIGHT_DTYPES[self.dtype], matrix, start, stop)


@dataclass(frozen=True, slots=True)
class Alternating(_Pieces):
    """Rows whose values alternate between those of the pieces "even" and "odd"."""

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """See `Source.rows`."""
        half = Matrix("", matrix.rows, matrix.columns // 2)
        found = np.empty((stop - start, matrix.columns), WEIGHT_DTYPES[self.dtype])
        for place, piece in enumerate((self.pieces["even"], self.pieces["odd"])):
            found[:, place::2] = read_rows(piece, half, start, stop, scratch)
        return found


def _gathered(
    rows: Callable[[Matrix, int, int], NDArray[Any]],
    own: Sequence[Matrix],
    dtype: "np.dtype[Any]",
    whole: Matrix,
    start: int,
    stop: int,
) -> NDArray[Any]:
    """Rows of a layer as one matrix, in stored order, from the `rows` of its matrices."""
    found = np.empty((stop - start, whole.columns), dtype)
    for one in own:
        row, column = divmod(one.first, whole.columns)
        if one.column_step == 1:
            step = (one.row_step or one.columns) // whole.columns
            some = range(*_inside(row, one.rows, step, start, stop))
            if some:
                found[row + some.start * step - start :: step][: len(some)] = rows(one, some.start, some.stop)
        else:
            _turn(found, rows, one, column, *_inside(row, one.columns, 1, start, stop), row - start)
    return found


def _turn(
    out: NDArray[Any],
    rows: Callable[[Matrix, int, int], NDArray[Any]],
    own: Matrix,
    column: int,
    low: int,
    high: int,
    shift: int,
) -> None:
    """Write columns `low` .. `high` of a matrix that was stored [inputs, outputs] as rows of `out`."""
    height = max(_AT_ONCE // own.columns, 1)
    for start in range(0, own.rows if low < high else 0, height):
        stop = min(start + height, own.rows)
        places = column + np.arange(start, stop) * own.row_step
        out[low + shift : high + shift, places] = rows(own, start, stop)[:, low:high].T


def _inside(first: int, count: int, step: int, start: int, stop: int) -> tuple[int, int]:
    """Which of `count` places, `step` apart from `first` on, lie in `start` .. `stop`."""
    return max(-(-(start - first) // step), 0), min(-(-(stop - first) // step), count)


@cache
def _decoder() -> Backend:
    return choose("cpu")


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export of ours says of itself: its layout, and what was chosen and found for each layer of the model."""

    layout: Layout
    choices: tuple[Choice, ...]
    results: tuple[LayerResult, ...]
    exponent: str


def is_export(folder: Path) -> bool:
    """True for a folder with a manifest of ours, whatever it says."""
    return (folder / MANIFEST).is_file()


Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of weights by the names of their layers."""

Divide = Callable[[str, tuple[int, ...], Shapes], tuple[tuple[Matrix, ...], str]]
"""The matrices of a tensor of this name (without `.weight`) and shape, told by those of others; or none and why."""


def exported_layers(folder: Path, stored: Mapping[str, Stored], divide: Divide) -> tuple[str, tuple[Layer, ...]]:
    """What quantized an export of ours, and its layers in the order of its manifest, cut into matrices by `divide`.

    Nothing where all its weights are plain, as its tensors tell then what it is.

    Raises CheckpointError when the manifest is damaged, or is not that of these tensors.
    """
    manifest = Manifest(folder)
    headers: dict[str, Header] = {}
    for item in stored.values():
        headers.setdefault(item.file.path.name, Header({}, {})).tensors[item.tensor.name] = item.tensor
    layers: list[Layer] = []
    left = set(stored)
    results = (entry.result for entry in manifest.entries())
    stacks = {result.name: result.shape for result in results if len(result.shape) == _STACKED}
    cut = partial(_cut, divide, stacks)
    for entry in manifest.entries():
        header = headers.get(entry.shard, Header({}, {}))
        check = Check(entry.result, entry.matrices, entry.kept, None)
        check_parts(check, header, folder / entry.shard)
        left.difference_update(part.name for part in check.parts)
        layers += _layers(entry, stored, header, manifest.layout, cut)
    if left:
        raise CheckpointError(f"does not know the tensor {printable(min(left))}", file=folder / MANIFEST)
    if not any(isinstance(layer.source, Packed) for layer in layers):
        return "", ()
    formats = sorted({layer.source.format.name for layer in layers if isinstance(layer.source, Packed)})
    return f"by NVFP4 Studio, layout {manifest.layout.name}, {', '.join(formats)}", tuple(layers)


CutInto = Callable[[LayerResult], tuple[Matrix, ...]]
"""The matrices of a layer, as the architecture has them."""


def _cut(divide: Divide, stacks: Shapes, result: LayerResult) -> tuple[Matrix, ...]:
    return divide(result.name, result.shape, stacks)[0]


def _layers(
    entry: Entry, stored: Mapping[str, Stored], header: Header, layout: Layout, cut: CutInto
) -> Iterator[Layer]:
    result = entry.result
    if not entry.matrices:
        yield from _kept_layers(entry, stored, cut(entry.result))
        return
    codes = next(part.name for part in entry.matrices[0].parts if part.content == "codes")
    named = {matrix.name: matrix for matrix in entry.matrices}
    kept_dtype = result.dtype if result.dtype in WEIGHT_DTYPES else "BF16"
    row, nbytes = STORED_FORMATS[result.format], result.nbytes_out
    own = _matrices(entry, cut(entry.result))
    multipliers = dict(zip(named, result.tensor_scales, strict=False))
    inputs = dict(zip(named, result.input_scales, strict=False))
    parts = (kept_dtype, row, nbytes, named, header, layout, own, multipliers, inputs)
    source = Packed(stored[codes], result.shape, *parts)
    yield replace(_layer(result, result.name, source, own), weight=_weight_name(result))


def _kept_layers(entry: Entry, stored: Mapping[str, Stored], own: tuple[Matrix, ...]) -> Iterator[Layer]:
    """A kept layer with its matrices; a layer a piece where it was cut and changed in a way that is not undone."""
    result = entry.result
    if source := _kept_source(entry, stored, own):
        part = entry.kept[0]
        ending = ".weight" if part.name.endswith(".weight") else ""
        weight = f"{result.name}{ending}" if part.content != "rows" else _weight_name(result)
        yield replace(_layer(result, result.name, source, own if source.dtype in WEIGHT_DTYPES else ()), weight=weight)
        return
    whole = len(entry.kept) == 1
    for part in entry.kept:
        name = result.name if whole else part.name.removesuffix(".weight")
        yield _layer(result, name, Plain(stored[part.name]), ())


def _kept_source(entry: Entry, stored: Mapping[str, Stored], own: Sequence[Matrix]) -> Source | None:
    """The weights of a kept layer in the shape that they have in the source; None where that is not undone."""
    shape, parts = entry.result.shape, entry.kept
    if [part.content for part in parts] == ["raw"]:
        found = stored[parts[0].name]  # a convolution may lie there in another shape of the same bytes
        same = math.prod(found.tensor.shape) == math.prod(shape)
        return Plain(replace(found, tensor=replace(found.tensor, shape=shape))) if same else None
    if [part.content for part in parts] == ["even", "odd"] and parts[0].dtype in WEIGHT_DTYPES:
        return Alternating(shape, {part.content: stored[part.name] for part in parts})
    cut = {part.content for part in parts} == {"rows"} and len(parts) == len(own)
    if not cut or parts[0].dtype not in WEIGHT_DTYPES:
        return None
    pieces = {matrix.name: _piece(stored[part.name], part, matrix) for matrix, part in zip(own, parts, strict=True)}
    if len(own) == 1 and own[0].is_contiguous:
        return Plain(pieces[own[0].name])
    return Cut(shape, pieces, tuple(own))


def _piece(stored: Stored, part: Placement, matrix: Matrix) -> Stored:
    shape = (matrix.rows, matrix.columns)
    tensor = Tensor(f"{part.name}[{matrix.name}]", part.dtype, shape, stored.tensor.start + part.offset, part.nbytes)
    return replace(stored, tensor=tensor)


def _weight_name(result: LayerResult) -> str:
    """The name of the tensor in a plain checkpoint: that of a fused stack of experts is the name itself."""
    fused = len(result.shape) == _STACKED and result.name.rpartition(".")[0].endswith("experts")
    return result.name if fused else f"{result.name}.weight"


def _matrices(entry: Entry, found: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
    """The matrices of a layer as the architecture has them; as the manifest lists them where it is of another one."""
    said = [(matrix.name, matrix.rows, matrix.columns) for matrix in entry.matrices]
    if [(matrix.name, matrix.rows, matrix.columns) for matrix in found] == said:
        return found
    firsts = accumulate((matrix.rows * matrix.columns for matrix in entry.matrices), initial=0)
    return tuple(Matrix(*one, first) for one, first in zip(said, firsts, strict=False))


def _layer(result: LayerResult, name: str, source: Source, matrices: tuple[Matrix, ...]) -> Layer:
    figures = f"{result.format}, {result.bits_per_weight:.3g} bits a weight, relative error {result.rel_err:.4f}"
    told = figures if result.quantized else result.reason
    told += "; inputs in NVFP4" if result.input_scales else ""
    told += f"; stored times 2**{result.lift}" if result.lift else ""
    return Layer(name, result.role, result.block, source, matrices, told)  # type: ignore[arg-type]


def is_exported(model: Model) -> bool:
    """True for an opened export of ours."""
    return any(isinstance(layer.source, Packed) for layer in model.layers)


def check_decodable(model: Model) -> None:
    """Raise CheckpointError for weights that can not be decoded; exports of ours can."""
    if not is_exported(model):
        model.check_plain()


def unlifted(model: Model) -> tuple[Model, frozenset[str]]:
    """An export of ours with its layers as they are in its source, where they were lifted; any other as it is.

    And the names of those whose values are stored changed for a runtime, which are not turned back.
    """
    if not is_exported(model):
        return model, frozenset()
    entries = list(Manifest(model.folder).entries())
    lifts = {entry.result.name: entry.result.lift for entry in entries if entry.result.lift}
    edited = frozenset(e.result.name for e in entries for part in e.kept if part.content == "plus_one")
    layers = tuple(replace(one, lift=-lifts[one.name]) if one.name in lifts else one for one in model.layers)
    return replace(model, layers=layers), edited


def exported(model: Model) -> Exported | None:
    """What an export of ours says of itself, None for any other checkpoint. Raises CheckpointError when damaged."""
    if not is_exported(model):
        return None
    manifest = Manifest(model.folder)
    by_name = {entry.result.name: entry.result for entry in manifest.entries()}
    exponent = str(manifest.plan.get("exponent", "ceil"))
    choices = tuple(_choice(layer, by_name.get(layer.name), exponent) for layer in model.layers)
    results = tuple(by_name[choice.layer.name] for choice in choices if choice.layer.name in by_name)
    return Exported(manifest.layout, choices, results, exponent)


def _choice(layer: Layer, result: LayerResult | None, exponent: str) -> Choice:
    if isinstance(layer.source, Packed):
        method = result.method if result and result.method in (*METHODS, STORED) else "max"
        own = recipe(layer.source.format.name, "floor" if exponent == "floor" else "ceil", method)
        return Choice(layer, own, input_scales=result.input_scales if result else ())
    return Choice(layer, None, result.reason if result else layer.obstacle)
