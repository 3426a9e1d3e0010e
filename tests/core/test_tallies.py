"""Tallies: what is known of a layer does not depend on how it was cut, nor on how its slabs were counted."""

import ml_dtypes
import numpy as np
import pytest

from kernels import reference
from kernels.fidelity import AnyCensus, SmallCensus
from studio.core.running.tallies import CensusTally

WEIGHT = np.random.default_rng(0).normal(0, 1, (6, 16)).astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("small", ["", "0", "01", "12", "012"])
def test_censuses_of_slabs_add_up_to_that_of_the_layer(small: str) -> None:
    def census(part: int) -> AnyCensus:
        rows = WEIGHT[2 * part : 2 * part + 2]
        return SmallCensus.of(rows) if str(part) in small else reference.census(rows)

    whole, later = CensusTally(), CensusTally()
    whole.add(census(0))
    for part in (1, 2):
        later.add(census(part))
    whole.merge(later)
    found = whole.census()
    np.testing.assert_array_equal(found.counts, reference.census(WEIGHT).counts)
    assert found.max_abs == reference.census(WEIGHT).max_abs
