"""bitsandbytes: blocks that cross rows, nested scales, LLM.int8; and states that a stranger may have written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import BF16, CONFIG, checkpoint
from tests.core.sources.test_integers import check, refusal

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
WEIGHT = f"{LAYER}.weight"
_BELOW = (-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0)
_ABOVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1)
NF4 = np.array((*_BELOW, *_ABOVE), np.float32)
_FP4 = np.array([0, 0.0052083333, 0.6666667, 1, 0.33333334, 0.5, 0.16666667, 0.25], np.float32)
VALUES = {"nf4": NF4, "fp4": np.concatenate([_FP4, -_FP4])}


def stated(shape: Any, kind: str = "nf4", block: Any = 64, **more: Any) -> dict[str, Any]:
    return {"quant_type": kind, "blocksize": block, "dtype": "float16", "shape": shape, **more}


def parts(state: Any, kind: str = "nf4", **arrays: Array | None) -> dict[str, Array]:
    """The tensors of a weight with a state, JSON or any bytes, and other parts."""
    text = state if isinstance(state, bytes) else json.dumps(state).encode()
    key = f"{WEIGHT}.quant_state.bitsandbytes__{kind}"
    found = {WEIGHT: np.zeros((96, 1), np.uint8), f"{WEIGHT}.absmax": np.ones(3, np.float32)}
    found |= {f"{WEIGHT}.quant_map": VALUES.get(kind, NF4), key: np.frombuffer(text, np.uint8)}
    found |= {
        f"{LAYER}.{leaf}" if leaf == "weight" else f"{WEIGHT}.{leaf}": a for leaf, a in arrays.items() if a is not None
    }
    missing = {f"{WEIGHT}.{leaf}" for leaf, array in arrays.items() if array is None}
    return {name: array for name, array in found.items() if name not in missing}


def drawn(shape: tuple[int, ...], kind: str, block: int) -> tuple[dict[str, Array], Array, Array]:
    """The tensors of random codes, the values of the codes, and their scales, flat."""
    chance, count = np.random.default_rng([*shape, block]), int(np.prod(shape))
    codes = chance.integers(0, 16, count + count % 2).astype(np.uint8)
    scales = chance.random(-(-count // block)).astype(np.float32)
    raw = (codes[0::2] << 4 | codes[1::2])[:, None]
    tensors = parts(stated(list(shape), kind, block), kind, weight=raw, absmax=scales)
    return tensors, VALUES[kind][codes[:count]], np.repeat(scales, block)[:count]


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(
    ("shape", "block"), [((24, 64), 64), ((21, 100), 64), ((19, 33), 128), ((3, 8, 48), 32), ((40, 4), 4096)]
)
def test_blocks_cross_rows(tmp_path: Path, kind: str, shape: tuple[int, ...], block: int) -> None:
    tensors, values, scales = drawn(shape, kind, block)
    layer = check(tmp_path / "m", tensors, CONFIG, (values * scales).reshape(shape))
    assert layer.source.meaning == f"{kind.upper()}, blocks of {block}, bitsandbytes"
    assert (layer.source.bits, layer.kept_dtype) == (4, "F16")


def test_scales_that_are_bytes(tmp_path: Path) -> None:
    tensors, values, _ = drawn((24, 100), "nf4", 64)
    chance = np.random.default_rng(5)
    codes, table = chance.integers(0, 256, 38).astype(np.uint8), np.sort(chance.random(256)).astype(np.float32)
    nested = chance.random(3).astype(np.float32)
    state = stated([24, 100], nested_blocksize=16, nested_dtype="float32", nested_offset=0.125)
    tensors |= parts(state, absmax=codes, nested_absmax=nested, nested_quant_map=table, weight=tensors[WEIGHT])
    scales = table[codes] * np.repeat(nested, 16)[:38] + np.float32(0.125)
    wanted = values * np.repeat(scales, 64)[:2400]
    check(tmp_path / "m", tensors, CONFIG, wanted.reshape(24, 100))


def test_codes_may_lie_in_another_dtype(tmp_path: Path) -> None:
    tensors, values, scales = drawn((24, 64), "nf4", 64)
    tensors[WEIGHT] = tensors[WEIGHT].reshape(-1).view(BF16)[:, None]
    check(tmp_path / "m", tensors, CONFIG, (values * scales).reshape(24, 64))


def test_largest_of_each_row_of_llm_int8(tmp_path: Path) -> None:
    chance = np.random.default_rng(6)
    codes, largest = chance.integers(-127, 128, (24, 96)).astype(np.int8), chance.random(24).astype(np.float32)
    wanted = codes.astype(np.float32) * largest[:, None] * np.float32(1 / 127)
    layer = check(tmp_path / "m", {WEIGHT: codes, f"{LAYER}.SCB": largest}, CONFIG, wanted)
    assert layer.source.meaning == "INT8, a scale per row, bitsandbytes"


GOOD = stated([3, 64])
NESTED = stated([3, 64], nested_blocksize=256, nested_dtype="float32", nested_offset=0.1)
BYTES = {"absmax": np.zeros(3, np.uint8), "nested_absmax": np.ones(1, np.float32)}
TABLE = {"nested_quant_map": np.ones(256, np.float32)}
REFUSED: list[tuple[Mapping[str, Array], str]] = [
    (parts(b"{"), "not valid JSON"),
    (parts(b"[]"), "not an object"),
    (parts(b"[" * 4000), "JSON"),
    (parts(b"\xff{}"), "not valid JSON"),
    (parts(b'{"shape": [3, 64], "shape": [3, 64]}'), "duplicate key"),
    (parts(b'{"nested_offset": NaN}'), "not usable JSON"),
    (parts(json.dumps(GOOD).encode() + b" " * 4096), "a state of U8 [4172]"),
    (parts(b""), "a state of U8 [0]"),
    (parts({}), "weights of the shape None"),
    (parts(stated([])), "weights of the shape []"),
    (parts(stated([3, 64, 1, 1])), "weights of the shape [3, 64, 1, 1]"),
    (parts(stated([3, 64.0])), "weights of the shape [3, 64.0]"),
    (parts(stated([True, 192])), "weights of the shape [True, 192]"),
    (parts(stated([-3, -64])), "weights of the shape [-3, -64]"),
    (parts(stated([0, 64])), "weights of the shape [0, 64]"),
    (parts(stated("3x64")), "weights of the shape 3x64"),
    (parts(stated([1, 1 << 21])), "rows of more than 1,048,576"),
    (parts(stated([1 << 39, 1 << 20])), "96 bytes of codes for"),
    (parts(stated([3, 65])), "96 bytes of codes for [3, 65]"),
    (parts(stated([3, 64], block=0)), "blocksize 0"),
    (parts(stated([3, 64], block=64.0)), "blocksize 64.0"),
    (parts(stated([3, 64], block=None)), "blocksize None"),
    (parts(stated([3, 64], block=1 << 80)), "blocksize"),
    (parts(stated([3, 64], kind="fp4")), "codes of the kind nf4, fp4 by their state"),
    (parts(stated([3, 64], kind="int4"), kind="int4"), "codes of the kind int4"),
    (parts(GOOD, absmax=None), "codes without absmax"),
    (parts(GOOD, absmax=np.ones(4, np.float32)), "absmax of F32 [4], not of 3 F32"),
    (parts(GOOD, absmax=np.ones(3, np.uint8)), "absmax of U8 [3], not of 3 F32"),
    (parts(GOOD, quant_map=None), "codes without quant_map"),
    (parts(GOOD, quant_map=np.ones(17, np.float32)), "quant_map of F32 [17]"),
    (parts(NESTED, **BYTES), "codes without nested_quant_map"),
    (parts(NESTED, **BYTES, nested_quant_map=np.ones(16, np.float32)), "nested_quant_map of F32 [16]"),
    (parts(NESTED, **BYTES | {"absmax": np.ones(3, np.float32)}, **TABLE), "absmax of F32 [3], not of 3 U8"),
    (parts(NESTED, **BYTES | {"nested_absmax": np.ones(2, np.float32)}, **TABLE), "nested_absmax of F32 [2]"),
    (parts(NESTED | {"nested_blocksize": -1}, **BYTES, **TABLE), "nested_blocksize -1"),
    (parts(NESTED | {"nested_offset": "0"}, **BYTES, **TABLE), "nested_offset 0"),
    (parts(NESTED | {"nested_offset": 1e300}, **BYTES, **TABLE), "nested_offset 1e+300"),
    ({WEIGHT: np.ones((8, 32), np.int8), f"{LAYER}.SCB": np.ones(9, np.float32)}, "[8] rows with scales [9]"),
    ({WEIGHT: np.ones((8, 32), np.int8), f"{LAYER}.SCB": np.ones(8, np.float16)}, "with scales of F16"),
    ({WEIGHT: np.ones((8, 4, 8), np.int8), f"{LAYER}.SCB": np.ones(8, np.float32)}, "I8 [8, 4, 8]"),
]
_INT8 = {WEIGHT: np.ones((8, 32), np.int8), f"{LAYER}.SCB": np.ones(8, np.float32)}
TILED = {**_INT8, f"{LAYER}.weight_format": np.array(1, np.uint8)}
ODD = {**_INT8, f"{LAYER}.weight_format": np.zeros(2, np.uint8)}


@pytest.mark.parametrize(
    ("tensors", "why"), [*REFUSED, (TILED, "in the tiles of a device"), (ODD, "weight_format of U8 [2]")]
)
def test_what_is_open_is_refused(tmp_path: Path, tensors: Mapping[str, Array], why: str) -> None:
    reason = refusal(tmp_path / "m", tensors)
    assert why in reason
    assert reason.startswith("bitsandbytes")


@pytest.mark.parametrize("broken", ["absmax", "nested_absmax", "quant_map"])
def test_numbers_that_are_none_are_refused_as_they_are_read(tmp_path: Path, broken: str) -> None:
    arrays = {**BYTES, **TABLE, "quant_map": NF4.copy()}
    if broken == "absmax":
        arrays["nested_quant_map"] = np.full(256, np.inf, np.float32)
    else:
        arrays[broken] = np.full(arrays[broken].shape, np.nan, np.float32)
    with core.open_model(checkpoint(tmp_path / "m", parts(NESTED, **arrays), CONFIG)) as model:
        layer = model.by_name[LAYER]
        with pytest.raises(core.CheckpointError, match=r"quant_map than those of NF4|scales in .* are not numbers"):
            layer.source.rows(layer.whole, 0, 3)


def test_other_values_than_those_of_a_kind_are_refused_as_they_are_read(tmp_path: Path) -> None:
    with core.open_model(checkpoint(tmp_path / "m", parts(GOOD, quant_map=NF4[::-1].copy()), CONFIG)) as model:
        layer = model.by_name[LAYER]
        with pytest.raises(core.CheckpointError, match=r"other values in .* than those of NF4"):
            layer.source.rows(layer.whole, 0, 3)


def test_every_dtype_that_a_state_names_is_that_of_kept_weights(tmp_path: Path) -> None:
    for name, dtype in (("bfloat16", "BF16"), ("float32", "F32"), ("complex64", "BF16")):
        state = {**GOOD, "dtype": name}
        with core.open_model(checkpoint(tmp_path / name, parts(state), CONFIG)) as model:
            assert model.by_name[LAYER].kept_dtype == dtype
