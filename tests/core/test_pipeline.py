"""What the pipeline reports and writes is the reference's, whatever the threads, the slabs and the layout."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kernels import recipe, reference
from studio import core
from studio.core.running.engine import Sink, engine
from studio.core.running.pipeline import run
from studio.core.running.reading import read_slab, slabs
from tests.core.checkpoints import checkpoint, gaussian, llama, snapshot

QKV = tuple(f"model.layers.0.self_attn.{x}_proj" for x in "qkv")


def whole(model: core.Model, name: str) -> np.ndarray:
    layer = model.by_name[name]
    return np.concatenate([read_slab(slab) for m in layer.matrices for slab in slabs(layer, m)])


def measured(model: core.Model, plan: core.Plan, **machine: object) -> dict[str, core.LayerResult]:
    with core.start(core.Machine(**machine), model) as started:  # type: ignore[arg-type]
        *_, last = core.measure(started, model, core.resolve(plan, model))
    assert isinstance(last, core.Finished)
    return {layer.name: layer for layer in last.outcome.layers}


@pytest.fixture
def model(tmp_path: Path) -> core.Model:
    tensors = dict(llama())
    tensors[f"{QKV[1]}.weight"] = gaussian(32, 64, sigma=0.5)
    return core.open_model(checkpoint(tmp_path / "model", tensors, shards=2))


@pytest.mark.parametrize("name", list(core.FORMATS))
@pytest.mark.parametrize("backend", ["cpu", "numpy", "reference"])
def test_errors_are_those_of_the_reference(model: core.Model, name: str, backend: str) -> None:
    results = measured(model, core.preset("linear").with_format(name).with_method("max"), backend=backend)
    row = recipe(name)
    for result in results.values():
        if not result.quantized:
            continue
        weight = whole(model, result.name)
        g = result.tensor_scales[0] if result.tensor_scales else 1.0
        wanted = reference.fidelity(weight, reference.encode(weight, row, g))
        assert result.sum_error == pytest.approx(wanted.sum_error, rel=1e-6)
        assert result.sum_squares == pytest.approx(wanted.sum_squares, rel=1e-6)
        assert result.max_error == pytest.approx(wanted.max_error, rel=1e-6)
        assert result.vanished == wanted.vanished
        if not row.format.affine:
            assert result.scale_counts == tuple(int(n) for n in wanted.scale_counts)


def test_fused_layers_share_the_tensor_scale_of_the_largest(model: core.Model) -> None:
    results = measured(model, core.preset("linear"))
    peak = max(float(np.abs(whole(model, name).astype(np.float32)).max()) for name in QKV)
    assert {results[name].tensor_scales for name in QKV} == {(float(reference.tensor_scale(peak)),)}
    assert results["model.layers.0.self_attn.o_proj"].tensor_scales != results[QKV[0]].tensor_scales


def test_layers_of_a_group_with_two_tiers_keep_out_of_it(model: core.Model) -> None:
    plan = core.preset("linear").preceded_by([core.Rule(names=(QKV[1],), format="nvfp4-2t")])
    results = measured(model, plan)
    peak = max(float(np.abs(whole(model, name).astype(np.float32)).max()) for name in (QKV[0], QKV[2]))
    assert results[QKV[1]].tensor_scales == ()
    assert results[QKV[0]].tensor_scales == (float(reference.tensor_scale(peak)),)


def test_statistics_describe_the_weights(model: core.Model) -> None:
    result = measured(model, core.preset("linear"))[QKV[1]]
    weight = whole(model, QKV[1]).astype(np.float64)
    assert result.statistics is not None
    sigma = float(np.sqrt((weight**2).mean()))
    assert result.statistics.sigma == pytest.approx(sigma, rel=1e-12)
    assert result.statistics.kurtosis == pytest.approx(float((weight**4).mean()) / sigma**4, rel=1e-12)
    assert result.statistics.max_abs == np.abs(weight).max()
    assert result.statistics.outliers == int((np.abs(weight) > 6 * sigma).sum())
    assert sum(result.statistics.histogram) == int((weight != 0).sum())


def test_results_do_not_depend_on_threads_or_slabs(model: core.Model) -> None:
    choices = core.resolve(core.preset("linear"), model)
    found = []
    for threads, slab in ((1, 256), (2, 1000), (3, 1 << 20)):
        with core.start(core.Machine("cpu"), model) as started, engine(started.backend, threads, slab) as varied:
            found.append([event for event in run(varied, choices, Sink()) if isinstance(event, core.LayerDone)])
    assert found[0] == found[1] == found[2]


def test_progress_counts_every_byte_and_ends_at_the_total(model: core.Model, tmp_path: Path) -> None:
    plan = core.preset("linear")
    with core.start(core.Machine(threads=2), model) as started:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], tmp_path / "out")
        for events in (core.measure(started, model, job.choices), core.export(started, job)):
            seen = list(events)
            totals = [event.total for event in seen if isinstance(event, core.Started)]
            done = [event.done for event in seen if isinstance(event, core.Progress)]
            assert done == sorted(done)
            assert done[-1] == totals[0]


def test_an_export_has_the_same_bytes_for_any_number_of_threads(model: core.Model, tmp_path: Path) -> None:
    plan = core.preset("linear")
    found = []
    for threads in (1, 2, 5):
        with core.start(core.Machine(threads=threads), model) as started:
            choices = core.resolve(plan, model)
            job = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], tmp_path / "out", overwrite=True)
            list(core.export(started, job))
        found.append(snapshot(tmp_path / "out"))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("name", "rows"), [("nvfp4-2t", 64), ("nvfp4-3t", 0)])
def test_rows_that_become_zero_are_counted_and_warned_of_though_the_error_is_small(
    tmp_path: Path, name: str, rows: int
) -> None:
    weight = gaussian(256, 64, sigma=0.03).astype(np.float32)
    weight[64:128] *= 0.02
    layer = "model.layers.0.linear_attn.in_proj_qkv"
    folder = checkpoint(tmp_path / "m", {f"{layer}.weight": weight.astype(ml_dtypes.bfloat16)})
    with core.open_model(folder) as model, core.start(core.Machine("reference", 1), model) as engine:
        choices = core.resolve(core.preset("linear").with_format(name).with_method("max"), model)
        events = list(core.measure(engine, model, choices))
    (result,) = events[-1].outcome.layers
    assert (result.rows, result.vanished_rows) == (256, rows)
    assert result.rel_err < 0.12
    warned = [event.message for event in events if isinstance(event, core.Warned)]
    assert any("64 of its 256 rows (25.0%)" in text for text in warned) == bool(rows)
