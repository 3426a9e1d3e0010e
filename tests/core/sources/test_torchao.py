"""torchao's integers and FP8: parts named after the attributes of its tensors, as `make interop` saw them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import FORMATS, Quantized
from kernels.reference import decode
from studio import core
from tests.core.checkpoints import BF16, CONFIG, E8M0, FP8, checkpoint
from tests.core.sources.test_integers import check, refusal

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS = 48, 96
SECTION = {**CONFIG, "quantization_config": {"quant_method": "torchao"}}


def parts(**found: Array) -> dict[str, Array]:
    return {f"{LAYER}._weight_{leaf}": part for leaf, part in found.items()}


def drawn(groups: int, seed: int = 0) -> tuple[Array, Array, Array]:
    chance = np.random.default_rng([seed, groups])
    codes, zeros = (chance.integers(-128, 128, (ROWS, size)).astype(np.int8) for size in (COLUMNS, groups))
    return codes, (chance.random((ROWS, groups)) * 0.01 + 0.001).astype(BF16), zeros


@pytest.mark.parametrize("groups", [1, 3, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_integers_are_multiplied_with_the_scale_of_their_group(tmp_path: Path, groups: int, asymmetric: bool) -> None:
    codes, scales, zeros = drawn(groups)
    tensors = parts(qdata=codes, scale=scales, **({"zero_point": zeros} if asymmetric else {}))
    zero = np.repeat(zeros.astype(np.float32), COLUMNS // groups, 1) * asymmetric
    wanted = (codes - zero) * np.repeat(scales.astype(np.float32), COLUMNS // groups, 1)
    layer = check(tmp_path / "m", tensors, SECTION, wanted)
    assert layer.source.meaning.endswith("torchao")
    assert layer.kept_dtype == "BF16"


def test_one_scale_is_that_of_all(tmp_path: Path) -> None:
    codes, _, _ = drawn(1)
    tensors = parts(qdata=codes, scale=np.full((1, 1), 0.5, BF16), act_quant_scale=np.ones((1, 1), np.float32))
    check(tmp_path / "m", tensors, SECTION, codes.astype(np.float32) * np.float32(0.5))


def test_fp8_is_read_by_rows(tmp_path: Path) -> None:
    codes = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(FP8)
    scales = np.random.default_rng(4).random((ROWS, 1)).astype(np.float32)
    check(tmp_path / "m", parts(qdata=codes, scale=scales), SECTION, codes.astype(np.float32) * scales)


CODES, SCALES, ZEROS = drawn(3)
REFUSED = {
    "groups": (parts(qdata=CODES, scale=np.ones((ROWS, 5), BF16)), "integers of 96 columns with 5 scales"),
    "rows": (parts(qdata=CODES, scale=SCALES[:5]), "integers of [48] rows with scales [5, 3]"),
    "zeros": (parts(qdata=CODES, scale=SCALES, zero_point=ZEROS[:, :1]), "_weight_zero_point of I8 [48, 1]"),
    "INT4": (parts(qdata=CODES, scale=SCALES.T, zero_point=SCALES.T), "two in a byte (Int4Tensor)"),
    "zeros of FP8": (parts(qdata=CODES.view(FP8), scale=SCALES, zero_point=ZEROS), "F8_E4M3 with _weight_zero_point"),
    "factors of inputs": (parts(qdata=CODES, scale=SCALES, act_pre_scale=np.ones(COLUMNS, BF16)), "act_pre_scale"),
    "packed": (parts(qdata=CODES.view(np.int32), scale=SCALES), "codes of I32"),
    "no rows": (parts(qdata=CODES[:0], scale=SCALES[:0]), "codes [0, 96]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_not_read(tmp_path: Path, case: str) -> None:
    tensors, words = REFUSED[case]
    assert words in refusal(tmp_path / "m", tensors, SECTION)


def test_a_scale_that_is_no_number_is_refused_as_it_is_read(tmp_path: Path) -> None:
    scales = SCALES.copy()
    scales[5, 1] = np.nan
    with core.open_model(checkpoint(tmp_path / "m", parts(qdata=CODES, scale=scales), SECTION)) as model:
        layer = model.by_name[LAYER]
        with pytest.raises(core.CheckpointError, match="1 of its scales"):
            layer.source.rows(layer.whole, 0, ROWS)


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint8, "mxfp4"), (FP8, "mxfp8")])
@pytest.mark.parametrize("tiled", [False, True])
def test_the_formats_of_mx_are_read_with_scales_in_rows_or_in_tiles(
    tmp_path: Path, dtype: Any, kind: str, tiled: bool
) -> None:
    chance = np.random.default_rng(5)
    row = FORMATS[kind]
    codes = chance.integers(0, 120, (ROWS, COLUMNS * row.bits // 8)).astype(np.uint8)
    scales = chance.integers(120, 130, (ROWS, COLUMNS // 32)).astype(np.uint8)
    tile = np.zeros((32, 16), np.uint8)
    for (line, block), byte in np.ndenumerate(scales):
        tile[line % 32, line // 32 * 4 + block] = byte
    stored = (tile if tiled else scales).view(E8M0)
    wanted = decode(Quantized(row, codes, scales))
    layer = check(tmp_path / "m", parts(qdata=codes.view(dtype), scale=stored), SECTION, wanted)
    assert layer.source.format == row
