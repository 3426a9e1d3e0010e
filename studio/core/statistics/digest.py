"""Digests: of a model, whether statistics were gathered on it; of choices, whether a plan still gives these weights."""

import hashlib
from collections.abc import Sequence
from itertools import groupby

from studio.core.model import Model
from studio.core.planning.plan import Choice

_FIRST_BYTES = 64


def model_digest(model: Model) -> str:
    """SHA-256 over names, dtypes, shapes and first bytes of all tensors in the order of their names."""
    digest = hashlib.sha256()
    layers = sorted(model.layers, key=lambda layer: layer.tensor.name)
    for _, beside in groupby(layers, key=lambda layer: id(layer.stored.file)):
        members = list(beside)
        with members[0].stored.file.held():
            for layer in members:
                tensor, file = layer.tensor, layer.stored.file
                digest.update(f"{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0".encode("utf-8", "surrogatepass"))
                digest.update(file.read(tensor.start, min(tensor.nbytes, _FIRST_BYTES)))
    return digest.hexdigest()


def choices_digest(choices: Sequence[Choice], model: Model | None = None) -> str:
    """What tells the weights that choices give from others, of the same model where none is given: 32 hex digits."""
    digest = hashlib.sha256(model_digest(model).encode() if model else b"")
    for choice in choices:
        if choice.recipe:
            how = choice.recipe.format.name, choice.recipe.method, choice.recipe.exponent
            guide = choice.guide.meaning if choice.guide else ""
            inputs = ",".join(map(float.hex, choice.input_scales))
            inputs += "as they run" if choice.rounds_inputs else ""
            digest.update("\n".join((choice.layer.name, *how, guide, inputs)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]
