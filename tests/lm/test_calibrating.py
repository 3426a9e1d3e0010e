"""Statistics of small models are those of the inputs that the plain model has, whichever runtime runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from studio import core
from studio.core.errors import ExportError, MemoryLimitError, StudioError
from studio.lm import calibrating
from studio.lm.running import Portions, portions, start
from studio.lm.sums import Kept, Sums
from studio.lm.texts import read_text, windows
from tests.lm.listening import Heard, options
from tests.lm.models import LENGTH, WINDOWS, llama_logits, write_arcee, write_llama, write_text
from tests.runtimes.checkpoints import write_qwen3_moe, write_stacked_qwen3_moe

for needed in ("torch", "transformers", "mlx_lm"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")

RUNTIMES = ("mlx-lm", "transformers")
TRIANGLE = np.triu_indices(16)
TOKENIZER = core.demo_checkpoint() / "tokenizer.json"


def gathered(source, folder, monkeypatch, runtime="", given=None, **changes):
    """(statistics file, what was told) of a run in this process."""
    out = folder / f"{source.name}-{runtime}.stats"
    monkeypatch.setattr(
        calibrating,
        "start_fitting",
        lambda model, _length, _limit: (start(model, runtime), given or Portions(2, 4)),
    )
    heard = Heard()
    calibrating.calibrate(options(source, out, write_text(folder), **changes), heard)
    return out, heard.lines


def by_matrix(path, source):
    """Statistics of each matrix by name."""
    with core.open_model(source) as model:
        file = core.open_statistics(path, model)
        return {m.name: file.of(layer, m) for layer in model.layers for m in layer.matrices}


def assert_statistics_of(inputs, rows):
    products = rows.T @ rows / len(rows)
    blocks = np.stack([products[i : i + 16, i : i + 16][TRIANGLE] for i in range(0, len(products), 16)])
    assert inputs.tokens == len(rows)
    np.testing.assert_allclose(inputs.peak, np.abs(rows).max(0), rtol=1e-4)
    np.testing.assert_allclose(inputs.mean_square, np.square(rows).mean(0), rtol=1e-4)
    np.testing.assert_allclose(inputs.moments, blocks, atol=1e-4 * np.abs(blocks).max())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_statistics_are_those_of_the_inputs_of_the_plain_model(runtime, tmp_path, monkeypatch):
    source = write_llama(tmp_path / "llama")
    out, told = gathered(source, tmp_path, monkeypatch, runtime)
    text = windows(read_text([write_text(tmp_path)]), source, WINDOWS, LENGTH)
    tensors = {name: array.astype(np.float32) for name, array in load_file(source / "model.safetensors").items()}
    rows = {}
    for window in text.tokens:
        llama_logits(tensors, window, lambda name, x: rows.setdefault(name, []).append(x))
    found = by_matrix(out, source)
    for name, parts in rows.items():
        assert_statistics_of(found[name], np.concatenate(parts))
    for block in "01":
        prefix = f"model.layers.{block}."
        assert found[f"{prefix}self_attn.v_proj"].tokens == WINDOWS * LENGTH
        for one, other in (("self_attn.q_proj", "self_attn.k_proj"), ("mlp.gate_proj", "mlp.up_proj")):
            assert np.array_equal(found[prefix + one].moments, found[prefix + other].moments)
    assert told[-1]["event"] == "result"
    assert told[-1]["unseen"] == []
    assert [line["done"] for line in told if line["event"] == "progress"][-1] == WINDOWS * LENGTH


def test_experts_get_the_inputs_that_are_routed_to_them(tmp_path, monkeypatch):
    source = write_qwen3_moe(tmp_path / "moe", TOKENIZER)
    found = {runtime: by_matrix(gathered(source, tmp_path, monkeypatch, runtime)[0], source) for runtime in RUNTIMES}
    expected = routed_by_hand(source, windows(read_text([write_text(tmp_path)]), source, WINDOWS, LENGTH).tokens)
    for expert, (rows, inside) in enumerate(expected):
        for runtime in RUNTIMES:
            place = f"model.layers.0.mlp.experts.{expert}"
            assert_statistics_of(found[runtime][f"{place}.gate_proj"], rows)
            assert_statistics_of(found[runtime][f"{place}.up_proj"], rows)
            assert_statistics_of(found[runtime][f"{place}.down_proj"], inside)
    assert found["mlx-lm"].keys() == found["transformers"].keys()
    assert all(inputs is not None for name, inputs in found["mlx-lm"].items() if "embed" not in name)


def routed_by_hand(source, tokens):
    """For each expert of the first block its inputs, and those of its down projection, in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    seen = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda _part, args: seen.append(args[0].double()))
    with torch.no_grad():
        model(torch.from_numpy(tokens.astype(np.int64)))
    x = seen[0].reshape(-1, seen[0].shape[-1]).numpy()
    mlp = model.model.layers[0].mlp
    chosen = np.argsort(-(x @ mlp.gate.weight.detach().double().numpy().T), axis=1)[:, :2]
    joined, found = mlp.experts.gate_up_proj.detach().double().numpy(), []
    for expert in range(len(joined)):
        rows = x[(chosen == expert).any(1)]
        gate, up = np.split(rows @ joined[expert].T, 2, axis=1)
        found.append((rows, gate / (1 + np.exp(-gate)) * up))
    return found


