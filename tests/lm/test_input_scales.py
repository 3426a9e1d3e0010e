"""Inputs in four bits, simulated: each runtime computes what compressed-tensors computes, and a scale matters."""

import json
from contextlib import ExitStack
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.reference import E2M1_VALUES, E4M3_VALUES
from studio import core
from studio.core.errors import CheckpointError
from studio.core.exporting.decoded import write_exported, write_input_scales
from studio.core.quality.candidates import prepare
from studio.lm.input_scales import quantized, scales_by_place
from studio.lm.predicting import load_predictor
from tests.core.test_input_scales import PLAN, statistics
from tests.lm.models import LENGTH, write_llama
from tests.runtimes.checkpoints import write_qwen3_moe

for needed in ("torch", "transformers", "mlx_lm"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")

TOKENS = (np.arange(LENGTH) * 37 % 4096).astype(np.int32)
NVFP4 = ("nvfp4-3t", 1.0)
DOWN = "model.layers.1.mlp.down_proj"


def export(source: Path, folder: Path, layout: str) -> Path:
    """An export with input scales, and beside it what an evaluation runs."""
    with ExitStack() as stack:
        model = stack.enter_context(core.open_model(source))
        path = statistics(model, folder / "statistics", {}, usual=(1000, 6.0))
        guided = core.with_statistics(model, core.open_statistics(path, model))
        engine = stack.enter_context(core.start(core.Machine(threads=2), guided))
        row, _ = core.layout_for(layout, "vllm")
        for _ in core.export(engine, core.prepare(guided, PLAN, core.resolve(PLAN, guided), row, folder / layout)):
            pass
        opened = stack.enter_context(core.open_model(folder / layout))
        for _ in write_exported(engine, model, opened, folder / "decoded"):
            pass
        known = core.exported(opened)
        assert known is not None
        write_input_scales(folder / "decoded", known.choices)
    return folder / "decoded"


def nearest(values: NDArray[np.float32], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest of `values`, the one of even index where two are as near."""
    found = np.abs(x[..., None] - values)
    best = found.min(-1, keepdims=True)
    order = np.where(found == best, np.arange(len(values)) % 2, 2)
    return values[order.argmin(-1)].astype(np.float64)


def test_inputs_are_rounded_by_blocks_under_one_scale() -> None:
    x = (np.random.default_rng(1).standard_t(3, (7, 64)) * 2).astype(np.float32)
    g = 3.0 / 2688
    blocks = x.reshape(7, 4, 16).astype(np.float64)
    scale = nearest(E4M3_VALUES, np.minimum(np.abs(blocks).max(-1) / 6 / g, 448))[..., None] * g
    wanted = np.sign(blocks) * nearest(E2M1_VALUES, np.minimum(np.abs(blocks) / scale, 6)) * scale
    np.testing.assert_allclose(quantized(x, ("nvfp4-3t", g)).reshape(7, 4, 16), wanted, rtol=1e-6)
    assert np.abs(quantized(x, ("nvfp4-3t", g))).max() == pytest.approx(3.0)
    assert np.abs(x).max() > 3.0


def test_inputs_in_eight_bits_are_a_cast_under_one_scale() -> None:
    x = (np.random.default_rng(1).standard_t(3, (7, 64)) * 2).astype(np.float32)
    g = np.float32(3.0 / 448)
    cast = np.clip(x / g, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * g
    np.testing.assert_array_equal(quantized(x, ("fp8-tensor", float(g))), cast)


@pytest.mark.parametrize(("name", "parts"), [("fp8-tensor", (1, 1)), ("fp8-channel", (7, 1)), ("fp8-block", (7, 2))])
def test_inputs_in_eight_bits_are_a_cast_under_the_scale_at_hand(name: str, parts: tuple[int, int]) -> None:
    x = (np.random.default_rng(1).standard_t(3, (7, 256)) * np.geomspace(1e-3, 1e3, 256)).astype(np.float32)
    x[3] = 0
    units = x.reshape(parts[0], 7 // parts[0], parts[1], 256 // parts[1])
    scales = np.maximum(np.abs(units).max((1, 3), keepdims=True) / np.float32(448), np.float32(1 / 448 / 512))
    cast = (units / scales).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scales
    np.testing.assert_array_equal(quantized(x, (name, 0.0)), cast.reshape(7, 256))


def test_inputs_that_readers_quantize_as_they_run_are_simulated(tmp_path: Path) -> None:
    """An export, and the plan that it was made by, give the same numbers; weights alone give others."""
    plan = core.preset("linear").with_format("fp8-channel").with_method("max")
    with core.open_model(write_llama(tmp_path / "m")) as model, core.start(core.Machine(threads=2), model) as engine:
        row, target = core.LAYOUTS["modelopt"], tmp_path / "export"
        for _ in core.export(engine, core.prepare(model, plan, core.resolve(plan, model), row, target)):
            pass
        with core.open_model(target) as opened:
            exported = _predicted(engine, core.as_stored(opened), model, tmp_path / "a")
        planned = _predicted(engine, core.as_planned(model, plan, layout="modelopt"), model, tmp_path / "b")
        plain = _predicted(engine, core.as_planned(model, plan), model, tmp_path / "c")
    np.testing.assert_array_equal(exported, planned)
    assert 1e-3 < np.abs(exported - plain).max() / plain.std() < 1.0


def _predicted(engine: core.Engine, candidate: core.Candidate, source: core.Model, folder: Path) -> NDArray[np.float32]:
    for _ in prepare(engine, candidate, source, folder, folder / "aside"):
        pass
    return load_predictor(folder, "transformers").logits(TOKENS)


@pytest.mark.parametrize("write", [write_llama, write_qwen3_moe])
def test_both_runtimes_predict_the_same(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    source = write(tmp_path / "m", core.demo_checkpoint() / "tokenizer.json") if write is write_qwen3_moe else None
    folder = export(source or write_llama(tmp_path / "m"), tmp_path, "modelopt")
    torch, mlx = (load_predictor(folder, name).logits(TOKENS) for name in ("transformers", "mlx-lm"))
    (folder / "input_scales.json").unlink()
    plain = load_predictor(folder, "transformers").logits(TOKENS)
    assert np.sqrt(((torch - plain) ** 2).mean()) > 0.02 * plain.std()
    assert np.sqrt(((torch - mlx) ** 2).mean()) < 0.2 * np.sqrt(((torch - plain) ** 2).mean())


def test_transformers_predicts_the_same_from_the_export(tmp_path: Path) -> None:
    """Weights are rounded to bfloat16 by the package: they are taken over, so that inputs alone are compared."""
    folder = export(write_llama(tmp_path / "m"), tmp_path, "compressed-tensors")
    wanted, ours = _both(tmp_path / "compressed-tensors", folder)
    np.testing.assert_allclose(ours, wanted, atol=1e-4 * wanted.std())


@pytest.mark.parametrize("name", ["fp8-tensor", "fp8-channel", "fp8-block"])
def test_transformers_predicts_the_same_with_inputs_in_eight_bits(tmp_path: Path, name: str) -> None:
    target, folder = tmp_path / "export", tmp_path / "decoded"
    plan = core.preset("linear").with_format(name).with_method("max")
    with core.open_model(write_llama(tmp_path / "m")) as model, core.start(core.Machine(threads=2), model) as engine:
        row = core.LAYOUTS["compressed-tensors"]
        job = core.prepare(model, plan, core.resolve(plan, model), row, target, reader="vllm")
        for _ in core.export(engine, job):
            pass
        with core.open_model(target) as opened:
            _predicted(engine, core.as_stored(opened), model, folder)
    wanted, ours = _both(target, folder)
    np.testing.assert_allclose(ours, wanted, atol=1e-4 * wanted.std())


def _both(exported: Path, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The logits of an export in transformers, and ours of the decoded checkpoint with the weights from there."""
    pytest.importorskip("compressed_tensors", reason="the extra `runtimes` brings it")
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.bfloat16).eval()
    tokens = torch.from_numpy(TOKENS.astype(np.int64))[None]
    with torch.no_grad():
        theirs(tokens)  # decompresses
        torch.nn.Module.float(theirs)
        wanted = theirs(tokens).logits[0].numpy()
    ours = load_predictor(folder, "transformers")
    weights = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours._model.named_parameters():  # type: ignore[attr-defined]
            parameter.copy_(weights[name])
    return wanted, ours.logits(TOKENS)


def test_one_scale_alone_changes_what_is_predicted(tmp_path: Path) -> None:
    folder = export(write_llama(tmp_path / "m"), tmp_path, "modelopt")
    before = load_predictor(folder, "transformers").logits(TOKENS)
    path = folder / "input_scales.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), DOWN: ["nvfp4-3t", 1e-6]}))
    assert np.abs(load_predictor(folder, "transformers").logits(TOKENS) - before).max() > 1e-3


def test_a_matrix_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no module for b"):
        scales_by_place({("a", None): ["a"]}, {"a": NVFP4, "b": NVFP4}, tmp_path)
    with pytest.raises(CheckpointError, match="other scales"):
        scales_by_place({("a", None): ["a", "b"]}, {"a": NVFP4, "b": ("nvfp4-3t", 2.0)}, tmp_path)
    with pytest.raises(CheckpointError, match="other scales"):
        scales_by_place({("a", None): ["a", "b"]}, {"a": NVFP4}, tmp_path)
