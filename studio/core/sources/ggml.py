"""The blocks of ggml's types, decoded to float32 with the operations, and so the bits, of gguf-py's `dequantize`.

Every decoder takes blocks, uint8 [n, bytes of a block], and gives float32 [n, values of a block]. Numbers lie
little-endian; f16 scales come first, last or between. Source: ggml-quants.c of llama.cpp, gguf-py 0.19 (quants.py).
"""

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized
from studio.core.containers.gguf import TYPE_OF, GgmlType
from studio.core.sources.ggml_fields import Blocks, Values, bits_of, f16, fields, scaled
from studio.core.sources.ggml_lattices import LATTICES

Groups = tuple[Blocks, NDArray[np.float16], NDArray[np.float16]]
"""Codes [n, 32], scales [n, 1] and biases [n, 1]."""

_TILE = 1 << 15
"""Values that are decoded at once: what lies between bytes and values stays in a cache, and memory is bounded."""

_SIGN = np.uint8(0x80)
"""Of a block scale."""
_SIGNS = 0x88
"""Of the two codes in a byte."""

_E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


def decode(kind: GgmlType, raw: Blocks, out: Values, multiplier: Values | None = None) -> None:
    """Write the values of `raw`, whole blocks of a type of DECODERS, to `out`, flat.

    `multiplier` is that of an NVFP4 tensor, of shape (): scales are multiplied by it, as in `Quantized`.
    """
    decoder = DECODERS[kind.name] if multiplier is None else partial(_nvfp4, multiplier=multiplier)
    blocks, values = raw.reshape(-1, kind.nbytes), out.reshape(-1, kind.weights)
    height = max(_TILE // kind.weights, 1)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and Inf are counted and refused later
        for start in range(0, len(blocks), height):
            values[start : start + height] = decoder(blocks[start : start + height])


def _shifted(scales: Values, codes: NDArray[np.uint8], lows: Values) -> Values:
    """`scaled`, less the low end of each group; flat groups."""
    values = scaled(scales, codes)
    values -= lows[..., None]
    return values.reshape(len(values), -1)


def _signed(codes: Blocks, zero: int) -> NDArray[np.int8]:
    found: NDArray[np.int8] = codes.view(np.int8) - np.int8(zero)
    return found


def _f16_tensor(blocks: Blocks) -> Values:
    return f16(blocks)


def _f32_tensor(blocks: Blocks) -> Values:
    return np.ascontiguousarray(blocks).view(np.float32)


def _bf16_tensor(blocks: Blocks) -> Values:
    wide = np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)


def _q4_0(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), _signed(fields(blocks[:, 2:], 4, 16), 8))[:, 0]


def _q4_1(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), fields(blocks[:, 4:], 4, 16))[:, 0] + f16(blocks[:, 2:4])


def _q5_0(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), _signed(_fives(blocks[:, 6:], blocks[:, 2:6]), 16))[:, 0]


def _q5_1(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), _fives(blocks[:, 8:], blocks[:, 4:8]))[:, 0] + f16(blocks[:, 2:4])


def _q8_0(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), np.ascontiguousarray(blocks[:, 2:]).view(np.int8))[:, 0]


def _centred(scale: Blocks, codes: Blocks, zero: int) -> Groups:
    scales = np.ascontiguousarray(scale).view(np.float16)
    return codes, scales, (f16(scale) * np.float32(-zero)).astype(np.float16)


def _ranged(pair: Blocks, codes: Blocks) -> Groups:
    numbers = np.ascontiguousarray(pair).view(np.float16)
    return codes, numbers[:, :1], numbers[:, 1:]


def _fives(codes: Blocks, highest: Blocks) -> Blocks:
    found: Blocks = fields(codes, 4, 16) | bits_of(highest) << np.uint8(4)
    return found


def _q2_k(blocks: Blocks) -> Values:
    scales, d, low = blocks[:, :16], f16(blocks[:, 80:82]), f16(blocks[:, 82:84])
    step, least = (scales & np.uint8(15)).astype(np.float32), (scales >> np.uint8(4)).astype(np.float32)
    return _shifted(d * step, fields(blocks[:, 16:80], 2, 32), low * least)


