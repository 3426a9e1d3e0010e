"""HQQ and optimum-quanto: codes in slices that share words, with floats as zeros, as `make interop` saw them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.core.checkpoints import BF16, CONFIG, FP8
from tests.core.sources.test_integers import check, refusal

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS = 40, 96
HQQ = {**CONFIG, "quantization_config": {"quant_method": "hqq"}}


def text(words: str) -> Array:
    return np.frombuffer(words.encode(), np.uint8)


def drawn(bits: int, count: int, seed: int = 0) -> tuple[Array, Array, Array]:
    chance = np.random.default_rng([seed, bits, count])
    scales, zeros = ((chance.random(count) + 0.01).astype(BF16) for _ in range(2))
    return chance.integers(0, 1 << bits, ROWS * COLUMNS), scales, (zeros.astype(np.float32) * (1 << bits)).astype(BF16)


def sliced(codes: Array, across: int, bits: int, dtype: Any, *, highest_first: bool) -> Array:
    """Codes one after the other as [words, across], slice above slice."""
    each = {np.int32: 10, np.uint8: 8 // bits}[dtype]
    height = -(-codes.size // across // each)
    padded = np.zeros(each * height * across, np.int64)
    padded[: codes.size] = codes
    order = range(each - 1, -1, -1) if highest_first else range(each)
    parts = padded.reshape(each, height, across) << (bits * np.array(order))[:, None, None]
    return np.bitwise_or.reduce(parts, axis=0).astype(dtype)


def hqq(bits: int, group: int, *, turned: bool) -> tuple[dict[str, Array], Array]:
    count = ROWS * COLUMNS // group
    codes, scales, zeros = drawn(bits, count)
    across = count if turned else group
    dtype, name = (np.int32, "3bit_32") if bits == 3 else (np.uint8, f"{bits}bit_u8")
    shape = (1, count) if turned else (count, 1)
    place = np.arange(codes.size) % count if turned else np.arange(codes.size) // group
    wanted = (codes.astype(np.float32) - zeros.astype(np.float32)[place]) * scales.astype(np.float32)[place]
    tensors = {
        "W_q": sliced(codes, across, bits, dtype, highest_first=True),
        "scale": scales.reshape(shape),
        "zero": zeros.reshape(shape),
        "shape": np.array([ROWS, COLUMNS]),
        "packing": text(name),
        "nbits": np.array(bits, np.int32),
        "view_as_float": np.array(0, np.uint8),
    }
    return {f"{LAYER}.{key}": part for key, part in tensors.items()}, wanted.reshape(ROWS, COLUMNS)


@pytest.mark.parametrize(("bits", "group"), [(1, 48), (2, 64), (3, 32), (4, 64), (4, 96), (8, 64)])
@pytest.mark.parametrize("turned", [False, True])
def test_hqq_is_read_with_groups_along_rows_and_across_them(
    tmp_path: Path, bits: int, group: int, turned: bool
) -> None:
    tensors, wanted = hqq(bits, group, turned=turned)
    layer = check(tmp_path / "m", tensors, HQQ, wanted)
    across = " across rows" if turned else ""
    assert layer.source.meaning == f"INT{bits}, groups of {group}{across}, HQQ"


def changed(**parts: Array | None) -> dict[str, Array]:
    tensors, _ = hqq(4, 64, turned=False)
    every: dict[str, Any] = tensors | {f"{LAYER}.{key}": part for key, part in parts.items()}
    return {name: part for name, part in every.items() if part is not None}


REFUSED = {
    "no shape": (changed(shape=None), "W_q without shape"),
    "another shape": (changed(shape=np.array([ROWS, 90])), "scales for [40, 90] weights of 4 bits"),
    "another packing": (changed(packing=text("8bit_u8")), "scales for [40, 96] weights of 8 bits"),
    "an unknown packing": (changed(packing=text("5bit")), "W_q of U8 packed as 5bit"),
    "seen as floats": (changed(view_as_float=np.array(1, np.uint8)), "W_q of U8 packed as 4bit_u8"),
    "scales as codes": (changed(scale=np.ones((60, 1), np.uint8), zero=np.ones((60, 1), np.uint8)), "scales of U8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hqq_that_does_not_fit_is_refused_by_name(tmp_path: Path, case: str) -> None:
    tensors, words = REFUSED[case]
    assert words in refusal(tmp_path / "m", tensors, HQQ)


@pytest.mark.parametrize(("bits", "group"), [(2, 96), (4, 32)])
def test_few_bits_of_quanto_are_read_where_a_bias_tells_the_shape(tmp_path: Path, bits: int, group: int) -> None:
    count = ROWS * COLUMNS // group
    codes, scales, zeros = drawn(bits, count)
    place = np.arange(codes.size) // group
    wanted = codes.astype(np.float32) * scales.astype(np.float32)[place] - zeros.astype(np.float32)[place]
    tensors = {
        f"{LAYER}.weight._data._data": sliced(codes, group, bits, np.uint8, highest_first=False),
        f"{LAYER}.weight._scale": scales.reshape(-1, 1),
        f"{LAYER}.weight._shift": zeros.reshape(-1, 1),
    }
    assert "nothing tells the shape" in refusal(tmp_path / "bare", tensors, CONFIG)
    check(tmp_path / "m", tensors | {f"{LAYER}.bias": np.ones(ROWS, BF16)}, CONFIG, wanted.reshape(ROWS, COLUMNS))


@pytest.mark.parametrize("dtype", [np.int8, FP8])
def test_eight_bits_of_quanto_are_multiplied_with_the_scale_of_their_row(tmp_path: Path, dtype: Any) -> None:
    codes = np.random.default_rng(1).integers(-100, 100, (ROWS, COLUMNS)).astype(np.float32).astype(dtype)
    scales = np.random.default_rng(2).random((ROWS, 1)).astype(BF16)
    tensors = {
        f"{LAYER}.weight._data": codes,
        f"{LAYER}.weight._scale": scales,
        f"{LAYER}.input_scale": np.ones((), BF16),
        f"{LAYER}.output_scale": np.ones((), BF16),
    }
    check(tmp_path / "m", tensors, CONFIG, codes.astype(np.float32) * scales.astype(np.float32))
