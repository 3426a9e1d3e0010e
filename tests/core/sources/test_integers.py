"""Integers of compressed-tensors in every width and grouping, decoded as plain code does; what is open is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import BF16, CONFIG, checkpoint
from tests.core.conftest import Studio
from tests.core.sources.integer_files import Drawn, down, in_words, stream

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
STACK = "model.layers.0.mlp.experts.down_proj"


def config(*weights: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A config as compressed-tensors writes it."""
    groups = {f"group_{i}": {"targets": ["Linear"], "weights": {"type": "int", **w}} for i, w in enumerate(weights)}
    return {**CONFIG, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups, **more}}


def packed(drawn: Drawn, path: str = LAYER, pack: Any = stream) -> dict[str, Array]:
    """Symmetric integers as pack-quantized stores them."""
    return {
        f"{path}.weight_packed": pack(drawn.codes, drawn.bits),
        f"{path}.weight_scale": drawn.scales,
        f"{path}.weight_shape": np.array(drawn.shape, np.int64),
    }


def check(folder: Path, tensors: Mapping[str, Array], said: Any, wanted: Array, path: str = LAYER) -> core.Layer:
    """The layer of a checkpoint that decodes to `wanted`, whole and in parts."""
    with core.open_model(checkpoint(folder, tensors, said)) as model:
        layer = model.by_name[path]
        assert not model.quantized_by
        assert layer.shape == wanted.shape
        whole = wanted.reshape(-1, wanted.shape[-1])
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, len(whole)), whole)
        for start, stop in ((0, 1), (3, 8), (5, 17), (len(whole) - 1, len(whole))):
            np.testing.assert_array_equal(layer.source.rows(layer.whole, start, stop), whole[start:stop])
        return layer


def refusal(folder: Path, tensors: Mapping[str, Array], said: Any = CONFIG, path: str = LAYER) -> str:
    """Why the layer of a checkpoint is not read."""
    with core.open_model(checkpoint(folder, tensors, said)) as model:
        assert not model.by_name[path].matrices
        assert model.quantized_by
        return model.by_name[path].obstacle


SIZES = [(bits, columns, group) for bits in range(1, 9) for columns, group in ((128, 32), (128, 128), (200, 200))]


@pytest.mark.parametrize(("bits", "columns", "group"), SIZES)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_width_decodes(tmp_path: Path, bits: int, columns: int, group: int, asymmetric: bool) -> None:
    drawn = Drawn((45, columns), bits, group, BF16)
    tensors = packed(drawn)
    zeros = drawn.zeros if asymmetric else None
    if asymmetric:
        tensors[f"{LAYER}.weight_zero_point"] = down(drawn.zeros, bits)
    said = config({"num_bits": bits, "symmetric": not asymmetric, "group_size": group if group < columns else None})
    layer = check(tmp_path / "m", tensors, said, drawn.weights(zeros))
    groups = f"groups of {group}" if group < columns else "a scale per row"
    assert layer.source.meaning == f"INT{bits}, {groups}, compressed-tensors"
    assert layer.source.bits == bits
    assert layer.kept_dtype == "BF16"


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_words_of_whole_codes_are_told_by_their_number(tmp_path: Path, bits: int, asymmetric: bool) -> None:
    drawn = Drawn((45, 128), bits, 32)
    tensors = packed(drawn, pack=in_words)
    if asymmetric:
        tensors[f"{LAYER}.weight_zero_point"] = down(drawn.zeros, bits, in_words)
    said = config({"num_bits": bits, "group_size": 32})
    check(tmp_path / "m", tensors, said, drawn.weights(drawn.zeros if asymmetric else None))


def test_without_a_config_shapes_tell(tmp_path: Path) -> None:
    drawn = Drawn((24, 128), 4, 32)
    check(tmp_path / "m", packed(drawn), CONFIG, drawn.weights())


@pytest.mark.parametrize("mixed", [False, True])
def test_columns_in_groups_of_their_own(tmp_path: Path, mixed: bool) -> None:
    drawn = Drawn((24, 128), 4, 32, mixed=mixed)
    tensors = {**packed(drawn), f"{LAYER}.weight_g_idx": drawn.groups.astype(np.int32)}
    check(tmp_path / "m", tensors, config({"num_bits": 4, "group_size": 32, "actorder": "group"}), drawn.weights())


def test_an_order_of_minus_one_is_none(tmp_path: Path) -> None:
    drawn = Drawn((24, 128), 4, 32)
    tensors = {**packed(drawn), f"{LAYER}.weight_g_idx": np.full(128, -1, np.int32)}
    check(tmp_path / "m", tensors, config({"num_bits": 4, "group_size": 32}), drawn.weights())


