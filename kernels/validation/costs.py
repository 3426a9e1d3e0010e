"""What each format costs and how fast a backend is; errors are judged, times are only told."""

from collections.abc import Callable
from functools import partial

import ml_dtypes
import numpy as np

from kernels.formats import FORMATS, recipe
from kernels.validation.bench import Bench, seconds
from kernels.validation.checks import relative_error, shape_of
from kernels.validation.report import Row, Table
from kernels.validation.weights import CASES

_ORIGINAL_TRADE = {"int8-g128": 0.012, "nvfp4-2t": 0.094, "nvfp4-3t": 0.0913, "int4-g32": 0.102}
_ORIGINAL_TRADE |= {"mxfp8": 0.104, "int4-g64": 0.137, "mxfp4": 0.171}

_NOT_REPRODUCED = ("mxfp8", "int8-g128")
"""MLX's mxfp8 has 3 bits of mantissa and errs by 0.026; int8 depends on the outliers, of which this weight has more."""


def trade_off(bench: Bench, quick: bool) -> Table:
    """What a format costs and saves on the decode weight: bits, error, time of one row's product, size."""
    case = CASES[1]
    weight = case.make(*shape_of(case, quick)).astype(ml_dtypes.bfloat16)
    wide = weight.astype(np.float32)
    x = np.random.default_rng(2).standard_normal((1, case.shape[1]), np.float32)
    dense = bench.productseconds(x, wide)
    rows: list[Row] = [("fp16", 16.0, None, 0.0, dense * 1e3, 1.0, weight.nbytes / 2**20, None)]
    for name, original in _ORIGINAL_TRADE.items():
        packed = bench.encode(weight, name)
        took, error = bench.productseconds(x, packed), relative_error(bench.backend.decode(packed), wide)
        bits = packed.format.bits_per_weight(weight.shape)
        judged = None if name in _NOT_REPRODUCED else abs(error / original - 1) < 0.1
        rows.append((name, bits, original, error, took * 1e3, dense / took, packed.nbytes / 2**20, judged))
    columns = ("format", "bits", "original", "rel_err", "ms", "times fp16", "MiB", "passed")
    return Table("7. What each format costs (product with one row)", columns, tuple(rows))


def speed(bench: Bench, quick: bool) -> Table:
    """Time to quantize and to decode the decode weight, in billions of weights a second."""
    weight = CASES[1].make(*shape_of(CASES[1], quick)).astype(ml_dtypes.bfloat16)
    rows: list[Row] = []
    for name in FORMATS:
        chosen, packed = recipe(name), bench.encode(weight, name)
        g = 1.0 if packed.tensor_scale is None else float(packed.tensor_scale)
        calls: list[Callable[[], object]] = [
            partial(bench.backend.encode, weight, chosen, g, measure=False),
            partial(bench.backend.encode, weight, chosen, g),
            partial(bench.backend.decode, packed, ml_dtypes.bfloat16),
        ]
        times = [seconds(call, 2) for call in calls]
        rows.append((name, *(weight.size / took / 1e9 for took in times), None))
    columns = ("format", "encode G/s", "with error G/s", "decode G/s", "")
    return Table("8. Speed, copies to and from the backend included", columns, tuple(rows))
