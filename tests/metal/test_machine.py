"""The harness keeps Metal's rules: a kernel that breaks one is reported, with the reason."""

import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from kernels import recipe
from kernels.gpu import coding
from kernels.gpu.library import Library
from tests.metal.compiling import Compiler, HarnessError, check_spaces, clang, compile_kernel
from tests.metal.harness import Machine, metal_on

SUM_ROWS = """
  // Attributes: thread_index_in_simdgroup, simdgroup_index_in_threadgroup, thread_index_in_threadgroup,
  //             threadgroup_position_in_grid, simdgroups_per_threadgroup.
  threadgroup float part[32];
  float s = simd_sum(x[threadgroup_position_in_grid.x * 128 + thread_index_in_threadgroup]);
  if (thread_index_in_simdgroup == 0) part[simdgroup_index_in_threadgroup] = s;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (simdgroup_index_in_threadgroup == 0) {
    float t = thread_index_in_simdgroup < simdgroups_per_threadgroup ? part[thread_index_in_simdgroup] : 0.0f;
    t = simd_sum(t);
    if (thread_index_in_simdgroup == 0) out[threadgroup_position_in_grid.x] = t;
  }
"""
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
PARTIALS = "thread_index_in_simdgroup < simdgroups_per_threadgroup ? part[thread_index_in_simdgroup] : 0.0f"


@pytest.fixture(autouse=True)
def _no_device() -> None:
    if mx.metal.is_available():
        pytest.skip("the harness is not used where there is Metal")


def sums(compiler: Compiler, body: str, **behaviour: Any) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((5, 128)).astype(np.float32)
    with metal_on(Machine(compiler, **behaviour)):
        kernel = mx.fast.metal_kernel(name="sum_rows", input_names=["x"], output_names=["out"], source=body)
        (out,) = kernel(
            inputs=[mx.array(x)],
            grid=(5 * 128, 1, 1),
            threadgroup=(128, 1, 1),
            output_shapes=[(5,)],
            output_dtypes=[mx.float32],
        )
    return np.array(out) - x.sum(axis=1, dtype=np.float64)


def test_barriers_simd_sums_and_shared_memory_work(compiler: Compiler) -> None:
    for order in (0, 1, 5):
        assert np.abs(sums(compiler, SUM_ROWS, order=order, sum_order=order % 3)).max() < 1e-4


def test_a_missing_barrier_is_seen(compiler: Compiler) -> None:
    body = SUM_ROWS.replace(BARRIER, "")
    assert not np.abs(sums(compiler, body)).max() < 1e-4


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            SUM_ROWS.replace(BARRIER, f"if (simdgroup_index_in_threadgroup < 2) {BARRIER}"),
            "barrier .* met by 64 of 128",
        ),
        (SUM_ROWS.replace("t = simd_sum(t);", "if (thread_index_in_simdgroup < 4) t = simd_sum(t);"), "met by 4 of 32"),
        (SUM_ROWS.replace("out[threadgroup", "out[5 + threadgroup"), "buffer 1 accessed out of bounds"),
        (SUM_ROWS.replace("* 128 +", "* 128 + 1 +"), "buffer 0 accessed out of bounds"),
        (SUM_ROWS.replace("float s =", "double s ="), "does not compile"),
        (SUM_ROWS.replace("thread_index_in_simdgroup", "lane_index"), "does not compile"),
    ],
    ids=[
        "divergent barrier",
        "divergent sum",
        "write past the end",
        "read past the end",
        "double",
        "unknown attribute",
    ],
)
def test_a_broken_rule_is_named(compiler: Compiler, body: str, reason: str) -> None:
    with pytest.raises(HarnessError, match=reason):
        sums(compiler, body)


def test_partials_that_nobody_wrote_are_not_numbers(compiler: Compiler) -> None:
    assert np.isnan(sums(compiler, SUM_ROWS.replace(PARTIALS, "part[thread_index_in_simdgroup]"))).all()


def test_a_shuffle_from_lane_32_gives_a_pattern(compiler: Compiler) -> None:
    body = SUM_ROWS.replace("= simd_sum(x[", "= simd_shuffle(x[", 1).replace(
        "thread_index_in_threadgroup]);", "thread_index_in_threadgroup], ushort(32));"
    )
    assert np.abs(sums(compiler, body)).max() > 0.1


def test_flushing_makes_subnormals_zero(compiler: Compiler) -> None:
    text = "[[kernel]] void half_of(device float* x [[buffer(0)]]) {\n  x[0] = x[0] * 0.5f;\n}\n"
    for flush in (False, True):
        x = np.array([1.5e-38], np.float32)
        machine = Machine(compiler, flush=flush)
        machine.run(compile_kernel(text, "half_of", "", compiler), [x], (1, 1, 1), (1, 1, 1))
        assert (x[0] == 0) == flush


@pytest.fixture(scope="module")
def spaces() -> Compiler:
    found = clang()
    if not found:
        pytest.skip("no clang: address spaces are not checked (pip install ziglang)")
    return found


@pytest.mark.proof
def test_mixed_address_spaces_do_not_compile(spaces: Compiler) -> None:
    text = """[[kernel]] void mixed(const device float* x [[buffer(0)]], device float* out [[buffer(1)]]) {
  threadgroup float part[1];
  out[0] = part[0] + x[0];
}
"""
    check_spaces(text, "mixed", "", spaces)
    with pytest.raises(HarnessError, match="address_space"):
        check_spaces(text.replace("out[0] =", "device float* p = part; out[0] ="), "mixed", "", spaces)


@pytest.mark.proof
@pytest.mark.parametrize("name", ["nvfp4-3t", "mxfp8", "int4-g64"])
def test_kernels_keep_to_their_address_spaces(name: str, compiler: Compiler, spaces: Compiler) -> None:
    """A block of 16, whose scales arrive in constant memory, and more of them."""
    machine, chosen, g = Machine(compiler), recipe(name), mx.ones((1,))
    with metal_on(machine):
        lib = Library("metal")
        for blocks in (1, 16) if name == "nvfp4-3t" else (1,):
            weight = mx.ones((1, chosen.format.block * blocks), mx.bfloat16)
            coded = coding.encode(lib, weight, chosen, g, measure=True, blocks=True)
            coding.decode(lib, coded, chosen.format, mx.bfloat16, g)
            if name == "nvfp4-3t":
                coding.encode(lib, weight, chosen, g)
                coding.round_trip(lib, weight, chosen, g, g)
    assert len(machine.texts) >= 3
    for kernel, text in machine.texts.items():
        instance = re.search(r"decltype\(" + re.escape(kernel) + r"(<.*?>)\)", text)
        check_spaces(text, kernel, instance[1] if instance else "", spaces)
