"""Surveying goes on past damaged layers; the cache knows what a result depends on."""

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio import core
from studio.core.running import feedback
from tests.core.checkpoints import checkpoint, llama
from tests.core.statistics_files import statistics_of


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": rng.normal(size=(32, 64)).astype(np.float16) for i in range(3)}
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_damaged_layer_is_reported_and_the_others_are_measured(damaged: Path) -> None:
    with core.open_model(damaged) as model, core.start(core.Machine(threads=1), model) as engine:
        choices = core.resolve(core.preset("linear"), model)
        events = list(core.survey(engine, model, choices))
    done = [event.result.name for event in events if isinstance(event, core.LayerDone)]
    (failed,) = [event for event in events if isinstance(event, core.LayerFailed)]
    assert done == ["model.layers.0.mlp.up_proj", "model.layers.2.mlp.up_proj"]
    assert failed.name == "model.layers.1.mlp.up_proj"
    assert "NaN" in str(failed.error)


def test_progress_never_runs_backwards(damaged: Path) -> None:
    with core.open_model(damaged) as model, core.start(core.Machine(threads=1), model) as engine:
        events = list(core.survey(engine, model, core.resolve(core.preset("linear"), model)))
    done = [event.done for event in events if isinstance(event, core.Progress)]
    assert done == sorted(done)


def test_a_survey_of_many_damaged_layers_measures_each_of_the_others_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": rng.normal(size=(32, 64)).astype(np.float16) for i in range(300)}
    for i in range(0, 300, 2):
        tensors[f"model.layers.{i}.mlp.up_proj.weight"][3, 3] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with core.open_model(tmp_path) as model, core.start(core.Machine(threads=1), model) as engine:
        events = list(core.survey(engine, model, core.resolve(core.preset("linear"), model)))
    done = sorted(event.result.name for event in events if isinstance(event, core.LayerDone))
    failed = sorted(event.name for event in events if isinstance(event, core.LayerFailed))
    assert done == sorted(f"model.layers.{i}.mlp.up_proj" for i in range(1, 300, 2))
    assert failed == sorted(f"model.layers.{i}.mlp.up_proj" for i in range(0, 300, 2))
    progress = [event.done for event in events if isinstance(event, core.Progress)]
    assert progress == sorted(progress)


def test_results_depend_on_the_layers_that_share_a_tensor_scale() -> None:
    with core.open_model(core.demo_checkpoint()) as model:
        groups, choices = core.ScaleGroups(model), list(core.resolve(core.preset("linear"), model))
        index = {layer.name: i for i, layer in enumerate(model.layers)}
        q, k = index["model.layers.0.self_attn.q_proj"], index["model.layers.0.self_attn.k_proj"]
        assert groups.affected([q]) > {q, k}
        before = groups.peers(q, choices)
        choices[k] = core.choose_format(model.layers[k], "mxfp8")
        assert set(before) - set(groups.peers(q, choices)) == {"model.layers.0.self_attn.k_proj"}
        assert groups.peers(k, choices) == ()


def test_peers_of_all_layers_at_once_are_those_of_each() -> None:
    with core.open_model(core.demo_checkpoint()) as model:
        groups, rng = core.ScaleGroups(model), np.random.default_rng(5)
        seen: dict[tuple[int, int], tuple[str, ...]] = {}
        for _ in range(20):
            formats = rng.choice(["nvfp4-3t", "mxfp8"], len(model.layers))
            choices = [core.choose_format(layer, name) for layer, name in zip(model.layers, formats, strict=True)]
            tiered = np.array([c.recipe is not None and c.recipe.format.tensor_scale for c in choices])
            marks = groups.marks(tiered)
            for index in range(len(choices)):
                peers = groups.peers(index, choices)
                assert seen.setdefault((index, int(marks[index])), peers) == peers
                assert groups.mark_of(index, peers) == marks[index]
            chosen = rng.random(len(choices)) < 0.1
            assert set(np.flatnonzero(groups.spread(chosen))) == groups.affected(np.flatnonzero(chosen).tolist())
        assert len(set(seen.values())) > 10


def test_the_cache_finds_what_was_measured_and_nothing_else() -> None:
    cache = core.ResultCache()
    with core.open_model(core.demo_checkpoint()) as model, core.start(core.Machine(threads=1), model) as engine:
        choices = [c for c in core.resolve(core.preset("linear"), model) if c.recipe][:1]
        (result,) = [e.result for e in core.survey(engine, model, choices) if isinstance(e, core.LayerDone)]
        cache.add(choices[0], (), result)
        assert cache.find(choices[0], ()) is result
        assert cache.find(choices[0], ("another",)) is None
        assert cache.find(core.choose_format(choices[0].layer, "mxfp4"), ()) is None


# error feedback


@pytest.fixture
def fed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[core.Model, list[core.Choice]]]:
    """A model and choices with error feedback, and second moments as if it had been run."""
    with core.open_model(checkpoint(tmp_path / "fed", llama(1))) as opened:
        path = statistics_of(opened, tmp_path / "statistics.safetensors")
        model = core.with_statistics(opened, core.open_statistics(path, opened))
        choices = list(core.resolve(core.preset("linear").with_method("feedback"), model))
        monkeypatch.setattr(feedback, "second_moments", lambda *_: _moments(model))
        yield model, choices


def _moments(model: core.Model) -> Generator[tuple[tuple[str, ...], np.ndarray | None], None, None]:
    yield (), None
    for layer in model.layers:
        for matrix in layer.matrices:
            inputs = np.random.default_rng(matrix.columns).normal(size=(4 * matrix.columns, matrix.columns))
            inputs += inputs[:, :1]
            yield (matrix.name,), (inputs.T @ inputs / len(inputs)).astype(np.float32)


def _results(events: Iterable[object]) -> dict[str, core.LayerResult]:
    return {event.result.name: event.result for event in events if isinstance(event, core.LayerDone)}


def test_a_survey_with_error_feedback_measures_what_a_run_writes(
    fed_back: tuple[core.Model, list[core.Choice]],
) -> None:
    model, choices = fed_back
    with core.start(core.Machine("cpu", 2), model) as engine:
        surveyed = _results(core.survey(engine, model, choices))
        assert surveyed == _results(core.measure(engine, model, choices))
        by_hessian = core.resolve(core.preset("linear").with_method("hessian"), model)
        others = _results(core.measure(engine, model, by_hessian))
    chosen = [result for result in surveyed.values() if result.quantized]
    assert {result.method for result in chosen} == {"feedback"}
    assert all(result.sum_error != others[result.name].sum_error for result in chosen)


def test_a_look_at_error_feedback_shows_what_it_starts_from_and_says_so(
    fed_back: tuple[core.Model, list[core.Choice]],
) -> None:
    model, choices = fed_back
    choice = next(choice for choice in choices if choice.method == "feedback")
    with core.start(core.Machine("cpu", 1), model) as engine:
        detail = core.inspect_layer(engine, choice)
        block = core.inspect_block(engine, choice, 0, 0, 0)
    assert detail.a is not None
    assert (detail.a.method, block.method) == ("hessian", "hessian")
