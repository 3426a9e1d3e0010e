"""GPTQ, AWQ, auto-round and Quark: integers stored inputs first, by the zeros and the order that a config tells."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import BF16, CONFIG, checkpoint, llama
from tests.core.conftest import Studio
from tests.core.sources.integer_files import Drawn, decoded, in_words, reordered, shuffled
from tests.core.sources.test_integers import check, refusal

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"


def config(**section: Any) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": section}


def gptq(**more: Any) -> dict[str, Any]:
    return config(**{"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False} | more)


def awq(drawn: Drawn) -> dict[str, Array]:
    return {
        f"{LAYER}.qweight": reordered(drawn.codes.T),
        f"{LAYER}.qzeros": reordered(drawn.zeros.T),
        f"{LAYER}.scales": np.ascontiguousarray(drawn.scales.T),
    }


@pytest.mark.parametrize("bits", [5, 6, 7])
def test_awq_of_auto_round_in_other_widths_is_a_stream(tmp_path: Path, bits: int) -> None:
    drawn = Drawn((64, 96), bits, 32)
    tensors = {
        f"{LAYER}.qweight": shuffled(drawn.codes.T, bits),
        f"{LAYER}.qzeros": shuffled(drawn.zeros.T, bits),
        f"{LAYER}.scales": np.ascontiguousarray(drawn.scales.T),
    }
    said = config(quant_method="auto-round", packing_format="auto_round:auto_awq", bits=bits, group_size=32)
    layer = check(tmp_path / "m", tensors, said, drawn.weights(drawn.zeros))
    assert layer.source.meaning == f"INT{bits}, groups of 32, auto-round, AWQ"


def order(drawn: Drawn) -> dict[str, Array]:
    return {f"{LAYER}.g_idx": drawn.groups.astype(np.int32)}


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("form", "less"), [({}, 1), ({"checkpoint_format": "gptq"}, 1), ({"format": "gptq_v2"}, 0)])
@pytest.mark.parametrize("mixed", [None, False, True])
def test_gptq_of_every_width(tmp_path: Path, bits: int, form: dict[str, Any], less: int, mixed: bool | None) -> None:
    drawn = Drawn((64, 96), bits, 32, mixed=bool(mixed))
    drawn.zeros = np.maximum(drawn.zeros, 1)
    tensors = {**drawn.gptq(LAYER, less), **({} if mixed is None else order(drawn))}
    said = gptq(bits=bits, desc_act=bool(mixed), **form)
    layer = check(tmp_path / "m", tensors, said, drawn.weights(drawn.zeros))
    assert layer.source.meaning == f"INT{bits}, groups of 32, GPTQ{'' if less else ' v2'}"
    assert (layer.source.bits, layer.kept_dtype) == (bits, "F16")


def test_a_stored_zero_of_fifteen_is_sixteen(tmp_path: Path) -> None:
    drawn = Drawn((64, 96), 4, 32)
    drawn.zeros[:] = 16
    check(tmp_path / "m", drawn.gptq(LAYER, 1), gptq(), drawn.weights(drawn.zeros))


@pytest.mark.parametrize("size", [-1, 96])
def test_one_group_for_all_inputs(tmp_path: Path, size: int) -> None:
    drawn = Drawn((64, 96), 4, 96)
    layer = check(
        tmp_path / "m", drawn.gptq(LAYER, 0), gptq(group_size=size, format="gptq_v2"), drawn.weights(drawn.zeros)
    )
    assert layer.source.meaning == "INT4, a scale per row, GPTQ v2"


def test_a_last_group_that_is_cut_off(tmp_path: Path) -> None:
    drawn = Drawn((64, 80), 4, 32)
    said = gptq(format="gptq_v2")
    check(tmp_path / "a", drawn.gptq(LAYER, 0), said, drawn.weights(drawn.zeros))
    check(tmp_path / "b", {**drawn.gptq(LAYER, 0), **order(drawn)}, said, drawn.weights(drawn.zeros))


def test_an_override_of_the_groups_is_told_by_the_shapes(tmp_path: Path) -> None:
    drawn = Drawn((64, 128), 8, 64)
    said = gptq(group_size=128, dynamic={"+:.*up_proj": {"bits": 8, "group_size": 64}}, format="gptq_v2")
    check(tmp_path / "m", drawn.gptq(LAYER, 0), said, drawn.weights(drawn.zeros))


@pytest.mark.parametrize(
    ("form", "less"),
    [
        (None, 1),
        ("auto", 1),
        ("auto_round:auto_gptq", 1),
        ("auto_round:gptq", 1),
        ("auto_round", 0),
        ("auto_round:gptqmodel", 0),
    ],
)
@pytest.mark.parametrize("method", ["auto-round", "intel/auto-round"])
def test_zeros_of_auto_round_are_as_its_format_says(tmp_path: Path, form: str | None, less: int, method: str) -> None:
    drawn = Drawn((64, 96), 4, 32)
    drawn.zeros = np.maximum(drawn.zeros, 1)
    said = config(quant_method=method, bits=4, group_size=32, sym=False, **({"packing_format": form} if form else {}))
    layer = check(tmp_path / "m", drawn.gptq(LAYER, less), said, drawn.weights(drawn.zeros))
    assert layer.source.meaning == f"INT4, groups of 32, auto-round, GPTQ{'' if less else ' v2'}"


@pytest.mark.parametrize("form", ["auto_round:awq", "auto_round:auto_awq"])
def test_auto_round_in_the_form_of_awq(tmp_path: Path, form: str) -> None:
    drawn = Drawn((64, 96), 4, 32)
    layer = check(
        tmp_path / "m",
        awq(drawn),
        config(quant_method="auto-round", packing_format=form, group_size=32),
        drawn.weights(drawn.zeros),
    )
    assert layer.source.meaning == "INT4, groups of 32, auto-round, AWQ"


@pytest.mark.parametrize(
    "said",
    [
        config(quant_method="awq", bits=4, group_size=32, version="GEMM"),
        config(quant_method="awq", bits=4, group_size=32, version="gemm", zero_point=True),
        config(quant_method="awq", w_bit=4, q_group_size=32),
        CONFIG,
    ],
)
def test_awq(tmp_path: Path, said: Any) -> None:
    drawn = Drawn((40, 96), 4, 32)
    layer = check(tmp_path / "m", awq(drawn), said, drawn.weights(drawn.zeros))
    assert layer.source.meaning == "INT4, groups of 32, AWQ"


@pytest.mark.parametrize(("name", "less"), [("quantize_config.json", 1), ("quant_config.json", None)])
def test_the_files_of_the_first_releases(studio: Studio, tmp_path: Path, name: str, less: int | None) -> None:
    drawn = Drawn((64, 96), 4, 96)
    drawn.zeros = np.maximum(drawn.zeros, 1)
    tensors = awq(drawn) if less is None else drawn.gptq(LAYER, less)
    folder = checkpoint(tmp_path / "m", tensors, CONFIG)
    section = {"bits": 4, "group_size": -1, "desc_act": True} if less else {"w_bit": 4, "version": "GEMM"}
    (folder / name).write_text(json.dumps(section))
    with core.open_model(folder) as model:
        layer = model.by_name[LAYER]
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 64), drawn.weights(drawn.zeros))
    assert studio("quantize", folder, tmp_path / "out").code == 0
    assert not (tmp_path / "out" / name).exists()


def quark(kind: str, *, method: str = "reorder", group: int = 32) -> dict[str, Any]:
    weight = {"dtype": kind, "group_size": group, "qscheme": "per_group"}
    return config(quant_method="quark", export={"pack_method": method}, global_quant_config={"weight": weight})


@pytest.mark.parametrize("kind", ["int4", "uint4"])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("method", ["reorder", "order"])
def test_quark(tmp_path: Path, kind: str, zeros: bool, method: str) -> None:
    drawn = Drawn((40, 96), 4, 32, BF16)
    pack = reordered if method == "reorder" else lambda codes: in_words(codes, 4)
    tensors = {f"{LAYER}.weight": pack(drawn.codes.T), f"{LAYER}.weight_scale": np.ascontiguousarray(drawn.scales.T)}
    if zeros:
        tensors[f"{LAYER}.weight_zero_point"] = pack(drawn.zeros.T)
    signed = (lambda codes: np.where(codes > 7, codes - 16, codes)) if kind == "int4" else (lambda codes: codes)
    wanted = decoded(signed(drawn.codes), signed(drawn.zeros) * zeros, drawn.scales, drawn.groups)
    layer = check(tmp_path / "m", tensors, quark(kind, method=method), wanted)
    unsigned, in_order = kind == "uint4", method == "order"
    told = f"INT4, groups of 32, Quark{', unsigned' * unsigned}{', in order' * in_order}"
    assert layer.source.meaning == told


GOOD = Drawn((64, 96), 4, 32)


def parts(**changed: Array | None) -> dict[str, Array]:
    found = {**GOOD.gptq(LAYER, 0), **{f"{LAYER}.{leaf}": part for leaf, part in changed.items()}}
    return {name: part for name, part in found.items() if part is not None}


def ints(*shape: int) -> Array:
    return np.ones(shape, np.int32)


HALF = np.float16
REFUSED: list[tuple[Mapping[str, Array], Any, str]] = [
    (parts(), CONFIG, "no config says whether zeros are stored less one"),
    (parts(), gptq(checkpoint_format="marlin"), "in the form marlin"),
    (parts(), config(quant_method="auto-round", packing_format="auto_round:exllamav2"), "auto_round:exllamav2"),
    (parts(), config(quant_method="awq", version="gemm"), "no config says"),
    (parts(), gptq(desc_act=True, format="gptq_v2"), "order of activations without g_idx"),
    (parts(qzeros=None), gptq(), "qweight without qzeros"),
    (parts(scales=None, qzeros=None), gptq(), "qweight without qzeros and scales"),
    (parts(scales=np.ones((3, 64), np.int8)), gptq(), "of I32, I32, I8"),
    (parts(qweight=np.ones((12, 64), np.uint8)), gptq(), "of U8, I32, F16"),
    (parts(qzeros=ints(2, 8)), gptq(), "qzeros [2, 8] with scales [3, 64]"),
    (parts(qzeros=ints(3, 7)), gptq(), "qzeros [3, 7]"),
    (parts(qzeros=ints(3, 10)), gptq(), "qzeros [3, 10]"),
    (parts(qzeros=ints(3, 64)), gptq(), "qzeros [3, 64]"),
    (parts(qzeros=ints(3, 0)), gptq(), "qzeros [3, 0]"),
    (parts(qweight=ints(12)), gptq(), "qweight [12]"),
    (parts(g_idx=np.zeros(95, np.int32)), gptq(), "g_idx of I32 [95]"),
    (parts(g_idx=np.zeros(96, np.int64)), gptq(), "g_idx of I64 [96]"),
    (parts(qzeros=ints(5, 8), scales=np.ones((5, 64), HALF)), gptq(), "96 columns with 5 scales"),
    (awq(GOOD), gptq(), "AWQ in the form gptq"),
    (awq(GOOD), config(quant_method="awq", version="gemv"), "AWQ in the form gemv"),
    (awq(GOOD), config(quant_method="awq", version="gemm", format="gemv_fast"), "AWQ in the form gemv_fast"),
    ({**awq(GOOD), f"{LAYER}.qzeros": ints(3, 7)}, CONFIG, "qzeros [3, 7]"),
    ({**awq(GOOD), f"{LAYER}.scales": np.ones((3, 65), HALF)}, CONFIG, "scales [3, 65]"),
]


@pytest.mark.parametrize(("tensors", "said", "why"), REFUSED)
def test_what_is_open_is_refused(tmp_path: Path, tensors: Mapping[str, Array], said: Any, why: str) -> None:
    assert why in refusal(tmp_path / "m", tensors, said)


OF_QUARK = {
    f"{LAYER}.weight": reordered(GOOD.codes.T),
    f"{LAYER}.weight_scale": np.ascontiguousarray(GOOD.scales.T),
}
QUARK_REFUSED = [
    (OF_QUARK, config(quant_method="quark", export={"pack_method": []}, global_quant_config=[]), "integers of []"),
    (OF_QUARK, quark("int4", method="shuffled"), "in the order shuffled"),
    (OF_QUARK, quark("int4_t"), "integers of ['int4_t']"),
    (OF_QUARK, config(quant_method="quark", global_quant_config={"weight": {"dtype": "fp8_e4m3"}}), "integers of []"),
    ({**OF_QUARK, f"{LAYER}.weight": ints(96, 9)}, quark("int4"), "[96, 9] with scales [3, 64]"),
    ({**OF_QUARK, f"{LAYER}.weight_scale": np.ones(64, HALF)}, quark("int4"), "parts of [96, 8] and [64]"),
    ({**OF_QUARK, f"{LAYER}.weight_zero_point": ints(3, 64)}, quark("int4"), "weight_zero_point of I32 [3, 64]"),
]


@pytest.mark.parametrize(("tensors", "said", "why"), QUARK_REFUSED)
def test_what_is_open_in_quark_is_refused(tmp_path: Path, tensors: Mapping[str, Array], said: Any, why: str) -> None:
    assert why in refusal(tmp_path / "m", tensors, said)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gptq_is_handed_on_to_mlx(studio: Studio, tmp_path: Path, bits: int, symmetric: bool) -> None:
    drawn = Drawn((64, 128), bits, 64)
    if symmetric:
        drawn.zeros[:] = 1 << (bits - 1)
    tensors = {**drawn.gptq(LAYER, 0), **order(drawn)}
    source = checkpoint(tmp_path / "m", tensors, gptq(bits=bits, group_size=64, sym=symmetric, format="gptq_v2"))
    ran = studio("convert", source, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 0, ran.err
    with core.open_model(tmp_path / "out") as model:
        layer = model.by_name[LAYER]
        assert layer.source.scale_dtype == ("F16" if symmetric else "F32")
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 64), drawn.weights(drawn.zeros))


@pytest.mark.parametrize(("dtype", "odd"), [(BF16, True), (np.float16, False)])
def test_scales_in_a_dtype_of_their_own_are_told(studio: Studio, tmp_path: Path, dtype: Any, odd: bool) -> None:
    drawn = Drawn((128, 64), 4, 32)
    drawn.zeros[:] = 8
    plain = {name: value for name, value in llama(1, dtype=dtype).items() if name != f"{LAYER}.weight"}
    source = checkpoint(tmp_path / "m", {**plain, **drawn.gptq(LAYER, 0)}, gptq(format="gptq_v2", sym=True))
    ran = studio("convert", source, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 0, ran.err
    assert ("scales in F16, which no other weights have" in ran.out) == odd


@pytest.mark.parametrize(
    ("mixed", "said", "why"),
    [(True, gptq(format="gptq_v2"), "another order"), (False, gptq(format="gptq_v2", sym=True), "is not symmetric")],
)
def test_what_a_config_says_of_codes_is_checked_as_they_are_handed_on(
    studio: Studio, tmp_path: Path, mixed: bool, said: Any, why: str
) -> None:
    drawn = Drawn((64, 96), 4, 32, mixed=mixed)
    source = checkpoint(tmp_path / "m", {**drawn.gptq(LAYER, 0), **order(drawn)}, said)
    check(tmp_path / "m2", {**drawn.gptq(LAYER, 0), **order(drawn)}, said, drawn.weights(drawn.zeros))
    ran = studio("convert", source, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 2
    assert why in ran.err
    assert "--layout plain" in ran.err


def test_columns_in_groups_of_their_own_are_decoded_only(studio: Studio, tmp_path: Path) -> None:
    drawn = Drawn((64, 96), 4, 32, mixed=True)
    source = checkpoint(tmp_path / "m", {**drawn.gptq(LAYER, 0), **order(drawn)}, gptq(desc_act=True, format="gptq_v2"))
    ran = studio("convert", source, tmp_path / "out", "--layout", "plain", "--dtype", "float32")
    assert ran.code == 0, ran.err
    with core.open_model(tmp_path / "out") as model:
        layer = model.by_name[LAYER]
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 64), drawn.weights(drawn.zeros))


@pytest.mark.parametrize("wide", [False, True])
def test_modules_that_a_plain_checkpoint_stores_inputs_first(studio: Studio, tmp_path: Path, wide: bool) -> None:
    drawn = Drawn((64 if wide else 96, 96), 4, 32)
    path = "h.0.mlp.c_fc"
    said = {"model_type": "gpt2", "n_embd": 96, **gptq(format="gptq_v2")}
    source = checkpoint(tmp_path / "m", drawn.gptq(path, 0), said | {"model_type": "gpt2"})
    wanted = drawn.weights(drawn.zeros)
    with core.open_model(source) as model:
        layer = model.by_name[path]
        (matrix,) = layer.matrices
        assert (layer.shape, matrix.rows, matrix.columns) == (wanted.shape[::-1], *wanted.shape)
        np.testing.assert_array_equal(layer.source.rows(matrix, 0, matrix.rows), wanted)
        np.testing.assert_array_equal(layer.source.rows(matrix, 5, 20), wanted[5:20])
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 7, 31), wanted.T[7:31])
    ran = studio("convert", source, tmp_path / "out", "--layout", "plain", "--dtype", "float32")
    assert ran.code == 0, ran.err
    with core.open_model(tmp_path / "out") as model:
        layer = model.by_name[path]
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 96), wanted.T)


@pytest.mark.parametrize("nbytes", [1, 200, 500])
@pytest.mark.parametrize("bits", [3, 4])
def test_bands_of_rows_that_are_kept_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int, bits: int
) -> None:
    monkeypatch.setattr("studio.core.sources.tables._BAND_NBYTES", nbytes)
    drawn = Drawn((64, 96), bits, 32)
    check(tmp_path / "gptq", drawn.gptq(LAYER, 0), gptq(format="gptq_v2"), drawn.weights(drawn.zeros))
    four = Drawn((64, 96), 4, 32)
    check(tmp_path / "awq", awq(four), CONFIG, four.weights(four.zeros))


def test_symmetric_awq_keeps_the_dtype_of_its_scales(studio: Studio, tmp_path: Path) -> None:
    drawn = Drawn((64, 96), 4, 32)
    drawn.zeros[:] = 8
    said = config(quant_method="auto-round", packing_format="auto_round:auto_awq", sym=True, group_size=32)
    source = checkpoint(tmp_path / "m", awq(drawn), said)
    ran = studio("convert", source, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 0, ran.err
    with core.open_model(tmp_path / "out") as model:
        layer = model.by_name[LAYER]
        assert layer.source.scale_dtype == "F16"
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 64), drawn.weights())


@pytest.mark.parametrize("symmetric", [False, True])
def test_quark_is_handed_on_to_mlx(studio: Studio, tmp_path: Path, symmetric: bool) -> None:
    drawn = Drawn((40, 96), 4, 32, BF16)
    drawn.zeros *= not symmetric
    parts = {"weight": drawn.codes, "weight_zero_point": drawn.zeros}
    tensors = {f"{LAYER}.{leaf}": reordered(codes.T) for leaf, codes in parts.items()}
    tensors[f"{LAYER}.weight_scale"] = np.ascontiguousarray(drawn.scales.T)
    said = quark("int4")
    said["quantization_config"]["global_quant_config"]["weight"]["symmetric"] = symmetric
    assert studio("convert", checkpoint(tmp_path / "m", tensors, said), tmp_path / "out", "--layout", "mlx").code == 0
    codes, zeros = (np.where(some > 7, some - 16, some) for some in (drawn.codes, drawn.zeros))
    with core.open_model(tmp_path / "out") as model:
        layer = model.by_name[LAYER]
        assert layer.source.scale_dtype == ("BF16" if symmetric else "F32")
        wanted = decoded(codes, zeros, drawn.scales, drawn.groups)
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 40), wanted)
