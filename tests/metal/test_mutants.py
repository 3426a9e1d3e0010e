"""Mistakes planted in the kernels' text, each of which must turn a check red: a proof that the checks look."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest

from kernels import MLX_FORMATS, recipe, reference
from kernels.gpu import coding, source
from kernels.gpu.library import Library
from kernels.gpu.selftest import adversarial, adversarial_context
from kernels.gpu.transfer import mlx_dtype, to_mlx, to_numpy
from tests.metal.compiling import Compiler, HarnessError
from tests.metal.delicate import delicate, near_candidates
from tests.metal.harness import Machine, metal_on
from tests.metal.test_bytes import bits

MACHINES: tuple[dict[str, Any], ...] = ({}, {"order": 7, "sum_order": 1}, {"flush": True})


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old` becomes `new` in the text called `text`; the format and the path that meet it."""

    name: str
    text: str
    old: str
    new: str
    format: str = "nvfp4-3t"
    measure: bool = False
    dtype: Any = ml_dtypes.bfloat16
    header: str = ""
    method: str = "max"


MUTANTS = (
    Mutant(
        "position in the grid for the lane",
        "nvfp4_measure",
        "first + thread_index_in_simdgroup",
        "first + thread_position_in_grid.x",
        measure=True,
    ),
    Mutant(
        "position in the grid decides who writes",
        "nvfp4_measure",
        "thread_index_in_simdgroup == 0u",
        "thread_position_in_grid.x == 0u",
        measure=True,
    ),
    Mutant(
        "index in the threadgroup for the lane",
        "nvfp4_measure",
        "first + thread_index_in_simdgroup",
        "first + thread_index_in_threadgroup",
        measure=True,
    ),
    Mutant(
        "maximum over 32 weights",
        "nvfp4_encode",
        "Encoded r;",
        "Encoded r; block.w[0] = larger(block.w[0], load_block<N>(w, i ^ 1).w[0]);",
    ),
    Mutant(
        "maximum over the lanes of a simdgroup",
        "nvfp4.h",
        "uint peak = peak_of<KIND>(block);",
        "uint peak = as_type<uint>(simd_max(as_type<float>(peak_of<KIND>(block))));",
    ),
    Mutant("nibbles swapped", "nvfp4", "int i = 8 * half + k;", "int i = 8 * half + (k ^ 1);"),
    Mutant(
        "halves of a block swapped",
        "nvfp4_encode",
        "store8(codes, i, r.low, r.high);",
        "store8(codes, i, r.high, r.low);",
    ),
    Mutant("signs of neighbours swapped", "prelude_metal", "uint even = ((a >> 12)", "uint even = ((b >> 12)"),
    Mutant(
        "simd operation met by half the lanes",
        "nvfp4_measure",
        "float squares = simd_sum(sum.squares)",
        "float squares = thread_index_in_simdgroup < 16u ? simd_sum(sum.squares) : 0.0f",
        measure=True,
    ),
    Mutant(
        "write past the end", "nvfp4_encode", "for (; i < blocks; i += stride) {", "for (; i <= blocks; i += stride) {"
    ),
    Mutant("read past the end", "nvfp4_encode", "if (i + stride < blocks) next", "next"),
    Mutant(
        "last block not written",
        "nvfp4_encode",
        "scales[i] = uint8_t(r.scale);",
        "if (i + 1 < blocks) scales[i] = uint8_t(r.scale);",
    ),
    Mutant("double", "prelude_metal", "return 1.0f / x;", "return float(1.0 / double(x));"),
    Mutant(
        "attribute named in the header only",
        "nvfp4_decode",
        "threads_per_grid",
        "THREADS",
        header="#define THREADS threads_per_grid\n",
    ),
    Mutant("scale rounded half up", "numbers", "0x7ffffu + ((bits >> 20) & 1u)", "0x80000u"),
    Mutant(
        "code rounded down at ties",
        "numbers",
        "fused(saturated(magnitude * 0.5f), 4.0f, 0x1p23f)",
        "fused(saturated(magnitude * 0.5f), 3.999999f, 0x1p23f)",
    ),
    Mutant(
        "reciprocal in place of the quotient",
        "nvfp4",
        "return fused(x, d.high, x * d.low);",
        "return x * d.high;",
        dtype=np.float32,
    ),
    Mutant("divisor of all ones taken quickly", "nvfp4", "&& (bits & 0x7fffffu) != 0x7fffffu", ""),
    Mutant(
        "subnormals through float",
        "numbers",
        "return float(bits) * 0x1p-85f;",
        "return as_type<float>(bits) * 0x1p64f;",
        dtype=np.float32,
    ),
    Mutant("subnormal factor not rounded", "nvfp4", "factor < 0x1p-62f ?", "false ?", dtype=np.float32),
    Mutant("careful way never taken", "nvfp4", "if (s.by.quick) {", "if (true) {"),
    Mutant("least scale forgotten", "nvfp4", "if (MIN_SCALE > 0) s.code", "if (false) s.code"),
    Mutant("scale of a zero block forgotten", "nvfp4", "if (peak == 0u) return uint(ZERO_SCALE);", ""),
    Mutant("scale of the next block", "nvfp4_decode", "scales[at >> 1]", "scales[at >> 2]"),
    Mutant("tensor scale forgotten", "nvfp4_decode", "THREE ? g[0] : 1.0f", "1.0f"),
    Mutant("vanished weights counted with zeros", "nvfp4", "if (holds_zero<KIND>(block))", "if (false)", measure=True),
    Mutant("exponent rounded down", "mx", "+ uint((ratio & 0x7fffffu) != 0u)", "", "mxfp4"),
    Mutant("exponent of tiny blocks", "mx", "ratio == 0u ? 127u :", "", "mxfp8", dtype=np.float32),
    Mutant("edge of the range by float", "affine", "below > above", "low > high", "int4-g64"),
    Mutant("range of half a group", "affine", "mask < LANES", "mask < LANES / 2", "int8-g64"),
    Mutant("range of two groups", "affine", "mask < LANES", "mask <= LANES", "int4-g32"),
    Mutant("lowest weight without signs", "affine", "(most >> 31) ? most : least", "least", "int4-g64"),
    Mutant("highest weight with signs", "affine", "(top >> 31) ? least : top", "top", "int4-g64"),
    Mutant("code past the last", "affine", "smaller(fused(a.inverse,", "larger(fused(a.inverse,", "int4-g64"),
    Mutant(
        "integer by the reciprocal alone",
        "affine",
        "fused(a.inverse, fused(-guess, a.scale, x), guess)",
        "guess",
        "int8-g64",
    ),
    Mutant("true division of integers never taken", "affine_encode", "a.quick ?", "true ?", "int8-g64"),
    Mutant("lane past the end writes", "affine_encode", "if (i >= parts) continue;", "", "int8-g128"),
    Mutant("simdgroup leaves one by one", "affine_encode", "first < parts;", "i < parts;", "int8-g128"),
    Mutant(
        "bias forgotten",
        "affine",
        "product(float(code & ((1u << BITS) - 1u)), scale) + bias",
        "product(float(code & ((1u << BITS) - 1u)), scale)",
        "int8-g64",
    ),
    Mutant("tie of levels", "numbers", "x < 128 ? 16 :", "x < 128 ? 15 :", method="hessian"),
    Mutant("multiplier not odd", "choice", ", power, ODD)) | 1u)", ", power, ODD)))", method="search"),
    Mutant(
        "tie of costs",
        "choice",
        "bool better = total < t.best;",
        "bool better = total <= t.best;",
        format="nvfp4-2t",
        method="search",
    ),
    Mutant(
        "weight cut off", "choice", "if (LARGE) better =", "if (false) better =", format="nvfp4-2t", method="search"
    ),
    Mutant("small scales in small steps", "choice", "first < 8 ?", "first < 0 ?", "nvfp4-2t", method="search"),
    Mutant("candidate of another code", "choice", "table[code + BEFORE_CODES]", "table[code + 1]", method="search"),
    Mutant("wanted scale too large to search", "nvfp4", "wanted <= 464.0f", "true", method="search"),
    Mutant(
        "table read before it is there",
        "nvfp4_encode",
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        "",
        method="search",
    ),
    Mutant(
        "code 4 for another weight", "nvfp4", "quotient(size * 0.25f, g)", "quotient(size * 0.2f, g)", method="four-six"
    ),
    Mutant(
        "importance of the neighbour",
        "guided",
        "(16 * (k & 1))) & 0xffffu;",
        "(16 * (~k & 1))) & 0xffffu;",
        method="importance",
    ),
    Mutant("importance cut short", "guided", "* 32 * e + 16384)", "* 32 * e)", method="importance"),
    Mutant(
        "errors in bytes", "guided", ": whole, multiplier);", ": whole, multiplier) << 24 >> 24;", method="importance"
    ),
    Mutant("bound of those who know nothing", "guided", "16376.0f", "8184.0f", method="importance"),
    Mutant("no bound", "guided", "16376.0f", "1e9f", "nvfp4-2t", method="importance"),
    Mutant("smallest scale not tried", "guided", "step >= -10", "step >= -9", method="importance"),
    Mutant("one candidate too many", "guided", "if (step == 2 ||", "if (", method="importance"),
    Mutant("small scales known in small steps", "guided", "first < 8u ?", "first < 0u ?", "nvfp4-2t", method="hessian"),
    Mutant(
        "tie of costs that are known", "guided", "byte > found);", "byte < found);", "nvfp4-2t", method="importance"
    ),
    Mutant(
        "inputs of the next block", "nvfp4_encode", "uint(i % per_row)", "uint((i + 1) % per_row)", method="importance"
    ),
    Mutant(
        "thread leaves its column", "nvfp4_encode", "stride -= stride % per_row;", "stride -= 100;", method="importance"
    ),
    Mutant("rows of moments mixed", "guided", "+ (i & 1) * (8 - r)", "", method="hessian"),
    Mutant(
        "errors without signs",
        "guided",
        "wholes_of<KIND, METHOD == HESSIAN>",
        "wholes_of<KIND, false>",
        method="hessian",
    ),
    Mutant("low part of a cost forgotten", "guided", " + float(low);", ";", method="hessian"),
    Mutant("columns before left out", "guided", "if (i < c) sum", "if (i < c - 1) sum", method="hessian"),
    Mutant("columns behind left out", "guided", "if (i > c) sum", "if (i > c + 1) sum", method="hessian"),
    Mutant(
        "error of a code that was",
        "guided",
        "errors.w[c] = uint(int(wanted",
        "if (below) errors.w[c] = uint(int(wanted",
        method="hessian",
    ),
    Mutant("sign of the weight", "guided", "bool below = target < 0.0f", "bool below = whole < 0", method="hessian"),
    Mutant(
        "share of one moment", "guided", "reciprocal(2.0f * float(own))", "reciprocal(float(own))", method="hessian"
    ),
    Mutant("codes past the last", "guided", "* 0x1p-6f, 6.0f)", "* 0x1p-6f, 7.0f)", method="hessian"),
    Mutant(
        "blocks that are cut off gone over",
        "nvfp4",
        "* m < GUIDED_MOST) codes",
        "* m < 1e9f) codes",
        "nvfp4-2t",
        method="hessian",
    ),
    Mutant("error of another sign", "nvfp4", "if (code & 8u) value = -value;", "", measure=True, method="hessian"),
    Mutant(
        "zeros that vanish", "nvfp4", "&& magnitude_bits<KIND>(block, i) != 0u)", ")", measure=True, method="hessian"
    ),
    Mutant("multiplier below its power of two", "mx", "+ 8)) | 1,", "+ 8)) - 1 | 1,", "mxfp4", method="search"),
    Mutant(
        "cost of the next power of two",
        "mx",
        "weight = weight * 0.25f",
        "weight = weight * 0.5f",
        "mxfp4",
        method="search",
    ),
    Mutant(
        "cost of half a group", "affine", "mask *= 2) x += simd", "mask *= 4) x += simd", "int8-g64", method="search"
    ),
    Mutant(
        "near end of a shrunk range",
        "affine",
        "SHRUNK ? larger(steps, 0.0f) : steps",
        "steps",
        "int4-g64",
        method="search",
    ),
    Mutant("range far from zero shrunk", "affine", "found = near ? found : 1.0f;", "", "int4-g64", method="search"),
)


