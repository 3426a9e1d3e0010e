"""Publishing from the window: what would be sent is shown first, it can be stopped, and the end says where it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.jobs.publish_dialog import PublishDialog
from studio.gui.shell.commands import Commands
from tests.core.checkpoints import checkpoint, llama
from tests.core.publishing.hub import TOKEN, Hub, HubHandler, Repo, hub_on
from tests.gui.conftest import asking

constants = pytest.importorskip("huggingface_hub.constants")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LONG = 60_000


@pytest.fixture(autouse=True)
def ended(qtbot: QtBot) -> Iterator[None]:
    """What asks a network has a thread of its own, which is to end, too."""
    before = asking()
    yield
    qtbot.waitUntil(lambda: asking() <= before, timeout=LONG)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_on(tmp_path) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def export(tmp_path: Path) -> Path:
    source, plan = checkpoint(tmp_path / "model", llama(2)), core.preset("linear")
    with core.open_model(source) as model, core.start(core.Machine("cpu", threads=1), model) as started:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], tmp_path / "small-nvfp4")
        assert isinstance(list(core.export(started, job))[-1], core.Finished)
    return tmp_path / "small-nvfp4"


@pytest.fixture
def dialog(commands: Commands, export: Path) -> PublishDialog:
    commands.studio.publishing.ask(export)
    return commands.studio.publishing.dialog


def looked(dialog: PublishDialog, qtbot: QtBot, url: str = "hf://me/small") -> list[str]:
    """What happens with the files, as the list says."""
    dialog.repository.setText(url)
    dialog.look.click()
    qtbot.waitUntil(dialog.look.isEnabled, timeout=LONG)
    rows = [dialog.files.topLevelItem(i) for i in range(dialog.files.topLevelItemCount())]
    return [row.text(2) for row in rows]


def test_what_would_be_sent_is_shown_and_then_sent(
    commands: Commands, dialog: PublishDialog, hub: Hub, export: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    assert not dialog.look.isEnabled()
    dialog.base_model.setText("org/base")
    assert looked(dialog, qtbot) == ["is sent"] * len(list(export.iterdir()))
    assert not hub.repos
    dialog.go_button.click()
    wait()
    assert hub.repos["me/small"].private
    assert b"org/base" in hub.repos["me/small"].files["README.md"]
    told = [message for message in commands.window.messages.items if message.tone == "good"]
    assert "Published me/small" in told[-1].title
    assert f"{hub.url}/me/small" in told[-1].text
    commands.studio.publishing.ask(export)
    again = commands.studio.publishing.dialog
    again.base_model.setText("org/base")
    assert set(looked(again, qtbot)) == {"is there already"}
    again.reject()


def test_what_forbids_it_is_said(dialog: PublishDialog, hub: Hub, export: Path, qtbot: QtBot) -> None:
    hub.repos["me/small"] = repo = Repo(private=False)
    looked(dialog, qtbot)
    assert "is public" in dialog.said.text()
    assert not dialog.go_button.isEnabled()
    dialog.private.setChecked(False)
    assert not dialog.go_button.isEnabled()
    repo.files["README.md"] = b"mine"
    assert "replaces another" in looked(dialog, qtbot)
    assert "--" not in dialog.hint.text()
    dialog.overwrite.setChecked(True)
    looked(dialog, qtbot)
    assert dialog.go_button.isEnabled()
    (export / "config.json").write_text("{}")
    looked(dialog, qtbot)
    assert "was changed since it was exported" in dialog.said.text()
    looked(dialog, qtbot, "hf://me")
    assert "no repository of a hub" in dialog.said.text()
    dialog.reject()


def test_it_can_be_stopped_and_goes_on(
    commands: Commands, dialog: PublishDialog, hub: Hub, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    holds, go_on = Event(), Event()

    def fault(_handler: HubHandler, method: str, _path: str) -> bool:
        if method == "PUT":
            holds.set()
            go_on.wait(LONG / 1000)
        return False

    looked(dialog, qtbot)
    hub.fault = fault
    dialog.go_button.click()
    qtbot.waitUntil(holds.is_set, timeout=LONG)
    commands.perform("stop")
    wait()
    go_on.set()
    assert len(hub.repos["me/small"].commits) == 1
    assert "What was sent stays at the hub" in commands.window.activity.figures.text()
