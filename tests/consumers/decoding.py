"""Turns an export back into a plain checkpoint of what its bytes say, in the names of its source."""

import hashlib
import json
from pathlib import Path

from safetensors.numpy import save_file

from tests.architectures.decoding import decoded_source
from tests.runtimes.decoding import Arrays

LARGEST_ERROR = 0.2
"""Relative error that no format of 4 bits has on weights like these; more means that the bytes say something else."""

_SECTIONS = ("quantization", "quantization_config", "model_file")


class DecodingError(Exception):
    """An export that holds other weights than its source."""


def write_decoded(source: Path, export: Path, folder: Path) -> Path:
    """A checkpoint of the weights of `export` below `folder`, quantized ones in float32; equal ones are written once.

    Its config.json is that of the export: what a consumer can not read there is a fault of both.
    """
    tensors, errors = decoded_source(source, export)
    if far := [name for name, error in errors.items() if not error < LARGEST_ERROR]:
        raise DecodingError(f"{far[0]} decodes to something else, relative error {errors[far[0]]:.2f}")
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({key: value for key, value in config.items() if key not in _SECTIONS}, indent=2)
    target = folder / _digest(text, tensors)
    if not target.exists():
        target.mkdir(parents=True)
        for path in (*source.glob("tokenizer*"), *source.glob("generation_config.json")):
            (target / path.name).write_bytes(path.read_bytes())
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
        (target / "config.json").write_text(text, encoding="utf-8")
    return target


def _digest(text: str, tensors: Arrays) -> str:
    found = hashlib.sha256(text.encode())
    for name, array in sorted(tensors.items()):
        found.update(name.encode() + array.tobytes())
    return found.hexdigest()[:16]
