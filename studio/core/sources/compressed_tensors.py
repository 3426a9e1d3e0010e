"""compressed-tensors: NVFP4 with the divisor 1 / g as `weight_global_scale`."""

from collections.abc import Iterator, Mapping, Sequence

from studio.core.model import Stored
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, Unread
from studio.core.sources.in_format import TensorScale
from studio.core.sources.modelopt import nvfp4

CODES, SCALES, TENSOR_SCALE = "weight_packed", "weight_scale", "weight_global_scale"
_UNNEEDED = ("input_global_scale",)


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, third in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != TENSOR_SCALE:
            continue
        codes, scales = stored.get(f"{path}.{CODES}"), stored.get(f"{path}.{SCALES}")
        if codes is None or scales is None:
            continue
        unneeded = (f"{path}.{part}" for part in _UNNEEDED if f"{path}.{part}" in stored)
        parts = (codes.tensor.name, scales.tensor.name, name, *unneeded)
        yield nvfp4(f"{path}.weight", codes, scales, TensorScale(third, "divisor"), parts)
