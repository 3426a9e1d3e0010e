"""GGUF files that are written: decoded by the package gguf to the bit, and read back as the same model."""

import numpy as np
import pytest

from studio import core
from studio.cli.app import main
from studio.core.errors import ExportError, PlanError
from studio.core.exporting.gguf import prepare_gguf, write_gguf
from tests.core.checkpoints import CONFIG, checkpoint
from tests.core.gguf_sources import made

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


@pytest.mark.sampled(3)
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
    assert "Wrote and verified" in capsys.readouterr().out
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
