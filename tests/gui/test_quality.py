"""The page Quality: what is asked, run, shown, kept, saved and tried."""

import shlex
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.cli.arguments import parser
from studio.gui.jobs import tasks
from studio.gui.jobs.evaluate_dialog import EvaluateDialog
from studio.gui.jobs.evaluating import CHANGED, STOPPED
from studio.gui.jobs.wanted import Wanted
from studio.gui.pages.quality import QualityPage
from studio.gui.pages.try_it import HOW
from studio.gui.shell.faults import for_window
from studio.gui.shell.studio import Studio
from tests.core.statistics_files import statistics_of
from tests.gui.conftest import PATIENCE, give_focus
from tests.gui.keeping.test_sessions import open_again, told
from tests.gui.quality_data import SOURCE, fake_evaluate, quality, row

Wait = Callable[[], None]
READING = core.Reading((), 8, 128)
TWO = Wanted(READING, ("nvfp4-3t", "mxfp4"), ("max",))


def page(studio: Studio) -> QualityPage:
    found = studio.workspace.shown["quality"]
    assert isinstance(found, QualityPage)
    return found


@pytest.fixture(autouse=True)
def as_at_first(studio: Studio) -> None:
    """The window is that of all tests."""
    page(studio).tabs.setCurrentIndex(0)
    page(studio).try_it.prompt.clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `core.evaluate` was asked for; no model runs."""
    found: list[Any] = []
    monkeypatch.setattr(core, "evaluate", fake_evaluate(found))
    return found


def evaluate(studio: Studio, wanted: Wanted, wait: Wait) -> None:
    studio.evaluating.evaluate(wanted)
    wait()


# asking


def ask(studio: Studio) -> EvaluateDialog:
    studio.workspace.show_page("quality")
    page(studio).view.evaluate_button.click()
    dialog = studio.evaluating.dialog
    assert dialog is not None
    return dialog


def test_before_anything_it_says_what_comes_next_and_what_it_takes(studio: Studio) -> None:
    text = page(studio).view.empty.text()
    model = studio.document.model
    assert model is not None
    disk = core.size_text(core.evaluation_nbytes(model, core.Reading(())))
    assert text.startswith("Nothing is evaluated yet.")
    assert f"32 × 512 tokens, unless you choose otherwise, in a process of its own; up to {disk} of disk" in text


def test_the_dialog_says_how_much_is_run_and_gives_what_is_ticked(studio: Studio, tmp_path: Path, qtbot: QtBot) -> None:
    dialog = ask(studio)
    assert dialog.cost.text().startswith("At most 32,768 tokens through 1 model and the source: how long")
    next(box for box in dialog.formats if box.text() == "mxfp4").setChecked(True)
    for box in dialog.methods[:2]:
        box.setChecked(True)
    dialog.windows.setValue(10)
    dialog.length.setValue(100)
    assert dialog.cost.text().startswith("At most 4,000 tokens through 3 models and the source")
    dialog.text.setText(str(tmp_path / "none.txt"))
    assert not dialog.start.isEnabled()
    assert dialog.why.text() == "There is no such text."
    (tmp_path / "none.txt").write_text("words")
    dialog.text.setText(str(tmp_path / "none.txt") + " ")
    with qtbot.waitSignal(dialog.evaluation_wanted) as caught:
        dialog.evaluation_wanted.disconnect(studio.evaluating.evaluate)
        dialog.start.click()
    reading = core.Reading((tmp_path / "none.txt",), 10, 100)
    assert caught.args == [Wanted(reading, ("mxfp4",), ("max", "four-six"))]


def test_variants_are_every_ticked_format_by_every_ticked_method() -> None:
    plan = core.preset("linear").with_format("nvfp4-3t").with_method("search")
    plans = dict(Wanted(READING, ("nvfp4-3t", "mxfp4"), ("search", "max")).plans(plan))
    assert list(plans) == ["The plan", "nvfp4-3t max", "mxfp4 search", "mxfp4 max"]
    assert plans["The plan"] == plan
    assert (plans["mxfp4 max"].format, plans["mxfp4 max"].method) == ("mxfp4", "max")
    assert [found.method for found in dict(Wanted(READING, ("mxfp4",)).plans(plan)).values()] == ["search", "search"]


# running and showing


def test_an_evaluation_shows_a_bar_for_the_plan_and_each_variant(studio: Studio, calls: list[Any], wait: Wait) -> None:
    studio.workspace.show_page("quality")
    evaluate(studio, TWO, wait)
    ((source, candidates, reading, _),) = calls
    assert source.model is studio.document.model
    assert [one.name for one in candidates] == ["The plan", "nvfp4-3t max", "mxfp4 max"]
    assert candidates[0].plan == studio.document.plan
    assert reading.texts == (core.evaluation_text(),)
    view = page(studio).view
    assert [one.name for one in view.rows] == ["The plan", "nvfp4-3t max", "mxfp4 max"]
    assert view.source == SOURCE
    about = view.summary.text()
    assert about.startswith("32 × 512 tokens of prose.txt (16,352 predicted); the source's perplexity is 18.22 ± 0.80;")
    assert "mlx-lm 0.32.2, 6:11." in about
    assert studio.commands.window.activity.title.text() == "Evaluated"
    dialog = ask(studio)
    assert "about 0:14, going by the last one" in dialog.cost.text()
    dialog.close()


def test_what_chooses_the_same_is_run_once(studio: Studio, calls: list[Any], wait: Wait) -> None:
    evaluate(studio, Wanted(READING, ("mxfp4",), ("search", "feedback")), wait)
    assert [one.name for one in calls[0][1]] == ["The plan", "mxfp4 search"]
    assert "mxfp4 feedback chooses what mxfp4 search does" in told(studio, "Look at this evaluation")[-1].text
    assert [one.name for one in page(studio).view.rows] == ["The plan", "mxfp4 search"]
    assert studio.evaluating.evaluation is not None
    assert list(studio.evaluating.evaluation.plans) == ["The plan", "mxfp4 search"]


def test_rows_come_as_models_end_and_esc_stops_at_once(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot, wait: Wait
) -> None:
    monkeypatch.setattr(core, "evaluate", fake_evaluate([], gate=lambda: False))
    studio.workspace.show_page("quality")
    studio.workspace.filter_bar.field.setText("mlp")
    view = page(studio).view
    give_focus(qtbot, view.evaluate_button)
    studio.evaluating.evaluate(TWO)
    qtbot.waitUntil(lambda: view.stack.currentWidget() is view.body and bool(view.source), timeout=PATIENCE)
    assert view.window().focusWidget() is view
    assert view.bars.waiting == ("The plan", "nvfp4-3t max", "mxfp4 max")
    assert "Running The plan …" in view.summary.text()
    assert "It takes up to 1.2 GB of disk." in view.summary.text()
    assert not view.evaluate_button.isEnabled()
    qtbot.keyClick(view, Qt.Key.Key_Escape)
    wait()
    assert STOPPED in view.summary.text()
    assert view.evaluate_button.isEnabled()
    assert studio.workspace.filter_bar.field.text() == "mlp", "Esc had something else to do"


def test_what_fails_is_said_on_the_page_with_what_to_do(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, wait: Wait
) -> None:
    def fails(*_: object, **__: object) -> Iterator[core.Event]:
        raise core.BackendError("mlx-lm is not installed", hint="pip install 'nvfp4-studio[lm]'")
        yield

    monkeypatch.setattr(core, "evaluate", fails)
    evaluate(studio, TWO, wait)
    text = page(studio).view.empty.text()
    assert text.splitlines() == [
        "Not evaluated: mlx-lm is not installed",
        "Install what runs models: pip install 'nvfp4-studio[lm]'.",
    ]
    assert told(studio, "Evaluating failed")


@pytest.mark.usefixtures("calls")
def test_a_plan_that_changed_since_is_told(studio: Studio, wait: Wait) -> None:
    view = page(studio).view
    studio.workspace.show_page("quality")
    evaluate(studio, TWO, wait)
    assert CHANGED not in view.summary.text()
    studio.plan_bar.format_wanted.emit("mxfp8")
    assert CHANGED in view.summary.text()
    studio.commands.perform("undo")
    assert CHANGED not in view.summary.text()


@pytest.mark.usefixtures("calls")
def test_other_statistics_outdate_it_too(studio: Studio, wait: Wait, tmp_path: Path, qtbot: QtBot) -> None:
    evaluate(studio, TWO, wait)
    assert studio.document.model is not None
    path = statistics_of(studio.document.model, tmp_path / "demo.statistics.safetensors")
    for statistics, outdated in ((path, True), (None, False)):
        with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
            studio.checkpoints.use_statistics(statistics)
        assert (CHANGED in page(studio).view.summary.text()) == outdated
        assert (studio.evaluating.quality_of_plan() is None) == outdated


def test_esc_stops_nothing_but_models(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot, wait: Wait
) -> None:
    gate = threading.Event()

    def surveying(*_: object) -> Iterator[str]:
        while not gate.wait(0.01):
            yield "backend"

    monkeypatch.setattr(tasks, "surveying", surveying)
    studio.workspace.show_page("quality")
    studio.commands.perform("quantize")
    give_focus(qtbot, page(studio).view)
    qtbot.keyClick(page(studio).view, Qt.Key.Key_Escape)
    qtbot.wait(150)
    assert studio.runs.active
    gate.set()
    wait()
    assert studio.commands.window.activity.title.text().startswith("Quantized")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("fewer --windows, or --cache on another disk", "Fewer windows, or free some of the disk."),
        ("a smaller --length, or a larger --max-memory", "A smaller length, or a larger memory limit in the settings."),
        ("leave --chat out", "Untick As a question."),
    ],
)
def test_hints_of_the_command_line_are_given_in_the_words_of_the_window(hint: str, words: str) -> None:
    assert for_window(hint) == words


# between sessions


def test_an_evaluation_is_there_the_next_time(studio: Studio, calls: list[Any], wait: Wait, qtbot: QtBot) -> None:
    evaluate(studio, TWO, wait)
    before = studio.evaluating.evaluation
    open_again(studio, qtbot)
    after = studio.evaluating.evaluation
    assert before is not None
    assert after is not None
    assert (after.quality, after.plans, after.wanted) == (before.quality, before.plans, before.wanted)
    assert CHANGED not in studio.evaluating._about(after)
    assert [one.name for one in page(studio).view.rows] == list(after.plans)
    assert len(calls) == 1


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("change", [{"files": []}, {"quality": {}}, {"plans": 3}, {"length": None}, {"statistics": 5}])
def test_what_was_kept_of_other_bytes_or_is_damaged_is_left(studio: Studio, wait: Wait, change: dict[str, Any]) -> None:
    evaluate(studio, TWO, wait)
    kept = studio.evaluating.kept()
    studio.evaluating._take(None)
    studio.evaluating.restore({**kept, **change})
    assert studio.evaluating.evaluation is None
    studio.evaluating.restore(kept)
    assert studio.evaluating.evaluation is not None


# saving and copying


@pytest.mark.usefixtures("calls")
def test_a_report_holds_the_plans_and_the_command_names_them(
    studio: Studio, wait: Wait, tmp_path: Path, qtbot: QtBot
) -> None:
    evaluate(studio, TWO, wait)
    studio.evaluating.copy_command()
    assert "in no file" in told(studio, "The plans that were evaluated")[-1].title
    studio.evaluating.write_report(tmp_path / "report")
    qtbot.waitUntil(lambda: bool(told(studio, "Report written")), timeout=PATIENCE)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"quality.html", "quality.json", "the-plan.json", "nvfp4-3t-max.json", "mxfp4-max.json"}
    assert core.load_plan(tmp_path / "report" / "the-plan.json") == studio.document.plan
    studio.evaluating.copy_command()
    words = shlex.split(QGuiApplication.clipboard().text())
    assert words[:2] == ["nvfp4-studio", "evaluate"]
    options = parser().parse_args(words[1:])
    assert options.targets == [core.demo_checkpoint()]
    assert [path.name for path in options.plans] == ["the-plan.json", "nvfp4-3t-max.json", "mxfp4-max.json"]
    assert (options.windows, options.length) == (8, 128)


# exports


@pytest.fixture
def export(studio: Studio, tmp_path: Path, wait: Wait) -> Path:
    document = studio.document
    assert document.model is not None
    layout = core.LAYOUTS["mlx"]
    studio.runs.export(core.prepare(document.model, document.plan, document.choices, layout, tmp_path / "out"))
    wait()
    return tmp_path / "out"


def test_an_export_is_evaluated_against_its_source(
    studio: Studio, export: Path, calls: list[Any], wait: Wait, qtbot: QtBot
) -> None:
    open_again(studio, qtbot, export)
    dialog = ask(studio)
    assert dialog.cost.text().startswith("At most 16,384 tokens through 1 model:")
    dialog.source.setText(str(export / "none"))
    assert dialog.why.text() == "There is no such source."
    dialog.source.setText(str(core.demo_checkpoint()))
    assert dialog.cost.text().startswith("At most 32,768 tokens through 1 model and the source")
    dialog.start.click()
    wait()
    ((source, (candidate,), _, _),) = calls
    assert source.model.path == core.demo_checkpoint()
    assert candidate.model is studio.document.model
    assert [one.name for one in page(studio).view.rows] == [candidate.name]
    options = parser().parse_args(shlex.split(studio.evaluating.command or "")[1:])
    assert (options.targets, options.against) == ([export], core.demo_checkpoint())


# trying


class FakeGeneration:
    """Stands for `core.Generation`: the sides differ in their second token."""

    made: ClassVar[list["FakeGeneration"]] = []

    def __init__(self, _engine: core.Engine, source: Any, model: Any, *, max_memory: int = 0) -> None:
        self.source, self.model, self.max_memory, self.closed = source, model, max_memory, False
        self.prompts: list[core.Prompt] = []
        self.made.append(self)

    def load(self) -> Iterator[core.Event]:
        yield core.Loaded("mlx-lm", "0.32.2", chat=False)

    def reply(self, prompt: core.Prompt) -> Generator[core.Event, None, None]:
        self.prompts.append(prompt)
        for index, words in enumerate([(" <b>", " <b>"), (" one", " two"), (" end", " end")]):
            for side, text in zip(("source", "model"), words, strict=True):
                yield core.Token(side, index, index, text, differs=index == 1)  # type: ignore[arg-type]
        while prompt.length == 999:
            yield core.Progress("generate", 0, "")
        yield core.ReplyDone(1)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> list[FakeGeneration]:
    monkeypatch.setattr(FakeGeneration, "made", [])
    monkeypatch.setattr(core, "Generation", FakeGeneration)
    return FakeGeneration.made


def try_it(studio: Studio, prompt: str, length: int = 128) -> None:
    studio.workspace.show_page("quality")
    page(studio).tabs.setCurrentIndex(1)
    view = page(studio).try_it
    view.prompt.setText(prompt)
    view.length.setValue(length)
    view.go.click()


def test_both_sides_are_written_as_plain_text_and_the_first_difference_is_marked(
    studio: Studio, generations: list[FakeGeneration], wait: Wait
) -> None:
    view = page(studio).try_it
    assert not view.go.isEnabled()
    try_it(studio, "It is")
    wait()
    assert view.source.text.toPlainText() == " <b> one end"
    assert view.model.text.toPlainText() == " <b> two end"
    assert (view.source.marked, view.model.marked) == (" one", " two")
    assert view.said.text() == "The first difference is token 2: it is marked in both texts."
    assert view.model.title.text() == f"The plan: {studio.document.plan.format} {studio.document.plan.method}"
    assert generations[0].prompts == [core.Prompt("It is")]
    assert not view.chat.isEnabled()
    assert view.chat.toolTip() == "This model has no chat template"
    assert generations[0].source.model is generations[0].model.model is studio.document.model
    assert generations[0].model.plan == studio.document.plan


@pytest.mark.usefixtures("calls")
def test_models_stay_loaded_for_the_next_prompt_and_are_let_go_for_other_work(
    studio: Studio, generations: list[FakeGeneration], wait: Wait, qtbot: QtBot
) -> None:
    for prompt in ("one", "two"):
        try_it(studio, prompt)
        wait()
    assert [one.text for one in generations[0].prompts] == ["one", "two"]
    studio.plan_bar.format_wanted.emit("mxfp4")
    try_it(studio, "three")
    wait()
    assert [made.closed for made in generations] == [True, False]
    evaluate(studio, TWO, wait)
    qtbot.waitUntil(lambda: generations[1].closed, timeout=PATIENCE)
    try_it(studio, "four")
    wait()
    open_again(studio, qtbot)
    qtbot.waitUntil(lambda: generations[2].closed, timeout=PATIENCE)
    assert page(studio).try_it.said.text() == HOW


def test_esc_stops_a_reply_and_the_models_stay(
    studio: Studio, generations: list[FakeGeneration], wait: Wait, qtbot: QtBot
) -> None:
    view = page(studio).try_it
    try_it(studio, "on and on", 999)
    qtbot.waitUntil(lambda: "two" in view.model.text.toPlainText(), timeout=PATIENCE)
    assert view.stop.isVisibleTo(view)
    give_focus(qtbot, view.prompt)
    qtbot.keyClick(view.prompt, Qt.Key.Key_Escape)
    wait()
    assert view.said.text().startswith("Stopped.")
    assert view.go.isVisibleTo(view)
    assert not generations[0].closed


def test_an_export_without_its_source_writes_alone(
    studio: Studio, export: Path, generations: list[FakeGeneration], wait: Wait, qtbot: QtBot
) -> None:
    open_again(studio, qtbot, export)
    try_it(studio, "alone")
    wait()
    view = page(studio).try_it
    assert generations[0].source is None
    assert not view.source.isVisibleTo(view)
    assert view.said.text().startswith("There is no source to compare with")


def test_everything_is_reached_by_keyboard_and_has_a_name(studio: Studio, qtbot: QtBot) -> None:
    studio.workspace.show_page("quality")
    page(studio).tabs.setCurrentIndex(1)
    view = page(studio).try_it
    view.prompt.setText("words")
    give_focus(qtbot, view.prompt)
    reached = []
    for _ in range(7):
        reached.append(QApplication.focusWidget())
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
    wanted = [view.prompt, view.go, view.length, view.temperature, view.chat, view.source.text, view.model.text]
    assert reached == wanted
    assert all(one.accessibleName() or one.text() for one in reached)


# what else says it


@pytest.mark.usefixtures("calls")
def test_the_report_and_the_model_card_say_what_was_found_of_the_plan(
    quantized: Studio, tmp_path: Path, wait: Wait, qtbot: QtBot
) -> None:
    evaluate(quantized, TWO, wait)
    quantized.reports.write(tmp_path / "report")
    qtbot.waitUntil(lambda: bool(told(quantized, "Report written")), timeout=PATIENCE)
    assert "prose.txt" in (tmp_path / "report" / "report.html").read_text("utf-8")
    quantized.plan_bar.format_wanted.emit("mxfp8")
    assert quantized.evaluating.quality_of_plan() is None


def test_an_export_takes_over_what_was_found_of_its_formats_and_methods(
    quantized: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: Wait
) -> None:
    document = quantized.document
    assert document.model is not None
    job = core.prepare(document.model, document.plan, document.choices, core.LAYOUTS["mlx"], tmp_path / "out")
    planned = core.as_planned(document.model, document.plan)
    own = row("The plan", 0.05, 0.08, 0.85, planned.format, planned.method)
    found = quality([own, row("other", 0.1, 0.1, 0.8, "mxfp4", "max")], replace(SOURCE, name=document.model.name))
    monkeypatch.setattr(quantized.exporting, "quality", lambda: found)
    quantized.exporting._export(job, None)
    wait()
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "prose.txt" in card
    assert "mxfp4" not in card