@pytest.mark.parametrize("places", [[4], [-1], [-(1 << 31)], [(1 << 31) - 1]])
def test_groups_that_are_not_there_are_refused_as_they_are_read(tmp_path: Path, places: list[int]) -> None:
    drawn = Drawn((24, 128), 4, 32)
    groups = drawn.groups.astype(np.int32)
    groups[: len(places)] = places
    tensors = {**packed(drawn), f"{LAYER}.weight_g_idx": groups}
    with core.open_model(checkpoint(tmp_path / "m", tensors, CONFIG)) as model:
        layer = model.by_name[LAYER]
        with pytest.raises(core.CheckpointError, match="that it has no scales of"):
            layer.source.rows(layer.whole, 0, 1)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4])
def test_stacks_of_experts_are_packed_one_by_one(tmp_path: Path, bits: int, asymmetric: bool) -> None:
    drawn = Drawn((3, 13, 64), bits, 32)
    path = f"{STACK}"
    tensors = packed(drawn, path)
    if asymmetric:
        tensors[f"{path}.weight_zero_point"] = down(drawn.zeros, bits)
    said = config({"num_bits": bits, "group_size": 32})
    check(tmp_path / "m", tensors, said, drawn.weights(drawn.zeros if asymmetric else None), path)


def test_groups_of_several_kinds_are_told_by_their_tensors(tmp_path: Path) -> None:
    four, eight = Drawn((24, 128), 4, 32), Drawn((24, 128), 8, 128)
    other = "model.layers.0.mlp.gate_proj"
    said = config({"num_bits": 4, "group_size": 32}, {"num_bits": 8, "group_size": None})
    tensors = {**packed(four), **packed(eight, other)}
    check(tmp_path / "a", tensors, said, four.weights())
    check(tmp_path / "b", tensors, said, eight.weights(), other)


PLAIN = {"num_bits": 8}


@pytest.mark.parametrize("scale", ["row", "vector", "tensor", "group"])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_integers_of_eight_bits_each(tmp_path: Path, scale: str, asymmetric: bool) -> None:
    drawn = Drawn((24, 96), 8, 32 if scale == "group" else 96, np.float32)
    if scale == "tensor":
        drawn.scales[:], drawn.zeros[:] = drawn.scales[0], drawn.zeros[0]
    form = {"vector": np.s_[:, 0], "tensor": np.s_[:1, 0]}.get(scale, np.s_[:])
    tensors = {f"{LAYER}.weight": (drawn.codes - 128).astype(np.int8), f"{LAYER}.weight_scale": drawn.scales[form]}
    zeros = drawn.zeros if asymmetric else None
    if asymmetric:
        tensors[f"{LAYER}.weight_zero_point"] = (drawn.zeros - 128).astype(np.int8)[form]
    said = config({**PLAIN, "group_size": 32 if scale == "group" else None}, format="int-quantized")
    layer = check(tmp_path / "m", tensors, said, drawn.weights(zeros))
    told = {"group": "groups of 32", "tensor": "one scale"}.get(scale, "a scale per row")
    assert layer.source.meaning == f"INT8, {told}, compressed-tensors"


def test_a_format_alone_says_that_they_are_integers(tmp_path: Path) -> None:
    drawn = Drawn((24, 96), 8, 96, np.float32)
    tensors = {f"{LAYER}.weight": (drawn.codes - 128).astype(np.int8), f"{LAYER}.weight_scale": drawn.scales}
    said = {**CONFIG, "quantization_config": {"quant_method": "compressed-tensors", "format": "naive-quantized"}}
    check(tmp_path / "m", tensors, said, drawn.weights())


FOUR = config({"num_bits": 4, "group_size": 32})


def changed(**parts: Array | None) -> dict[str, Array]:
    """Good tensors with some of their parts replaced, or left out."""
    found = packed(Drawn((24, 128), 4, 32)) | {f"{LAYER}.{leaf}": part for leaf, part in parts.items()}
    return {name: part for name, part in found.items() if part is not None}


