"""The blocks of ggml's types: decoded to the bit as the package gguf decodes them."""

import numpy as np
import pytest

from studio.core.containers.gguf import TYPES
from studio.core.sources.ggml import DECODERS, decode, paired, unpaired

BLOCKS = 3000

NUMBERS = {kind.name: number for number, kind in TYPES.items()}


def random_blocks(name, count=BLOCKS):
    kind = TYPES[NUMBERS[name]]
    return np.random.default_rng(NUMBERS[name]).integers(0, 256, (count, kind.nbytes), dtype=np.uint8)


NEWER = ("Q1_0", "Q2_0")
"""Types that gguf-py 0.19 does not know."""


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in NEWER])
def test_values_are_those_of_the_package(name):
    quants = pytest.importorskip("gguf.quants")
    kind, raw = TYPES[NUMBERS[name]], random_blocks(name)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(raw.reshape(1, -1), quants.GGMLQuantizationType(NUMBERS[name])).reshape(-1)
    values = np.empty(BLOCKS * kind.weights, np.float32)
    decode(kind, raw, values)
    known = ~np.isnan(expected)
    assert known.mean() > 0.8
    np.testing.assert_array_equal(np.isnan(values), ~known)
    np.testing.assert_array_equal(values[known].view(np.uint32), expected.astype(np.float32)[known].view(np.uint32))


@pytest.mark.parametrize(("name", "bits"), [("Q1_0", 1), ("Q2_0", 2)])
def test_the_newest_types_are_steps_times_their_scale(name, bits):
    """As dequantize_row_q1_0 and dequantize_row_q2_0 of llama.cpp have it."""
    kind, raw = TYPES[NUMBERS[name]], random_blocks(name, 50)
    raw[:, :2] = np.random.default_rng(2).standard_normal((50, 1)).astype(np.float16).view(np.uint8)
    values = np.empty((50, kind.weights), np.float32)
    decode(kind, raw, values.reshape(-1))
    for block, found in zip(raw, values, strict=True):
        d = np.float32(block[:2].view(np.float16)[0])
        for place, value in enumerate(found):
            code = int(block[2 + place * bits // 8]) >> place * bits % 8 & ((1 << bits) - 1)
            assert value == (2 * code - 1 if bits == 1 else code - 1) * d


@pytest.mark.parametrize("width", [16, 32])
def test_codes_are_paired_and_unpaired_without_loss(width):
    codes = np.random.default_rng(1).integers(0, 256, (40, width // 2 * 3), dtype=np.uint8)
    flat = np.stack([codes & 15, codes >> 4]).reshape(2, 40, 3, width // 2)
    in_order = np.concatenate([flat[0], flat[1]], -1).reshape(40, -1)
    together = paired(codes, width)
    np.testing.assert_array_equal(np.stack([together & 15, together >> 4], -1).reshape(40, -1), in_order)
    np.testing.assert_array_equal(unpaired(together, width), codes)
