"""What the layouts of the PyTorch world share: a module per matrix, uint8 codes, E4M3 scales, an exclusion list."""

from collections.abc import Mapping, Sequence

from kernels import Format
from studio.core.layouts.placement import Content, Placement, is_tied, text_section
from studio.core.model import Layer, Matrix, Model
from studio.core.plan import Choice

NVFP4 = ("nvfp4-2t", "nvfp4-3t")


def place_module(
    matrix: Matrix, row: Format, names: Mapping[Content, str], scale_shape: tuple[int, ...]
) -> list[Placement]:
    """Codes, block scales and tensor scale of one module; `names` gives the suffix of each part."""
    rows, columns = matrix.rows, matrix.columns

    def part(content: Content, dtype: str, shape: tuple[int, ...], nbytes: int) -> Placement:
        return Placement(content, f"{matrix.name}.{names[content]}", dtype, shape, nbytes)

    return [
        part("codes", "U8", (rows, columns // 2), rows * columns // 2),
        part("scales", "F8_E4M3", (rows, columns // row.block), rows * columns // row.block),
        part("tensor_scale", "F32", scale_shape, 4),
    ]


def module_refusals(model: Model, choices: Sequence[Choice], title: str) -> list[str]:
    """Layers that readers of these layouts do not expect to be quantized."""
    sentences = []
    for choice in choices:
        if choice.recipe and choice.layer.role == "embedding":
            sentences.append(f"{title} stores linear layers only, and {choice.layer.name} is an embedding")
        if choice.recipe and choice.layer.role == "head" and is_tied(model.config):
            sentences.append(f"{choice.layer.name} is tied to the embedding, which {title} can not quantize")
    return sentences


def kept_modules(model: Model, choices: Sequence[Choice]) -> list[str]:
    """Names of the modules that stay as they are, in file order, for the exclusion list of a config."""
    roles = ("linear", "expert", "head", "embedding", "router")
    names = [name for c in choices if c.recipe is None and c.layer.role in roles for name in _modules(c.layer)]
    if is_tied(model.config) or is_tied(text_section(model.config)):
        names.append("lm_head")
    return list(dict.fromkeys(names))


def _modules(layer: Layer) -> list[str]:
    return [matrix.name for matrix in layer.matrices] or [layer.name]
