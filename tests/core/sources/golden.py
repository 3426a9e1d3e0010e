"""Bytes that packages made, as checkpoints: `tests/data/sources` holds them, and what the package decodes them to."""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import ARRAY_DTYPES
from tests.core.checkpoints import tensors_of, write_json, write_raw

_DATA = Path(__file__).parents[2] / "data" / "sources"
_DECODED = "decoded:"


def items(name: str) -> dict[str, Any]:
    """A list of items by name: who made them and decoded them, and their config."""
    found: dict[str, Any] = json.loads((_DATA / f"{name}.json").read_text())
    return found


def unpacked(folder: Path, item: str, config: Any) -> tuple[Path, dict[str, NDArray[Any]]]:
    """The checkpoint of an item, and what its package decodes the weights to."""
    path = folder / "all.safetensors"
    path.write_bytes(lzma.decompress((_DATA / f"{item}.safetensors.xz").read_bytes()))
    raw, header, data, decoded = path.read_bytes(), {}, b"", {}
    for tensor in tensors_of(path).values():
        found = raw[tensor.start : tensor.start + tensor.nbytes]
        if tensor.name.startswith(_DECODED):
            decoded[tensor.name.removeprefix(_DECODED)] = np.frombuffer(found, ARRAY_DTYPES[tensor.dtype]).reshape(
                tensor.shape
            )
            continue
        place = [len(data), len(data) + len(found)]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": place}
        data += found
    write_raw(folder / "m" / "model.safetensors", header, data)
    write_json(folder / "m" / "config.json", config)
    return folder / "m", decoded
