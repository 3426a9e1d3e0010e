"""Methods in every variant of the library, and in numpy, against the reference; and mistakes planted in the library."""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hard_weights import DTYPES, SEARCHES, contexts, difference, searched, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import Mutant, compiled
from test_cpu import NAMES, VARIANTS, assert_measured, backend_called

from kernels import Context, Quantized, Recipe, recipe, reference
from kernels.cpu.backend import CpuBackend, encode_parallel

HARD = ("ties", "small ties", "e4m3 ties", "odd blocks")


def wanted(weight: Any, chosen: Recipe, g: float, context: Context) -> Quantized:
    with np.errstate(all="ignore"):
        return reference.encode(weight, chosen, g, context)


def tensor_scales(chosen: Recipe) -> tuple[float, ...]:
    return (1.0, 1.7e-3, 3e-2, 7.1e3, 1e-10, 1e-36) if chosen.format.tensor_scale else (1.0,)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("recipe_name", SEARCHES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_bytes_and_what_is_measured_are_those_of_the_reference(dtype: str, recipe_name: str) -> None:
    chosen = SEARCHES[recipe_name]
    hard = {name: weights(dtype)[name] for name in HARD} | {"searched": searched(DTYPES[dtype])}
    for g in tensor_scales(chosen):
        for weight_name, weight in hard.items():
            for context_name, context in contexts(weight.shape[1]).items():
                expected = wanted(weight, chosen, g, context)
                measured = reference.fidelity(weight, expected, blocks=True)
                for name in NAMES:
                    got = backend_called(name).encode(weight, chosen, g, context=context, blocks=True)
                    plain = backend_called(name).encode(weight, chosen, g, context=context, measure=False)
                    for one in (got, plain):
                        reason = difference(one.quantized, expected)
                        assert reason is None, f"{name}, {weight_name}, {context_name}, g = {g}: {reason}"
                    assert got.fidelity is not None
                    assert_measured(got.fidelity, measured)


@pytest.mark.parametrize("method", ["four-six", "search", "hessian"])
def test_every_largest_weight_of_a_block(method: str) -> None:
    weight = weights("bf16")["every magnitude"]
    chosen, context = recipe("nvfp4-3t", "ceil", method), contexts(weight.shape[1])["inputs"]
    expected = wanted(weight, chosen, 1.7e-4, context)
    for name in NAMES:
        got = backend_called(name).encode(weight, chosen, 1.7e-4, context=context, measure=False)
        assert difference(got.quantized, expected) is None, name


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 7),
    blocks=st.integers(1, 40),
    recipe_name=st.sampled_from(list(SEARCHES)),
    dtype=st.sampled_from(list(DTYPES)),
    context_name=st.sampled_from(["inputs", "largest", "none"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(rows: int, blocks: int, recipe_name: str, dtype: str, context_name: str, seed: int) -> None:
    chosen = SEARCHES[recipe_name]
    width = blocks * chosen.format.block
    weight = (np.random.default_rng(seed).standard_t(3, (rows, width)) * 0.02).astype(DTYPES[dtype])
    g = 3.1e-5 if chosen.format.tensor_scale else 1.0
    context = contexts(width).get(context_name, Context())
    expected = reference.encode(weight, chosen, g, context)
    for name in NAMES:
        for measure in (False, True):
            got = backend_called(name).encode(weight, chosen, g, context=context, measure=measure)
            assert difference(got.quantized, expected) is None


@pytest.mark.parametrize("recipe_name", ["nvfp4-3t-search", "nvfp4-3t-importance", "nvfp4-2t-hessian"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_number_of_threads_changes_nothing(recipe_name: str, name: str, threads: int) -> None:
    weight = np.random.default_rng(2).normal(size=(13, 1600)).astype(ml_dtypes.bfloat16)
    chosen, context = SEARCHES[recipe_name], contexts(1600)["inputs"]
    backend = backend_called(name)
    whole = backend.encode(weight, chosen, 0.002, context=context, blocks=True)
    split = encode_parallel(backend, weight, chosen, 0.002, threads=threads, context=context, blocks=True)
    assert difference(split.quantized, whole.quantized) is None
    assert split.fidelity is not None
    assert whole.fidelity is not None
    np.testing.assert_array_equal(split.fidelity.row_error, whole.fidelity.row_error)
    assert split.fidelity.max_error == whole.fidelity.max_error


@pytest.mark.parametrize("recipe_name", SEARCHES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_variant_gives_the_same_sums_to_the_last_bit(dtype: str, recipe_name: str) -> None:
    weight, context = searched(DTYPES[dtype]), contexts(1152)["inputs"]
    measured = [
        CpuBackend(name).encode(weight, SEARCHES[recipe_name], 0.002, context=context, blocks=True).fidelity
        for name in VARIANTS
    ]
    assert measured[0] is not None
    for other in measured[1:]:
        assert other is not None
        for part in ("row_squares", "row_error", "block_error"):
            np.testing.assert_array_equal(getattr(other, part), getattr(measured[0], part))
        assert other.max_error == measured[0].max_error


@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_another_matrix_are_refused(name: str) -> None:
    weight = np.ones((2, 64), np.float32)
    known = contexts(96)["inputs"]
    for method, what in (("importance", "importance"), ("hessian", "moments")):
        with pytest.raises(ValueError, match=rf"\[context\] {what} must be"):
            backend_called(name).encode(weight, recipe("nvfp4-3t", "ceil", method), context=known)
    wide: Any = Context(importance=np.ones(64, np.int64))
    with pytest.raises(ValueError, match=r"must be uint16 \(64,\), got int64 \(64,\)"):
        backend_called(name).encode(weight, recipe("nvfp4-3t", "ceil", "importance"), context=wide)


@pytest.mark.parametrize("name", VARIANTS)
def test_statistics_may_lie_anywhere_in_memory(name: str) -> None:
    weight, known = searched(ml_dtypes.bfloat16), contexts(1152)["inputs"]
    assert known.importance is not None
    assert known.moments is not None
    strided = replace(known, importance=np.repeat(known.importance, 2)[::2], moments=np.asfortranarray(known.moments))
    for method in ("importance", "hessian"):
        chosen = recipe("nvfp4-3t", "ceil", method)
        one, other = (CpuBackend(name).encode(weight, chosen, 0.0017, context=part) for part in (known, strided))
        assert difference(one.quantized, other.quantized) is None


GONE_OVER = "Nvfp4GoneOver"
CODECS = {"Nvfp4": "nvfp4", GONE_OVER: "nvfp4", "Mxfp4": "mxfp4", "Affine<4, true>": "int4", "Affine<8, true>": "int8"}
"""How the names of their formats begin; of NVFP4 one has the method `hessian`, the other all others."""

MUTANTS = (
    Mutant("search.h", "4, 5, 6}", "4, 5, 7}"),
    Mutant("search.h", "subnormal ? first + 2u", "subnormal ? first + 1u"),
    Mutant("search.h", "(tried[i] > best.choice)", "(tried[i] < best.choice)"),
    Mutant("search.h", "SQUARES_MOST = 511", "SQUARES_MOST = 415"),
    Mutant("search.h", "& 0xFFFu) | 1u", "& 0xFFFu)"),
    Mutant("search.h", "-3, -6, -10}", "-3, -6, -9}"),
    Mutant("search.h", "excess * excess", "excess * excess * excess"),
    Mutant("search.h", "? FLOORS_AT : 0", "? 0 : 0", GONE_OVER),
    Mutant("columns.h", "0x1p-10) / a", "0x1p-10) * 16 / a", GONE_OVER),
    Mutant("search.h", "GUIDED_MOST = 1023", "GUIDED_MOST = 767"),
    Mutant("search.h", "(PartShorts)e << 5", "(PartShorts)e << 4"),
    Mutant("search.h", "both(even >> 15", "both(even >> 14", GONE_OVER),
    Mutant("search.h", ", part_of(half.sign[k], part));", ", Part{} + 0x00010001u);", GONE_OVER),
    Mutant("search.h", "both(first, second << 16)", "both(first, second)", GONE_OVER),
    Mutant("search.h", "both(first >> 16, second)", "both(second >> 16, first)", GONE_OVER),
    Mutant("search.h", "k < p; k++) meet", "k < p - 1; k++) meet", GONE_OVER),
    Mutant("search.h", "moments(2 * p, p) >> 16", "moments(2 * p, p)", GONE_OVER),
    Mutant("search.h", "moments(2 * p, p) & 0xFFFF0000u", "moments(2 * p, p)", GONE_OVER),
    Mutant("search.h", "e[p] = both((Part)error, e[p]);", "", GONE_OVER),
    Mutant("search.h", "e[p] = both(e[p], (Part)error << 16);", "", GONE_OVER),
    Mutant("search.h", "Part sign = target & 0x80000000u", "Part sign = (Part)whole & 0x80000000u", GONE_OVER),
    Mutant("search.h", "columns + i / PARTS * VECTORS_OF_MOMENTS", "columns", GONE_OVER),
    Mutant("whole.h", "most = PartFloats{} + 384.0f", "most = PartFloats{} + 256.0f", GONE_OVER),
    Mutant("columns.h", "(2 * *triangle)", "*triangle", GONE_OVER),
    Mutant("codecs.h", "kept[h] = ~(searchable(peak) & fits", "kept[h] = ~(fits", GONE_OVER),
    Mutant("codecs.h", "if (!any(kept[0] | kept[1])) return;", "return;", GONE_OVER),
    Mutant("codecs.h", "low | (Nvfp4::encode", "low & (Nvfp4::encode", GONE_OVER),
    Mutant("search.h", "peak < 0x1p60f", "peak < 0x1p61f", "Mxfp4"),
    Mutant("search.h", "peak * 0.25f", "peak * 0.24f"),
    Mutant("search.h", "step >= -1", "step >= 0", "Mxfp4"),
    Mutant("search.h", "FAR = 256", "FAR = 240", "Affine<8, true>"),
    Mutant("columns.h", "2 * k < row ? 0 : ", "", GONE_OVER),
    Mutant("columns.h", "(column / STRIP * 2 + half) * each", "half * each"),
    Mutant("codecs.h", "saturated[h] ? byte : found", "found"),
    Mutant("codecs.h", "steps = splat(lowest);", "steps = splat(-lowest);", "Affine<4, true>"),
    Mutant("codecs.h", "half = steps_wanted / 2;", "half = -lowest - 1;", "Affine<8, true>"),
    Mutant("codecs.h", "bias = scale * lowest;", "bias = scale * -lowest;", "Affine<4, true>"),
    Mutant("codecs.h", "scaled = larger(scaled, Floats{})", "scaled = larger(scaled, splat(-1.0f))", "Affine<4, true>"),
    Mutant("whole.h", "(PartShorts)t >> 4", "((PartShorts)t + (uint16_t)1) >> 4"),
)


class Changed(CpuBackend):
    """The backend with another encoder."""

    def __init__(self, path: Path) -> None:
        super().__init__(VARIANTS[0])
        encode: Callable[[Any], int] = ctypes.CDLL(str(path)).encode_bfloat16
        self._library: Any = SimpleNamespace(nvfp4_encode=lambda _variant, task: encode(task))


def seen(path: Path, codec: str) -> bool:
    """Whether any recipe of a codec gives other bytes than the reference."""
    weight, backend = searched(ml_dtypes.bfloat16), Changed(path)
    for name, chosen in SEARCHES.items():
        if name.startswith(CODECS[codec]) and (chosen.method == "hessian") == (codec == GONE_OVER):
            g = 0.0017 if chosen.format.tensor_scale else 1.0
            for known in ("inputs", "together"):
                context = contexts(1152)[known]
                got = backend.encode(weight, chosen, g, context=context, measure=False).quantized
                if difference(got, wanted_searched(name, known)):
                    return True
    return False


@functools.cache
def wanted_searched(name: str, known: str) -> Quantized:
    chosen = SEARCHES[name]
    g = 0.0017 if chosen.format.tensor_scale else 1.0
    return wanted(searched(ml_dtypes.bfloat16), chosen, g, contexts(1152)[known])


@pytest.mark.proof
def test_planted_mistakes_are_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    tried = [*(Mutant("", "", "", codec) for codec in CODECS), *MUTANTS]
    paths = compiled(tried, "encode_bfloat16.cpp", VARIANTS[0], tmp_path_factory)[1:]
    unseen = [mutant for mutant, path in zip(tried, paths, strict=True) if not seen(path, mutant.codec)]
    assert unseen == tried[: len(CODECS)]
