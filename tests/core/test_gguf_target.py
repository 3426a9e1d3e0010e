"""GGUF files that are written: decoded by the package gguf to the bit, and read back as the same model."""

import numpy as np
import pytest

from studio import core
from studio.cli import main
from studio.core.errors import ExportError, PlanError
from studio.core.exporting.gguf import prepare_gguf, write_gguf
from tests.core.checkpoints import BF16, CONFIG, checkpoint

FORMATS = ("nvfp4-2t", "nvfp4-3t", "mxfp4")


def write(model, target, name, **how):
    plan = core.preset("linear").with_format(name)
    with core.start(core.Machine(threads=2), model) as engine:
        for _ in write_gguf(engine, prepare_gguf(model, core.resolve(plan, model), target, **how)):
            pass
    return target


def rows(layer):
    return np.asarray(layer.source.rows(layer.whole, 0, layer.whole.rows), np.float32).reshape(layer.shape)


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_that_is_written_opens_as_itself(name, tmp_path):
    with core.open_model(core.demo_checkpoint()) as source:
        path = write(source, tmp_path / "demo.gguf", name)
        with core.open_model(path) as found:
            assert found.by_name.keys() == source.by_name.keys()
            assert found.warnings == ()
            for layer in source.layers:
                own, theirs = rows(layer), rows(found.by_name[layer.name])
                limit = 0.2 if layer.role == "linear" else 0
                assert np.linalg.norm(own - theirs) <= limit * np.linalg.norm(own)
            assert found.config["num_key_value_heads"] == source.config["num_key_value_heads"]
            linear = next(layer for layer in found.layers if layer.role == "linear")
            assert linear.source.format.name == name
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.gguf"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_package_decodes_what_is_written_to_the_same_bits(name, tmp_path):
    package = pytest.importorskip("gguf")
    with core.open_model(core.demo_checkpoint()) as source:
        path = write(source, tmp_path / "demo.gguf", name)
    reader = package.GGUFReader(path)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    with core.open_model(path) as found:
        layer = found.by_name["model.layers.0.mlp.up_proj"]
        up = stored["blk.0.ffn_up.weight"]
        values = package.quants.dequantize(up.data, up.tensor_type)
        if name == "nvfp4-3t":
            values = values * stored["blk.0.ffn_up.scale"].data[0]
        np.testing.assert_allclose(values, rows(layer), rtol=3e-7)
        exact = name != "nvfp4-3t"
        assert not exact or np.array_equal(values, rows(layer))


def test_what_is_not_written_is_refused_by_name(tmp_path):
    folder = checkpoint(tmp_path / "model", config={**CONFIG, "model_type": "phi3"})
    with core.open_model(folder) as model, pytest.raises(PlanError, match="not of phi3"):
        prepare_gguf(model, core.resolve(core.preset("linear"), model), tmp_path / "a.gguf")


def test_a_file_that_is_there_is_not_replaced_unless_asked_for(tmp_path):
    with core.open_model(core.demo_checkpoint()) as source:
        path = write(source, tmp_path / "demo.gguf", "mxfp4")
        with pytest.raises(ExportError, match="exists"):
            write(source, path, "mxfp4")
        write(source, path, "mxfp4", overwrite=True)


def test_the_command_writes_a_file_and_says_so(tmp_path, capsys):
    path = tmp_path / "demo.gguf"
    assert main(["gguf", str(core.demo_checkpoint()), str(path), "--quiet", "--method", "max"]) == 0
    assert "read it back" in capsys.readouterr().out
    with core.open_model(path) as found:
        assert found.container == "gguf"


def test_kept_queries_are_put_in_pairs_and_come_back_in_order(tmp_path):
    with core.open_model(core.demo_checkpoint()) as source, core.start(core.Machine(threads=2), source) as engine:
        plan = core.preset("mlp").with_format("mxfp4")
        path = tmp_path / "demo.gguf"
        for _ in write_gguf(engine, prepare_gguf(source, core.resolve(plan, source), path)):
            pass
        with core.open_model(path) as found:
            for name in ("q", "k", "v", "o"):
                layer = source.by_name[f"model.layers.0.self_attn.{name}_proj"]
                np.testing.assert_array_equal(rows(found.by_name[layer.name]), rows(layer))
            assert found.by_name["model.layers.0.mlp.up_proj"].source.format.name == "mxfp4"


def made(folder, kind):
    """A small model of another architecture, with the tokenizer of the demo."""
    demo, width, inner, heads, keys, height = core.demo_checkpoint(), 128, 256, 4, 2, 32
    with core.open_model(demo) as known:
        words = known.config["vocab_size"]
    experts = 4 if kind in ("mixtral", "qwen3_moe") else 0
    shapes = {"model.embed_tokens": (words, width), "lm_head": (words, width), "model.norm": (width,)}
    for name, rows, columns in (("q", heads, 0), ("k", keys, 0), ("v", keys, 0), ("o", 0, heads)):
        shape = (rows * height or width, columns * height or width)
        shapes[f"model.layers.0.self_attn.{name}_proj"] = shape
    shapes |= {f"model.layers.0.{name}": (width,) for name in ("input_layernorm", "post_attention_layernorm")}
    inside = "block_sparse_moe" if kind == "mixtral" else "mlp"
    names = ("w1", "w3", "w2") if kind == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    for place in [f"experts.{i}." for i in range(experts)] or [""]:
        for name, shape in zip(names, ((inner, width), (inner, width), (width, inner)), strict=True):
            shapes[f"model.layers.0.{inside}.{place}{name}"] = shape
    if experts:
        shapes[f"model.layers.0.{inside}.gate"] = (experts, width)
    if kind.startswith("qwen3"):
        shapes |= {f"model.layers.0.self_attn.{name}_norm": (height,) for name in "qk"}
    rng = np.random.default_rng(len(kind))
    tensors = {f"{name}.weight": rng.normal(0, 0.05, shape).astype(BF16) for name, shape in shapes.items()}
    if kind == "qwen2":
        for name, rows in (("q", heads), ("k", keys), ("v", keys)):
            tensors[f"model.layers.0.self_attn.{name}_proj.bias"] = rng.normal(0, 1, rows * height).astype(BF16)
    config = {
        "model_type": kind,
        "architectures": ["X"],
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "head_dim": height,
        "vocab_size": words,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 128,
        "num_experts_per_tok": 2,
        "num_local_experts": experts,
        "num_experts": experts,
        "norm_topk_prob": True,
        "moe_intermediate_size": inner,
    }
    checkpoint(folder, tensors, config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((demo / name).read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["mixtral", "qwen2", "qwen3", "qwen3_moe"])
def test_other_architectures_open_as_themselves_too(kind, tmp_path):
    with core.open_model(made(tmp_path / "model", kind)) as source:
        path = write(source, tmp_path / "model.gguf", "nvfp4-3t")
        with core.open_model(path) as found:
            assert found.by_name.keys() == source.by_name.keys()
            assert found.config["model_type"] == kind
            for layer in source.layers:
                own, theirs = rows(layer), rows(found.by_name[layer.name])
                limit = 0.12 if layer.role in ("linear", "expert") else 0
                assert np.linalg.norm(own - theirs) <= limit * np.linalg.norm(own), layer.name