def _q3_k(blocks: Blocks) -> Values:
    low, high = fields(blocks[:, 96:104], 4, 8), fields(blocks[:, 104:108], 2, 4)
    scales = _signed(low | high << np.uint8(4), 32).astype(np.float32)
    third = fields(blocks[:, :32], 1, 32) << np.uint8(2)
    codes = _signed(fields(blocks[:, 32:96], 2, 32) | third, 4)
    return scaled(f16(blocks[:, 108:]) * scales, codes).reshape(len(blocks), -1)


def _six_bits(raw: Blocks) -> tuple[Values, Values]:
    """8 scales and 8 low ends of six bits in 12 bytes."""
    first, second, rest = raw[:, :4], raw[:, 4:8], raw[:, 8:]
    scales = [first & np.uint8(63), rest & np.uint8(15) | first >> np.uint8(2) & np.uint8(48)]
    lows = [second & np.uint8(63), rest >> np.uint8(4) | second >> np.uint8(2) & np.uint8(48)]
    return np.concatenate(scales, 1).astype(np.float32), np.concatenate(lows, 1).astype(np.float32)


def _q4_k(blocks: Blocks) -> Values:
    scales, lows = _six_bits(blocks[:, 4:16])
    codes = fields(blocks[:, 16:], 4, 32)
    return _shifted(f16(blocks[:, :2]) * scales, codes, f16(blocks[:, 2:4]) * lows)


def _q5_k(blocks: Blocks) -> Values:
    scales, lows = _six_bits(blocks[:, 4:16])
    codes = fields(blocks[:, 48:], 4, 32) | fields(blocks[:, 16:48], 1, 32) << np.uint8(4)
    return _shifted(f16(blocks[:, :2]) * scales, codes, f16(blocks[:, 2:4]) * lows)


def _q6_k(blocks: Blocks) -> Values:
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    codes = fields(blocks[:, :128], 4, 64) | fields(blocks[:, 128:192], 2, 32) << np.uint8(4)
    return scaled(f16(blocks[:, 208:]) * scales, _signed(codes, 32)).reshape(len(blocks), -1)


def _iq4_nl(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), _IQ4[fields(blocks[:, 2:], 4, 16)])[:, 0]


def _iq4_xs(blocks: Blocks) -> Values:
    low, high = fields(blocks[:, 4:8], 4, 1), fields(blocks[:, 2:4], 2, 1)
    scales = _signed(low | high << np.uint8(4), 32).astype(np.float32)
    codes = _IQ4[fields(blocks[:, 8:], 4, 16)]
    return scaled(f16(blocks[:, :2]) * scales, codes).reshape(len(blocks), -1)


def _q1_0(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), _signed(bits_of(blocks[:, 2:]) << np.uint8(1), 1))[:, 0]


def _q2_0(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, :2]), _signed(fields(blocks[:, 2:], 2, 1), 1))[:, 0]


def _tq1_0(blocks: Blocks) -> Values:
    digits = [_threefold(blocks[:, :32], 5), _threefold(blocks[:, 32:48], 5), _threefold(blocks[:, 48:52], 4)]
    return scaled(f16(blocks[:, 52:]), _signed(np.concatenate(digits, 1), 1))[:, 0]


def _threefold(raw: Blocks, count: int) -> Blocks:
    """Digits of base 3, so many in a byte, which is the fraction that they are of 256: the first of all bytes first."""
    powers = (3 ** np.arange(count)).astype(np.uint8)[:, None]
    found: Blocks = ((raw[:, None] * powers).astype(np.uint16) * 3 >> 8).astype(np.uint8)
    return found.reshape(len(raw), -1)


def _tq2_0(blocks: Blocks) -> Values:
    return scaled(f16(blocks[:, 64:]), _signed(fields(blocks[:, :64], 2, 32), 1))[:, 0]


def _mxfp4(blocks: Blocks) -> Values:
    exponents = blocks[:, :1].astype(np.uint32)
    half = np.where(exponents < 2, np.uint32(1 << 21) << exponents, exponents - np.uint32(1) << np.uint32(23))
    return scaled(half.view(np.float32), _E2M1_DOUBLED[fields(blocks[:, 1:], 4, 16)])[:, 0]


