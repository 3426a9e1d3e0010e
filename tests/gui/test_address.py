"""Opening an address: what is there is shown first, nothing waits for a network, recents know it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.app import parse
from studio.gui.jobs.address_dialog import AddressDialog
from studio.gui.shell.commands import Commands
from tests.core.checkpoints import checkpoint, llama
from tests.core.stores.web import Handler, Web, serving, status
from tests.gui.conftest import asking

pytest.importorskip("requests")
LONG = 60_000


@pytest.fixture(autouse=True)
def ended(qtbot: QtBot) -> Iterator[None]:
    """What asks a network has a thread of its own, which is to end, too."""
    before = asking()
    yield
    qtbot.waitUntil(lambda: asking() <= before, timeout=LONG)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    checkpoint(tmp_path / "web" / "small", llama(2), shards=2)
    with serving(tmp_path / "web") as running:
        yield running


@pytest.fixture
def dialog(commands: Commands) -> AddressDialog:
    commands.perform("open_address")
    return commands.window.findChild(AddressDialog)


def asked(dialog: AddressDialog, qtbot: QtBot, address: str) -> None:
    """Look what is at an address, to the end."""
    dialog.address.setEditText(address)
    dialog.look.click()
    qtbot.waitUntil(lambda: dialog.look.isEnabled(), timeout=LONG)


def names(dialog: AddressDialog) -> dict[str, str]:
    rows = [dialog.files.topLevelItem(i) for i in range(dialog.files.topLevelItemCount())]
    return {row.text(0): row.text(1) for row in rows}


def test_files_and_sizes_are_shown_before_headers_are_fetched(dialog: AddressDialog, qtbot: QtBot, web: Web) -> None:
    assert not dialog.go_button.isEnabled()
    asked(dialog, qtbot, f"{web.url}/small")
    folder = web.folder / "small"
    assert names(dialog) == {path.name: core.size_text(path.stat().st_size) for path in folder.iterdir()}
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert f"weights {core.size_text(weights)}" in dialog.said.text()
    assert dialog.go_button.isEnabled()
    read = {(name, start, stop) for name, start, stop in web.requests if name.endswith(".safetensors")}
    assert {stop - start for _, start, stop in read} == {1}
    dialog.reject()


def test_it_opens_and_is_known_the_next_time(commands: Commands, dialog: AddressDialog, qtbot: QtBot, web: Web) -> None:
    address = f"{web.url}/small"
    asked(dialog, qtbot, address)
    with qtbot.waitSignal(commands.opened, timeout=LONG):
        dialog.go_button.click()
    document = commands.studio.document
    assert str(document.model.path) == address
    assert len(document.model.layers) == 21
    commands.perform("reload")
    qtbot.waitUntil(lambda: not commands.studio.opening.reason, timeout=LONG)
    assert str(commands.studio.document.model.path) == address
    commands.perform("close")
    row = commands.window.welcome.rows[address]
    assert (row.open.text(), row.place.text()) == ("small", web.url)
    assert commands.session.last is None
    with qtbot.waitSignal(commands.opened, timeout=LONG):
        row.open.click()
    commands.perform("close")
    commands.perform("open_address")
    again = commands.window.findChildren(AddressDialog)[-1]
    assert again.address.itemText(0) == address
    again.reject()


def test_it_is_quantized_and_kept_as_from_a_folder(
    commands: Commands, dialog: AddressDialog, qtbot: QtBot, web: Web, wait: Callable[[], None]
) -> None:
    asked(dialog, qtbot, f"{web.url}/small")
    with qtbot.waitSignal(commands.opened, timeout=LONG):
        dialog.go_button.click()
    commands.perform("quantize")
    wait()
    assert commands.studio.document.store.figures().done == 14
    for key, word in (("calibrate", "download it"), ("evaluate", "download it")):
        assert word in commands.window.actions_of.reasons[key]
    commands.perform("copy_command")
    with qtbot.waitSignal(commands.opened, timeout=LONG):
        commands.perform("reload")
    assert commands.studio.document.store.figures().done == 14


def test_errors_are_those_of_the_command_line(dialog: AddressDialog, qtbot: QtBot, web: Web) -> None:
    asked(dialog, qtbot, f"{web.url}/nothing")
    assert "there are no files of a checkpoint" in dialog.said.text()
    assert dialog.hint.text().startswith("Check the spelling")
    assert not dialog.go_button.isEnabled()
    web.fault = status(403)
    asked(dialog, qtbot, f"{web.url}/small")
    assert "refuses to give it (HTTP 403)" in dialog.said.text()
    assert ".netrc" in dialog.hint.text()
    asked(dialog, qtbot, "https://me:hunter2@example.org/x")
    assert "a user or a password in a URL is refused" in dialog.said.text()
    assert "hunter2" not in dialog.said.text()
    dialog.address.setEditText("/a/folder")
    assert not dialog.look.isEnabled()
    dialog.reject()


def test_addresses_are_taken_from_the_command_line_as_they_are() -> None:
    assert parse(["hf://org/name", "a/folder"]).paths == ["hf://org/name", Path("a/folder")]


@pytest.fixture
def silent(web: Web) -> Iterator[Event]:
    """The server answers nothing before this is set."""
    answers = Event()

    def fault(_handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
        answers.wait(LONG / 1000)
        return False

    web.fault = fault
    yield answers
    answers.set()


def test_a_silent_store_keeps_nothing_waiting(
    commands: Commands, dialog: AddressDialog, qtbot: QtBot, web: Web, silent: Event
) -> None:
    before = asking()
    dialog.address.setEditText(f"{web.url}/small")
    dialog.look.click()
    qtbot.waitUntil(lambda: bool(web.requests), timeout=LONG)
    assert "being asked" in dialog.said.text()
    with qtbot.waitSignal(commands.opened, timeout=LONG):
        commands.perform("demo")
    dialog.reject()
    commands.open_path(f"{web.url}/small")
    qtbot.waitUntil(lambda: "Opening small" in commands.window.activity.title.text(), timeout=LONG)
    with qtbot.waitSignal(commands.opened, timeout=LONG):
        commands.open_path(core.demo_checkpoint().parent / "demo-llama")
    silent.set()
    qtbot.waitUntil(lambda: asking() <= before, timeout=LONG)
