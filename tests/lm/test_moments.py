"""Second moments of whole inputs agree with the statistics, one matrix at a time, and end with who takes them."""

import numpy as np
import pytest

from studio import core
from studio.core.statistics.inputs import COLUMNS, ROWS
from studio.lm import calibrating
from tests.lm.listening import Heard, options
from tests.lm.models import write_llama, write_text
from tests.runtimes.checkpoints import write_qwen3_moe

for needed in ("torch", "transformers"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")


def calibrated(source, folder):
    path = folder / "stats"
    calibrating.calibrate(options(source, path, write_text(folder)), Heard())
    return path


def blocks(moments):
    parts = [moments[i : i + 16, i : i + 16][ROWS, COLUMNS] for i in range(0, len(moments), 16)]
    return np.stack(parts)


def test_they_are_those_of_the_statistics_file_block_by_block(tmp_path):
    source = write_llama(tmp_path / "llama")
    path = calibrated(source, tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seen = []
    with core.open_model(source) as model:
        file = core.open_statistics(path, model)
        for names, moments in core.second_moments(source, path, scratch):
            if moments is None:
                continue
            assert [found for found in scratch.rglob("*") if found.is_file()] == []
            seen += names
            layer = model.by_name[names[0]]
            known = file.of(layer, layer.matrices[0])
            assert moments.dtype == np.float32
            np.testing.assert_allclose(np.diag(moments), known.mean_square, rtol=1e-4)
            np.testing.assert_allclose(blocks(moments), known.moments, atol=1e-5 * np.abs(known.moments).max())
            np.testing.assert_array_equal(moments, moments.T)
        assert seen == sorted(seen, key=[layer.name for layer in model.layers].index)
        assert set(seen) == {layer.name for layer in model.layers if layer.role == "linear"}
    assert list(scratch.iterdir()) == []


@pytest.mark.proof
def test_experts_with_too_few_tokens_are_told_to_be_without(tmp_path):
    source = write_qwen3_moe(tmp_path / "moe", core.demo_checkpoint() / "tokenizer.json")
    path = calibrated(source, tmp_path)
    with core.open_model(source) as model:
        file = core.open_statistics(path, model)
        tokens = {m.name: file.tokens_of(layer, m) for layer in model.layers for m in layer.matrices}
        width = {m.name: m.columns for layer in model.layers for m in layer.matrices}
    found = {name: moments for names, moments in core.second_moments(source, path) for name in names}
    assert {name for name, moments in found.items() if moments is None} == {
        name for name in found if tokens[name] * 8 < width[name]
    }
    assert any(".experts." in name and moments is not None for name, moments in found.items())


@pytest.mark.proof
def test_closing_it_ends_the_child_and_leaves_nothing(tmp_path):
    source = write_llama(tmp_path / "llama")
    path = calibrated(source, tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = core.second_moments(source, path, scratch)
    next(names for names, moments in job if moments is not None)
    job.close()
    assert list(scratch.iterdir()) == []


def test_statistics_of_another_model_are_refused(tmp_path):
    path = calibrated(write_llama(tmp_path / "llama"), tmp_path)
    other = write_qwen3_moe(tmp_path / "moe", core.demo_checkpoint() / "tokenizer.json")
    with pytest.raises(core.PlanError, match="another model"):
        list(core.second_moments(other, path))
