"""ModelOpt's integers and what it multiplies inputs with; a scale for 32 codes of FP4: as `make interop` saw them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from studio.core.errors import CheckpointError
from tests.core.checkpoints import BF16, CONFIG, FP8, checkpoint
from tests.core.sources.test_block_floats import nvfp4, random_bytes, scales
from tests.core.sources.test_integers import check, refusal

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS, GROUP = 40, 96, 32
CHANCE = np.random.default_rng(11)
FACTORS = (CHANCE.random(COLUMNS) + 0.5).astype(BF16)


def config(algorithm: str) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": {"quant_method": "modelopt", "quant_algo": algorithm}}


def eights() -> tuple[dict[str, Array], Array]:
    codes = CHANCE.integers(-128, 128, (ROWS, COLUMNS)).astype(np.int8)
    steps = (CHANCE.random(ROWS) * 0.01 + 0.001).astype(np.float32)
    return {f"{LAYER}.weight": codes, f"{LAYER}.weight_scale": steps}, codes.astype(np.float32) * steps[:, None]


def fours(group: int = GROUP) -> tuple[dict[str, Array], Array]:
    """Rows 2 i and 2 i + 1 in the nibbles of row i, two's complement."""
    codes = CHANCE.integers(-8, 8, (ROWS, COLUMNS))
    steps = (CHANCE.random((ROWS, COLUMNS // group)) * 0.01 + 0.001).astype(np.float32)
    packed = ((codes[0::2] & 15) | (codes[1::2] & 15) << 4).astype(np.uint8)
    wanted = codes.astype(np.float32) * np.repeat(steps, group, 1)
    return {f"{LAYER}.weight": packed, f"{LAYER}.weight_scale": steps}, wanted


@pytest.mark.parametrize("algorithm", ["W8A16", "W8A8_SQ_PER_CHANNEL"])
def test_integers_of_eight_bits_have_a_scale_per_row(tmp_path: Path, algorithm: str) -> None:
    tensors, wanted = eights()
    layer = check(tmp_path / "m", tensors, config(algorithm), wanted)
    assert layer.source.meaning == "INT8, a scale per row, ModelOpt"


@pytest.mark.parametrize("group", [16, 32, 96])
def test_integers_of_four_bits_lie_in_pairs_of_rows(tmp_path: Path, group: int) -> None:
    tensors, wanted = fours(group)
    layer = check(tmp_path / "m", tensors, config("W4A16_AWQ"), wanted)
    assert layer.source.bits == 4


def test_the_second_scale_of_w4a8_is_in_the_first_already(tmp_path: Path) -> None:
    tensors, wanted = fours()
    check(tmp_path / "m", {**tensors, f"{LAYER}.weight_scale_2": np.float32(0.25)[None]}, config("W4A8_AWQ"), wanted)


@pytest.mark.parametrize("make", [eights, fours])
def test_what_inputs_are_multiplied_by_belongs_to_the_weights(tmp_path: Path, make: Any) -> None:
    tensors, wanted = make()
    tensors[f"{LAYER}.pre_quant_scale"] = FACTORS
    algorithm = "W4A16_AWQ" if make is fours else "W8A8_SQ_PER_CHANNEL"
    layer = check(tmp_path / "m", tensors, config(algorithm), wanted * FACTORS.astype(np.float32))
    assert layer.source.format is None
    assert layer.source.meaning.endswith("ModelOpt, times what inputs are multiplied by")


def test_so_it_does_in_nvfp4(tmp_path: Path) -> None:
    codes, blocks, g = random_bytes(ROWS, COLUMNS // 2), scales(ROWS, COLUMNS // 16), np.full((), 0.003, np.float32)
    parts = {"weight": codes, "weight_scale": blocks.view(FP8), "weight_scale_2": g, "pre_quant_scale": FACTORS}
    wanted = nvfp4(codes, blocks, g) * FACTORS.astype(np.float32)
    check(tmp_path / "m", {f"{LAYER}.{leaf}": part for leaf, part in parts.items()}, config("NVFP4_AWQ"), wanted)


def test_a_scale_for_32_codes_is_one_for_two_blocks(tmp_path: Path) -> None:
    codes, blocks, g = random_bytes(ROWS, COLUMNS // 2), scales(ROWS, COLUMNS // 32), np.full((), 0.003, np.float32)
    parts = {"weight": codes, "weight_scale": blocks.view(FP8), "weight_scale_2": g}
    wanted = nvfp4(codes, np.repeat(blocks, 2, 1), g)
    tensors = {f"{LAYER}.{leaf}": part for leaf, part in parts.items()}
    layer = check(tmp_path / "m", tensors, config("W4A8_NVFP4_FP8"), wanted)
    assert layer.source.format is not None
    assert layer.source.format.name == "nvfp4-3t"


REFUSED = {
    "no config": ({}, CONFIG, "weights or codes"),
    "other algorithm": ({}, config("FP8"), "weights or codes"),
    "three scales": ({"weight_scale": np.ones((ROWS, 5), np.float32)}, config("W4A16_AWQ"), "96 columns with 5 scales"),
    "half the scales": ({"weight_scale": np.ones((ROWS // 2, 3), np.float32)}, config("W4A16_AWQ"), "[40] rows"),
    "factors of rows": ({"pre_quant_scale": np.ones(ROWS, BF16)}, config("W4A16_AWQ"), "pre_quant_scale of BF16 [40]"),
    "factors of codes": ({"pre_quant_scale": np.ones(COLUMNS, np.int8)}, config("W4A16_AWQ"), "pre_quant_scale of I8"),
    "another part": ({"weight_zero_point": np.ones((ROWS, 3), np.int8)}, config("W4A16_AWQ"), "weight_zero_point"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_not_read(tmp_path: Path, case: str) -> None:
    more, said, words = REFUSED[case]
    tensors = {**fours()[0], **{f"{LAYER}.{leaf}": part for leaf, part in more.items()}}
    assert words in refusal(tmp_path / "m", tensors, said)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_a_factor_that_is_no_positive_number_is_refused_as_it_is_read(tmp_path: Path, factor: float) -> None:
    factors = FACTORS.copy()
    factors[7] = factor
    tensors = {**fours()[0], f"{LAYER}.pre_quant_scale": factors}
    with core.open_model(checkpoint(tmp_path / "m", tensors, config("W4A16_AWQ"))) as model:
        layer = model.by_name[LAYER]
        with pytest.raises(CheckpointError, match=r"1 of its factors of inputs in .* are no positive numbers"):
            layer.source.rows(layer.whole, 0, 3)
