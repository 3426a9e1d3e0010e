"""Exports of ours, opened: layers as its manifest tells them, with weights that are decoded as they are read."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path

from kernels import METHODS, STORED, STORED_FORMATS, recipe
from studio.core.architectures import Role
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.safetensors import Header, Tensor
from studio.core.errors import CheckpointError
from studio.core.exporting.checks import Check, check_parts
from studio.core.exporting.contents import MANIFEST
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.records import Entry
from studio.core.layouts import Layout
from studio.core.layouts.placement import Placement
from studio.core.model import Layer, Matrix, Model, Source, Stored
from studio.core.names import printable
from studio.core.opening.export_sources import Alternating, Cut, Packed, plus_one
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult
from studio.core.sources.plain import Plain

_STACKED = 3


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
    cut = partial(_cut, divide, cache(partial(_stacks, manifest)))
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


def _cut(divide: Divide, stacks: Callable[[], Shapes], result: LayerResult) -> tuple[Matrix, ...]:
    return divide(result.name, result.shape, stacks() if len(result.shape) == _STACKED else {})[0]


def _stacks(manifest: Manifest) -> Shapes:
    results = (entry.result for entry in manifest.entries())
    return {result.name: result.shape for result in results if len(result.shape) == _STACKED}


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
    if [part.content for part in parts] == ["plus_one"] and parts[0].dtype in WEIGHT_DTYPES:
        return plus_one(stored[parts[0].name])
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
    error = f"relative error {result.rel_err:.4f}" if result.measured else "codes as they were stored"
    figures = f"{result.format}, {result.bits_per_weight:.3g} bits a weight, {error}"
    told = figures if result.quantized else result.reason
    told += f"; inputs in {'FP8' if result.format.startswith('fp8') else 'NVFP4'}" if result.input_scales else ""
    told += f"; stored times 2**{result.lift}" if result.lift else ""
    role: Role = result.role  # type: ignore[assignment]
    return Layer(name, role, result.block, source, matrices, told, stored_lift=result.lift)


def is_exported(model: Model) -> bool:
    """True for an opened export of ours."""
    return any(isinstance(layer.source, Packed) for layer in model.layers)


def check_decodable(model: Model) -> None:
    """Raise CheckpointError for weights that can not be decoded; exports of ours can."""
    if not is_exported(model):
        model.check_plain()


def unlifted(model: Model) -> Model:
    """An export of ours with its layers as they are in its source, where they were lifted; any other as it is."""
    if not any(layer.stored_lift for layer in model.layers):
        return model
    return replace(model, layers=tuple(replace(one, lift=-one.stored_lift) for one in model.layers))


def exported(model: Model) -> Exported | None:
    """What an export of ours says of itself, None for any other checkpoint. Raises CheckpointError when damaged."""
    if not is_exported(model):
        return None
    manifest = Manifest(model.folder)
    by_name = {entry.result.name: entry.result for entry in manifest.entries()}
    exponent = str(manifest.plan.get("exponent", "ceil"))
    rounded = manifest.layout.rounded(model.config)
    choices = tuple(_choice(layer, by_name.get(layer.name), exponent, rounded) for layer in model.layers)
    results = tuple(by_name[choice.layer.name] for choice in choices if choice.layer.name in by_name)
    return Exported(manifest.layout, choices, results, exponent)


def _choice(layer: Layer, result: LayerResult | None, exponent: str, rounded: Collection[str]) -> Choice:
    if isinstance(layer.source, Packed):
        method = result.method if result and result.method in (*METHODS, STORED) else "max"
        own = recipe(layer.source.format.name, "floor" if exponent == "floor" else "ceil", method)
        scales = result.input_scales if result else ()
        return Choice(layer, own, input_scales=scales, rounds_inputs=own.format.name in rounded)
    return Choice(layer, None, result.reason if result else layer.obstacle)
