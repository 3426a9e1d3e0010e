"""Checks of the scales of other formats than NVFP4, and of FP8 codes: bytes and numbers that stand for no number."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder, pieces_of
from studio.core.model import Stored
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.scales import EXPONENTS

_SIGNED = ("scales", "biases", "quant_map", "nested_quant_map")
"""Leaves of MLX, whose integers have scales of either sign, and of the tables of bitsandbytes."""

_PLACES = "absmax"
"""The leaf of bytes that are places in a table of bitsandbytes, each of which stands for a number."""


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
    of_fp8 = _of_fp8(folder)
    for name in folder.stored.keys() & folder.recognized.scales - own:
        stored, nbytes = folder.stored[name], folder.stored[name].tensor.nbytes
        yield Reading(name, nbytes, partial(_scales, stored, positive=name in of_fp8))
    for stored in (source.stored for source in folder.recognized.sources.values()):
        if stored.tensor.dtype == FP8:
            yield Reading(stored.tensor.name, stored.tensor.nbytes, partial(_codes, stored))


def _of_fp8(folder: Folder) -> set[str]:
    """The scales of FP8, of which readers take positive numbers only."""
    sources = (source for source in folder.recognized.sources.values() if isinstance(source, ScaledFp8))
    return {source.scales.stored.tensor.name for source in sources if source.scales}


def _scales(stored: Stored, *, positive: bool) -> Iterator[Seen]:
    name, dtype = stored.tensor.name, stored.tensor.dtype
    bad = negative = zero = 0
    for piece in pieces_of(stored):
        if dtype in WEIGHT_DTYPES:
            numbers = np.frombuffer(piece, WEIGHT_DTYPES[dtype]).astype(np.float32)
            bad += int((~np.isfinite(numbers)).sum())
            negative += int((numbers < 0).sum())
            zero += int((numbers == 0).sum())
        elif dtype in EXPONENTS and name.rpartition(".")[2] != _PLACES:
            bad += piece.count(0xFF)
        yield len(piece)
    total = math.prod(stored.tensor.shape)
    if bad:
        yield Observation("scales-nan", name, f"{bad:,} of {total:,} scales")
    if zero and positive:
        yield Observation("scales-zero", name, f"{zero:,} of {total:,} scales")
    if negative and name.rpartition(".")[2] not in _SIGNED:
        yield Observation("scales-negative", name, f"{negative:,} of {total:,} scales")


def _codes(stored: Stored) -> Iterator[Seen]:
    bad = 0
    for piece in pieces_of(stored):
        bad += int(((np.frombuffer(piece, np.uint8) & 0x7F) == 0x7F).sum())
        yield len(piece)
    if bad:
        yield Observation("weights-nan", stored.tensor.name, f"{bad:,} of {stored.tensor.nbytes:,} codes are NaN")