def test_experts_stored_as_one_tensor_are_told_apart(tmp_path, monkeypatch):
    apart, stacked = write_qwen3_moe(tmp_path / "moe", TOKENIZER), write_stacked_qwen3_moe(tmp_path / "st", TOKENIZER)
    one, other = (
        by_matrix(gathered(source, tmp_path, monkeypatch, "transformers")[0], source) for source in (apart, stacked)
    )
    experts = [name for name in other if ".experts." in name]
    assert experts
    for name in experts:
        np.testing.assert_array_equal(one[name].mean_square, other[name].mean_square)


@pytest.mark.proof
def test_what_mlx_lm_does_not_know_runs_in_transformers(tmp_path):
    source, out = write_arcee(tmp_path / "arcee"), tmp_path / "out"
    events = list(core.calibrate(job(source, out, write_text(tmp_path))))
    assert events[-1].runtime.startswith("transformers")
    assert events[-1].unseen == ()
    assert by_matrix(out, source)["model.layers.1.mlp.down_proj"].tokens == WINDOWS * LENGTH


def job(source, out, text, **changes):
    return core.Calibration(source, out, (text,), **{"windows": WINDOWS, "length": LENGTH, **changes})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(runtime, tmp_path, monkeypatch):
    source, text = write_llama(tmp_path / "llama"), write_text(tmp_path)
    given = Portions(1, 2)
    whole, told = gathered(source, tmp_path, monkeypatch, runtime, given)
    ticks = sum(line["event"] == "progress" for line in told)
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        calibrating.calibrate(options(source, out, text), Heard(stop_after=ticks - 2))
    assert not out.exists()
    again = Heard()
    calibrating.calibrate(options(source, out, text), again)
    assert sum(line["event"] == "progress" for line in again.lines) == ticks // 2
    assert out.read_bytes() == whole.read_bytes()
    assert not out.with_name("stopped.partial").exists()


