"""Terabytes: a checkpoint of large matrices whose weights are holes is opened and planned by its headers alone."""

from pathlib import Path

import pytest

from studio import core
from tests.benchmarks.scale import MEMORY
from tests.benchmarks.terabytes import Mixture, measured, write

SMALL = Mixture(blocks=3, dense=1, experts=12)
SHARD_NBYTES = 600 * 10**6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "mixture"
    assert write(folder, SMALL, SHARD_NBYTES) > 8 * 10**9
    return folder


def test_it_is_read_as_the_mixture_that_it_is(source: Path) -> None:
    with core.open_model(source) as model:
        assert model.known
        assert [layer.name for layer in model.layers if layer.role == "router"] != []
        experts = [layer for layer in model.layers if layer.role == "expert"]
        assert len(experts) == 2 * 12 * 3
        assert len(model.files) == len(list(source.glob("*.safetensors"))) > 10


def test_its_export_is_laid_out_to_the_byte(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.core.exporting.export.check_space", lambda *_: None)
    plan = core.preset("linear")
    with core.open_model(source) as model:
        choices = core.resolve(plan, model)
        job = core.prepare(model, plan, choices, core.LAYOUTS["modelopt"], tmp_path / "out")
        quantized = sum(choice.layer.count for choice in job.choices if choice.recipe)
        kept = sum(choice.layer.nbytes for choice in job.choices if not choice.recipe)
    scales = 4 * sum(choice.nbytes > 0 and choice.recipe is not None for choice in job.choices)
    assert sum(shard.data_nbytes for shard in job.shards) == quantized * 9 // 16 + kept + scales
    assert quantized > 0.5 * model.count


def test_a_dry_run_stays_within_the_memory_limit(source: Path) -> None:
    assert measured(source, "quantize --dry-run").memory < MEMORY
    assert not (source.parent / "export").exists()
