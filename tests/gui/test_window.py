"""Opening, exporting, settings, messages, actions: the window as a person meets it."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QObject, QPoint, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent, QGuiApplication, QKeySequence
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableView,
    QWidget,
)
from pytestqt.qtbot import QtBot

from studio import core
from studio.__main__ import wants_window
from studio.gui.jobs.export_dialog import ExportDialog
from studio.gui.shell.command_palette import CommandPalette
from studio.gui.shell.commands import Commands
from studio.gui.shell.instance import Instance
from studio.gui.shell.scrolled import TITLE_BAR
from studio.gui.shell.settings import OPTIONS, Settings
from studio.gui.shell.settings_dialog import SettingsDialog
from studio.gui.shell.specs import SPECS
from studio.gui.shell.studio import Studio
from studio.gui.shell.theme import THEMES
from tests.gui.conftest import PATIENCE, give_focus

Wait = Callable[[], None]


def test_none_keeps_its_references() -> None:
    """PySide6 6.12.0 drops one reference to None per call on Python before 3.12, and the process dies of it."""
    thing = QObject()
    before = sys.getrefcount(None)
    for _ in range(300):
        thing.setObjectName("x")
    assert sys.getrefcount(None) >= before - 50


# opening


def test_nothing_open_shows_what_to_do(commands: Commands) -> None:
    window = commands.window
    assert window.welcome.isVisible()
    assert not window.actions_of["quantize"].isEnabled()
    assert "open a checkpoint first" in window.actions_of["quantize"].toolTip()


def test_the_demo_opens_and_is_remembered(studio: Studio) -> None:
    window = studio.commands.window
    assert studio.workspace.isVisible()
    assert "demo-llama" in window.windowTitle()
    assert studio.commands.session.recents == [str(core.demo_checkpoint())]
    assert studio.commands.session.last == core.demo_checkpoint()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere", ""),
        (lambda folder: folder, "safetensors"),
        (lambda folder: _written(folder / "model.safetensors", b"version https://git-lfs"), "git lfs pull"),
        (lambda folder: _written(folder / "model.safetensors", b"\0" * 4), ""),
    ],
)
def test_what_can_not_be_opened_is_explained_on_a_card(
    commands: Commands, qtbot: QtBot, tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    (tmp_path / "bad").mkdir()
    path = make(tmp_path / "bad")
    with qtbot.waitSignal(commands.window.messages.added, timeout=PATIENCE):
        commands.open_path(path)
    message = commands.window.messages.items[-1]
    assert message.tone == "error"
    assert words in message.text + message.hint
    assert "Traceback" not in message.text + message.hint
    assert commands.window.cards.shown
    assert commands.window.welcome.isVisible()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_fails_to_open_leaves_the_open_one_alone(studio: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    with qtbot.waitSignal(studio.commands.window.messages.added, timeout=PATIENCE):
        studio.commands.open_path(tmp_path / "nowhere")
    assert studio.document.model is not None
    assert studio.workspace.isVisible()


@pytest.mark.parametrize("part", ["", "config.json"])
def test_a_dropped_folder_opens_and_is_never_moved(commands: Commands, qtbot: QtBot, part: str) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(core.demo_checkpoint() / part))])
    offered = Qt.DropAction.MoveAction | Qt.DropAction.CopyAction
    event = QDropEvent(QPoint(10, 10), offered, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    event.setDropAction(Qt.DropAction.MoveAction)
    with qtbot.waitSignal(commands.opened, timeout=PATIENCE):
        commands.window.dropEvent(event)
    assert event.dropAction() == Qt.DropAction.CopyAction


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/m/llama", "Open llama"),
        ("/m/llama/model.safetensors.index.json", "Open llama"),
        ("/m/plan.json", "Follow the plan plan.json"),
        ("/m/llama.imatrix", "Use the statistics llama.imatrix"),
        ("https://hub.test/org/small", "Look what is at small"),
    ],
)
def test_what_hovers_says_what_a_drop_will_do(commands: Commands, name: str, said: str) -> None:
    data = QMimeData()
    data.setUrls([QUrl(name) if ":" in name else QUrl.fromLocalFile(name)])
    keys, button = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
    commands.window.dragEnterEvent(QDragEnterEvent(QPoint(10, 10), Qt.DropAction.CopyAction, data, button, keys))
    assert commands.window.drop_sheet.text == said
    commands.window.dragLeaveEvent(QDragLeaveEvent())
    assert commands.window.drop_sheet.isHidden()


def test_closing_the_checkpoint_goes_back_to_the_welcome_page(studio: Studio) -> None:
    studio.commands.perform("close")
    assert studio.commands.window.welcome.isVisible()
    assert not studio.commands.window.actions_of["export"].isEnabled()
    assert studio.commands.session.last is None


def test_the_last_checkpoint_opens_again(qapp: QApplication, settings: Settings, qtbot: QtBot) -> None:
    settings.keep_texts("last", [str(core.demo_checkpoint())])
    made = Commands(settings, qapp)
    with qtbot.waitSignal(made.opened, timeout=PATIENCE):
        made.start()
    made.window.close()
    made.window.deleteLater()


def test_names_from_a_checkpoint_are_plain_text_everywhere(studio: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    hostile = "<img src=file:///etc/passwd><b>x</b>\u202e\nmodel.layers.0.mlp.up_proj"
    folder = tmp_path / "<b>bold"
    folder.mkdir()
    save_file({f"{hostile}.weight": np.ones((32, 64), np.float16)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["<table>" * 50], "model_type": "<h1>x"}))
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_path(folder)
    studio.document.select(studio.document.store.names)
    studio.commands.window.grab()
    for shown in studio.commands.window.findChildren(QLabel):
        assert shown.textFormat() == Qt.TextFormat.PlainText or "<" not in shown.text()
    table = studio.workspace.layers.table
    cell = table.index(1, 0).data()
    assert "\n" not in cell
    assert "\u202e" not in cell
    about = table.index(1, 0).data(Qt.ItemDataRole.ToolTipRole)
    assert "&lt;img" in about
    assert "<img" not in about


# exporting


def older_export(folder: Path) -> None:
    """The least that is an export of this program."""
    folder.mkdir(exist_ok=True)
    (folder / "nvfp4_studio.json").write_text('{"program": {"name": "nvfp4-studio"}}')


def test_an_export_is_checked_written_and_verified(quantized: Studio, qtbot: QtBot, tmp_path: Path, wait: Wait) -> None:
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    target = tmp_path / "export"
    dialog.set_target(target)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    assert "MB" in dialog.export.text()
    dialog.export.click()
    wait()
    message = quantized.commands.window.messages.items[-1]
    assert message.title == "Exported and verified export"
    assert f"--model {target}" in message.text
    assert (target / "config.json").is_file()
    quantized.runs.verify(target)
    wait()
    assert "is whole" in quantized.commands.window.messages.items[-1].title


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("source", "same folder as the source"),
        ("full", "not empty"),
        ("older", "not empty"),
        ("missing", "No folder is given"),
    ],
)
def test_an_export_that_can_not_be_written_says_why(
    quantized: Studio, qtbot: QtBot, tmp_path: Path, place: str, words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    older_export(tmp_path / "older")
    places = {"source": core.demo_checkpoint(), "missing": Path("/missing")}
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    dialog.set_target(places.get(place, tmp_path / place))
    if place == "missing":
        dialog.folder.clear()
    qtbot.waitUntil(lambda: words in dialog.export.toolTip(), timeout=PATIENCE)
    assert not dialog.export.isEnabled()
    assert dialog.replace.isVisibleTo(dialog) == (place == "older")
    if place == "older":
        dialog.replace.setChecked(True)
        qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
        assert "Replaces the export that is there: 1 file, 37 B" in shown_checks(dialog)
    dialog.reject()


def shown_checks(dialog: ExportDialog) -> str:
    """The text of all checks."""
    lines = [dialog.checks.itemAt(i).widget() for i in range(dialog.checks.count())]
    return "\n".join(shown.text() for line in lines if line for shown in line.findChildren(QLabel))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "No name is given"),
        ("   ", "No name is given"),
        ("a/b", 'holds no "/"'),
        ("/etc", 'holds no "/"'),
        ("..", 'is not "."'),
        ("n" * 300, "too long"),
        ("中" * 90, "too long"),
    ],
)
def test_a_wrong_name_of_an_export_is_said_in_the_checks(
    quantized: Studio, qtbot: QtBot, tmp_path: Path, name: str, words: str
) -> None:
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    dialog.set_target(tmp_path / "right")
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    dialog.name.setText(name)
    assert not dialog.export.isEnabled()
    qtbot.waitUntil(lambda: words in dialog.export.toolTip(), timeout=PATIENCE)
    assert words in shown_checks(dialog)
    assert dialog.job is None
    dialog.name.setText("n" * 240)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    assert dialog.job is not None
    dialog.reject()


def test_replacing_is_asked_anew_for_another_folder(quantized: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    for name in ("one", "two"):
        older_export(tmp_path / name)
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    dialog.set_target(tmp_path / "one")
    qtbot.waitUntil(lambda: dialog.replace.isVisibleTo(dialog), timeout=PATIENCE)
    dialog.replace.setChecked(True)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    dialog.name.setText("two")
    assert not dialog.replace.isChecked()
    qtbot.waitUntil(lambda: "not empty" in dialog.export.toolTip(), timeout=PATIENCE)
    dialog.reject()


def test_an_export_asks_for_a_folder_and_a_name(quantized: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    assert Path(dialog.folder.text()) == Path.home()
    assert dialog.name.text() == f"{core.demo_checkpoint().name}-{quantized.document.state.plan.format}"
    dialog.folder.setText(str(tmp_path))
    dialog.name.setText("chosen")
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    assert dialog.job is not None
    assert dialog.job.target == tmp_path / "chosen"
    dialog.folder.setText("~nobody-of-this-name/x")
    qtbot.waitUntil(lambda: dialog.export.isEnabled() or bool(dialog.export.toolTip()), timeout=PATIENCE)
    dialog.reject()


def test_layouts_that_can_not_store_the_plan_are_disabled_with_the_reason(quantized: Studio, qtbot: QtBot) -> None:
    quantized.document.select([name for name in quantized.document.store.names if "proj" in name])
    quantized.commands.perform("format:int4-g64")
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    qtbot.waitUntil(lambda: not dialog.layouts["modelopt"].isEnabled(), timeout=PATIENCE)
    assert "int4-g64" in dialog.reasons["modelopt"].text()
    dialog.reject()


def test_the_command_of_an_export_is_copied(quantized: Studio, names: Callable[[str], list[str]]) -> None:
    quantized.document.select(names("down_proj"))
    quantized.commands.perform("format:mxfp8")
    quantized.commands.perform("copy_command")
    text = QGuiApplication.clipboard().text()
    assert text.startswith("nvfp4-studio measure ")
    assert "--include '*.mlp.down_proj=mxfp8'" in text


# plans and reports


def test_a_plan_is_saved_and_loaded(studio: Studio, tmp_path: Path, names: Callable[[str], list[str]]) -> None:
    studio.document.select(names("layers.1.mlp"))
    studio.commands.perform("format:mxfp4")
    wanted = list(studio.document.store.formats)
    assert studio.commands.window.saved.text() == "plan kept, not in a file"
    studio.editing.write_plan(tmp_path / "plan.json")
    assert studio.commands.window.saved.text() == ""
    studio.commands.perform("undo")
    assert studio.document.store.formats != wanted
    studio.editing.read_plan(tmp_path / "plan.json")
    assert studio.document.store.formats == wanted


def test_a_broken_plan_is_refused(studio: Studio, tmp_path: Path) -> None:
    before = list(studio.document.store.formats)
    (tmp_path / "plan.json").write_text('{"schema": 1, "rules": [{"names": ["nothing*"]}]}')
    studio.editing.read_plan(tmp_path / "plan.json")
    assert studio.commands.window.messages.items[-1].tone == "error"
    assert studio.document.store.formats == before


def test_a_report_is_written(quantized: Studio, tmp_path: Path, qtbot: QtBot) -> None:
    with qtbot.waitSignal(quantized.commands.window.messages.added, timeout=PATIENCE):
        quantized.editing.report_wanted.emit(tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file()


def test_rows_are_copied_as_csv(quantized: Studio) -> None:
    quantized.commands.perform("copy_rows")
    rows = list(csv.DictReader(io.StringIO(QGuiApplication.clipboard().text())))
    store, name = quantized.document.store, "model.layers.1.mlp.up_proj"
    index = store.index[name]
    row = next(row for row in rows if row["Layer"] == name)
    assert len(rows) == 38
    assert int(row["Size [bytes]"]) == store.nbytes_out[index]
    assert float(row["Relative error"]) == store.rel_err[index]
    assert float(row["Became 0 [fraction]"]) == store.lost[index]
    assert (row["Block"], row["Expert"], row["Status"], row["Weights"]) == ("1", "", "done", str(store.counts[index]))
    assert next(row for row in rows if row["Layer"] == "model.norm")["Relative error"] == ""


# settings and looks


def test_corrupt_settings_fall_back_to_defaults(tmp_path: Path) -> None:
    path = tmp_path / "settings.ini"
    path.write_text(
        "[options]\ntheme=purple\ntext_size=huge\nthreads=-3\ncompact=maybe\nunknown=1\n[lists]\nrecents=@Invalid()"
    )
    settings = Settings(path)
    assert all(settings[key] == option.default for key, option in OPTIONS.items())
    assert len(settings.faults) == 4
    assert settings.texts("recents") == []


def test_settings_take_effect_and_last(commands: Commands) -> None:
    commands.settings["text_size"] = 17
    commands.settings["theme"] = "dark"
    assert commands.theme.font_px == 17
    assert commands.theme.dark
    commands.settings.sync()
    assert Settings(commands.settings.path)["text_size"] == 17


@pytest.mark.parametrize("pixels", [13, 24])
def test_windows_leave_room_for_their_title_and_buttons(commands: Commands, qtbot: QtBot, pixels: int) -> None:
    commands.settings["text_size"] = pixels
    commands.session.restore(commands.window)
    dialog = SettingsDialog(commands.settings, commands.window)
    qtbot.addWidget(dialog)
    dialog.show()
    for shown in (commands.window, dialog):
        assert shown.height() + TITLE_BAR <= shown.screen().availableSize().height()
    last = dialog.findChildren(QPushButton)[-1]
    assert last.text() == "Close"
    assert dialog.rect().contains(last.geometry())


def test_the_settings_dialog_shows_and_changes_every_option(commands: Commands) -> None:
    dialog = SettingsDialog(commands.settings, commands.window)
    assert set(dialog.fields) == set(OPTIONS)
    box = dialog.fields["compact"]
    assert isinstance(box, QAbstractButton)
    box.click()
    assert commands.settings["compact"] is True
    commands.settings.reset()
    assert not box.isChecked()
    dialog.deleteLater()


@pytest.mark.parametrize("name", THEMES)
def test_text_can_be_read_in_both_themes(name: str) -> None:
    theme = THEMES[name]
    for ground in (theme.window, theme.surface, theme.raised):
        for ink in (theme.text, theme.muted, theme.accent, theme.warning, theme.error, theme.good):
            assert _contrast(ink, ground) >= 4.5, (ink, ground)
    for ink in (*theme.formats.values(), *theme.roles.values()):
        assert _contrast(ink, theme.surface) >= 4.5, ink
    assert _contrast(theme.selected_text, theme.selection) >= 4.5


def _contrast(first: str, second: str) -> float:
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# actions


def test_no_shortcut_means_two_things(studio: Studio) -> None:
    seen: dict[str, str] = {}
    for key, action in studio.commands.window.actions_of.made.items():
        for shortcut in action.shortcuts():
            text = shortcut.toString(QKeySequence.SequenceFormat.PortableText)
            assert text not in seen, f"{text}: {seen.get(text)} and {key}"
            seen[text] = key


def test_every_action_does_something_and_is_in_a_menu(studio: Studio) -> None:
    actions = studio.commands.window.actions_of
    handled = set(studio.handlers) | set(studio.commands.handlers)
    assert set(actions.specs) == handled
    shown = {action.objectName() for menu in studio.commands.window.menus.values() for action in menu.actions()}
    assert set(actions.specs) <= shown


def test_every_action_is_found_in_the_palette(studio: Studio) -> None:
    palette = CommandPalette(studio.commands.window.actions_of, studio.commands.window)
    assert palette.list.count() == len(studio.commands.window.actions_of.specs) - 1
    palette.field.setText("export verify")
    assert "Verify an export" in palette.list.item(0).text()
    palette.field.setText("formats ex")
    assert "Formats explained" in palette.list.item(0).text(), "the name comes before what is said of others"
    palette.deleteLater()


def test_actions_that_do_not_work_now_say_why(studio: Studio) -> None:
    actions = studio.commands.window.actions_of
    for spec in SPECS:
        if not actions[spec.key].isEnabled():
            assert actions.reasons[spec.key]
            assert "Not now: " in actions[spec.key].toolTip()


def test_everything_that_takes_input_has_a_name(quantized: Studio) -> None:
    quantized.workspace.filter_bar.field.setText("mlp")  # shows the button that clears it
    for widget in quantized.commands.window.findChildren(QWidget):
        if isinstance(widget, QLineEdit | QComboBox) and not isinstance(widget.parent(), QComboBox):
            assert widget.accessibleName() or widget.parent().accessibleName(), widget
        if isinstance(widget, QAbstractButton | QTableView | QAbstractSpinBox) and widget.isVisible():
            named = widget.accessibleName() or (widget.text() if not isinstance(widget, QTableView) else "")
            assert named or widget.objectName() == "qt_toolbar_ext_button", (widget, widget.parent())


def test_shortcuts_of_the_window_work_from_the_filter_field(studio: Studio, qtbot: QtBot) -> None:
    field = studio.workspace.filter_bar.field
    give_focus(qtbot, field)
    qtbot.keyClicks(field, "mlp")
    qtbot.keyClick(field, Qt.Key.Key_J, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(field, Qt.Key.Key_E, Qt.KeyboardModifier.ControlModifier)
    assert studio.commands.window.message_list.isVisible()
    dialog = studio.exporting.dialog
    assert dialog is not None
    dialog.reject()
    qtbot.keyClick(field, Qt.Key.Key_Escape)
    assert field.text() == ""


@pytest.mark.parametrize("key", ["palette", "keyboard", "settings", "formats"])
def test_sheets_open_and_close(studio: Studio, qapp: QApplication, key: str) -> None:
    studio.commands.perform(key)
    (dialog,) = [w for w in qapp.topLevelWidgets() if w.isVisible() and w is not studio.commands.window]
    assert not dialog.grab().isNull()
    dialog.close()


# progress, messages, start


def test_an_exception_nobody_caught_becomes_a_card(commands: Commands) -> None:
    from studio.gui.app import _Excepthook

    with pytest.raises(ValueError, match="nowhere") as caught:
        int("nowhere")
    _Excepthook(commands)(ValueError, caught.value, caught.tb)
    message = commands.window.messages.items[-1]
    assert "nowhere" in message.title
    assert "Traceback" in message.details
    card = commands.window.cards.shown[-1]
    card.close_card()
    assert not commands.window.cards.shown


def test_the_command_line_loads_no_qt() -> None:
    code = "import sys; import studio.cli.app; assert not [m for m in sys.modules if m.startswith('PySide6')]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_window_shows_before_numpy_is_loaded() -> None:
    code = "import sys; import studio.gui.app; assert 'numpy' not in sys.modules and 'studio.core' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "window"),
    [
        ([], True),
        (["--smoke"], True),
        ([str(Path(__file__).parent)], True),
        (["inspect", "x"], False),
        (["hf://org/name"], True),
        (["doctor", "hf://org/name"], False),
        (["--help"], False),
        (["nowhere/at/all"], False),
    ],
)
def test_what_opens_the_window(arguments: list[str], window: bool) -> None:
    assert wants_window(arguments) == window


def test_without_a_display_there_is_a_sentence() -> None:
    bare = {name: value for name, value in os.environ.items() if "DISPLAY" not in name and name != "QT_QPA_PLATFORM"}
    done = subprocess.run([sys.executable, "-m", "studio"], env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, "no display" in done.stderr) == (2, True) or sys.platform != "linux"
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("qapp")
def test_a_second_start_hands_its_paths_to_the_first(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", str(tmp_path))  # one window per display, and other tests have windows too
    paths = [tmp_path, tmp_path / "two\nlines"]
    code = f"from pathlib import *; from studio.gui.shell.instance import send; assert send({paths!r})"
    opened: list[Sequence[Path]] = []
    window = QWidget()
    first = Instance(opened.append, window)
    first.listen()
    other = subprocess.Popen([sys.executable, "-c", code])
    qtbot.waitUntil(lambda: opened == [paths], timeout=PATIENCE)
    qtbot.waitUntil(lambda: other.poll() is not None, timeout=PATIENCE)
    assert other.returncode == 0
    first.close()
    window.deleteLater()


def test_smoke(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "studio", "--smoke", "--screenshot", str(tmp_path / "window.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "window.png").stat().st_size > 10_000
