"""Staging never touches what is not its own, and a stop at any place leaves a folder that the next run understands."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.exporting import staging
from studio.core.exporting.contents import JOURNAL, MANIFEST
from studio.core.exporting.staging import Staging
from studio.core.exporting.target import check_target
from tests.core.checkpoints import QUERY, checkpoint, gaussian, large_checkpoint, llama, snapshot
from tests.core.conftest import Refused, Studio

PLAN = core.preset("linear")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", llama(1))


def prepared(model: core.Model, target: Path, **options: object) -> core.Export:
    choices = core.resolve(PLAN, model)
    return core.prepare(model, PLAN, choices, core.LAYOUTS["mlx"], target, **options)  # type: ignore[arg-type]


def stop_after(source: Path, target: Path, kind: type, **options: object) -> None:
    """An export that is closed at its first event of a kind."""
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        events = core.export(engine, prepared(model, target, **options))
        next(event for event in events if isinstance(event, kind))
        events.close()  # type: ignore[attr-defined]


def test_overwriting_replaces_the_target_and_nothing_beside_it(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "out").code == 0
    first = snapshot(tmp_path / "out")
    for name in ("out.replaced", "out.replaced1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    assert studio("quantize", source, tmp_path / "out", "--overwrite").code == 0
    assert snapshot(tmp_path / "out") == first
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model", "out", "out.replaced", "out.replaced1"]
    assert (tmp_path / "out.replaced" / "thesis.txt").read_text() == "years of work"


def test_a_folder_like_one_of_ours_survives_an_export_without_overwrite(
    studio: Studio, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.replaced").mkdir()
    assert studio("quantize", source, tmp_path / "out").code == 0
    assert (tmp_path / "out.replaced").is_dir()


def test_a_replacement_that_fails_leaves_the_old_folder_in_its_place(
    studio: Studio, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    assert studio("quantize", source, target).code == 0
    before = snapshot(target)
    real = os.rename

    def rename(old: Path, new: Path) -> None:
        if Path(old).name == "out.partial":
            raise OSError(errno.EIO, "broken")
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(staging, "exchange", lambda *_: False)
    ran = studio("quantize", source, target, "--overwrite")
    assert ran.code == 4
    assert snapshot(target) == before
    monkeypatch.setattr(os, "rename", real)
    ran = studio("quantize", source, target, "--overwrite")
    assert ran.code == 0
    assert "resumed" in ran.err
    assert snapshot(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


@pytest.mark.parametrize("holding", [{JOURNAL}, {JOURNAL, MANIFEST}])
def test_emptying_the_folder_can_be_stopped_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holding: set[str]
) -> None:
    names = {"config.json", "model-00001-of-00002.safetensors", "tokenizer.json", "a.tmp", *holding}
    real = os.unlink
    for allowed in range(len(names) + 1):
        folder = Staging(tmp_path / "out")
        for name in names:
            (folder.path / name).write_text('{"identity": {}, "shards": {}}')
        left = iter([True] * allowed)

        def unlink(path: Path, left: object = left) -> None:
            if not next(left, False):  # type: ignore[call-overload]
                raise OSError(errno.EIO, "stopped here")
            real(path)

        monkeypatch.setattr(os, "unlink", unlink)
        folder.discard()
        folder.close()
        monkeypatch.setattr(os, "unlink", real)
        again = Staging(tmp_path / "out")
        again.begin({}, restart=True)
        again.close()
        assert [path.name for path in again.path.iterdir()] == [JOURNAL]


def test_a_staging_folder_that_is_a_link_is_refused(studio: Studio, source: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in (JOURNAL, MANIFEST, "thesis.txt"):
        (precious / name).write_text("{}")
    (tmp_path / "out.partial").symlink_to(precious)
    before = snapshot(precious)
    ran = studio("quantize", source, tmp_path / "out")
    assert ran.code == 4
    assert "out.partial" in ran.err
    assert snapshot(precious) == before


@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--restart",)])
def test_a_source_in_the_place_of_the_staging_folder_is_refused(
    studio: Studio, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = checkpoint(tmp_path / "out.partial")
    (source / MANIFEST).write_text("{}")
    before = snapshot(source)
    ran = studio("quantize", source, tmp_path / "out", *options)
    assert ran.code == 4
    assert "same folder" in ran.err
    assert snapshot(source) == before


def test_the_current_folder_may_be_the_target(
    studio: Studio, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deep")
    assert studio("quantize", source, ".").code == 0
    assert Path.cwd() == tmp_path / "here" / "deep"
    assert Path("config.json").is_file()
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "here" / "deep" / "config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "model"]


def test_a_mount_point_is_refused_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    with pytest.raises(core.ExportError, match="mount point"):
        check_target(tmp_path / "out", source, overwrite=False)


def test_the_root_is_refused(studio: Studio, source: Path) -> None:
    assert studio("quantize", source, "/", "--overwrite").code == 4


def test_a_loop_of_links_is_refused(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for target in (tmp_path / "loop", tmp_path / "loop" / "out"):
        ran = studio("quantize", source, target)
        assert ran.code == 4
        assert "loop" in ran.err


def test_a_read_only_place_is_refused_with_its_path(
    studio: Studio, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", mkdir)
    ran = studio("quantize", source, tmp_path / "out")
    assert ran.code == 4
    assert "out" in ran.err
    assert "Read-only" in ran.err


def test_room_is_counted_without_holes_of_a_file_that_was_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = large_checkpoint(tmp_path / "model", 1)
    partial = tmp_path / "out.partial"
    partial.mkdir()
    with (partial / "model.safetensors.tmp").open("wb") as file:
        file.truncate(10**9)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with core.open_model(source) as model, pytest.raises(core.ExportError, match="disk space"):
        prepared(model, tmp_path / "out")


def test_a_full_disk_says_how_much_is_needed_and_keeps_what_is_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(source, tmp_path / "out", core.ShardWritten, shard_nbytes=20_000)

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        job = prepared(model, tmp_path / "out", shard_nbytes=20_000)
        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(core.ExportError, match=f"disk space left.*{job.nbytes:,} bytes") as error:
            list(core.export(engine, job))
        monkeypatch.undo()
        assert "same command again" in error.value.hint
        assert any(isinstance(event, core.Resumed) for event in core.export(engine, job))


def test_a_shard_with_numbers_that_are_none_is_taken_over_too(tmp_path: Path, studio: Studio) -> None:
    tensors = dict(llama(1))
    tensors["model.layers.0.input_layernorm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.inf)
    source = checkpoint(tmp_path / "model", tensors)
    stop_after(source, tmp_path / "out", core.ShardWritten)
    ran = studio("quantize", source, tmp_path / "out", "--report", tmp_path / "report")
    assert ran.code == 0
    assert "resumed" in ran.err


def test_what_the_disk_did_not_keep_is_a_fault_of_the_target(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def damage(descriptor: int) -> None:
        real(descriptor)
        path = tmp_path / "out.partial" / "model.safetensors.tmp"
        if path.exists():
            content = bytearray(path.read_bytes())
            content[-1] ^= 0x55
            path.write_bytes(content)

    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        monkeypatch.setattr(os, "fsync", damage)
        with pytest.raises(core.ExportError, match=r"model\.safetensors\.tmp"):
            list(core.export(engine, prepared(model, tmp_path / "out")))
        monkeypatch.undo()
        assert not (tmp_path / "out").exists()
        list(core.export(engine, prepared(model, tmp_path / "out")))


def test_a_finished_shard_that_was_damaged_since_is_written_again(source: Path, tmp_path: Path, studio: Studio) -> None:
    assert studio("quantize", source, tmp_path / "clean").code == 0
    stop_after(source, tmp_path / "out", core.ShardWritten)
    shard = tmp_path / "out.partial" / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    ran = studio("quantize", source, tmp_path / "out")
    assert ran.code == 0
    assert "resumed" not in ran.err
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "clean")


@pytest.mark.parametrize(
    "journal", [b"", b"[]", b"{", b'{"shards": 3}', b'{"shards": {}}', b"\xff", b'{"identity": 1}']
)
def test_a_damaged_journal_means_starting_over(source: Path, tmp_path: Path, studio: Studio, journal: bytes) -> None:
    stop_after(source, tmp_path / "out", core.ShardWritten)
    (tmp_path / "out.partial" / JOURNAL).write_bytes(journal)
    assert studio("quantize", source, tmp_path / "out").code == 0


def test_a_folder_with_a_journal_of_somebody_else_is_left_alone(source: Path, tmp_path: Path, studio: Studio) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / JOURNAL).write_text('{"dear": "diary"}')
    (tmp_path / "out.partial" / "thesis.txt").write_text("years of work")
    before = snapshot(tmp_path / "out.partial")
    for options in ((), ("--restart",), ("--overwrite",)):
        ran = studio("quantize", source, tmp_path / "out", *options)
        assert ran.code == 4
        assert "thesis.txt" in ran.err
    assert snapshot(tmp_path / "out.partial") == before


def test_a_large_side_file_is_copied_piece_by_piece(source: Path, tmp_path: Path, studio: Studio) -> None:
    content = np.random.default_rng(0).bytes(9_000_001)
    (source / "tokenizer.json").write_bytes(content)
    assert studio("quantize", source, tmp_path / "out").code == 0
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == content


def test_a_target_whose_name_is_no_text_is_written(source: Path, tmp_path: Path, studio: Studio) -> None:
    target = tmp_path / os.fsdecode(b"out-\xff")
    ran = studio("quantize", source, target, "--json")
    assert ran.code == 0, ran.err
    assert studio("verify", target, "--source", source).code == 0


def test_a_refused_weight_leaves_nothing_behind(refused: Refused, tmp_path: Path) -> None:
    tensors = {**llama(1), QUERY: gaussian(64, 64)}
    tensors[QUERY][3, 5] = np.nan
    refused(checkpoint(tmp_path / "model", tensors), "q_proj", "1 NaN")


def test_a_narrow_encoding_of_the_terminal_escapes_what_it_can_not_show(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", {**llama(1), "\u4e2d\u6587.weight": gaussian(16, 16)})
    command = [sys.executable, "-m", "studio", "inspect", str(source)]
    environment = {**os.environ, "PYTHONPATH": str(Path(core.__file__).parents[2]), "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0
    assert "\\u4e2d\\u6587" in ran.stdout
    assert "Next:" in ran.stdout


@pytest.mark.parametrize("command", ["measure", "quantize"])
def test_a_report_that_can_not_be_written_is_one_error(
    studio: Studio, source: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").write_text("")
    target = [tmp_path / "out"] if command == "quantize" else []
    ran = studio(command, source, *target, "--report", tmp_path / "file" / "report")
    assert ran.code == 4
    assert "report: can not be written" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"], "found before any work"


def test_a_plan_that_can_not_be_saved_is_one_error(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("plan", source, "--save", tmp_path / "missing" / "plan.json")
    assert ran.code == 4
    assert "plan.json" in ran.err
