"""Quark's integers of eight bits and MXFP6, as `make interop` saw them; those of four bits are in test_gptq_awq."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import reference
from tests.core.checkpoints import CONFIG
from tests.core.sources.test_integers import check, refusal

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS = 24, 96
CHANCE = np.random.default_rng(5)
EXPONENTS = CHANCE.integers(115, 135, (ROWS, COLUMNS // 32)).astype(np.uint8)


def config(dtype: str) -> dict[str, Any]:
    section = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": dtype}}}
    return {**CONFIG, "quantization_config": section}


def parts(**found: Array) -> dict[str, Array]:
    return {f"{LAYER}.{leaf}": part for leaf, part in found.items()}


@pytest.mark.parametrize("shape", [(), (1,), (ROWS,)])
@pytest.mark.parametrize("zeros", [False, True])
def test_integers_of_eight_bits_have_one_scale_or_one_per_row(
    tmp_path: Path, shape: tuple[int, ...], zeros: bool
) -> None:
    codes = CHANCE.integers(-128, 128, (ROWS, COLUMNS)).astype(np.int8)
    scale = np.asarray(CHANCE.random(shape) * 0.1 + 0.01, np.float32)
    zero = np.asarray(CHANCE.integers(-100, 100, shape), np.int8)
    own = {"weight_zero_point": zero} if zeros else {}
    idle = {"input_scale": np.ones((), np.float32), "input_zero_point": np.zeros((), np.int8)}
    steps, offsets = (np.broadcast_to(part, (ROWS,))[:, None].astype(np.float32) for part in (scale, zero * zeros))
    wanted = (codes.astype(np.float32) - offsets) * steps
    layer = check(tmp_path / "m", parts(weight=codes, weight_scale=scale, **own, **idle), config("int8"), wanted)
    assert layer.source.meaning == f"INT8, {'a scale per row' if shape == (ROWS,) else 'one scale'}, Quark"


def six_bits(values: list[float]) -> tuple[Array, Array]:
    """Random codes that stand for `values` and, from 32 on, for these below zero: packed, and what they are."""
    codes = CHANCE.integers(0, 64, (ROWS, COLUMNS))
    each = (codes[..., None] >> np.arange(6)) & 1
    packed = np.packbits(each.reshape(ROWS, -1).astype(np.uint8), axis=1, bitorder="little")
    magnitudes = np.array(values, np.float32)[codes & 31]
    return packed, np.where(codes >> 5, -magnitudes, magnitudes)


E2M3 = [n / 8 for n in range(8)] + [(8 + n) / 8 * 2**e for e in range(3) for n in range(8)]
E3M2 = [n / 16 for n in range(4)] + [(4 + n) / 4 * 2.0**e for e in range(-2, 5) for n in range(4)]


@pytest.mark.parametrize(("dtype", "values"), [("fp6_e2m3", E2M3), ("fp6_e3m2", E3M2)])
def test_mxfp6_of_both_kinds_is_told_by_the_config(tmp_path: Path, dtype: str, values: list[float]) -> None:
    packed, found = six_bits(values)
    wanted = found * reference.e8m0_decode(EXPONENTS).repeat(32, 1)
    layer = check(tmp_path / "m", parts(weight=packed, weight_scale=EXPONENTS), config(dtype), wanted)
    assert layer.source.meaning == f"MXFP6 ({dtype[4:].upper()}), Quark"
    assert max(values) == {"fp6_e2m3": 7.5, "fp6_e3m2": 28.0}[dtype]


PACKED = six_bits(E2M3)[0]
INTEGERS = CHANCE.integers(-128, 128, (ROWS, COLUMNS)).astype(np.int8)
ONE = np.ones((), np.float32)
REFUSED = {
    "no dtype": (parts(weight=PACKED, weight_scale=EXPONENTS), config("mxfp6"), "codes of ['mxfp6']"),
    "rows": (parts(weight=PACKED, weight_scale=EXPONENTS[:3]), config("fp6_e2m3"), "[24, 72] with scales [3, 3]"),
    "groups": (parts(weight=INTEGERS, weight_scale=np.ones((ROWS, 3), np.float32)), config("int8"), "F32 [24, 3]"),
    "zeros": (parts(weight=INTEGERS, weight_scale=ONE, weight_zero_point=INTEGERS[0]), config("int8"), "I8 [96]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_not_read(tmp_path: Path, case: str) -> None:
    tensors, said, words = REFUSED[case]
    assert words in refusal(tmp_path / "m", tensors, said)
