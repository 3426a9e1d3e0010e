"""MLX and mlx-lm: uint32 codes, tensor scale stored as A = max|W|, experts stacked, overrides in the config."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels import FORMATS, STORED_FORMATS, Format
from kernels.formats import TENSOR_SCALE_DIVISOR
from studio.core.architectures import base_name, renamed
from studio.core.architectures.family import pattern
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.fitting import kept, named, with_format
from studio.core.layouts.placement import Content, InputScale, Placement, nearest_stored, unsupported
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice
from studio.core.resources import resources
from studio.core.sources.in_format import multiplier_of
from studio.core.sources.mlx import BIASES, SCALES, TENSOR_SCALE, WEIGHT

MODEL_FILE = "nvfp4_three_tiers.py"
_SETTINGS = ("group_size", "bits", "mode")
_TWO_TIERS = "nvfp4-2t"


class Mlx:
    """See `Layout`."""

    name = "mlx"
    title = "MLX"
    formats = tuple(name for name, row in STORED_FORMATS.items() if row.in_mlx)
    metadata: Mapping[str, str] = MappingProxyType({"format": "mlx"})
    scale_convention = "global_scale = max|W| (amax); readers multiply by global_scale / 2688"
    readers: tuple[str, ...] = ("mlx-lm", "mlx-vlm")
    joins = False
    input_scale: InputScale | None = None
    static_inputs: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    def fit(self, model: Model, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """See `Layout.fit`: what mlx-lm drops or takes apart stays plain, what it joins has two tiers."""
        names = model.family.mlx
        plain = "mlx-lm takes it apart while loading, which it can do with plain weights only"
        joined = "mlx-lm joins it with others, which then can not have a tensor scale each"
        unused = "config.json says that the embedding is the head, and mlx-lm drops this one"
        found = tuple(choices)
        if model.is_tied:
            found = tuple(kept(c, unused) if c.recipe and c.layer.role == "head" else c for c in found)
        if names.keep:
            found = tuple(kept(choice, plain) if named(choice, names.keep) else choice for choice in found)
        if names.two_tiers:
            found = tuple(
                with_format(c, _TWO_TIERS, joined) if named(c, names.two_tiers) and _has_scale(c) else c for c in found
            )
        return found

    def refusals(self, model: Model, choices: Sequence[Choice], reader: str) -> list[str]:
        """See `Layout.refusals`: experts of one stack must be complete and alike, names must not be settings."""
        if model.family.mlx.refused and reader == "mlx-lm" and any(choice.recipe for choice in choices):
            return [model.family.mlx.refused]
        taken = (matrix.name for choice in choices if choice.recipe for matrix in choice.layer.matrices)
        sentences = unsupported(self, choices)
        sentences += [f"a layer is called {name}, as a setting of mlx-lm is" for name in taken if name in _SETTINGS]
        for (stack, projection), experts in model.stacks.items() if model.family.mlx.stack else ():
            if not experts.is_whole:
                sentences.append(f"{stack}: experts are missing, the stack of {projection} can not be written")
            if not experts.is_even or not _are_alike([choices[place] for place in experts.places]):
                sentences.append(f"{stack}: the experts of {projection} must all have one format and shape")
        return sentences

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        found = []
        if any(map(_has_scale, choices)):
            found.append(
                "three tiers in mlx-lm: load(folder, trust_remote_code=True) runs the model file of this export"
            )
        if wide := _odd_scale_dtypes(choices):
            found.append(
                f"scales in {' and '.join(wide)}, which no other weights have: mlx-lm then computes in float32"
            )
        if any(choice.recipe and choice.layer.role in ("router", "gate") for choice in choices):
            found.append("quantized routers and gates load only where mlx-lm has plain linear layers for them")
        return found

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        path, expert, count = module_of(model, matrix)
        rows, columns = matrix.rows, matrix.columns
        scale_dtype = layer.kept_dtype if row.affine else "U8"
        scale_size = {"F32": 4, "U8": 1}.get(scale_dtype, 2)

        def part(content: Content, name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> Placement:
            stacked = shape if expert is None else (count, *shape)
            return Placement(content, f"{path}.{name}", dtype, stacked, nbytes, (expert or 0) * nbytes)

        blocks = (rows, columns // row.block)
        parts = [
            part("codes", WEIGHT, "U32", (rows, columns * row.bits // 32), rows * columns * row.bits // 8),
            part("scales", SCALES, scale_dtype, blocks, rows * blocks[1] * scale_size),
        ]
        if row.affine:
            parts.append(part("biases", BIASES, scale_dtype, blocks, rows * blocks[1] * scale_size))
        if row.tensor_scale:
            parts.append(part("tensor_scale", TENSOR_SCALE, "F32", (), 4))
        return parts

    def place_kept(self, model: Model, layer: Layer) -> list[Placement]:
        """See `Layout.place_kept`: kept experts go into the stacks that mlx-lm has for them, too."""
        matrices = layer.matrices
        if matrices and (matrices[0].expert is not None or not matrices[0].is_contiguous):
            return [_kept_matrix(model, layer, matrix) for matrix in matrices]
        names, base = model.family.mlx, base_name(layer.weight_name)
        for text, projections in names.bias:
            if found := pattern(text).search(base):
                return _split_biases(model, layer, found[1], projections)
        content: Content = "plus_one" if names.plus_one and pattern(names.plus_one).search(base) else "raw"
        shape = layer.shape
        if names.moved and pattern(names.moved).search(base) and len(shape) == 3 and shape[1] == 1:
            shape = (shape[0], shape[2], 1)
        name = renamed(base, names.stored) + layer.weight_name[len(base) :]
        return [Placement(content, name, layer.kept_dtype, shape, layer.kept_nbytes)]

    def store_scale(self, g: float) -> np.float32:
        """See `Layout.store_scale`."""
        return nearest_stored(g * TENSOR_SCALE_DIVISOR, g, self.multiplier)

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Layout.multiplier`."""
        return np.float32(multiplier_of(float(stored), "amax"))

    def rounded(self, _config: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Layout.rounded`."""
        return ()

    def documents(self, model: Model, choices: Sequence[Choice]) -> dict[str, bytes]:
        """config.json with its overrides and, for three tiers, the model file that mlx-lm runs."""
        config = exported_config(model)
        quantization = _quantization(model, choices)
        files = {}
        if any(map(_has_scale, choices)):
            config["model_file"] = MODEL_FILE
            files[MODEL_FILE] = (resources() / "mlx" / MODEL_FILE).read_bytes()
        config |= {"quantization": quantization, "quantization_config": quantization}
        return {**files, "config.json": json_document(config)}


def _has_scale(choice: Choice) -> bool:
    return choice.recipe is not None and choice.recipe.format.tensor_scale


def _scale_dtype(choice: Choice) -> str:
    return choice.layer.kept_dtype if choice.recipe and choice.recipe.format.affine else ""


def _odd_scale_dtypes(choices: Sequence[Choice]) -> list[str]:
    """Dtypes of scales that are handed on as they are stored, in which no kept layer is."""
    kept = {choice.layer.kept_dtype for choice in choices if choice.recipe is None} & WEIGHT_DTYPES.keys()
    scales = {_scale_dtype(choice) for choice in choices if choice.taken_over} - {""}
    return sorted(scales - (kept or {"BF16", "F16"}))


def _are_alike(choices: Sequence[Choice]) -> bool:
    """True where all have one format, and scales of one dtype."""
    first = choices[0]
    if all(choice.recipe is first.recipe for choice in choices) and not (first.recipe and first.recipe.format.affine):
        return True
    return len({(choice.format, _scale_dtype(choice)) for choice in choices}) == 1


def module_of(model: Model, matrix: Matrix) -> tuple[str, int | None, int]:
    """(module path as stored, place in its stack or None, height of the stack) of a matrix."""
    names = model.family.mlx
    if matrix.expert is None or not names.stack:
        return renamed(matrix.name, names.stored), None, 1
    path = _stacked(model, matrix.stack, matrix.projection)
    return path, matrix.expert, model.stack_heights[matrix.stack, matrix.projection]


def _stacked(model: Model, stack: str, projection: str) -> str:
    names = model.family.mlx
    inside = dict(names.projections).get(projection, projection)
    return renamed(names.stack.format(stack=stack, projection=inside), names.stored)


def _kept_matrix(model: Model, layer: Layer, matrix: Matrix) -> Placement:
    path, expert, count = module_of(model, matrix)
    size = layer.kept_nbytes // layer.count * matrix.rows * matrix.columns
    shape = (matrix.rows, matrix.columns)
    stacked = shape if expert is None else (count, *shape)
    return Placement("rows", f"{path}.weight", layer.kept_dtype, stacked, size, (expert or 0) * size)


def _split_biases(model: Model, layer: Layer, stack: str, projections: Sequence[str]) -> list[Placement]:
    """The biases [experts, outputs] of the projections of a stack; outputs of two alternate."""
    contents: tuple[Content, ...] = ("raw",) if len(projections) == 1 else ("even", "odd")
    experts, outputs = layer.shape
    shape, nbytes = (experts, outputs // len(projections)), layer.kept_nbytes // len(projections)
    return [
        Placement(content, f"{_stacked(model, stack, projection)}.bias", layer.kept_dtype, shape, nbytes)
        for content, projection in zip(contents, projections, strict=True)
    ]


def parameters(row: Format) -> dict[str, Any]:
    """What the section of a config says of a format."""
    mode = "affine" if row.affine else row.name.split("-")[0]
    return {"group_size": row.block, "bits": row.bits, "mode": mode}


def _quantization(model: Model, choices: Sequence[Choice]) -> dict[str, Any]:
    """The settings of most layers, and an override for every other one under the name that each reader gives it."""
    used = Counter(choice.recipe.format for choice in choices if choice.recipe)
    common = parameters(max(used, key=lambda row: used[row], default=FORMATS[_TWO_TIERS]))
    section = dict(common)
    for choice in choices:
        for matrix in choice.layer.matrices if choice.recipe else ():
            assert choice.recipe is not None
            own = parameters(choice.recipe.format)
            if own != common:
                path = module_of(model, matrix)[0]
                section |= dict.fromkeys((path, renamed(path, model.family.mlx.module)), own)
    return section
