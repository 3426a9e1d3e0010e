"""Candidates: what they are called, when they run from where they are, and what tells them apart."""

import json
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from studio import core
from studio.core.quality.candidates import check_memory, prepare, runs_as_it_is
from studio.core.quality.metrics import Tally
from studio.core.quality.window_records import WindowRecords, evaluation_space
from tests.core.checkpoints import BF16, CONFIG, FP8, checkpoint, gaussian, llama

LINEAR = core.preset("linear")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture
def model(tmp_path: Path, stack: ExitStack) -> core.Model:
    return stack.enter_context(core.open_model(checkpoint(tmp_path / "model")))


def test_formats_and_methods_are_told_by_their_share(model: core.Model) -> None:
    plan = LINEAR.preceded_by([core.Rule(names=("*k_proj",), format="mxfp8")]).with_method("search")
    found = core.as_planned(model, plan, "mine")
    assert (found.name, found.format, found.method) == ("mine", "nvfp4-3t, mxfp8", "search, max")
    plain = core.as_stored(model)
    assert (plain.name, plain.format, plain.method, plain.guide) == ("model", "BF16", "", "")


def test_what_guided_a_method_is_told(model: core.Model) -> None:
    assert core.as_planned(model, LINEAR.with_method("importance")).guide == "norm"
    assert core.as_planned(model, LINEAR.with_method("search")).guide == ""


def test_a_layout_changes_what_is_evaluated_as_it_changes_the_export(tmp_path: Path, stack: ExitStack) -> None:
    source = checkpoint(tmp_path / "tied", {k: v for k, v in llama().items() if k != "lm_head.weight"})
    model = stack.enter_context(core.open_model(source))
    with pytest.raises(core.PlanError, match="can not store int4-g32"):
        core.as_planned(model, LINEAR.with_format("int4-g32"), layout="modelopt")
    assert core.as_planned(model, LINEAR.with_format("int4-g32"), layout="mlx").layout is core.LAYOUTS["mlx"]


def test_a_plan_that_quantizes_nothing_is_refused(model: core.Model) -> None:
    with pytest.raises(core.PlanError, match="nothing to quantize"):
        core.as_planned(model, core.Plan(()))


def test_a_folder_runs_from_where_it_is_unless_its_config_speaks_of_a_quantization(
    model: core.Model, tmp_path: Path, stack: ExitStack
) -> None:
    assert runs_as_it_is(model)
    assert not runs_as_it_is(stack.enter_context(core.open_model(model.path / "model.safetensors")))
    left = {**CONFIG, "quantization_config": {"quant_method": "fp8"}}
    assert not runs_as_it_is(stack.enter_context(core.open_model(checkpoint(tmp_path / "left", config=left))))
    assert runs_as_it_is(
        stack.enter_context(core.open_model(checkpoint(tmp_path / "coded", config={**CONFIG, "auto_map": {}})))
    )


def given(steps: Generator[object, None, object]) -> Iterator[object]:
    """What a generator yields, then what it returns."""
    yield (yield from steps)


def test_a_single_file_is_written_to_a_folder_as_it_is(model: core.Model, tmp_path: Path, stack: ExitStack) -> None:
    single = stack.enter_context(core.open_model(model.path / "model.safetensors"))
    folder = tmp_path / "folder"
    with core.start(core.Machine(threads=1), single) as engine:
        found = list(given(prepare(engine, core.as_stored(single), None, folder, tmp_path / "aside")))
    assert found[-1] == (folder, {})
    written = load_file(folder / "model.safetensors")
    assert {name: array.tobytes() for name, array in written.items()} == {n: a.tobytes() for n, a in llama().items()}


def test_an_fp8_checkpoint_is_decoded_for_runtimes(tmp_path: Path, stack: ExitStack) -> None:
    name = "model.layers.0.mlp.up_proj"
    codes = gaussian(128, 64, sigma=60).astype(np.float32).clip(-448, 448).astype(FP8)
    tensors = {**llama(), f"{name}.weight": codes, f"{name}.weight_scale": np.array([2.0**-7], np.float32)}
    model = stack.enter_context(core.open_model(checkpoint(tmp_path / "fp8", tensors)))
    assert not runs_as_it_is(model)
    with core.start(core.Machine(threads=1), model) as engine:
        list(prepare(engine, core.as_stored(model), None, tmp_path / "folder", tmp_path / "aside"))
    written = load_file(tmp_path / "folder" / "model.safetensors")
    assert sorted(written) == sorted(llama())
    np.testing.assert_array_equal(written[f"{name}.weight"], (codes.astype(np.float32) / 128).astype(BF16))


def test_keys_tell_models_plans_layouts_and_changes_apart(model: core.Model) -> None:
    keys = [
        core.as_stored(model).key(),
        core.as_planned(model, LINEAR).key(),
        core.as_planned(model, LINEAR.with_method("importance")).key(),
        core.as_planned(model, LINEAR, layout="mlx").key(),
    ]
    file = model.path / "model.safetensors"
    os.utime(file, ns=(1, 1))
    keys.append(core.as_stored(model).key())
    assert len({json.dumps(key) for key in keys}) == 5


def test_memory_that_is_not_allowed_is_refused_and_what_is_not_there_is_warned_of(
    model: core.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(check_memory([model], 512, 0)) == []
    with pytest.raises(core.MemoryLimitError, match="are allowed"):
        list(check_memory([model], 512, 1000))
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    (warned,) = check_memory([model], 512, 0)
    assert "this machine has 10 kB" in warned.message


def test_records_are_read_back_and_what_a_kill_cut_is_left_out(tmp_path: Path) -> None:
    records = WindowRecords(tmp_path, {"a": 1})
    records.note({"rel_err": 0.1})
    records.add(0, Tally(5, 1.5, 0.25, 4), 2.0)
    (path,) = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('{"index": 1, "sums": {"tok')
    again = WindowRecords(tmp_path, {"a": 1})
    assert (again.windows, again.facts) == ({0: (Tally(5, 1.5, 0.25, 4), 2.0)}, {"rel_err": 0.1})
    assert again.missing(3) == [1, 2]
    assert WindowRecords(tmp_path, {"a": 2}).windows == {}
    again.forget()
    assert list(tmp_path.iterdir()) == []


def test_scratch_space_goes_and_so_does_what_a_killed_program_left(tmp_path: Path) -> None:
    (tmp_path / "scratch-left").mkdir()
    (tmp_path / "scratch-left" / "large").write_bytes(b"x")
    with evaluation_space(tmp_path) as first, evaluation_space(tmp_path) as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert list(tmp_path.iterdir()) == []


def test_old_records_go(tmp_path: Path) -> None:
    old, new = tmp_path / "a.windows.jsonl", tmp_path / "b.windows.jsonl"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (1, 1))
    with evaluation_space(tmp_path):
        assert not old.exists()
        assert new.exists()
