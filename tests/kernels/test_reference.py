"""The definition of right, held against ml_dtypes, stored golden files and MLX."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hard_weights import MIDPOINTS, every_magnitude, odd_blocks, ties
from numpy.typing import NDArray

from kernels import FORMATS, MLX_FORMATS, Recipe, recipe, reference

DATA = Path(__file__).parents[1] / "data"
GOLDEN = {
    "golden_spec_2tier": recipe("nvfp4-2t"),
    "golden_spec_3tier": Recipe(FORMATS["nvfp4-3t"]),
    "golden_spec_3tier_export": recipe("nvfp4-3t"),
}
BFLOAT16 = ml_dtypes.bfloat16


def load(name: str) -> dict[str, NDArray[Any]]:
    """Arrays of a safetensors file; its own package has no bfloat16 for numpy."""
    raw = (DATA / f"{name}.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    dtypes: dict[str, Any] = {"BF16": BFLOAT16, "F16": np.float16, "F32": np.float32, "U8": np.uint8}
    header = {key: entry for key, entry in json.loads(raw[8:start]).items() if key != "__metadata__"}
    return {
        key: np.frombuffer(raw[start:], np.uint8)[slice(*entry["data_offsets"])]
        .view(dtypes[entry["dtype"]])
        .reshape(entry["shape"])
        for key, entry in header.items()
    }


def every_bfloat16(limit: float) -> NDArray[np.float32]:
    """All finite bfloat16 numbers up to a magnitude, of both signs."""
    values = np.arange(65536, dtype=np.uint16).view(BFLOAT16).astype(np.float32)
    return values[np.abs(values) <= limit]


def around(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points, their float32 neighbours, and the negatives of all."""
    near = np.concatenate([points, np.nextafter(points, np.float32(0)), np.nextafter(points, np.float32(1e9))])
    return np.concatenate([near, -near])


def test_e2m1_is_that_of_ml_dtypes_for_every_bfloat16_and_around_every_tie() -> None:
    kind = ml_dtypes.float4_e2m1fn
    numbers = np.concatenate([every_bfloat16(3e38), around(np.array([*MIDPOINTS, *reference.E2M1_VALUES], np.float32))])
    np.testing.assert_array_equal(reference.e2m1_encode(numbers), numbers.astype(kind).view(np.uint8))
    codes = np.arange(16, dtype=np.uint8)
    assert reference.e2m1_decode(codes).tobytes() == codes.view(kind).astype(np.float32).tobytes()


def test_e4m3_is_that_of_ml_dtypes_for_every_bfloat16_and_around_every_tie() -> None:
    kind = ml_dtypes.float8_e4m3fn
    values = reference.E4M3_VALUES
    numbers = np.concatenate([every_bfloat16(448), around((values[1:] + values[:-1]) / 2), around(values[:-1])])
    np.testing.assert_array_equal(reference.e4m3_encode(numbers), numbers.astype(kind).view(np.uint8))
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(reference.e4m3_decode(codes), codes.view(kind).astype(np.float32))


def test_e4m3_saturates() -> None:
    assert reference.e4m3_encode(np.array([449, 464, 1e30, -500], np.float32)).tolist() == [126, 126, 126, 254]


def test_e8m0_is_that_of_ml_dtypes() -> None:
    codes = np.arange(255, dtype=np.uint8)
    expected = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(reference.e8m0_decode(codes), expected)


def test_packing_puts_the_even_element_in_the_low_nibble_and_unpacks() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (3, 32)).astype(np.uint8)
    assert reference.pack(codes)[0, 0] == codes[0, 0] + 16 * codes[0, 1]
    np.testing.assert_array_equal(reference.unpack(reference.pack(codes)), codes)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_are_reproduced_bit_for_bit(name: str) -> None:
    golden = load(name)
    for key, weight in load("golden_inputs").items():
        g = float(golden[f"{key}.global"][0]) if f"{key}.global" in golden else 1.0
        quantized = reference.encode(weight, GOLDEN[name], g)
        np.testing.assert_array_equal(quantized.codes, golden[f"{key}.codes"], err_msg=key)
        np.testing.assert_array_equal(quantized.scales, golden[f"{key}.scales"], err_msg=key)


def test_the_tensor_scale_is_never_zero_or_subnormal() -> None:
    assert reference.tensor_scale(0) == 1
    assert reference.tensor_scale(1e-44) == np.finfo(np.float32).tiny
    assert reference.tensor_scale(2688) == 1