REFUSED = [
    (changed(weight_scale=None), FOUR, "packed integers without weight_scale"),
    (changed(weight_scale=np.ones((24, 4), np.int8)), FOUR, "scales of I8"),
    (changed(weight_scale=np.ones((4, 24), np.float16)), FOUR, "[24] rows with scales [4, 24]"),
    (changed(weight_scale=np.ones((24, 5), np.float16)), FOUR, "5 scales"),
    (changed(weight_scale=np.ones((24, 0), np.float16)), FOUR, "0 scales"),
    (changed(weight_shape=None), CONFIG, "packed integers without weight_shape"),
    (changed(weight_shape=np.array([24, 128], np.int16)), CONFIG, "weight_shape of I16 [2]"),
    (changed(weight_shape=np.array([24, 128, 1])), CONFIG, "weight_shape of I64 [3]"),
    (changed(weight_shape=np.array([25, 128])), CONFIG, "rows [24], but weight_shape says [25]"),
    (changed(weight_shape=np.array([24, -128])), CONFIG, "rows of -128 weights"),
    (changed(weight_shape=np.array([24, 1 << 62])), CONFIG, "4,611,686,018,427,387,904"),
    (changed(weight_shape=np.array([24, 8])), CONFIG, "8 integers in 16 words: of no width"),
    (
        changed(weight_shape=np.array([24, 64])),
        CONFIG,
        "64 integers in 16 words: 8 bits or 7 bits, so many as a word holds whole",
    ),
    (packed(Drawn((24, 100), 3, 100)), config({"num_bits": 3}), "3 bits or 3 bits, so many as a word holds whole"),
    (changed(), config({"num_bits": 3, "group_size": 32}), "128 integers in 16 words: of no width"),
    (changed(), config({"num_bits": 4, "group_size": 32, "symmetric": False}), "without the weight_zero_point"),
    (changed(weight_zero_point=np.zeros((24, 4), np.float16)), FOUR, "weight_zero_point of F16"),
    (changed(weight_zero_point=np.zeros((24, 4), np.int32)), FOUR, "weight_zero_point of I32 [24, 4]"),
    (changed(weight_g_idx=np.zeros(127, np.int32)), FOUR, "weight_g_idx of I32 [127]"),
    (changed(weight_g_idx=np.zeros(128, np.int64)), FOUR, "weight_g_idx of I64 [128]"),
    (changed(weight_packed=np.zeros((24, 0), np.int32)), FOUR, "packed integers [24, 0]"),
    (changed(weight_packed=np.zeros(16, np.int32)), FOUR, "packed integers [16]"),
]


@pytest.mark.parametrize(("tensors", "said", "why"), REFUSED)
def test_what_is_open_is_refused(tmp_path: Path, tensors: dict[str, Array], said: Any, why: str) -> None:
    assert why in refusal(tmp_path / "m", tensors, said)


def test_a_config_that_the_stated_shape_contradicts_is_refused_as_weights_are_read(tmp_path: Path) -> None:
    drawn = Drawn((24, 64), 8, 32)
    said = config({"num_bits": 4, "group_size": 64})
    with core.open_model(checkpoint(tmp_path / "m", packed(drawn), said)) as model:
        layer = model.by_name[LAYER]
        for read in (layer.source.rows, layer.source.packed):
            with pytest.raises(core.CheckpointError, match=r"128 weights by the config, of 64 by .*weight_shape"):
                read(layer.whole, 0, 8)


def test_groups_of_which_nothing_says_the_size_are_refused(tmp_path: Path) -> None:
    tensors = {f"{LAYER}.weight": np.ones((24, 96), np.int8), f"{LAYER}.weight_scale": np.ones((24, 3), np.float32)}
    assert "of which no config says the groups" in refusal(tmp_path / "m", tensors, config(PLAIN))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_that_are_no_numbers_are_refused_as_they_are_read(tmp_path: Path, value: float) -> None:
    drawn = Drawn((24, 128), 4, 32)
    drawn.scales[7, 2] = value
    with core.open_model(checkpoint(tmp_path / "m", packed(drawn), FOUR)) as model:
        layer = model.by_name[LAYER]
        layer.source.rows(layer.whole, 0, 7)
        for read in (layer.source.rows, layer.source.packed):
            with pytest.raises(core.CheckpointError, match="1 of its scales"):
                read(layer.whole, 7, 8)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize(("columns", "group", "block"), [(128, 32, 32), (128, 64, 64), (256, 256, 128), (192, 192, 64)])
def test_all_widths_that_mlx_has_are_handed_on(
    studio: Studio, tmp_path: Path, bits: int, asymmetric: bool, columns: int, group: int, block: int
) -> None:
    drawn = Drawn((40, columns), bits, group, BF16)
    tensors = packed(drawn)
    if asymmetric:
        tensors[f"{LAYER}.weight_zero_point"] = down(drawn.zeros, bits)
    said = config({"num_bits": bits, "group_size": group if group < columns else None, "symmetric": not asymmetric})
    source, target = checkpoint(tmp_path / "m", tensors, said), tmp_path / "out"
    ran = studio("convert", source, target, "--layout", "mlx")
    assert ran.code == 0, ran.err
    with core.open_model(target) as model:
        layer = model.by_name[LAYER]
        assert layer.source.format
        assert layer.source.format.name == f"int{bits}-g{block}"
        wanted = drawn.weights(drawn.zeros if asymmetric else None)
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 40), wanted)


def test_scales_without_a_bias_in_their_dtype_are_refused(studio: Studio, tmp_path: Path) -> None:
    drawn = Drawn((24, 128), 8, 32)
    drawn.scales[3, 1] = 600
    source = checkpoint(tmp_path / "m", packed(drawn), config({"num_bits": 8, "group_size": 32}))
    ran = studio("convert", source, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 2
    assert "has no biases for them" in ran.err
    assert "--layout plain" in ran.err
    assert not (tmp_path / "out").exists()
