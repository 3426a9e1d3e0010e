"""What a small census says is what the census of all bins does, and questions about bins have obvious answers."""

import ml_dtypes
import numpy as np
import pytest

from kernels import reference
from kernels.fidelity import Census, SmallCensus

FEW = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 3e-39, 2.0**-9], ml_dtypes.bfloat16)
ODD = np.array([0xFFC1, 0x7F80, 0xFF80, 0x7FFF, 0x0001, 0x8000], np.uint16).view(ml_dtypes.bfloat16)
WEIGHTS = {
    "none": FEW[:0],
    "zeros": np.zeros(5, ml_dtypes.bfloat16),
    "few": FEW,
    "not finite": np.concatenate([FEW, ODD]),
    "only NaN": ODD[:1],
    "gaussian": np.random.default_rng(0).normal(0, 0.02, (64, 32)).astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_small_census_says_the_same_to_the_bit(name: str) -> None:
    weight = WEIGHTS[name]
    small, whole = SmallCensus.of(weight), reference.census(weight.reshape(1, -1))
    counts = Census.empty().counts
    counts[small.bins] += small.counts
    np.testing.assert_array_equal(counts, whole.counts)
    for figure in ("count", "zeros", "nan", "infinite", "max_abs", "sum2", "sum4"):
        assert getattr(small, figure) == getattr(whole, figure)
    assert small.finite.quantiles((0.5, 0.99)) == whole.quantiles((0.5, 0.99))
    assert small.finite.above(0.5) == whole.above(0.5)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_between_edges_are_counted_as_one_by_one(name: str) -> None:
    finite = np.abs(WEIGHTS[name].astype(np.float64).reshape(-1))
    values = finite[np.isfinite(finite) & (finite > 0)]
    edges = np.array([2.0**-9, 0.01, 0.5, 1.0])
    found = SmallCensus.of(WEIGHTS[name]).finite.between(edges)
    assert found.tolist() == np.bincount(edges.searchsorted(values, side="right"), minlength=5).tolist()
