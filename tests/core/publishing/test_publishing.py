"""Publishing: a repository is whole or as it was, nothing is sent twice, what lies there is checked."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from studio import core
from studio.core.publishing import publish as publishing
from tests.core.conftest import Studio
from tests.core.publishing.hub import TOKEN, Fault, Hub, HubHandler, Repo, _commit, digest, failing

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own package
URL = "hf://me/small"


def published(hub: Hub) -> dict[str, bytes]:
    return {name: data for name, data in hub.repos["me/small"].files.items() if name != ".gitattributes"}


def test_a_repository_has_the_files_of_the_export_and_is_private(studio: Studio, hub: Hub, export: Path) -> None:
    ran = studio("publish", export, URL, "--base-model", "org/base", "--json")
    assert ran.code == 0, ran.err
    repo = hub.repos["me/small"]
    assert repo.private
    assert len(repo.commits) == 2
    there = published(hub)
    assert there.keys() == {path.name for path in export.iterdir()}
    changed = {name for name, data in there.items() if data != (export / name).read_bytes()}
    assert changed == {"README.md", "SHA256SUMS"}
    assert len([name for name in there if name.endswith(".safetensors")]) >= 3
    told = [json.loads(line) for line in ran.out.splitlines()]
    done = [line for line in told if line["event"] == "published"]
    assert done[0]["sent"] == len(there)
    assert done[0]["private"] is True


def test_what_is_published_opens_and_verifies_from_there(
    studio: Studio, hub: Hub, export: Path, tmp_path: Path
) -> None:
    assert studio("publish", export, URL).code == 0
    with core.open_model(URL) as model:
        assert core.is_exported(model)
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, data in published(hub).items():
        (fetched / name).write_bytes(data)
    assert studio("verify", fetched, "--source", export.parent / "nothing").code == 2
    assert studio("verify", fetched).code == 0


def test_the_card_names_the_base_model_for_people_and_for_the_hub(studio: Studio, hub: Hub, export: Path) -> None:
    assert studio("publish", export, URL, "--base-model", "org/base").code == 0
    card = published(hub)["README.md"].decode()
    _, front, rest = card.split("---\n", 2)
    lines = dict(line.split(": ", 1) for line in front.strip().splitlines())
    assert json.loads(lines["base_model"]) == "org/base"
    assert json.loads(lines["base_model_relation"]) == "quantized"
    assert json.loads(lines["library_name"]) == "mlx"
    assert json.loads(lines["tags"]) == ["nvfp4-studio", "nvfp4"]
    assert "- Base model: [org/base](https://huggingface.co/org/base)\n" in rest
    without = rest.replace("- Base model: [org/base](https://huggingface.co/org/base)\n", "")
    assert without.strip() == (export / "README.md").read_text().strip()


def test_a_second_run_sends_nothing(studio: Studio, hub: Hub, export: Path) -> None:
    assert studio("publish", export, URL).code == 0
    received, commits = hub.received, len(hub.repos["me/small"].commits)
    ran = studio("publish", export, URL, "--json")
    assert ran.code == 0, ran.err
    assert (hub.received, len(hub.repos["me/small"].commits)) == (received, commits)
    assert json.loads(ran.out.splitlines()[-2])["sent"] == 0


def test_a_dry_run_lists_files_and_changes_nothing(studio: Studio, hub: Hub, export: Path) -> None:
    ran = studio("publish", export, URL, "--dry-run")
    assert ran.code == 0
    assert not hub.repos
    assert all(path.name in ran.out for path in export.iterdir())
    assert studio("publish", export, URL).code == 0
    again = studio("publish", export, URL, "--dry-run", "--json")
    fates = [json.loads(line)["fate"] for line in again.out.splitlines() if '"file"' in line]
    assert fates == ["there"] * len(list(export.iterdir()))


def test_the_token_is_used_and_never_shown(studio: Studio, hub: Hub, export: Path) -> None:
    hub.fault = failing(500, "PUT", "/(part|object)/", 2)
    ran = studio("publish", export, URL, "--json")
    assert ran.code == 0, ran.err
    assert hub.tokens == {f"Bearer {TOKEN}"}
    for secret in (TOKEN, "s3cret"):
        assert secret not in ran.out + ran.err


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("status", "method", "pattern"),
    [
        (500, "PUT", "/part/"),
        (429, "PUT", "/object/"),
        (503, "POST", "/batch"),
        (502, "POST", "/preupload/"),
        (500, "POST", "/complete/"),
        (504, "GET", "/tree/"),
        (429, "GET", "/api/models/me/small$"),
    ],
)
def test_what_may_pass_is_tried_again(hub: Hub, export: Path, status: int, method: str, pattern: str) -> None:
    hub.fault = failing(status, method, pattern, 3)
    run(export)
    assert published(hub).keys() == {path.name for path in export.iterdir()}


def run(export: Path, **how: object) -> core.Published:
    """Publish without waiting between attempts."""
    job = core.publication(export, URL, **how)  # type: ignore[arg-type]
    *_, last = core.publish(patient(job))
    assert isinstance(last, core.Published)
    return last


def patient(job: core.Publication) -> core.Publication:
    return replace(job, patience=replace(job.patience, first=0.0, longest=0.0))


def test_a_commit_whose_answer_is_lost_is_recognized(hub: Hub, export: Path) -> None:
    lost = iter([True])

    def fault(handler: HubHandler, method: str, path: str) -> bool:
        if method == "POST" and "/commit/" in path and next(lost, False):
            handler.say = lambda *_, **__: handler.drop()  # type: ignore[method-assign]
            _commit(handler, handler.body(), "me/small")
            return True
        return False

    hub.fault = fault
    run(export)
    assert len(hub.repos["me/small"].commits) == 2


def test_a_stopped_run_goes_on_where_it_was(hub: Hub, export: Path) -> None:
    hub.fault = failing(500, "POST", "/commit/", 100)
    with pytest.raises(core.StudioError, match="can not be committed: HTTP 500; tried 7 times"):
        run(export)
    assert published(hub) == {}
    received = hub.received
    assert received > 0
    hub.fault = None
    run(export)
    assert hub.received == received
    assert len(hub.repos["me/small"].commits) == 2


def test_closing_it_leaves_the_repository_as_it_was(hub: Hub, export: Path) -> None:
    holds, go_on = Event(), Event()
    hub.fault = held(holds, go_on)
    job = core.publish(core.publication(export, URL))
    while not holds.is_set():
        next(job)
    job.close()
    go_on.set()
    wait_for_threads()
    assert len(hub.repos["me/small"].commits) == 1
    hub.fault = None
    run(export)
    assert len(hub.repos["me/small"].commits) == 2


def wait_for_threads() -> None:
    """Until nothing is sent any more."""
    while any(thread.name == publishing.NAME for thread in threading.enumerate()):
        time.sleep(0.001)


def held(holds: Event, go_on: Event) -> Fault:
    """A hub that answers to what is sent when it is let."""

    def fault(_handler: HubHandler, method: str, _path: str) -> bool:
        if method == "PUT":
            holds.set()
            go_on.wait(60)
        return False

    return fault


def test_a_hub_of_which_nothing_is_heard_is_given_up(hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SILENCE", 0.2)
    holds, go_on = Event(), Event()
    hub.fault = held(holds, go_on)
    try:
        with pytest.raises(core.ExportError, match=r"nothing was heard of the hub for 0\.2 s"):
            list(core.publish(core.publication(export, URL)))
    finally:
        go_on.set()
        wait_for_threads()


@pytest.mark.usefixtures("hub")
def test_progress_rises_to_what_was_announced(export: Path) -> None:
    events = list(core.publish(core.publication(export, URL)))
    total = next(event.total for event in events if isinstance(event, core.Started))
    done = [event.done for event in events if isinstance(event, core.Progress)]
    assert done == sorted(done)
    assert done[-1] == total


def test_another_digest_at_the_hub_is_an_error(hub: Hub, export: Path, studio: Studio) -> None:
    hub.wrong = {"config.json", "model-00001-of-00003.safetensors"}
    ran = studio("publish", export, URL)
    assert ran.code == 4
    assert "2 files there is not" in ran.err or "2 files there are not" in ran.err
    assert "config.json" in ran.err


def test_a_commit_of_others_meanwhile_is_refused(hub: Hub, export: Path) -> None:
    hub.repos["me/small"] = repo = Repo(private=True)

    def meanwhile(_handler: object, method: str, path: str) -> bool:
        if method == "POST" and "/validate-yaml" in path:
            repo.commits.append({**repo.files, "notes.txt": b"mine"})
        return False

    hub.fault = meanwhile
    with pytest.raises(core.CheckpointError, match="changed while it was in use"):
        run(export)
    assert set(repo.files) == {".gitattributes", "notes.txt"}


def test_a_public_repository_wants_a_word(hub: Hub, export: Path, studio: Studio) -> None:
    hub.repos["me/small"] = Repo(private=False)
    ran = studio("publish", export, URL)
    assert ran.code == 4
    assert "--public" in ran.err
    assert studio("publish", export, URL, "--public").code == 0


def test_other_files_are_replaced_only_when_that_is_asked_for(hub: Hub, export: Path, studio: Studio) -> None:
    repo = hub.repos["me/small"] = Repo(private=True)
    odd = {"README.md": b"mine", "model-00009-of-00009.safetensors": b"old", "picture.png": b"kept"}
    repo.commits[0] |= odd
    ran = studio("publish", export, URL)
    assert ran.code == 4
    assert "README.md" in ran.err
    assert "--overwrite" in ran.err
    assert len(repo.commits) == 1
    assert studio("publish", export, URL, "--overwrite").code == 0
    assert "model-00009-of-00009.safetensors" not in repo.files
    assert repo.files["picture.png"] == b"kept"
    assert digest(repo.files["README.md"]) in repo.files["SHA256SUMS"].decode()


def test_without_the_right_to_write_it_is_refused(hub: Hub, export: Path, studio: Studio) -> None:
    hub.fault = failing(403, "POST", "/api/repos/create", 9)
    ran = studio("publish", export, URL)
    assert ran.code == 4
    assert "hf auth login" in ran.err


def test_no_hub_is_told(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    job = patient(core.publication(export, URL))
    with pytest.raises(core.StudioError, match="can not be read: no connection"):
        list(core.publish(job))
