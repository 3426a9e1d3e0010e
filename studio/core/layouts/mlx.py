"""MLX and mlx-lm: uint32 codes, tensor scale stored as A = max|W|, experts stacked, overrides in the config."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels import FORMATS, Format
from kernels.formats import TENSOR_SCALE_DIVISOR
from studio.core.layouts.documents import config_without_quantization, json_document
from studio.core.layouts.placement import Content, Placement, raw, text_section
from studio.core.model import Layer, Matrix, Model
from studio.core.plan import Choice
from studio.core.resources import resources
from studio.core.roles import EXPERT

MODEL_FILE = "nvfp4_three_tiers.py"
_PROJECTIONS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_SETTINGS = ("group_size", "bits", "mode")
_HOISTED = ("rope_theta", "partial_rotary_factor")


class Mlx:
    """See `Layout`."""

    name = "mlx"
    title = "MLX"
    formats = tuple(FORMATS)
    metadata: Mapping[str, str] = MappingProxyType({"format": "mlx"})
    scale_convention = "global_scale = max|W| (amax); readers multiply by global_scale / 2688"
    runs = "mlx-lm"

    def refusals(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.refusals`: experts of one stack must be complete and alike, names must not be settings."""
        taken = (matrix.name for choice in choices if choice.recipe for matrix in choice.layer.matrices)
        sentences = [f"a layer is called {name}, as a setting of mlx-lm is" for name in taken if name in _SETTINGS]
        for (stack, projection), members in _stacks(choices).items():
            experts = sorted(matrix.expert or 0 for _, matrix in members)
            if experts != list(range(len(experts))):
                sentences.append(f"{stack}: experts are missing, the stack of {projection} can not be written")
            if len({(choice.format, matrix.rows, matrix.columns) for choice, matrix in members}) > 1:
                sentences.append(f"{stack}: the experts of {projection} must all have one format and shape")
        return sentences

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        tiers = any(choice.recipe and choice.recipe.format.tensor_scale for choice in choices)
        sentence = "three tiers in mlx-lm: load(folder, trust_remote_code=True) runs the model file of this export"
        return [sentence] if tiers else []

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        path, expert, count = _module(model, matrix)
        rows, columns = matrix.rows, matrix.columns
        scale_dtype = layer.kept_dtype if row.affine else "U8"
        scale_size = {"F32": 4, "U8": 1}.get(scale_dtype, 2)

        def part(content: Content, name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> Placement:
            stacked = shape if expert is None else (count, *shape)
            return Placement(content, f"{path}.{name}", dtype, stacked, nbytes, (expert or 0) * nbytes)

        blocks = (rows, columns // row.block)
        parts = [
            part("codes", "weight", "U32", (rows, columns * row.bits // 32), rows * columns * row.bits // 8),
            part("scales", "scales", scale_dtype, blocks, rows * blocks[1] * scale_size),
        ]
        if row.affine:
            parts.append(part("biases", "biases", scale_dtype, blocks, rows * blocks[1] * scale_size))
        if row.tensor_scale:
            parts.append(part("tensor_scale", "global_scale", "F32", (), 4))
        return parts

    def place_kept(self, model: Model, layer: Layer) -> list[Placement]:
        """See `Layout.place_kept`: kept experts go into the stacks that mlx-lm has for them, too."""
        if not layer.matrices or any(matrix.expert is None for matrix in layer.matrices):
            return raw(layer)
        return [self._kept_expert(model, layer, matrix) for matrix in layer.matrices]

    @staticmethod
    def _kept_expert(model: Model, layer: Layer, matrix: Matrix) -> Placement:
        path, expert, count = _module(model, matrix)
        size = layer.kept_nbytes // layer.count * matrix.rows * matrix.columns
        shape = (count, matrix.rows, matrix.columns)
        return Placement("raw", f"{path}.weight", layer.kept_dtype, shape, size, (expert or 0) * size)

    def store_scale(self, g: float) -> np.float32:
        """See `Layout.store_scale`."""
        return np.float32(min(np.float32(g) * np.float32(TENSOR_SCALE_DIVISOR), np.finfo(np.float32).max))

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Layout.multiplier`."""
        return np.float32(stored) / np.float32(TENSOR_SCALE_DIVISOR)

    def documents(self, model: Model, choices: Sequence[Choice]) -> dict[str, bytes]:
        """config.json with its overrides and, for three tiers, the model file that mlx-lm runs."""
        config = config_without_quantization(model)
        text = text_section(config)
        _hoist(config, text)
        quantization = _quantization(model, choices)
        files = {}
        if any(choice.recipe and choice.recipe.format.tensor_scale for choice in choices):
            config["model_file"] = MODEL_FILE
            files[MODEL_FILE] = (resources() / "mlx" / MODEL_FILE).read_bytes()
        config |= {"quantization": quantization, "quantization_config": quantization}
        return {**files, "config.json": json_document(config)}


def _stacks(choices: Sequence[Choice]) -> dict[tuple[str, str], list[tuple[Choice, Matrix]]]:
    found: dict[tuple[str, str], list[tuple[Choice, Matrix]]] = defaultdict(list)
    for choice in choices:
        for matrix in choice.layer.matrices:
            name = EXPERT.match(matrix.name)
            if name and matrix.expert is not None:
                found[name["stack"], name["projection"]].append((choice, matrix))
    return found


def _module(model: Model, matrix: Matrix) -> tuple[str, int | None, int]:
    """(module path in mlx-lm, place in its stack or None, height of the stack) of a matrix."""
    name = EXPERT.match(matrix.name)
    if not name or matrix.expert is None:
        return matrix.name, None, 1
    count = model.stack_heights[name["stack"], name["projection"]]
    projection = _PROJECTIONS.get(name["projection"], name["projection"])
    return f"{name['stack']}.switch_mlp.{projection}", matrix.expert, count


def _hoist(config: dict[str, Any], text: Any) -> None:
    """Put values where mlx-lm looks for them: transformers 5 nests the rotary ones and renames the expert count."""
    rope = text.get("rope_parameters")
    if isinstance(rope, dict):
        for key in _HOISTED:
            if key in rope:
                text.setdefault(key, rope[key])
        if rope.get("rope_type", "default") != "default":
            text.setdefault("rope_scaling", dict(rope))
    if "num_local_experts" in text:
        text.setdefault("num_experts", text["num_local_experts"])
    config.pop("model_file", None)


def _parameters(row: Format) -> dict[str, Any]:
    mode = "affine" if row.affine else row.name.split("-")[0]
    found: dict[str, Any] = {"group_size": row.block, "bits": row.bits, "mode": mode}
    return {**found, "global_scale": True} if row.tensor_scale else found


def _quantization(model: Model, choices: Sequence[Choice]) -> dict[str, Any]:
    used = [choice.recipe.format for choice in choices if choice.recipe]
    common = max(FORMATS.values(), key=lambda row: used.count(row)) if used else FORMATS["nvfp4-2t"]
    section = {key: value for key, value in _parameters(common).items() if key != "global_scale"}
    for choice in choices:
        for matrix in choice.layer.matrices if choice.recipe else ():
            assert choice.recipe is not None
            row = choice.recipe.format
            if row != common or row.tensor_scale:
                section[_module(model, matrix)[0]] = _parameters(row)
    return section
