"""Choosing formats, quantizing in the background, stopping, undoing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from safetensors.numpy import save_file

from studio import core
from studio.gui.layers.store import DONE, FAILED, KEPT, PENDING, QUEUED, RUNNING, STALE
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE

Names = Callable[[str], list[str]]
Wait = Callable[[], None]


def states(studio: Studio, names: list[str]) -> set[int]:
    store = studio.document.store
    return {int(store.state[store.index[name]]) for name in names}


def open_path(studio: Studio, path: Path, qtbot: QtBot) -> None:
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_path(path)


def test_the_strip_says_what_is_left_after_each_choice(quantized: Studio, names: Names, qtbot: QtBot) -> None:
    title = quantized.commands.window.activity.title
    assert title.text() == "Quantized 28 layers"
    quantized.document.set_format(names("layers.1.mlp.down"), "mxfp8")
    qtbot.waitUntil(lambda: title.text().startswith("1 layer to quantize"))
    quantized.document.set_format(names("layers.2.mlp.down"), "mxfp8")
    qtbot.waitUntil(lambda: title.text().startswith("2 layers to quantize"))
    quantized.commands.perform("undo")
    quantized.commands.perform("undo")
    qtbot.waitUntil(lambda: title.text() == "28 layers are quantized already")


def test_quantizing_measures_every_chosen_layer(quantized: Studio) -> None:
    store = quantized.document.store
    figures = store.figures()
    assert (figures.done, figures.chosen) == (28, 28)
    assert set(store.state.tolist()) == {DONE, KEPT}
    assert 0.05 < figures.rel_err < 0.2


def test_results_are_those_of_the_command_line(quantized: Studio) -> None:
    with core.open_model(core.demo_checkpoint()) as model, core.start(core.Machine(), model) as engine:
        choices = core.resolve(core.preset("linear"), model)
        outcome = next(e.outcome for e in core.measure(engine, model, choices) if isinstance(e, core.Finished))
    store = quantized.document.store
    for result in outcome.quantized:
        assert store.rel_err[store.index[result.name]] == result.rel_err


def test_a_format_changes_size_at_once_and_marks_the_error_as_outdated(quantized: Studio, names: Names) -> None:
    chosen = names("layers.0.mlp.up_proj")
    store = quantized.document.store
    before = store.figures().nbytes_out
    quantized.document.select(chosen)
    quantized.commands.perform("format:mxfp8")
    assert states(quantized, chosen) == {STALE}
    assert store.figures().nbytes_out > before
    assert states(quantized, names("layers.0.mlp.gate_proj")) == {STALE}, "it shared the tensor scale"
    assert states(quantized, names("layers.1.mlp.up_proj")) == {DONE}


def test_undo_brings_the_result_back_without_work(quantized: Studio, names: Names, wait: Wait) -> None:
    chosen, document = names("layers.0.mlp.down_proj"), quantized.document
    before = document.store.rel_err.copy()
    document.select(chosen)
    quantized.commands.perform("format:int8-g64")
    quantized.commands.perform("quantize")
    wait()
    after = document.store.rel_err.copy()
    quantized.commands.perform("undo")
    np.testing.assert_array_equal(document.store.rel_err, before)
    assert states(quantized, chosen) == {DONE}
    quantized.commands.perform("redo")
    np.testing.assert_array_equal(document.store.rel_err, after)
    assert not quantized.runs.active


def test_only_what_changed_is_quantized_again(quantized: Studio, names: Names) -> None:
    quantized.document.select(names("layers.3.mlp.down_proj"))
    quantized.commands.perform("format:mxfp4")
    assert list(quantized.document.order().choices) == names("layers.3.mlp.down_proj")
    quantized.document.select(names("layers.3.self_attn.q_proj"))
    quantized.commands.perform("format:mxfp4")
    left = set(quantized.document.order().choices)
    expected = names("layers.3.mlp.down_proj") + [n for n in names("layers.3.self_attn") if "o_proj" not in n]
    assert left == set(expected), "k and v had shared their scale with q"


def test_keeping_a_layer_needs_no_work(quantized: Studio, names: Names) -> None:
    chosen = names("layers.2.mlp.down_proj")
    quantized.document.select(chosen)
    quantized.commands.perform("format:keep")
    assert states(quantized, chosen) == {KEPT}
    assert not quantized.document.order().choices
    quantized.commands.perform("reset_format")
    assert states(quantized, chosen) == {DONE}


def test_a_preset_is_one_step_of_undo(quantized: Studio) -> None:
    before = list(quantized.document.store.formats)
    quantized.editing.set_preset("mlp")
    assert quantized.document.store.formats != before
    quantized.commands.perform("undo")
    assert quantized.document.store.formats == before
    assert quantized.plan_bar.preset.currentData() == "linear"


def test_a_format_that_does_not_fit_says_why(studio: Studio, names: Names) -> None:
    studio.document.select(names("model.norm"))
    studio.commands.perform("format:mxfp4")
    assert states(studio, names("model.norm")) == {KEPT}
    assert studio.commands.window.messages.items[-1].text


def test_cancel_stops_soon_and_keeps_what_is_done(studio: Studio, large: Path, qtbot: QtBot, wait: Wait) -> None:
    open_path(studio, large, qtbot)
    studio.commands.perform("quantize")
    store = studio.document.store
    qtbot.waitUntil(lambda: bool((store.state == DONE).any()), timeout=PATIENCE)
    assert studio.commands.window.activity.isVisible()
    studio.commands.perform("stop")
    assert studio.commands.window.activity.title.text() == "Stopping …"
    qtbot.waitUntil(lambda: not studio.runs.active, timeout=PATIENCE)
    assert not {QUEUED, RUNNING} & set(store.state.tolist())
    done = int((store.state == DONE).sum())
    assert 0 < done < 96
    studio.commands.perform("quantize")
    wait()
    assert int((store.state == DONE).sum()) == 96


def test_pause_waits_and_resume_goes_on(studio: Studio, large: Path, qtbot: QtBot, wait: Wait) -> None:
    open_path(studio, large, qtbot)
    studio.commands.perform("quantize")
    store = studio.document.store
    qtbot.waitUntil(lambda: bool((store.state == DONE).any()), timeout=PATIENCE)
    studio.commands.perform("pause")
    qtbot.wait(250)
    held = int((store.state == DONE).sum())
    qtbot.wait(250)
    assert int((store.state == DONE).sum()) == held < 96
    assert studio.commands.window.activity.pause.text() == "Resume"
    studio.commands.perform("pause")
    wait()
    assert int((store.state == DONE).sum()) == 96


def test_closing_while_work_runs_ends_it(settings: Settings, qapp: QApplication, large: Path, qtbot: QtBot) -> None:
    made = Commands(settings, qapp)
    with qtbot.waitSignal(made.opened, timeout=PATIENCE):
        made.start([large])
    made.perform("quantize")
    qtbot.wait(50)
    assert made.window.close()
    made.window.deleteLater()


def test_a_damaged_layer_fails_alone(studio: Studio, tmp_path: Path, qtbot: QtBot, wait: Wait) -> None:
    rng = np.random.default_rng(1)
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": rng.normal(size=(32, 64)).astype(np.float16) for i in range(3)}
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = np.inf
    folder = tmp_path / "damaged"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    open_path(studio, folder, qtbot)
    studio.commands.perform("quantize")
    wait()
    assert studio.document.store.state.tolist() == [DONE, FAILED, DONE]
    message = studio.commands.window.messages.items[-1]
    assert message.tone == "error"
    assert "Inf" in message.text
    assert message.hint
    dict(message.fixes)["Keep it as it is"]()
    assert studio.document.store.state.tolist() == [DONE, KEPT, DONE]


def test_another_format_for_the_plan_leaves_hand_choices_to_undo(studio: Studio) -> None:
    studio.editing.set_plan_format("mxfp4")
    assert set(studio.document.store.formats) == {"mxfp4", "keep"}
    assert states(studio, [n for n in studio.document.store.names if "proj" in n]) == {PENDING}


def test_the_summary_and_the_plots_show_the_last_result(quantized: Studio, qtbot: QtBot) -> None:
    expected = f"error {quantized.document.store.figures().rel_err:.4f}"
    qtbot.waitUntil(lambda: quantized.workspace.summary.error.text() == expected, timeout=PATIENCE)


def test_a_layer_is_looked_at_closely_in_the_background(
    quantized: Studio, qtbot: QtBot, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    inspector = quantized.workspace.views["InspectorView"]
    quantized.document.select(names("layers.1.mlp.up_proj"))
    show = inspector.show_detail
    monkeypatch.setattr(inspector, "show_detail", lambda detail: (shown.append(detail), show(detail)))
    quantized.details.show_detail(names("layers.1.mlp.up_proj")[0])
    qtbot.waitUntil(lambda: bool(shown), timeout=PATIENCE)
    quantized.details.show_detail(names("layers.1.mlp.up_proj")[0])
    assert shown[0] is shown[1], "what was seen once is remembered"
    quantized.details.show_detail(names("model.norm")[0])
    assert inspector.detail is None
    assert inspector._nothing.startswith("model.norm is kept: biases, vectors and buffers are never quantized.")
    quantized.document.select([])
    quantized.commands.perform("inspect")
    qtbot.waitUntil(lambda: inspector.detail is not None, timeout=PATIENCE)
    assert inspector.detail.name == quantized.document.store.worst()


def test_two_formats_are_compared_after_quantizing_what_is_missing(
    quantized: Studio, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[core.Comparison] = []
    monkeypatch.setattr(quantized.comparing, "_view", _View(shown))
    quantized.comparing.compare("plan", "format:mxfp8")
    qtbot.waitUntil(lambda: bool(shown), timeout=PATIENCE)
    assert shown[0].better == 28
    assert set(quantized.document.store.state.tolist()) == {DONE, KEPT}, "the plan itself is untouched"
    quantized.comparing._apply(shown[0].worth(0.5))
    assert quantized.document.store.formats.count("mxfp8") == 28
    quantized.commands.perform("undo")
    assert quantized.document.store.formats.count("mxfp8") == 0


class _View:
    def __init__(self, shown: list[core.Comparison]) -> None:
        self.show_comparison = shown.append

    def busy(self, text: str) -> None:
        pass


@pytest.mark.parametrize("pick", ["format", "preset"])
def test_a_choice_in_the_tool_bar_leaves_what_was_chosen_by_hand(studio: Studio, names: Names, pick: str) -> None:
    chosen, store = names("layers.1.mlp.down"), studio.document.store
    studio.document.set_format(chosen, "mxfp8")
    if pick == "format":
        studio.plan_bar.format_wanted.emit("int4-g64")
    else:
        studio.plan_bar.preset_wanted.emit("experts")
    assert store.formats[store.index[chosen[0]]] == "mxfp8"
    message = studio.commands.window.messages.items[-1]
    assert message.title == "1 layer keeps what was chosen by hand"
    message.fixes[0][1]()
    assert store.formats[store.index[chosen[0]]] == ("int4-g64" if pick == "format" else "keep")
    studio.commands.perform("undo")
    assert store.formats[store.index[chosen[0]]] == "mxfp8"