def _nvfp4(blocks: Blocks, multiplier: Values | None = None) -> Values:
    halves = _ue4m3_halves()[blocks[:, :4]]
    scales = halves if multiplier is None else halves * multiplier
    return scaled(scales, _E2M1_DOUBLED[fields(blocks[:, 4:], 4, 8)]).reshape(len(blocks), -1)


@cache
def _ue4m3_halves() -> Values:
    """Half the value of every byte as ggml reads it: the sign is ignored, and 0x7F is 0."""
    bytes_ = np.arange(256)
    exponents, mantissas = bytes_ >> 3 & 15, (bytes_ & 7) / 8
    values = np.where(exponents, (1 + mantissas) * 2.0 ** (exponents - 7), mantissas * 2.0**-6) / 2
    values[0x7F] = 0
    return values.astype(np.float32)


DECODERS: Mapping[str, Callable[[Blocks], Values]] = {
    "F32": _f32_tensor,
    "F16": _f16_tensor,
    "BF16": _bf16_tensor,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    **LATTICES,
    "Q1_0": _q1_0,
    "Q2_0": _q2_0,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
    "MXFP4": _mxfp4,
    "NVFP4": _nvfp4,
}
"""By name of the type; others are known by their size only."""


AFFINE: Mapping[str, tuple[int, Callable[[Blocks], Groups]]] = {
    "Q4_0": (4, lambda blocks: _centred(blocks[:, :2], fields(blocks[:, 2:], 4, 16), 8)),
    "Q4_1": (4, lambda blocks: _ranged(blocks[:, :4], fields(blocks[:, 4:], 4, 16))),
    "Q5_0": (5, lambda blocks: _centred(blocks[:, :2], _fives(blocks[:, 6:], blocks[:, 2:6]), 16)),
    "Q5_1": (5, lambda blocks: _ranged(blocks[:, :4], _fives(blocks[:, 8:], blocks[:, 4:8]))),
    "Q8_0": (8, lambda blocks: _centred(blocks[:, :2], blocks[:, 2:] ^ _SIGN, 128)),
}
"""Of types whose values are code x scale + bias in groups of 32: the bits of a code, and how blocks are taken apart."""


def paired(codes: Blocks, width: int) -> Blocks:
    """4-bit codes as ggml stores them, element j beside j + width / 2 of every `width`, with neighbours in a byte.

    [n, bytes] -> the same shape; the even element is in the low nibble, as in `Quantized`.
    """
    flat = fields(codes, 4, width // 2)
    found: Blocks = flat[:, 0::2] | flat[:, 1::2] << np.uint8(4)
    return found


def unpaired(codes: Blocks, width: int) -> Blocks:
    """The inverse of `paired`."""
    flat = np.stack([codes & np.uint8(15), codes >> np.uint8(4)], -1).reshape(len(codes), -1, 2, width // 2)
    found: Blocks = flat[:, :, 0] | flat[:, :, 1] << np.uint8(4)
    return found.reshape(len(codes), -1)


def blocks_of(quantized: Quantized) -> Blocks:
    """Rows of NVFP4 or MXFP4 as ggml stores them, [rows, bytes]: scales, then codes, block by block.

    A tensor scale is stored apart. Source: ggml-quants.c; block_nvfp4 and block_mxfp4.
    """
    kind = TYPE_OF["MXFP4" if quantized.format.scale == "e8m0" else "NVFP4"]
    rows, block = len(quantized.codes), quantized.format.block
    flat, scales = quantized.codes, quantized.scales
    if kind.name == "NVFP4" and (scales & _SIGN).any():
        flat, scales = _without_signs(quantized)
    codes = unpaired(flat.reshape(-1, kind.weights // 2), block)
    return np.concatenate([scales.reshape(-1, kind.weights // block), codes], axis=1).reshape(rows, -1)


def _without_signs(quantized: Quantized) -> tuple[Blocks, Blocks]:
    """Codes and block scales with the signs of scales, which ggml ignores, taken over by the codes."""
    scales = quantized.scales
    signs = np.where(scales & _SIGN, np.uint8(_SIGNS), np.uint8(0))
    return quantized.codes ^ np.repeat(signs, quantized.format.block // 2, axis=1), scales & ~_SIGN
