"""Error feedback in runs: what the kernels give on any number of threads, resumed, and said where it can not be."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels import factor_of, recipe, reference
from studio import core
from studio.core.running import feedback
from studio.core.statistics.guides import context_of
from studio.core.statistics.inputs import LayerInputs
from tests.core.checkpoints import checkpoint, llama
from tests.core.statistics_files import statistics_of

Moments = Generator[tuple[tuple[str, ...], np.ndarray | None], None, None]
DEAF, SINGULAR = "model.layers.1.mlp.up_proj", "model.layers.1.self_attn.o_proj"


def square(name: str, columns: int) -> np.ndarray:
    inputs = np.random.default_rng(len(name)).normal(size=(4 * columns, columns))
    inputs += inputs[:, :1]
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def moments(model: core.Model, stop_after: int = 10**9) -> Moments:
    """Second moments of each matrix's inputs, without those of one, and of another that are no squares."""
    yield (), None
    for count, matrix in enumerate(matrix for layer in model.layers for matrix in layer.matrices):
        if count == stop_after:
            raise KeyboardInterrupt
        found = None if matrix.name == DEAF else square(matrix.name, matrix.columns)
        if matrix.name == SINGULAR and found is not None:
            found = -found
        yield (matrix.name,), found


@pytest.fixture
def model(tmp_path: Path) -> Iterator[core.Model]:
    with core.open_model(checkpoint(tmp_path / "model", llama(2))) as opened:
        path = statistics_of(opened, tmp_path / "statistics.safetensors")
        yield core.with_statistics(opened, core.open_statistics(path, opened))


def export(model: core.Model, target: Path, threads: int = 1, layout: str = "mlx") -> list[core.Event]:
    plan = core.preset("linear").with_method("feedback")
    with core.start(core.Machine("cpu", threads), model) as engine:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS[layout], target)
        return list(core.export(engine, job))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_writes_what_the_kernels_give(model: core.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(model))
    events = export(model, tmp_path / "out")
    results = {layer.name: layer for layer in events[-1].outcome.layers}
    with core.open_model(tmp_path / "out") as after:
        for layer in (layer for layer in model.layers if results[layer.name].quantized):
            matrix, result = layer.matrices[0], results[layer.name]
            weights = layer.source.rows(matrix, 0, matrix.rows)
            broken = layer.name in (DEAF, SINGULAR)
            factor = None if broken else factor_of(square(matrix.name, matrix.columns))
            context = replace(layer.guide.context(matrix), factor=factor)
            want = reference.encode(weights, recipe("nvfp4-3t", "ceil", "feedback"), result.tensor_scales[0], context)
            other = after.by_name[layer.name]
            assert np.array_equal(other.source.rows(other.matrices[0], 0, matrix.rows), reference.decode(want))
            assert result.sum_error == pytest.approx(reference.fidelity(weights, want).sum_error, rel=1e-9)


def test_what_can_not_have_feedback_is_said(model: core.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(model))
    warned = [event.message for event in export(model, tmp_path / "out") if isinstance(event, core.Warned)]
    assert any(f"1 matrix, {DEAF} first, without feedback: no inputs reached it" in text for text in warned)
    assert any(SINGULAR in text and "without feedback" in text and "squares" in text for text in warned)


@pytest.mark.parametrize("layout", ["mlx", "compressed-tensors"])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes_on_any_number_of_threads(
    model: core.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(model))
    export(model, tmp_path / "whole", layout=layout)
    monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(model, stop_after=6))
    with pytest.raises(KeyboardInterrupt):
        export(model, tmp_path / "out", layout=layout)
    (aside,) = tmp_path.glob("*.feedback")
    done = {path.name: path.stat().st_mtime_ns for path in aside.glob("*.codes")}
    assert len(done) > 2
    monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(model))
    encoded = []
    wrapped = feedback._Work._encode
    monkeypatch.setattr(feedback._Work, "_encode", lambda self, *a: (encoded.append(a[1].name), wrapped(self, *a)))
    export(model, tmp_path / "out", threads=3, layout=layout)
    assert len(encoded) == 14 - len(done)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not list(tmp_path.glob("*.feedback"))


def test_statistics_that_changed_are_not_mixed(
    model: core.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(model, stop_after=6))
    with pytest.raises(KeyboardInterrupt):
        export(model, tmp_path / "out")
    with core.open_model(model.path) as plain:
        path = statistics_of(plain, tmp_path / "other.safetensors", without="up_proj")
        other = core.with_statistics(plain, core.open_statistics(path, plain))
        monkeypatch.setattr(feedback, "second_moments", lambda *_: moments(other))
        with pytest.raises(core.ExportError, match="another plan"):
            export(other, tmp_path / "out")


def test_few_tokens_leave_columns_nearly_alike() -> None:
    squares = np.array([1.0] * 15 + [100.0], np.float32)
    few, many = (context_of(LayerInputs(tokens, squares)) for tokens in (1, 10_000))
    assert few.importance is not None
    assert many.importance is not None
    assert few.importance[0] > 5 * many.importance[0]
    assert few.moments is None


def test_what_the_statistics_do_not_know_is_said_and_goes_by_the_norm_or_the_search(tmp_path: Path) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 2}
    with core.open_model(checkpoint(tmp_path / "m", llama(2), config=config)) as opened:
        path = statistics_of(opened, tmp_path / "s.safetensors", without="up_proj")
        statistics = core.open_statistics(path, opened)
        model = core.with_statistics(opened, statistics)
        choices = {c.layer.name: c for c in core.resolve(core.preset("linear"), model)}
        assert choices["model.layers.0.mlp.down_proj"].method == "hessian"
        assert choices["model.layers.0.mlp.up_proj"].method == "importance"
        assert choices["model.layers.0.mlp.up_proj"].guide.origin == "norm"
        (gap,) = core.gaps(model, statistics)
        assert gap.startswith("the statistics know nothing of 2 layers, model.layers.0.mlp.up_proj first")
