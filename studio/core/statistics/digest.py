"""The digest of a model: whether statistics were gathered on it."""

import hashlib

from studio.core.model import Model

_FIRST_BYTES = 64


def model_digest(model: Model) -> str:
    """SHA-256 over names, dtypes, shapes and first bytes of all tensors in the order of their names."""
    digest = hashlib.sha256()
    for layer in sorted(model.layers, key=lambda layer: layer.tensor.name):
        tensor, file = layer.tensor, layer.stored.file
        digest.update(f"{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0".encode("utf-8", "surrogatepass"))
        digest.update(file.read(tensor.start, min(tensor.nbytes, _FIRST_BYTES)))
    return digest.hexdigest()
