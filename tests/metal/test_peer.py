"""mlx's shipped Metal kernels agree with ours and with the reference; with a lane bug planted they do not."""

import mlx.core as mx
import numpy as np
import pytest

from kernels import MLX_FORMATS, recipe, reference
from kernels.formats import Recipe
from kernels.gpu.requirements import has_lane_bug
from kernels.validation import decode_weight
from tests.metal import peer
from tests.metal.compiling import Compiler
from tests.metal.harness import Machine

LANE = "uint simd_lid [[thread_index_in_simdgroup]]"


@pytest.fixture
def machine(compiler: Compiler) -> Machine:
    if mx.metal.is_available():
        pytest.skip("mlx's kernels run on the device itself, see validate")
    return Machine(compiler, order=3)


def weights() -> np.ndarray:
    return (np.random.default_rng(3).standard_t(3, (24, 512)) * 0.02).astype(np.float32)


@pytest.mark.parametrize("three", [False, True])
def test_nvfp4_codes_and_scales_are_mlxs(machine: Machine, three: bool) -> None:
    g = 2.0**-17  # a power of two, for which mlx's order of operations makes no difference
    chosen = Recipe(MLX_FORMATS["nvfp4-3t" if three else "nvfp4-2t"])
    right = reference.encode(weights(), chosen, g if three else 1.0)
    codes, scales = peer.quantize(machine, weights(), 16, 4, 2688 * g if three else None)
    np.testing.assert_array_equal(scales, right.scales)
    np.testing.assert_array_equal(codes, right.codes)


@pytest.mark.parametrize("amax", [None, 0.3])
def test_nvfp4_decodes_as_mlx_does(machine: Machine, amax: float | None) -> None:
    g = float(np.float32(amax) / np.float32(2688)) if amax else 1.0
    right = reference.encode(weights(), recipe("nvfp4-3t" if amax else "nvfp4-2t"), g)
    decoded = peer.dequantize(machine, right.codes, right.scales, 16, 4, amax)
    np.testing.assert_array_equal(decoded, reference.decode(right))


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8"])
def test_mx_formats_are_mlxs(machine: Machine, name: str) -> None:
    bits = MLX_FORMATS[name].bits
    right = reference.encode(weights(), recipe(name))
    codes, scales = peer.quantize(machine, weights(), 32, bits)
    np.testing.assert_array_equal(scales, right.scales)
    np.testing.assert_array_equal(codes, right.codes)
    np.testing.assert_array_equal(peer.dequantize(machine, codes, scales, 32, bits), reference.decode(right))


@pytest.mark.parametrize("name", [name for name, row in MLX_FORMATS.items() if row.affine])
def test_affine_codes_scales_and_biases_are_mlxs(machine: Machine, name: str) -> None:
    row, weight = MLX_FORMATS[name], weights()
    weight[:, 256:] = np.abs(weight[:, 256:])  # the whole group on one side of zero, too
    right = reference.encode(weight, recipe(name))
    codes, scales, biases = peer.affine_quantize(machine, weight, row.block, row.bits)
    np.testing.assert_array_equal(scales, right.scales)
    np.testing.assert_array_equal(biases, right.biases)
    np.testing.assert_array_equal(codes, right.codes)


def test_mlx_takes_zero_for_the_maximum_of_a_negative_group_on_metal(machine: Machine) -> None:
    """There its kernel starts the maximum at 0 and spends codes on numbers that do not occur; its CPU does not."""
    weight, row = -np.abs(weights()) - np.float32(1), MLX_FORMATS["int4-g32"]
    right = reference.encode(weight, recipe("int4-g32"))
    codes, scales, biases = peer.affine_quantize(machine, weight, row.block, row.bits)
    theirs = reference.decode(reference.Quantized(row, codes, scales, biases))
    assert not np.array_equal(scales, right.scales)
    assert np.square(theirs - weight).sum() > 4 * np.square(reference.decode(right) - weight).sum()


LANE_BUGS = {
    "position in the grid for the lane": lambda text: text.replace(
        LANE, "uint unused [[thread_index_in_simdgroup]]"
    ).replace("simd_lid", "tidx.x"),
    "index in the threadgroup for the lane": lambda text: text.replace(
        LANE, "uint simd_lid [[thread_index_in_threadgroup]]"
    ),
    "maximum over all lanes": lambda text: text.replace("simd_lid < 16 ?", "simd_lid < 32 ?"),
}


@pytest.mark.parametrize("bug", LANE_BUGS)
def test_a_lane_bug_is_seen(machine: Machine, bug: str) -> None:
    text = LANE_BUGS[bug](peer.peer_text())
    assert text != peer.peer_text()
    _, scales = peer.quantize(machine, weights(), 16, 4, text=text)
    right = reference.encode(weights(), recipe("nvfp4-2t"))
    assert not np.array_equal(scales, right.scales)
    assert has_lane_bug(scales)
    assert not has_lane_bug(right.scales)


def test_the_lane_bug_costs_what_was_reported(machine: Machine) -> None:
    weight = decode_weight(256, 4096)
    norm = float((weight.astype(np.float64) ** 2).sum())
    text = LANE_BUGS["position in the grid for the lane"](peer.peer_text())
    for planted, expected in ((None, 0.094), (text, 0.1177)):
        codes, scales = peer.quantize(machine, weight, 16, 4, text=planted)
        back = peer.dequantize(machine, codes, scales, 16, 4).astype(np.float64)
        assert ((back - weight) ** 2).sum() / norm == pytest.approx(expected**2, rel=0.03)
