"""Streams: codes of any width, packed without gaps, against numbers read bit by bit."""

import numpy as np
import pytest

from kernels import FORMATS, STORED_FORMATS, Quantized, Recipe, reference
from kernels.cpu.backend import CpuBackend
from kernels.streams import pack_stream, unpack_stream

STORED_ONLY = [name for name in STORED_FORMATS if name not in FORMATS]


def bit_by_bit(stream: bytes, bits: int, count: int) -> list[int]:
    """Codes as slices of one large number."""
    number = int.from_bytes(stream, "little")
    return [number >> (bits * place) & ((1 << bits) - 1) for place in range(count)]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 9, 32, 33, 100])
def test_streams_are_read_as_their_bits_lie(bits: int, count: int) -> None:
    raw = np.random.default_rng(bits).integers(0, 256, (2, 3, -(-count * bits // 32) * 4), np.uint8)
    codes = unpack_stream(raw, bits, count)
    assert codes.dtype == np.uint8
    assert [bit_by_bit(row.tobytes(), bits, count) for row in raw.reshape(6, -1)] == codes.reshape(6, -1).tolist()


@pytest.mark.parametrize("bits", range(1, 9))
def test_what_was_packed_is_unpacked(bits: int) -> None:
    for count in (1, 8, 31, 96):
        codes = np.random.default_rng(count).integers(0, 1 << bits, (5, count), np.uint8)
        packed = pack_stream(codes, bits)
        assert packed.shape == (5, -(-count * bits // 8))
        np.testing.assert_array_equal(unpack_stream(packed, bits, count), codes)


@pytest.mark.parametrize("name", STORED_ONLY)
def test_stored_formats_decode_alike_and_as_code_times_scale_plus_bias(name: str) -> None:
    row, rng = STORED_FORMATS[name], np.random.default_rng(3)
    codes = rng.integers(0, 1 << row.bits, (4, 256), np.uint8)
    scales, biases = (rng.standard_normal((4, 256 // row.block)).astype(np.float32) for _ in range(2))
    quantized = Quantized(row, pack_stream(codes, row.bits), scales, biases)
    assert quantized.shape == codes.shape
    across = [np.repeat(part, row.block, axis=1) for part in (scales, biases)]
    expected = codes.astype(np.float32) * across[0] + across[1]
    np.testing.assert_array_equal(reference.decode(quantized), expected)
    np.testing.assert_array_equal(CpuBackend().decode(quantized), expected)
    assert CpuBackend().squared_error(expected, quantized) == 0


@pytest.mark.parametrize("name", STORED_ONLY)
def test_what_is_only_stored_is_not_encoded(name: str) -> None:
    weight = np.ones((4, 256), np.float32)
    for encode in (reference.encode, CpuBackend().encode):
        with pytest.raises(ValueError, match="handed on only"):
            encode(weight, Recipe(STORED_FORMATS[name]))
