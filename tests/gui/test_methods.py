"""Methods: chosen for layers and for the plan, shown, filtered, undone, kept, compared, and told from each other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.layers.choices import BY_PLAN, CODES, METHOD_CODES, Edits
from studio.gui.layers.columns import KEYS, NO_METHOD, csv_of
from studio.gui.layers.layer_table import OF_WEIGHTS
from studio.gui.layers.row_menu import show_row_menu
from studio.gui.layers.store import DONE, STALE
from studio.gui.pages.comparing import EXPORT, method_of, side_of
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE
from tests.gui.test_exported import open_export, prepared

Names = Callable[[str], list[str]]
DOWN, UP, NORM = "layers.1.mlp.down_proj", "layers.1.mlp.up_proj", "layers.1.input_layernorm"


def place(studio: Studio, part: str) -> int:
    return next(i for i, name in enumerate(studio.document.store.names) if part in name)


def choose(studio: Studio, part: str, method: str) -> int:
    """Choose a method for the layer whose name holds `part`; gives its place."""
    index = place(studio, part)
    studio.document.select([studio.document.store.names[index]])
    studio.commands.perform(f"method:{method}")
    return index


def told(studio: Studio) -> list[Any]:
    return list(studio.commands.window.messages.items)


def test_a_method_is_chosen_by_its_action_shown_and_taken_back(studio: Studio) -> None:
    before = studio.document.store.method_of(place(studio, UP))
    index = choose(studio, UP, "four-six")
    store, table = studio.document.store, studio.workspace.layers.table
    column, row = KEYS.index("method"), table.row_of(index)
    assert row is not None
    assert (before, store.method_of(index)) == ("importance", "four-six")
    assert table.cell(row, column)[0] == table.index(row, column).data() == "four-six"
    assert studio.document.undo.undoText() == f"four-six for {store.names[index]}"
    studio.commands.perform("undo")
    assert store.method_of(index) == before
    studio.commands.perform("redo")
    studio.commands.perform("reset_format")
    assert store.method_of(index) == before


def test_the_format_of_a_layer_with_a_method_of_its_own_still_follows_the_plan(studio: Studio) -> None:
    index = choose(studio, UP, "four-six")
    studio.plan_bar.format_wanted.emit("nvfp4-2t")
    choice = studio.document.choices[index]
    assert (choice.format, choice.method) == ("nvfp4-2t", "four-six")


def test_the_plan_with_rules_for_what_is_chosen_by_hand_chooses_the_same(studio: Studio) -> None:
    document, random = studio.document, np.random.default_rng(4)
    count = len(document.store)
    codes = random.choice([BY_PLAN, *(CODES[name] for name in (*core.FORMATS, core.KEEP))], count).astype(np.int8)
    methods = random.choice([BY_PLAN, *(METHOD_CODES[name] for name in core.METHODS)], count).astype(np.int8)
    document._edit(Edits(document.store.names, codes, methods), "anything")
    assert document.model is not None
    resolved = core.resolve(document.plan, document.model)
    assert [choice.recipe for choice in resolved] == [choice.recipe for choice in document.choices]
    assert len(document.state.edits) == np.count_nonzero((codes != BY_PLAN) | (methods != BY_PLAN))


def test_a_layer_that_is_kept_takes_no_method_and_says_so(studio: Studio) -> None:
    index = choose(studio, NORM, "search")
    assert studio.document.store.method_of(index) == ""
    assert not studio.document.hand_rules()
    assert told(studio)[-1].title.endswith("takes no search")
    assert told(studio)[-1].text == "It is kept as it is."
    row = studio.workspace.layers.table.row_of(index)
    assert row is not None
    assert studio.workspace.layers.table.cell(row, KEYS.index("method"))[0] == NO_METHOD


def test_a_method_that_knows_too_little_gives_way_and_says_why(studio: Studio) -> None:
    index = choose(studio, UP, "feedback")
    assert studio.document.store.method_of(index) == "importance"
    assert (
        "feedback needs to know how all input columns vary together: importance takes its place"
        in told(studio)[-1].text
    )
    about = "\n".join(studio.document.method_lines(index))
    assert "Inputs are known from the norm in front." in about
    assert "importance takes its place" in about
    assert studio.document.store.method_of(choose(studio, DOWN, "hessian")) == "search"
    studio.commands.perform("format:mxfp8")
    assert studio.document.method_lines(place(studio, DOWN))[-1].startswith("hessian needs")
    choose(studio, DOWN, "search")
    assert told(studio)[-1].text == "mxfp8 has no search: max takes its place."


def test_results_of_another_method_are_outdated_and_those_of_before_come_back(quantized: Studio) -> None:
    store = quantized.document.store
    index = choose(quantized, UP, "four-six")
    assert store.state[index] == STALE
    quantized.commands.perform("undo")
    assert store.state[index] == DONE


def test_layers_are_found_and_sorted_by_method(studio: Studio) -> None:
    index = choose(studio, UP, "four-six")
    table = studio.workspace.layers.table
    studio.workspace.filter_bar.field.setText("method:four")
    assert table.visible.tolist() == [index]
    studio.workspace.filter_bar.field.setText("")
    table.sort_by(KEYS.index("method"))
    assert table.listed[0] == index
    copied = csv_of(studio.document.store, np.array([index, place(studio, NORM)])).splitlines()
    at = copied[0].split(",").index("Method")
    assert [line.split(",")[at] for line in copied[1:]] == ["four-six", ""]


def test_heads_sum_up_methods(studio: Studio) -> None:
    table = studio.workspace.layers.table
    studio.plan_bar.method_wanted.emit("max")
    section = int(table.sections.of[place(studio, UP)])
    column = KEYS.index("method")
    assert table.cell(table.head_row(section), column)[0] == "max"
    choose(studio, UP, "search")
    assert table.cell(table.head_row(section), column)[0] == "mixed"
    assert table.cell(0, column)[0] == NO_METHOD


def test_the_method_of_the_plan_is_shown_chosen_and_part_of_the_command(studio: Studio) -> None:
    bar = studio.plan_bar
    assert bar.method.currentText() == core.DEFAULT_METHOD
    bar.method_wanted.emit("search")
    assert bar.method.currentText() == "search"
    assert set(studio.document.store.method_names) == {"search", ""}
    choose(studio, UP, "four-six")
    studio.commands.perform("copy_command")
    words = QGuiApplication.clipboard().text()
    assert "--method search" in words
    assert "up_proj=nvfp4-3t/four-six" in words
    studio.plan_bar.preset_wanted.emit("mlp")
    assert studio.document.state.plan.method == "search"


def test_the_menu_of_rows_offers_methods(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QMenu, "popup", lambda *_: None)
    studio.document.select([studio.document.store.names[place(studio, UP)]])
    menu = show_row_menu(studio.commands.window, studio.commands.window.actions_of, studio.commands.window.pos())
    inner = menu.actions()[1].menu()
    assert [action.text() for action in inner.actions()] == list(core.METHODS)
    inner.actions()[1].trigger()
    menu.deleteLater()
    assert studio.document.store.method_of(place(studio, UP)) == "four-six"


def test_a_plan_in_a_file_holds_the_methods(studio: Studio, tmp_path: Path) -> None:
    index = choose(studio, UP, "four-six")
    studio.editing.write_plan(tmp_path / "plan.json")
    studio.commands.perform("undo")
    studio.editing.read_plan(tmp_path / "plan.json")
    assert studio.document.choices[index].method == "four-six"


def test_an_export_shows_the_methods_that_it_was_made_with(
    studio: Studio, tmp_path: Path, wait: Callable[[], None], qtbot: QtBot
) -> None:
    choose(studio, UP, "four-six")
    methods = dict(zip(studio.document.store.names, studio.document.store.method_names, strict=True))
    studio.runs.export(prepared(studio, tmp_path / "out"))
    wait()
    open_export(studio, tmp_path / "out", qtbot)
    store = studio.document.store
    shown = dict(zip(store.names, store.method_names, strict=True))
    assert {name: methods[name] for name in shown if methods.get(name)} == {n: m for n, m in shown.items() if m}
    assert not (store.state == STALE).any()
    assert not studio.workspace.views["CompareView"].a_method.isEnabled()


# A and B


def test_one_format_is_compared_by_two_methods(studio: Studio, qtbot: QtBot, wait: Callable[[], None]) -> None:
    view = studio.workspace.views["CompareView"]
    view.choose_sides("format:nvfp4-3t", "format:nvfp4-3t")
    view.a_method.choose("max")
    view.b_method.choose("search")
    qtbot.mouseClick(view.go_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: view.comparison is not None and bool(view.comparison.pairs), timeout=PATIENCE)
    wait()
    comparison = view.comparison
    assert (comparison.title_a, comparison.title_b) == ("nvfp4-3t by max", "nvfp4-3t by search")
    assert {(pair.title_a, pair.title_b) for pair in comparison.pairs} == {("nvfp4-3t/max", "nvfp4-3t/search")}
    assert comparison.better == len(comparison.pairs)
    assert view.figure().heads.index("method B") < view.figure().heads.index("relative error A")
    view.gain_box.setValue(0.0)
    view.apply_button.click()
    assert set(studio.document.store.method_names) == {"search", ""}
    view.a_method.choose("")
    view.b_method.choose("")


def test_the_plan_of_now_is_compared_by_another_method(studio: Studio, qtbot: QtBot) -> None:
    studio.document.set_format([studio.document.store.names[place(studio, UP)]], "nvfp4-2t")
    view = studio.workspace.views["CompareView"]
    studio.comparing.compare("plan", "plan/max")
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)
    assert view.comparison.title_b == "plan by max"
    assert {pair.title_b for pair in view.comparison.pairs} == {"nvfp4-3t/max", "nvfp4-2t/max"}


def test_methods_that_look_at_inputs_are_not_judged_by_the_error_of_weights_alone(
    quantized: Studio, qtbot: QtBot
) -> None:
    view = quantized.workspace.views["CompareView"]
    quantized.comparing.compare("plan", "plan/search")
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)
    assert "importance lets the error of weights rise" in view.sentence.text()
    table = quantized.workspace.layers.table
    assert OF_WEIGHTS in table._about(place(quantized, UP), "err")
    assert OF_WEIGHTS not in table._about(place(quantized, DOWN), "err")


def test_slashes_in_the_path_of_an_export_are_no_method() -> None:
    key = f"{EXPORT}/a/search"
    assert (side_of(key), method_of(key)) == (key, "")


def test_a_layer_is_inspected_by_two_methods(studio: Studio, qtbot: QtBot) -> None:
    choose(studio, UP, "max")
    view, pages = studio.workspace.views["InspectorView"], studio.workspace.pages
    pages.tabBarClicked.emit(pages.indexOf(studio.workspace.shown["inspect"]))
    qtbot.waitUntil(lambda: view.detail is not None and view.detail.name.endswith(UP), timeout=PATIENCE)
    view.other_method.choose("search")
    view._want_other()
    qtbot.waitUntil(lambda: view.detail.b is not None, timeout=PATIENCE)
    assert (view.detail.a.title, view.detail.b.title) == ("nvfp4-3t/max", "nvfp4-3t/search")
    assert view.detail.b.rel_err < view.detail.a.rel_err
    assert view.other_box.currentData() == "nvfp4-3t"
    assert "B nvfp4-3t/search" in view.summary.text()
    view.other_box.setCurrentIndex(0)
    view._choose_other()
    assert view.other_method.method == ""
