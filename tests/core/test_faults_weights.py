"""Odd weights: kept and named, warned of, or refused with the tensor and the counts; never laundered."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from studio import core
from tests.core.checkpoints import CONFIG, QUERY, checkpoint, gaussian, llama, snapshot, write_safetensors
from tests.core.conftest import Refused, Studio

EVIL = "import pathlib\npathlib.Path(__file__).with_name('RAN').touch()\n"


def arrays(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    with core.open_model(folder) as model:
        return {layer.tensor.name: (layer.tensor.dtype, layer.shape) for layer in model.layers}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.rotary.inv_freq", np.arange(4, dtype=np.float32)),
        ("model.position_ids", np.arange(6, dtype=np.int64)),
        ("model.mask", np.ones((2, 3), np.bool_)),
        ("model.layers.0.mlp.table.weight", np.ones((4, 32), np.float64)),
        ("model.empty.weight", np.ones((0, 32), np.float32)),
        ("model.logit_scale", np.ones((), np.float32)),
        ("model.conv.weight", gaussian(4, 8, 16)),
        ("model.patch.weight", gaussian(2, 3, 4, 16)),
        ("model.layers.0.mlp.odd.weight", gaussian(8, 24)),
    ],
)
def test_what_can_not_be_quantized_is_copied_byte_for_byte_and_says_why(
    studio: Studio, tmp_path: Path, name: str, value: np.ndarray
) -> None:
    source = checkpoint(tmp_path / "model", {**llama(1), name: value})
    assert (
        studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--preset", "all", *KEEP_EMBED).code == 0
    )
    assert arrays(tmp_path / "out")[name] == arrays(source)[name]
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    with core.open_model(source) as model:
        layer = name.removesuffix(".weight")
        reason = {c.layer.name: c.reason for c in core.resolve(core.preset("all"), model)}[layer]
    assert reason


KEEP_EMBED = ("--exclude", "*embed*", "--exclude", "lm_head")


def with_value(value: float) -> dict[str, np.ndarray]:
    tensors = dict(llama(1))
    weight = tensors[QUERY].copy()
    weight[3, 5] = value
    weight[7, 1] = value
    tensors[QUERY] = weight
    return tensors


@pytest.mark.parametrize(("value", "words"), [(np.nan, "2 NaN"), (np.inf, "2 Inf"), (-np.inf, "2 Inf")])
def test_nan_and_inf_in_a_weight_are_refused_with_tensor_and_counts(
    refused: Refused, tmp_path: Path, value: float, words: str
) -> None:
    said = refused(checkpoint(tmp_path / "model", with_value(value)), "q_proj", words)
    assert "--skip-nonfinite" in said


def test_skip_nonfinite_keeps_that_tensor_and_says_so(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", with_value(np.nan))
    ran = studio("quantize", source, tmp_path / "out", "--skip-nonfinite", "--layout", "modelopt")
    assert ran.code == 0
    assert "q_proj" in ran.err
    assert arrays(tmp_path / "out")[QUERY] == ("BF16", (64, 64))
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


def test_nan_in_a_tensor_that_is_only_copied_is_copied_with_a_warning(studio: Studio, tmp_path: Path) -> None:
    tensors = {**llama(1), "model.norm.weight": np.full(64, np.nan, ml_dtypes.bfloat16)}
    ran = studio("quantize", checkpoint(tmp_path / "model", tensors), tmp_path / "out")
    assert ran.code == 0
    assert "model.norm" in ran.err
    assert "64 NaN" in ran.err


@pytest.mark.parametrize("value", [0.0, 1e-40])
@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_zeros_and_subnormal_weights_get_usable_scales(
    studio: Studio, tmp_path: Path, value: float, layout: str
) -> None:
    tensors = {**llama(1), QUERY: np.full((64, 64), value, ml_dtypes.bfloat16)}
    source = checkpoint(tmp_path / "model", tensors)
    assert studio("quantize", source, tmp_path / "out", "--layout", layout).code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


def test_a_weight_that_loses_most_of_itself_is_warned_of_with_the_share(studio: Studio, tmp_path: Path) -> None:
    weight = np.full((64, 64), 1e-3, np.float32)
    weight[:, ::16] = 100
    tensors = {**llama(1), QUERY: weight.astype(ml_dtypes.bfloat16)}
    ran = studio("quantize", checkpoint(tmp_path / "model", tensors), tmp_path / "out")
    assert ran.code == 0
    assert "q_proj: 94% of its non-zero weights became zero" in ran.err


@pytest.mark.parametrize(
    ("tensors", "config", "words"),
    [
        ({"a.weight": np.ones((8, 8), np.uint32), "a.scales": np.ones((8, 3), np.uint8)}, {}, "MLX"),
        ({"a.qweight": np.ones((8, 8), np.int32), "a.qzeros": np.ones((1, 1), np.int32)}, {}, "GPTQ"),
        ({"a.weight_packed": np.ones((8, 8), np.uint8)}, {}, "compressed-tensors"),
        ({"a.weight": np.ones((8, 8), np.uint8), "a.weight_scale_2": np.ones((), np.float32)}, {}, "ModelOpt"),
        ({"a.weight": np.ones((8, 8), np.uint8), "a.weight.absmax": np.ones(8, np.float32)}, {}, "bitsandbytes"),
        ({"a.weight_packed": np.ones((8, 8), np.uint8)}, {"quantization_config": {"quant_method": "x-q"}}, "x-q"),
    ],
)
def test_a_source_that_is_quantized_already_is_refused_with_its_method(
    refused: Refused, tmp_path: Path, tensors: dict[str, np.ndarray], config: dict[str, object], words: str
) -> None:
    refused(checkpoint(tmp_path / "model", tensors, {**CONFIG, **config}), "already quantized", words)


def test_a_name_that_the_export_would_write_is_refused(refused: Refused, tmp_path: Path) -> None:
    tensors = {**llama(1), "model.layers.0.self_attn.q_proj.weight_scale": np.ones(3, np.float32)}
    source = checkpoint(tmp_path / "model", tensors)
    refused(source, "q_proj.weight_scale", options=("--layout", "modelopt"))


def test_tied_weights_get_no_head(studio: Studio, tmp_path: Path) -> None:
    tensors = {name: value for name, value in llama(1).items() if name != "lm_head.weight"}
    source = checkpoint(tmp_path / "model", tensors, {**CONFIG, "tie_word_embeddings": True})
    assert studio("quantize", source, tmp_path / "out", "--preset", "all").code == 0
    assert not any("lm_head" in name for name in arrays_of_any(tmp_path / "out"))


def arrays_of_any(folder: Path) -> list[str]:
    with core.open_model(folder) as model:
        return [layer.tensor.name for layer in model.layers]


def test_no_code_of_a_checkpoint_runs_and_none_is_taken_along(studio: Studio, tmp_path: Path) -> None:
    config = {**CONFIG, "auto_map": {"AutoModel": "evil.Model"}, "model_file": "evil.py"}
    source = checkpoint(tmp_path / "model", config=config)
    (source / "evil.py").write_text(EVIL)
    (source / "modeling_evil.py").write_text(EVIL)
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch RAN'\ntR.")
    (source / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    ran = studio("quantize", source, tmp_path / "out", "--format", "nvfp4-2t")
    assert ran.code == 0
    assert "Python code (auto_map in config.json) is left out" in ran.out
    assert "is left out" in (tmp_path / "out" / "README.md").read_text()
    assert not list(tmp_path.rglob("RAN"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & {"evil.py", "modeling_evil.py", "pytorch_model.bin"}
    assert "auto_map" not in (tmp_path / "out" / "config.json").read_text()
    assert "model_file" not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**9},
        {"num_local_experts": 10**9, "num_experts": "many"},
        {"text_config": "no object"},
        {"text_config": {"hidden_size": [1]}},
        {"architectures": 7},
        {"architectures": []},
        {"architectures": [None]},
        {"model_type": {}},
        {"rope_parameters": [1, 2]},
        {"rope_parameters": {"rope_theta": {}}},
        {"quantization_config": 3},
        {"quantization_config": {"quant_method": []}},
        {"hidden_size": -1},
        {"tie_word_embeddings": "yes"},
    ],
)
@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_hostile_values_in_the_config_are_ignored(
    studio: Studio, tmp_path: Path, config: dict[str, object], layout: str
) -> None:
    source = checkpoint(tmp_path / "model", llama(1), {**CONFIG, **config})
    assert studio("quantize", source, tmp_path / "out", "--layout", layout).code == 0


@pytest.mark.parametrize(
    "name",
    [
        "../../evil",
        "/etc/passwd",
        "model.layers.0.\x1b[2Jclear.weight",
        "model.layers.0.\u202egpj.weight",
        "model.layers.0.two\nlines.weight",
        "model.layers.0.<b>bold</b>.weight",
        "x" * 5000,
        "model.layers.0.nul\x00.weight",
        "",
    ],
)
def test_names_are_shown_harmless_and_kept_exactly(studio: Studio, tmp_path: Path, name: str) -> None:
    source = checkpoint(tmp_path / "model", {**llama(1), name: gaussian(16, 32)})
    before = sorted(path.name for path in tmp_path.iterdir())
    for command in ("inspect", "plan", "measure"):
        ran = studio(command, source, *(("--report", tmp_path / "report") if command == "measure" else ()))
        assert ran.code == 0
        shown = ran.out + ran.err
        assert not any(bad in shown for bad in ("\x1b[2J", "\u202e", "two\nlines", "\x00"))
        assert max(map(len, shown.splitlines())) < 400
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt").code == 0
    assert name in arrays_of_any(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "out", "report"])


def test_a_single_file_may_have_any_metadata(studio: Studio, tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "w" / "a.safetensors", llama(1), {"<script>": "\u202e" * 100})
    before = snapshot(file.parent)
    assert studio("inspect", file).code == 0
    assert snapshot(file.parent) == before
