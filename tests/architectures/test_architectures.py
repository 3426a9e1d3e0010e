"""Exports of architectures whose names, shapes or sections runtimes read in ways of their own load with our weights."""

from collections.abc import Iterator

import pytest

from tests.architectures.judging import Judge
from tests.architectures.publishing import newly_refused
from tests.architectures.rows import SUBSET
from tests.architectures.verdicts import COLUMNS
from tests.runtimes.conftest import MLX, TRANSFORMERS
from tests.runtimes.worker import missing

pytestmark = pytest.mark.skipif(bool(missing(MLX | TRANSFORMERS)), reason=f"{missing(MLX | TRANSFORMERS)}")


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Iterator[Judge]:
    """One judge for all rows."""
    judge = Judge(tmp_path_factory.mktemp("architectures"))
    yield judge
    judge.close()


@pytest.mark.sampled(15)
@pytest.mark.parametrize("name", SUBSET)
def test_every_export_is_right_or_refused_or_says_what_it_is_not(name, judge):
    row = judge.judge(name, list(COLUMNS))
    faults = {column: f"{verdict}; {verdict.reason}" for column, verdict in row.verdicts.items() if not verdict.fine}
    assert faults == {}
    assert newly_refused([row]) == []