def planted(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    real, name = source._text, mutant.text.removesuffix(".h")

    def text(asked: str) -> str:
        found = real(asked)
        if asked == "numbers":
            found = mutant.header + found
        return found.replace(mutant.old, mutant.new) if asked == name else found

    assert mutant.old in real(name), "the text to change is gone: bring the list up to date"
    monkeypatch.setattr(source, "_text", text)


def integers() -> np.ndarray:
    """Groups whose ends are of every sign, and a last simdgroup that is not full."""
    rng = np.random.default_rng(12)
    near = rng.standard_normal((33, 128)) + np.repeat([-9, 0, 9], 11)[:, None]
    return (near * np.exp2(rng.integers(-9, 9, (33, 1)))).astype(ml_dtypes.bfloat16)


def far_from_zero() -> np.ndarray:
    """Groups that are a thousand times as far from zero as they are wide."""
    return (1000 + np.random.default_rng(18).standard_normal((3, 256))).astype(np.float32)


def weights(mutant: Mutant) -> list[tuple[np.ndarray, float]]:
    three = MLX_FORMATS[mutant.format].tensor_scale
    g = float(np.float32(0.02 / 2688)) if three else 1.0
    made = [(adversarial(mutant.dtype), g)]
    if mutant.method != "max":
        return [*made, (near_candidates(mutant.dtype, 256, g), g), (far_from_zero(), g)]
    if MLX_FORMATS[mutant.format].affine:
        made.append((integers(), g))
    if three:
        made += delicate(mutant.dtype)
    return made


def assert_right(lib: Library, mutant: Mutant, weight: np.ndarray, g: float) -> None:
    chosen, scale = recipe(mutant.format, method=mutant.method), to_mlx(np.array([g], np.float32))
    context = adversarial_context(weight.shape[1]) if mutant.method != "max" else None
    with np.errstate(all="ignore"):
        right = reference.encode(weight, chosen, g, context)
        decoded = reference.decode(right).astype(weight.dtype)
    coded = coding.encode(lib, to_mlx(weight), chosen, scale, context=context, measure=mutant.measure)
    assert np.array_equal(to_numpy(coded.codes).view(np.uint8), right.codes)
    assert np.array_equal(bits(to_numpy(coded.scales)), bits(right.scales))
    if mutant.measure:
        sums = to_numpy(coded.sums)[4:6].astype(np.float64)
        want = reference.fidelity(weight, right)
        assert np.allclose(sums[..., 0].sum(axis=1), want.row_squares[4:6], rtol=1e-4)
        assert np.allclose(sums[..., 1].sum(axis=1), want.row_error[4:6], rtol=1e-3)
        assert to_numpy(coded.sums)[..., 3].sum() == want.vanished
        return
    back = to_numpy(coding.decode(lib, coded, chosen.format, mlx_dtype(weight.dtype), scale))
    assert np.array_equal(bits(back), bits(decoded))


def check(mutant: Mutant, compiler: Compiler) -> None:
    programs: dict[str, Any] = {}
    for behaviour in MACHINES:
        with metal_on(Machine(compiler, programs=programs, **behaviour)):
            lib = Library("metal")
            for weight, g in weights(mutant)[: 1 + (mutant.method != "max") if mutant.measure else None]:
                assert_right(lib, mutant, weight, g)


@pytest.fixture(autouse=True)
def _no_device() -> None:
    if mx.metal.is_available():
        pytest.skip("mistakes are planted on the harness, not on a device")


@pytest.mark.parametrize(("measure", "method"), [(False, "max"), (True, "max"), (True, "hessian")])
def test_the_text_as_it_is_passes(compiler: Compiler, measure: bool, method: str) -> None:
    check(Mutant("none", "nvfp4", "", "", measure=measure, method=method), compiler)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mistake_is_seen(mutant: Mutant, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(mutant, monkeypatch)
    with pytest.raises((AssertionError, HarnessError)):
        check(mutant, compiler)