def mlx_quantize(weight: NDArray[Any], **options: Any) -> list[NDArray[Any]]:
    """What `mx.quantize` of MLX's CPU backend stores."""
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    with mx.stream(mx.cpu):
        kind = {2: mx.bfloat16 if weight.dtype == BFLOAT16 else mx.float16, 4: mx.float32}[weight.itemsize]
        array = mx.array(weight.view(np.uint16 if weight.itemsize == 2 else np.uint32)).view(kind)
        parts = mx.quantize(array, **options)
        plain = {mx.bfloat16: mx.uint16, mx.float16: mx.uint16, mx.float32: mx.uint32}
        return [np.array(part.view(plain[part.dtype])) if part.dtype in plain else np.array(part) for part in parts]


def normal_magnitudes() -> NDArray[Any]:
    """Every bfloat16 block maximum whose scaled weights are normal: MLX on a CPU computes in the weight's dtype."""
    weight = every_magnitude(BFLOAT16)
    largest = np.abs(weight.astype(np.float32)).reshape(len(weight), -1, 32).max(axis=(1, 2))
    return weight[(largest > 1e-30) & (largest < 1e36)]


@pytest.mark.parametrize("weight", [normal_magnitudes(), ties(BFLOAT16)], ids=["every magnitude", "ties"])
def test_mxfp8_is_mlx_to_the_byte(weight: NDArray[Any]) -> None:
    codes, scales = mlx_quantize(weight, mode="mxfp8", group_size=32, bits=8)
    quantized = reference.encode(weight, recipe("mxfp8"))
    np.testing.assert_array_equal(quantized.scales, scales)
    np.testing.assert_array_equal(quantized.codes, codes.view(np.uint8))


def test_mxfp4_has_the_scales_of_mlx_whose_codes_differ_in_ties_and_the_sign_of_zero_only() -> None:
    weight = np.concatenate([normal_magnitudes(), np.tile(ties(BFLOAT16), 2)])
    codes, scales = mlx_quantize(weight, mode="mxfp4", group_size=32, bits=4)
    quantized = reference.encode(weight, recipe("mxfp4"))
    np.testing.assert_array_equal(quantized.scales, scales)
    ours, theirs = reference.unpack(quantized.codes), reference.unpack(codes.view(np.uint8))
    scaled = np.abs(weight.astype(np.float32)) / np.repeat(reference.e8m0_decode(scales), 32, axis=1)
    tie = np.isin(scaled, MIDPOINTS)
    assert np.all((ours & 7)[~tie] == (theirs & 7)[~tie])
    assert np.all((ours & 7)[tie] - (theirs & 7)[tie] <= 1)  # MLX takes the lower code, the even one may be above
    assert np.all((ours == theirs) | tie | ((ours == 8) & (theirs == 0)))


@pytest.mark.parametrize("name", [name for name, row in MLX_FORMATS.items() if row.affine])
@pytest.mark.parametrize("dtype", [BFLOAT16, np.float16, np.float32], ids=["bf16", "f16", "f32"])
def test_affine_is_mlx_to_the_byte(name: str, dtype: Any) -> None:
    row = FORMATS[name]
    rng = np.random.default_rng(1)
    weight = np.concatenate([rng.normal(size=(64, 512)), rng.standard_t(2, (64, 512)) * 0.02, np.ones((1, 512))])
    weight[70:72] = 0
    weight = weight.astype(dtype)
    codes, scales, biases = mlx_quantize(weight, mode="affine", group_size=row.block, bits=row.bits)
    quantized = reference.encode(weight, recipe(name))
    assert quantized.biases is not None
    np.testing.assert_array_equal(quantized.scales.view(scales.dtype), scales)
    np.testing.assert_array_equal(quantized.biases.view(biases.dtype), biases)
    np.testing.assert_array_equal(quantized.codes, codes.view(np.uint8))


def test_fidelity_of_what_decodes_exactly_is_perfect() -> None:
    weight = (np.resize(reference.E2M1_VALUES, (4, 64)) * np.float32(0.25)).astype(BFLOAT16)
    measured = reference.fidelity(weight, reference.encode(weight, recipe("mxfp4")), blocks=True)
    assert measured.rel_err == 0
    assert measured.vanished == 0
    assert measured.scale_counts.sum() == 4 * 64 / 32


def test_vanished_counts_weights_that_decode_to_zero_but_are_not() -> None:
    weight = np.zeros((1, 32), np.float32)
    weight[0, :3] = 6, 0.1, -0.2
    measured = reference.fidelity(weight, reference.encode(weight, recipe("mxfp4")))
    assert measured.vanished == 2
    assert measured.max_error == pytest.approx(0.2)


def test_nothing_finite_breaks_the_reference() -> None:
    for dtype in (BFLOAT16, np.float16, np.float32):
        for name in FORMATS:
            weight = odd_blocks(dtype)
            quantized = reference.encode(weight, recipe(name), 1e-3)
            assert np.isfinite(reference.decode(quantized)).all()
