"""Inputs that float16 has no number for, by a file of statistics."""

from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint
from tests.core.conftest import Studio
from tests.core.test_input_scales import statistics

HOT, WARM = "model.layers.1.mlp.down_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture
def gathered(tmp_path: Path) -> Path:
    """A checkpoint `m` and its statistics."""
    with core.open_model(checkpoint(tmp_path / "m")) as model:
        return statistics(model, tmp_path / "s", {HOT: (500, 7e4), WARM: (400, 2e4)})


def test_layers_are_named_with_how_large_their_inputs_become(studio: Studio, tmp_path: Path, gathered: Path) -> None:
    ran = studio("doctor", tmp_path / "m", "--statistics", gathered, "--quick", "--fail-on", "warning")
    assert ran.code == 1
    assert "inputs up to 70,000 among 500; float16 ends at 65,504" in ran.out
    assert "inputs up to 20,000 among 400" in ran.out
    assert ran.out.count("float16 ends at") == 2
    assert studio("doctor", tmp_path / "m", "--quick", "--fail-on", "warning").code == 0


def test_a_quantized_folder_is_looked_at_by_the_statistics_of_its_source(
    studio: Studio, tmp_path: Path, gathered: Path
) -> None:
    assert studio("quantize", tmp_path / "m", tmp_path / "q", "--quiet").code == 0
    refused = studio("doctor", tmp_path / "q", "--statistics", gathered, "--quick")
    assert refused.code == 2
    assert "statistics of another model" in refused.err
    ran = studio("doctor", tmp_path / "q", "--statistics", gathered, "--source", tmp_path / "m", "--quick")
    assert ran.code == 0
    assert HOT in ran.out
