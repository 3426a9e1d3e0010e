"""The validation harness: does a backend compute what it should, what does each format cost, and how fast is it.

Figures of the original work stand beside those measured here. The weights are made by seeded generators that
reproduce the originals: normal numbers of deviation 0.02, some of them enlarged.
"""

from kernels.validation.bench import Bench
from kernels.validation.checks import layers, matmul_invariance, matmul_quality, pack_invariance, round_trip, smoke_test
from kernels.validation.costs import speed, trade_off
from kernels.validation.report import Report, Table
from kernels.validation.weights import CASES, Case, decode_weight, with_lane_bug

__all__ = [
    "CASES",
    "Bench",
    "Case",
    "Report",
    "Table",
    "decode_weight",
    "matmul_quality",
    "round_trip",
    "run",
    "with_lane_bug",
]


def run(backend: str = "auto", *, quick: bool = False, timed: bool = True) -> Report:
    """Validate `backend` (a name for `kernels.machines.choose`); `quick` takes fewer rows; `timed` adds times.

    Raises ValueError when the backend does not exist here.
    """
    bench = Bench(backend)
    tables = [pack_invariance(bench), matmul_invariance(bench), smoke_test(bench)]
    tables += [round_trip(bench, quick), matmul_quality(bench, quick), layers(bench)]
    if timed:
        tables += [trade_off(bench, quick), speed(bench, quick)]
    return Report(bench.backend.title, tuple(tables))
