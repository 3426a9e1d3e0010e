"""Parts of integers with any dtype, shape and content: refused in words, or read alike whole and in parts."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import BF16, CONFIG, FP8, checkpoint
from tests.core.sources.integer_files import Drawn, down, reordered, shuffled, stream
from tests.core.sources.test_bitsandbytes import BYTES, NESTED, TABLE, TILED, parts

Array = NDArray[Any]
COUNT = 40
LAYER = "model.layers.0.mlp.up_proj"
GOOD = Drawn((64, 96), 4, 32)
HALF = np.float16
_SCALES = {f"{LAYER}.weight_scale": GOOD.scales}
_TURNED = {f"{LAYER}.weight_scale": np.ascontiguousarray(GOOD.scales.T)}
STORED: dict[str, Mapping[str, Array]] = {
    "compressed-tensors": _SCALES
    | {f"{LAYER}.weight_packed": stream(GOOD.codes, 4), f"{LAYER}.weight_shape": np.array([64, 96])}
    | {f"{LAYER}.weight_zero_point": down(GOOD.zeros, 4), f"{LAYER}.weight_g_idx": GOOD.groups.astype(np.int32)},
    "eight bits": _SCALES
    | {f"{LAYER}.weight": GOOD.codes.astype(np.int8), f"{LAYER}.weight_zero_point": GOOD.zeros.astype(np.int8)},
    "gptq": {**GOOD.gptq(LAYER, 0), f"{LAYER}.g_idx": GOOD.groups.astype(np.int32)},
    "awq": {
        f"{LAYER}.qweight": reordered(GOOD.codes.T),
        f"{LAYER}.qzeros": reordered(GOOD.zeros.T),
        f"{LAYER}.scales": np.ascontiguousarray(GOOD.scales.T),
    },
    "quark": _TURNED
    | {f"{LAYER}.weight": reordered(GOOD.codes.T), f"{LAYER}.weight_zero_point": reordered(GOOD.zeros.T)},
    "awq of five bits": {
        f"{LAYER}.qweight": shuffled(GOOD.codes.T, 5),
        f"{LAYER}.qzeros": shuffled(GOOD.zeros.T, 5),
        f"{LAYER}.scales": np.ascontiguousarray(GOOD.scales.T),
    },
    "quark, six bits": {
        f"{LAYER}.weight": np.resize(GOOD.codes.astype(np.uint8), (64, 72)),
        f"{LAYER}.weight_scale": np.full((64, 3), 120, np.uint8),
    },
    "modelopt": _SCALES
    | {f"{LAYER}.weight": np.resize(GOOD.codes.astype(np.uint8), (32, 96)), f"{LAYER}.weight_scale_2": np.ones(1, HALF)}
    | {f"{LAYER}.pre_quant_scale": np.ones(96, HALF)},
    "modelopt, rows": {f"{LAYER}.weight": GOOD.codes.astype(np.int8), f"{LAYER}.weight_scale": np.ones(64, np.float32)}
    | {f"{LAYER}.pre_quant_scale": np.ones(96, HALF)},
    "torchao": {f"{LAYER}._weight_qdata": GOOD.codes.astype(np.int8), f"{LAYER}._weight_scale": GOOD.scales}
    | {f"{LAYER}._weight_zero_point": GOOD.zeros.astype(np.int8)},
    "torchao, FP8": {
        f"{LAYER}._weight_qdata": GOOD.codes.astype(np.uint8).view(FP8),
        f"{LAYER}._weight_scale": np.ones((64, 1), np.float32),
    },
    "nf4": parts(NESTED, **BYTES, **TABLE),
    "int8": TILED,
}
_FOUR = {"weights": {"type": "int", "num_bits": 4, "group_size": 32}}
_QUARK = {"weight": {"dtype": "int4", "group_size": 32}}
SECTIONS: list[dict[str, Any]] = [
    {"quant_method": "gptq", "group_size": 32},
    {"quant_method": "gptq", "checkpoint_format": "gptq_v2", "sym": True, "group_size": -1},
    {"quant_method": "awq", "version": "gemm", "group_size": 32},
    {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"},
    {"quant_method": "compressed-tensors", "config_groups": {"g": _FOUR}},
    {"quant_method": "compressed-tensors", "format": "int-quantized"},
    {"quant_method": "quark", "export": {"pack_method": "order"}, "global_quant_config": _QUARK},
    {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"},
    {"quant_method": "modelopt", "quant_algo": "W8A8_SQ_PER_CHANNEL"},
    {
        "quant_method": "modelopt",
        "quantized_layers": {"a": {"quant_algo": "W4A8_AWQ"}, "b": 3, "c": {"quant_algo": []}},
    },
    {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp6_e3m2"}}},
    {"quant_method": ["x"], "group_size": "y", "config_groups": [], "checkpoint_format": {"a": 1}, "export": []},
    {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": ["int4"], "group_size": {}}}},
]
DTYPES = [
    np.dtype(one) for one in (np.int32, np.int8, np.uint8, np.float16, np.float32, np.int64, np.uint32, BF16, FP8)
]


def _as_another_dtype(array: Array, chance: np.random.Generator) -> Array:
    dtype = DTYPES[chance.integers(len(DTYPES))]
    raw = array.tobytes()
    return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)


def _of_another_size(array: Array, chance: np.random.Generator) -> Array:
    shape = list(array.shape) or [1]
    place = chance.integers(len(shape))
    shape[place] = int(chance.choice([0, 1, shape[place] + 1, 2 * shape[place], max(shape[place] - 1, 0)]))
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)


def _with_another_number(array: Array, chance: np.random.Generator) -> Array:
    if array.dtype.kind not in "iu" or not array.size:
        return array
    changed, most = array.copy(), np.iinfo(array.dtype)
    changed.reshape(-1)[chance.integers(array.size)] = most.max if chance.integers(2) else most.min
    return changed


CHANGES: list[Callable[[Array, np.random.Generator], Array]] = [
    _as_another_dtype,
    _of_another_size,
    _with_another_number,
    lambda array, _chance: array.reshape(-1),
    lambda array, _chance: array[None],
    lambda array, _chance: np.ascontiguousarray(array.T),
]


def changed(stored: Mapping[str, Array], chance: np.random.Generator) -> dict[str, Array]:
    """Some parts changed, or left out, but one."""
    found = dict(stored)
    for name in chance.choice(list(found), chance.integers(1, 3), replace=False):
        change = chance.integers(len(CHANGES) + 1)
        if change < len(CHANGES):
            found[name] = CHANGES[change](found[name], chance)
        elif len(found) > 1:
            found.pop(name, None)
    return found


def read(layer: core.Layer) -> None:
    """Read a layer in every way; raises CheckpointError for numbers that are none."""
    for matrix in layer.matrices:
        whole = layer.source.rows(matrix, 0, matrix.rows)
        assert whole.shape == (matrix.rows, matrix.columns)
        middle = slice(matrix.rows // 3, matrix.rows // 3 + 1)
        np.testing.assert_array_equal(layer.source.rows(matrix, middle.start, middle.stop), whole[middle])
        if layer.source.format:
            layer.source.packed(matrix, 0, matrix.rows)


@pytest.mark.parametrize("kind", STORED)
def test_any_parts_are_refused_in_words_or_read_alike(tmp_path: Path, kind: str) -> None:
    chance = np.random.default_rng(len(kind))
    for number in range(COUNT):
        section = SECTIONS[chance.integers(len(SECTIONS))]
        tensors = changed(STORED[kind], chance)
        folder = checkpoint(tmp_path / str(number), tensors, {**CONFIG, "quantization_config": section})
        with core.open_model(folder) as model:
            for layer in model.layers:
                assert layer.matrices or layer.obstacle
                with suppress(core.CheckpointError):
                    read(layer)


@pytest.mark.parametrize("shape", [(64, 0), (0,), (0, 96)])
def test_scales_that_hold_nothing_are_told(tmp_path: Path, shape: tuple[int, ...]) -> None:
    parts = {f"{LAYER}._weight_qdata": np.zeros((64, 96), np.int8), f"{LAYER}._weight_scale": np.zeros(shape, BF16)}
    with core.open_model(checkpoint(tmp_path / "m", parts, CONFIG)) as model:
        assert f"torchao: codes [64, 96], scales {list(shape)}" in model.quantized_by
