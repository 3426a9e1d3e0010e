"""Streams: codes of 1 to 8 bits without gaps, from the lowest bit of each byte to the highest."""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_TOGETHER = 8
"""Codes that begin and end with a byte, whatever their width: so many bytes as a code has bits."""


def unpack_stream(stream: Bytes, bits: int, count: int) -> Bytes:
    """The first `count` codes, uint8 [..., count], of streams [..., nbytes] of codes of `bits` bits."""
    if bits == _TOGETHER:
        return stream[..., :count]
    if _TOGETHER % bits == 0 and stream.shape[-1] * _TOGETHER >= count * bits:
        return _unpack_bytes(stream, bits, count)
    cells = -(-count // _TOGETHER)
    words = np.zeros((*stream.shape[:-1], cells), np.uint64)
    for place in range(bits):
        found = stream[..., place : cells * bits : bits].astype(np.uint64)
        words[..., : found.shape[-1]] |= found << np.uint64(8 * place)
    codes = np.empty((*words.shape, _TOGETHER), np.uint8)
    for place in range(_TOGETHER):
        codes[..., place] = (words >> np.uint64(bits * place)) & np.uint64((1 << bits) - 1)
    return codes.reshape(*words.shape[:-1], cells * _TOGETHER)[..., :count]


def _unpack_bytes(stream: Bytes, bits: int, count: int) -> Bytes:
    """`unpack_stream` where each byte holds whole codes."""
    each = _TOGETHER // bits
    whole = stream[..., : -(-count // each)]
    codes = np.empty((*whole.shape, each), np.uint8)
    for place in range(each):
        np.bitwise_and(whole >> bits * place, (1 << bits) - 1, out=codes[..., place])
    return codes.reshape(*whole.shape[:-1], whole.shape[-1] * each)[..., :count]


def pack_stream(codes: Bytes, bits: int) -> Bytes:
    """The streams [..., ceil(K * bits / 8)] of codes uint8 [..., K] below 2**bits, zeros behind the last."""
    *rows, count = codes.shape
    cells = -(-count // _TOGETHER)
    padded = np.zeros((*rows, cells * _TOGETHER), np.uint64)
    padded[..., :count] = codes
    words = np.zeros((*rows, cells), np.uint64)
    for place in range(_TOGETHER):
        words |= padded[..., place::_TOGETHER] << np.uint64(bits * place)
    stream = np.empty((*rows, cells, bits), np.uint8)
    for place in range(bits):
        stream[..., place] = (words >> np.uint64(8 * place)) & np.uint64(0xFF)
    return stream.reshape(*rows, cells * bits)[..., : -(-count * bits // 8)]
