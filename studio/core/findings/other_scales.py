"""Checks of the scales of other formats than NVFP4, and of FP8 codes: no numbers, and too small or large ones."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder, pieces_of
from studio.core.findings.scales import FLOAT16_MAX
from studio.core.model import Matrix, Source, Stored
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.packed import PackedSource
from studio.core.sources.scales import EXPONENTS

_SIGNED = ("scales", "biases", "zero", "quant_map", "nested_quant_map")
"""Leaves of MLX, whose integers have scales of either sign, of the zeros of HQQ, and of the tables of bitsandbytes."""

_INTEGERS = ("I8", "I32")
"""Dtypes of codes whose scales have either sign where auto-round made them."""

_PLACES = "absmax"
"""The leaf of bytes that are places in a table of bitsandbytes, each of which stands for a number."""

_MAY_BE_ZERO = (_PLACES, "nested_absmax", "quant_map", "nested_quant_map", "SCB", "weight_scale_2", "_scale_inv")
"""Leaves of makers that store 0 for weights of zeros; the others take the least number that they have."""

_OF_TENSOR = ("_weight_per_tensor_scale",)
_DIVISOR = "global_scale"

_LEAST, _LARGEST = 27, 142
"""Exponents of E8M0 that weights have hardly ever: below 2**-100, and beyond float16."""

_NO_NUMBER = 255
_LOST = 2.0**-80
_SLAB = 1 << 20


def readings(folder: Folder) -> Iterator[Reading]:
    """Scales, and codes of E4M3, to be read."""
    own = {
        part.tensor.name
        for module in folder.modules.values()
        if module.is_nvfp4
        for part in (module.scales, module.third)
        if part is not None
    }
    own |= {module.inputs.tensor.name for module in folder.modules.values() if module.inputs is not None}
    owners = {name: source for source in folder.recognized.sources.values() for name in _scales_of(source)}
    for name in folder.stored.keys() & folder.recognized.scales - own:
        stored, nbytes = folder.stored[name], folder.stored[name].tensor.nbytes
        yield Reading(name, nbytes, partial(_scales, stored, owners.get(name)))
    for stored in (source.stored for source in folder.recognized.sources.values()):
        if stored.tensor.dtype == FP8:
            yield Reading(stored.tensor.name, stored.tensor.nbytes, partial(_codes, stored))


def _scales_of(source: Source) -> list[str]:
    """The tensors that hold the scales of codes."""
    if isinstance(source, ScaledFp8):
        return [source.scales.stored.tensor.name] if source.scales else []
    parts = source.encoding.parts[1:] if isinstance(source, PackedSource) else ()
    return [part.tensor.name for part in parts]


def _scales(stored: Stored, owner: Source | None) -> Iterator[Seen]:
    if stored.tensor.dtype in WEIGHT_DTYPES:
        yield from _numbers(stored, owner)
    elif stored.tensor.dtype in EXPONENTS:
        yield from _exponents(stored, owner)
    elif stored.tensor.dtype == FP8 and owner:
        yield from _small_floats(stored)
    else:
        yield stored.tensor.nbytes


def _numbers(stored: Stored, owner: Source | None) -> Iterator[Seen]:
    name, dtype, leaf = stored.tensor.name, stored.tensor.dtype, stored.tensor.name.rpartition(".")[2]
    bad = negative = zero = 0
    largest = 0.0
    for piece in pieces_of(stored):
        numbers = np.frombuffer(piece, WEIGHT_DTYPES[dtype]).astype(np.float32)
        finite = np.isfinite(numbers)
        bad += int((~finite).sum())
        negative += int((numbers < 0).sum())
        zero += int((numbers == 0).sum())
        largest = max(largest, float(np.abs(numbers[finite]).max(initial=0)))
        yield len(piece)
    total = math.prod(stored.tensor.shape)
    if bad:
        yield Observation("scales-nan", name, f"{bad:,} of {total:,} scales")
    if zero and leaf in _OF_TENSOR:
        yield Observation("tensor-scale-unusable", name, "it is 0")
    elif zero and _is_multiplier(leaf, owner):
        yield Observation("scales-zero", name, f"{zero:,} of {total:,} scales")
    if negative and leaf not in _SIGNED and not (owner and owner.stored.tensor.dtype in _INTEGERS):
        yield Observation("scales-negative", name, f"{negative:,} of {total:,} scales")
    if largest > FLOAT16_MAX and owner and not leaf.endswith(_DIVISOR):
        yield Observation("float16-overflow", name, f"a scale of {largest:.6g}, float16 ends at {FLOAT16_MAX:g}")


def _is_multiplier(leaf: str, owner: Source | None) -> bool:
    """True for scales that readers want above 0, or whose makers store nothing less."""
    if owner is None or leaf in _SIGNED[1:]:
        return False
    return isinstance(owner, ScaledFp8) or not leaf.endswith(_MAY_BE_ZERO)


def _exponents(stored: Stored, owner: Source | None) -> Iterator[Seen]:
    name = stored.tensor.name
    bytes_ = np.zeros(256, np.int64)
    for piece in pieces_of(stored):
        bytes_ += np.bincount(np.frombuffer(piece, np.uint8), minlength=256)
        yield len(piece)
    if name.rpartition(".")[2] == _PLACES or owner is None:
        return
    total = math.prod(stored.tensor.shape)
    if bad := int(bytes_[_NO_NUMBER]):
        yield Observation("scales-nan", name, f"{bad:,} of {total:,} scales")
        return
    if many := int(bytes_[_LARGEST + 1 :].sum()):
        evidence = f"{many:,} of {total:,} scales are 2**{_LARGEST - 126} or more; float16 ends at {FLOAT16_MAX:g}"
        yield Observation("float16-overflow", name, evidence)
    if bytes_[:_LEAST].any() and (lost := _lost(owner)):
        yield Observation("scales-zero", name, f"{counted(lost, 'weight')} below 2**-80, by scales below 2**-100")


def _small_floats(stored: Stored) -> Iterator[Seen]:
    """Block scales of NVFP4 in the tiles of torchao, padded with 0."""
    bad = negative = 0
    for piece in pieces_of(stored):
        bytes_ = np.frombuffer(piece, np.uint8)
        bad += int(((bytes_ & 0x7F) == 0x7F).sum())
        negative += int(((bytes_ > 0x80) & (bytes_ < 0xFF)).sum())
        yield len(piece)
    for kind, count in (("scales-nan", bad), ("scales-negative", negative)):
        if count:
            yield Observation(kind, stored.tensor.name, f"{count:,} of {stored.tensor.nbytes:,} scales")


def _lost(source: Source) -> int:
    """Weights that are not 0, and as good as."""
    columns = source.shape[-1] if source.shape else 1
    whole = Matrix(source.stored.tensor.name, math.prod(source.shape[:-1]), columns)
    height, lost = max(_SLAB // max(columns, 1), 1), 0
    for start in range(0, whole.rows, height):
        sizes = np.abs(source.rows(whole, start, min(start + height, whole.rows)))
        lost += int(((sizes > 0) & (sizes < _LOST)).sum())
    return lost


def _codes(stored: Stored) -> Iterator[Seen]:
    bad = 0
    for piece in pieces_of(stored):
        bad += int(((np.frombuffer(piece, np.uint8) & 0x7F) == 0x7F).sum())
        yield len(piece)
    if bad:
        yield Observation("weights-nan", stored.tensor.name, f"{bad:,} of {stored.tensor.nbytes:,} codes are NaN")
