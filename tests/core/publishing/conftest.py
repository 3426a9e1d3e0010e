"""Fixtures: a hub on this machine, and an export to publish there."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, llama
from tests.core.publishing.hub import TOKEN, Hub, hub_on

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_on(tmp_path) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield running


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in several shards."""
    folder = tmp_path_factory.mktemp("made")
    source, plan, layout = checkpoint(folder / "model", llama(3)), core.preset("linear"), core.LAYOUTS["mlx"]
    with core.open_model(source) as model, core.start(core.Machine("cpu", threads=1), model) as started:
        job = core.prepare(model, plan, core.resolve(plan, model), layout, folder / "out", shard_nbytes=60_000)
        assert isinstance(list(core.export(started, job))[-1], core.Finished)
    return folder / "out"


@pytest.fixture
def export(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "export"))
