"""Results as lines: they come back to the bit, and only for the bytes that they were measured on."""

import json
import os
from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, llama

Known = tuple[core.Choice, tuple[str, ...], core.LayerResult]


def measured(model: core.Model, format_name: str = "nvfp4-3t") -> list[Known]:
    choices = core.resolve(core.preset("linear").with_format(format_name), model)
    groups = core.ScaleGroups(model)
    asked = {choice.layer.name: (choice, groups.peers(i, choices)) for i, choice in enumerate(choices) if choice.recipe}
    with core.start(core.Machine("numpy", 1, 0), model) as engine:
        events = list(core.survey(engine, model, [choice for choice, _ in asked.values()]))
    return [(*asked[event.result.name], event.result) for event in events if isinstance(event, core.LayerDone)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", llama(3), shards=3)


def lines_of(folder: Path, format_name: str = "nvfp4-3t") -> tuple[list[str], list[Known]]:
    with core.open_model(folder) as model:
        known = measured(model, format_name)
        return [core.ResultLines(model).line(*one) for one in known], known


@pytest.mark.parametrize("format_name", ["nvfp4-3t", "nvfp4-2t", "mxfp4", "int4-g64"])
def test_a_result_comes_back_to_the_bit(folder: Path, format_name: str) -> None:
    lines, known = lines_of(folder, format_name)
    with core.open_model(folder) as model:
        back = [core.ResultLines(model).known(line) for line in lines]
    assert [one[1:] for one in back if one] == [one[1:] for one in known]
    assert [one[0].recipe for one in back if one] == [one[0].recipe for one in known]


def test_results_stay_with_a_folder_that_is_moved(folder: Path, tmp_path: Path) -> None:
    lines, known = lines_of(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    with core.open_model(moved) as model:
        found = [core.ResultLines(model).known(line) for line in lines]
    assert [one[2] for one in found if one] == [one[2] for one in known]


def test_a_changed_shard_takes_its_results_and_those_that_share_a_scale_with_it(folder: Path) -> None:
    lines, known = lines_of(folder)
    touched = min(folder.glob("*.safetensors"))
    os.utime(touched, ns=(1, 1))
    with core.open_model(folder) as model:
        reader = core.ResultLines(model)
        valid = {json.loads(line)["layer"] for line in lines if reader.known(line)}
        changed = {layer.name for layer in model.layers if layer.stored.file.path == touched}
    expected = {choice.layer.name for choice, peers, _ in known if not changed & {choice.layer.name, *peers}}
    assert valid == expected
    assert 0 < len(valid) < len(lines)


@pytest.mark.parametrize("line", ["", "{", "[]", "7", "{}"])
def test_a_damaged_line_is_refused(folder: Path, line: str) -> None:
    with core.open_model(folder) as model, pytest.raises(ValueError, match=r"not a result|Expecting"):
        core.ResultLines(model).known(line)


def test_no_cut_of_a_line_is_taken_for_a_result(folder: Path) -> None:
    lines, _ = lines_of(folder)
    with core.open_model(folder) as model:
        reader = core.ResultLines(model)
        for end in range(0, len(lines[0]), 7):
            with pytest.raises(ValueError, match=r"not a result|delimiter|Expecting|Unterminated"):
                reader.known(lines[0][:end])


def test_a_cache_forgets_one_checkpoint_and_keeps_the_others(folder: Path, tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "other", llama(1))
    cache = core.ResultCache()
    for place in (folder, other):
        more = core.ResultCache()
        with core.open_model(place) as model:
            for one in measured(model):
                more.add(*one)
        cache.update(more)
    whole = len(cache)
    with core.open_model(folder) as model:
        cache.forget(model)
    assert 0 < len(cache) < whole