@pytest.mark.proof
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path):
    source, text, out = write_llama(tmp_path / "llama"), write_text(tmp_path, 600), tmp_path / "out"
    wanted = {"windows": 80, "length": 256}
    list(core.calibrate(job(source, tmp_path / "whole", text, **wanted)))
    arguments = ["calibrate", source, "--text", text, "--out", out, "--windows=80", "--length=256", "--seed=0"]
    child = subprocess.Popen(
        [sys.executable, "-m", "studio.lm", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    with child:
        next(line for line in child.stdout if b'"done": 2' in line and b"progress" in line)
        child.send_signal(signal.SIGKILL)
    assert not out.exists()
    list(core.calibrate(job(source, out, text, **wanted)))
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_stopped_run_with_another_text_is_discarded_and_that_is_said(tmp_path, monkeypatch):
    source, text, out = write_llama(tmp_path / "llama"), write_text(tmp_path), tmp_path / "llama-transformers.stats"
    monkeypatch.setattr(
        calibrating, "start_fitting", lambda *_: (start(model_of(source), "transformers"), Portions(1, 1))
    )
    with pytest.raises(KeyboardInterrupt):
        calibrating.calibrate(options(source, out, text), Heard(stop_after=5))
    _, told = gathered(source, tmp_path, monkeypatch, "transformers", Portions(1, 1), seed=1)
    assert any("another seed was discarded" in line.get("message", "") for line in told)


def model_of(source):
    return core.open_model(source)


def test_what_is_discarded_is_never_taken_for_the_run_that_left_it(tmp_path):
    out = tmp_path / "out"
    first = Kept(out, {"seed": "0"})
    first.write(0, 0, {("a",): summed(1.0)})
    first.finish(0)
    first.close()
    other = Kept(out, {"seed": "1"})
    assert other.rounds == 0
    other.write(0, 0, {("a",): summed(2.0)})
    os.close(other._lock)  # as a kill would
    again = Kept(out, {"seed": "0"})
    assert again.rounds == 0
    again.close()
    assert not again.path.exists()


def summed(value):
    sums = Sums(16)
    sums.add(np.full((3, 16), value, np.float32), "a")
    return sums


def test_two_runs_with_one_output_are_refused(tmp_path):
    first = Kept(tmp_path / "out", {})
    with pytest.raises(ExportError, match="under way"):
        Kept(tmp_path / "out", {})
    first.close()


def test_statistics_are_the_same_for_the_same_text_and_seed(tmp_path, monkeypatch):
    source = write_llama(tmp_path / "llama")
    first = gathered(source, tmp_path, monkeypatch, "transformers")[0].read_bytes()
    assert gathered(source, tmp_path, monkeypatch, "transformers")[0].read_bytes() == first
    assert gathered(source, tmp_path, monkeypatch, "transformers", seed=7)[0].read_bytes() != first


def test_less_memory_means_less_text_at_once_down_to_a_window(tmp_path):
    with core.open_model(write_llama(tmp_path / "llama")) as model:
        free = portions(model, "transformers", 512, 0)
        assert free.batch * 512 == 2048
        base = 480 << 20
        tight = portions(model, "transformers", 512, base + (8 << 20))
        assert (tight.batch, tight.round) < (free.batch, free.round)
        with pytest.raises(MemoryLimitError, match="the largest block needs"):
            portions(model, "transformers", 512, base)


def test_a_model_whose_inputs_overflow_is_refused_by_name(tmp_path, monkeypatch):
    source = write_llama(tmp_path / "llama")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.input_layernorm.weight"][3] = np.inf
    from tests.core.checkpoints import write_safetensors

    write_safetensors(source / "model.safetensors", tensors)
    with pytest.raises(StudioError, match=r"layers\.1\.self_attn\.q_proj.*NaN or Inf"):
        gathered(source, tmp_path, monkeypatch, "transformers")


def test_the_command_line_writes_a_file_and_says_what_to_do_with_it(studio, tmp_path):
    source, text = write_llama(tmp_path / "llama"), write_text(tmp_path)
    out = tmp_path / "s.safetensors"
    arguments = ["calibrate", source, "--text", text, "--windows", WINDOWS, "--length", LENGTH, "--out", out]
    ran = studio(*arguments)
    assert ran.code == 0, ran.err
    assert "15 matrices, 96 tokens" in ran.out
    assert f"--statistics {out}" in ran.out
    assert studio(*arguments).code == 4
    assert studio(*arguments, "--overwrite", "--max-memory", "1M").code == 3
    text.write_bytes(b"ab\0")
    refused = studio(*arguments, "--overwrite")
    assert refused.code == 2
    assert "zero bytes" in refused.err
    assert Path(out).exists()
