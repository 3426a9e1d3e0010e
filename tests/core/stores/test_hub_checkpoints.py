"""Checkpoints on a hub: its interface as a small server on this machine has it; no real hub is asked."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, llama, snapshot
from tests.core.conftest import Studio
from tests.core.stores.web import Handler, Web, serving

pytest.importorskip("requests")
constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def interface(handler: Handler) -> bool:
    """What a hub answers about the repository org/small."""
    path = handler.path.partition("?")[0]
    below = handler.web.folder / "org" / "small" / "resolve" / COMMIT
    if path in ("/api/models/org/small", "/api/models/org/small/revision/main"):
        answer = {"id": "org/small", "sha": COMMIT}
    elif path == f"/api/models/org/small/tree/{COMMIT}":
        files = [path for path in sorted(below.rglob("*")) if path.is_file()]
        answer = [
            {"type": "file", "path": str(file.relative_to(below)), "size": file.stat().st_size, "oid": f"{number:040}"}
            for number, file in enumerate(files)
        ]
    else:
        return False
    handler.answer(200, json.dumps(answer).encode(), **{"Content-Type": "application/json"})
    return True


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    checkpoint(tmp_path / "hub" / "org" / "small" / "resolve" / COMMIT, llama(3), shards=3)
    with serving(tmp_path / "hub", interface) as web:
        monkeypatch.setattr(constants, "ENDPOINT", web.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
        yield web


def test_an_export_from_a_hub_is_that_from_the_folder(studio: Studio, hub: Web, tmp_path: Path) -> None:
    for url in ("hf://org/small", "hf://org/small@main"):
        ran = studio("quantize", url, tmp_path / "out", "--json", "--overwrite")
        assert ran.code == 0
        assert "hf_hunter2" not in ran.out + ran.err
    folder = hub.folder / "org" / "small" / "resolve" / COMMIT
    assert studio("quantize", folder, tmp_path / "local").code == 0
    written, local = snapshot(tmp_path / "out"), snapshot(tmp_path / "local")
    named = {"README.md", "SHA256SUMS"}  # the card has the name of the repository in it
    assert written.keys() == local.keys()
    assert {name for name in written if written[name] != local[name]} == named
    told = [{key.lower(): value for key, value in asked.items()} for asked in hub.asked]
    ours = [asked["authorization"] for asked in told if asked["user-agent"].startswith("nvfp4-studio")]
    assert len(ours) > 10
    assert set(ours) == {"Bearer hf_hunter2"}


@pytest.mark.parametrize(
    "url",
    ["hf://org/small", "https://huggingface.co/org/small", "https://hf.co/org/small/tree/main/?library=transformers"],
)
def test_files_are_those_of_the_commit_that_was_there_at_first(hub: Web, url: str) -> None:
    with core.open_model(url) as model:
        assert str(model.path).startswith("hf://org/small")
        assert len(model.layers) == 30
        assert not model.warnings
    assert all(f"/resolve/{COMMIT}/" in f"/{name}" for name, _, _ in hub.requests)


@pytest.mark.usefixtures("hub")
def test_a_repository_that_is_not_there_is_told() -> None:
    with pytest.raises(core.CheckpointError, match=r"no such repository|refuses"):
        core.open_model("hf://org/other")


@pytest.mark.usefixtures("hub")
def test_being_offline_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(core.CheckpointError, match="HF_HUB_OFFLINE is set"):
        core.open_model("hf://org/small")
