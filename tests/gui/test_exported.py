"""An export fills the rows with what it measures, and one that is opened shows what it holds and what it cost."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.cli.app import main
from studio.gui.jobs import tasks
from studio.gui.jobs.export_dialog import ExportDialog, suggested
from studio.gui.layers.store import DONE, KEPT
from studio.gui.pages.comparing import EXPORT, PLAN
from studio.gui.shell.availability import AS_MADE
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import checkpoint, llama, tensors_of
from tests.core.sources.test_mlx_integers import config, packed
from tests.core.test_input_scales import statistics
from tests.gui.conftest import PATIENCE


def prepared(studio: Studio, target: Path, layout: str = "modelopt") -> core.Export:
    document = studio.document
    assert document.model is not None
    return core.prepare(document.model, document.plan, document.choices, core.LAYOUTS[layout], target)


@pytest.fixture
def exported(studio: Studio, tmp_path: Path, wait: Callable[[], None], qtbot: QtBot) -> Studio:
    """An export of the demo checkpoint with one layer in another format, opened."""
    store = studio.document.store
    first, second = [name for name in store.names if name.endswith("mlp.down_proj")][:2]
    studio.document.set_format([first], core.KEEP)
    studio.document.set_format([second], "nvfp4-2t")
    studio.runs.export(prepared(studio, tmp_path / "out"))
    wait()
    open_export(studio, tmp_path / "out", qtbot)
    return studio


def open_export(studio: Studio, folder: Path, qtbot: QtBot) -> None:
    studio.open(folder)
    qtbot.waitUntil(lambda: studio.document.exported is not None, timeout=PATIENCE)


def test_an_export_fills_rows_plots_and_totals_with_what_it_measures(
    studio: Studio, tmp_path: Path, wait: Callable[[], None]
) -> None:
    seen: list[int] = []
    studio.document.measured.connect(lambda indices: seen.extend(indices.tolist()))
    studio.runs.export(prepared(studio, tmp_path / "out"))
    wait()
    store = studio.document.store
    assert set(store.state.tolist()) == {DONE, KEPT}
    assert seen
    told = {result.name: result.rel_err for result in core.exported_results(tmp_path / "out")}
    for index in np.flatnonzero(store.state == DONE).tolist():
        assert store.rel_err[index] == told[store.names[index]]
    assert studio.document.store.figures().rel_err == pytest.approx(0.084, abs=0.01)
    assert not len(studio.document.left())
    assert len(studio.document.store.shown_results()) == int((store.state == DONE).sum())


def test_what_an_export_measured_is_kept_for_the_next_session(
    studio: Studio, tmp_path: Path, wait: Callable[[], None], qtbot: QtBot
) -> None:
    studio.runs.export(prepared(studio, tmp_path / "out"))
    wait()
    done = studio.document.store.figures().done
    studio.commands.perform("close")
    studio.document.cache = core.ResultCache()
    studio.commands.perform("demo")
    qtbot.waitUntil(lambda: studio.document.model is not None, timeout=PATIENCE)
    assert studio.document.store.figures().done == done > 0


def test_an_opened_export_shows_its_formats_its_errors_and_the_true_number_of_weights(
    exported: Studio, tmp_path: Path
) -> None:
    store, document = exported.document.store, exported.document
    told = {result.name: result for result in core.exported_results(tmp_path / "out")}
    assert list(store.names) == list(told)
    assert [store.format_of(i) for i in range(len(store))] == [told[name].format for name in store.names]
    assert {"nvfp4-3t", "nvfp4-2t", core.KEEP} <= set(store.formats)
    assert store.figures().count == sum(result.count for result in told.values())
    for index, name in enumerate(store.names):
        assert store.state[index] == (DONE if told[name].quantized else KEPT)
        assert store.shapes[index] == "×".join(map(str, told[name].shape))
        if told[name].quantized:
            assert store.rel_err[index] == told[name].rel_err
            assert store.bits[index] < 5
    figures = store.figures()
    assert figures.nbytes_in == sum(result.nbytes_in for result in told.values()) > figures.nbytes_out
    assert document.is_saved
    assert not len(document.left())


def test_it_says_what_it_is_and_where_it_runs(exported: Studio) -> None:
    (message,) = [m for m in exported.commands.window.messages.items if m.title == "An export of NVFP4 Studio"]
    assert "Layout modelopt" in message.text
    assert "Runs on vLLM" in message.text
    assert not [m for m in exported.commands.window.messages.items if m.tone == "error"]


def test_nothing_of_it_is_chosen_otherwise_and_nothing_is_quantized_again(exported: Studio) -> None:
    reasons = exported.availability.reasons()
    assert reasons["choice"] == reasons["undo"] == reasons["editable"] == AS_MADE
    assert "already quantized" in reasons["pending"]
    assert reasons["export"] == reasons["convertible"] == ""
    assert not exported.plan_bar.isEnabled()
    assert AS_MADE in exported.plan_bar.toolTip()


def test_it_is_verified_without_being_asked_for(exported: Studio, wait: Callable[[], None]) -> None:
    exported.commands.perform("verify")
    wait()
    told = [m.title for m in exported.commands.window.messages.items]
    assert "out is whole" in told


def test_a_damaged_one_is_found(exported: Studio, tmp_path: Path, wait: Callable[[], None]) -> None:
    shard = tmp_path / "out" / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    exported.commands.perform("verify")
    wait()
    told = [m for m in exported.commands.window.messages.items if m.tone == "error"]
    assert told
    assert "damaged" in told[-1].text


def test_it_is_compared_with_another(exported: Studio, tmp_path: Path, qtbot: QtBot) -> None:
    offered = exported.workspace.views["CompareView"]
    with core.open_model(core.demo_checkpoint()) as model, core.start(core.Machine(threads=1), model) as engine:
        plan = core.preset("linear").with_format("mxfp4")
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], tmp_path / "other")
        list(core.export(engine, job))
    key = exported.comparing._offer_export(tmp_path / "other")
    assert key.startswith(EXPORT)
    exported.workspace.show_page("compare")
    exported.comparing.compare(PLAN, key)
    qtbot.waitUntil(lambda: offered.comparison is not None, timeout=PATIENCE)
    assert offered.comparison.title_a == "this export"
    assert len(offered.comparison.pairs) > 20
    assert offered.comparison.better == 0


def test_a_layer_of_it_is_looked_at_as_it_is(exported: Studio, qtbot: QtBot) -> None:
    name = next(name for name in exported.document.store.names if name.endswith("q_proj"))
    exported.document.select([name])
    exported.commands.perform("inspect")
    view = exported.workspace.views["InspectorView"]
    qtbot.waitUntil(lambda: view.detail is not None and view.detail.name == name, timeout=PATIENCE)
    assert view.detail.a is None, "codes are not quantized again"
    assert view.detail.sigma > 0


def test_nothing_of_it_is_kept_elsewhere_and_the_demo_is_as_before(
    exported: Studio, tmp_path: Path, qtbot: QtBot
) -> None:
    assert exported.keeping.held is None
    exported.commands.perform("demo")
    qtbot.waitUntil(lambda: exported.document.exported is None, timeout=PATIENCE)
    assert exported.plan_bar.isEnabled()
    assert len(exported.document.state.edits) == 2
    open_export(exported, tmp_path / "out", qtbot)
    assert exported.document.store.figures().done > 0


def test_an_export_is_named_after_the_formats_of_its_layers(studio: Studio) -> None:
    document = studio.document
    store = document.store
    chosen = [name for name, code in zip(store.names, store.formats, strict=True) if code != core.KEEP]
    for formats, ending in (
        ({}, "nvfp4-3t"),
        ({chosen[0]: "mxfp8"}, "nvfp4-3t"),
        (dict.fromkeys(chosen, "mxfp4"), "mxfp4"),
        ({chosen[0]: "mxfp8"}, "mixed"),
    ):
        document.set_choices(formats, "a choice")
        assert suggested(document).name == f"demo-llama-{ending}"


# lifting


def dialog_for(studio: Studio, target: Path, format_name: str, qtbot: QtBot) -> ExportDialog:
    studio.plan_bar.format_wanted.emit(format_name)
    studio.commands.perform("export")
    dialog = studio.exporting.dialog
    assert dialog is not None
    dialog.set_target(target)
    dialog.layouts["mlx"].setChecked(True)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    return dialog


def test_formats_with_a_tensor_scale_are_not_lifted_and_the_dialog_says_why(
    studio: Studio, tmp_path: Path, qtbot: QtBot
) -> None:
    dialog = dialog_for(studio, tmp_path / "out", "nvfp4-3t", qtbot)
    assert not dialog.form.lift.isEnabled()
    assert dialog.form.about_lift.text().startswith("Not now: lifting is for formats without a tensor scale")
    assert dialog.form.options()["lift"] is False
    dialog.reject()


def test_a_model_that_can_not_be_lifted_is_told_from_one_that_can(tmp_path: Path) -> None:
    config = {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}
    reasons = []
    for name, said in (("norms-of-one-more", config), ("llama", {"model_type": "llama"})):
        with core.open_model(checkpoint(tmp_path / name, llama(1), config=said)) as model:
            plan = core.preset("linear").with_format("nvfp4-2t")
            arguments = {"model": model, "plan": plan, "choices": core.resolve(plan, model)}
            arguments |= {"layout": core.LAYOUTS["mlx"], "target": tmp_path / "out"}
            ((_, job, obstacle, _),) = tasks.checking_export(arguments)
            assert isinstance(job, core.Export)
            reasons.append(obstacle)
    assert "its norms add one to their weights" in reasons[0]
    assert reasons[1] == ""


# inputs in four bits


def test_inputs_are_quantized_where_statistics_tell_how_large_they_become(
    studio: Studio, tmp_path: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    dialog = dialog_for(studio, tmp_path / "out", "nvfp4-3t", qtbot)
    assert dialog.form.about_inputs.text().startswith("Not now: the layout mlx has no place for the scales of inputs")
    dialog.layouts["modelopt"].setChecked(True)
    qtbot.waitUntil(lambda: "nvfp4-studio calibrate" in dialog.form.about_inputs.text(), timeout=PATIENCE)
    assert not dialog.form.inputs.isEnabled()
    dialog.reject()
    assert studio.document.model is not None
    path = statistics(studio.document.model, tmp_path / "statistics", {})
    studio.checkpoints.use_statistics(path)
    qtbot.waitUntil(lambda: studio.document.statistics == path, timeout=PATIENCE)
    dialog = dialog_for(studio, tmp_path / "out", "nvfp4-3t", qtbot)
    dialog.layouts["modelopt"].setChecked(True)
    qtbot.waitUntil(dialog.form.inputs.isEnabled, timeout=PATIENCE)
    dialog.form.inputs.setChecked(True)
    assert "--activations fp4" in (dialog.written_command() or "")
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    dialog.export.click()
    wait()
    names = list(tensors_of(tmp_path / "out" / "model.safetensors"))
    scales = [sum(name.endswith(ending) for name in names) for ending in (".input_scale", ".weight_scale_2")]
    assert scales[0] == scales[1] > 20


def test_an_export_in_two_tiers_is_lifted_and_the_rows_do_not_take_its_errors_for_their_own(
    studio: Studio, tmp_path: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    dialog = dialog_for(studio, tmp_path / "out", "nvfp4-2t", qtbot)
    dialog.form.lift.setChecked(True)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    assert dialog.form.options()["lift"] is True
    dialog.export.click()
    wait()
    titles = [message.title for message in studio.commands.window.messages.items]
    assert "Lifted by powers of two" in titles
    assert any(title.startswith("Exported and verified") for title in titles)
    assert not (studio.document.store.state == DONE).any()
    lifted = core.exported_results(tmp_path / "out")
    assert any(result.lift for result in lifted)


def test_codes_that_were_taken_over_are_shown_as_such_in_formats_that_are_not_offered(
    studio: Studio, tmp_path: Path, qtbot: QtBot
) -> None:
    tensors, _ = packed(3, 64)
    source, target = checkpoint(tmp_path / "mlx", tensors, config(3, 64)), tmp_path / "converted"
    assert main(["convert", str(source), str(target), "--layout", "mlx", "--quiet"]) == 0
    open_export(studio, target, qtbot)
    store = studio.document.store
    shown = [i for i in range(len(store)) if store.format_of(i) != core.KEEP]
    assert shown
    assert {(store.format_of(i), store.method_of(i)) for i in shown} == {("int3-g64", "stored")}
    assert all(math.isnan(store.rel_err[i]) for i in shown)
    assert "as the checkpoint has them" in "\n".join(studio.document.method_lines(shown[0]))
    assert not [m for m in studio.commands.window.messages.items if m.tone == "error"]
