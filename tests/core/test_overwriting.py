"""Only what this program wrote is ever replaced, only when nothing else lies there, and no stop loses any."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from studio import core
from studio.core.exporting import staging
from studio.core.exporting.contents import JOURNAL, MANIFEST, SUMS, contents, remove
from studio.core.exporting.staging import Staging
from studio.core.exporting.target import check_target
from tests.core.checkpoints import checkpoint, llama, snapshot
from tests.core.conftest import Studio

OTHER = ("--format", "mxfp8")


class KilledError(BaseException):
    """What a kill is to the code that it hits."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = checkpoint(tmp_path / "model", llama(1))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")
    return folder


@pytest.fixture
def old(studio: Studio, source: Path, tmp_path: Path) -> Path:
    """An export with the plan OTHER."""
    assert studio("quantize", source, tmp_path / "out", *OTHER).code == 0
    return tmp_path / "out"


@pytest.fixture
def clean(studio: Studio, source: Path, tmp_path: Path) -> dict[str, str]:
    """What an export with the plan by default holds; its name is in its card."""
    assert studio("quantize", source, tmp_path / "clean" / "out").code == 0
    return snapshot(tmp_path / "clean" / "out")


def refused(studio: Studio, source: Path, target: Path, *words: str) -> None:
    before, beside = snapshot(target), sorted(target.parent.iterdir())
    ran = studio("quantize", source, target, "--overwrite")
    assert ran.code == 4, ran.err
    assert not [word for word in words if word not in ran.err], ran.err
    assert "hint: " in ran.err
    assert snapshot(target) == before
    assert sorted(target.parent.iterdir()) == beside


def test_a_folder_of_somebody_else_is_never_replaced(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    refused(studio, source, tmp_path / "out", "no nvfp4_studio.json", "choose another folder", "remove this one")
    ran = studio("quantize", source, tmp_path / "out")
    assert "--overwrite" not in ran.err, "no advice that would be refused"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "{", '{"program": "nvfp4-studio"}', '{"program": {"name": "another"}}', "\0" * 100]
)
def test_a_manifest_that_is_not_ours_does_not_open_a_folder(studio: Studio, source: Path, old: Path, text: str) -> None:
    (old / MANIFEST).write_text(text)
    refused(studio, source, old, "only an earlier export is ever replaced")


def test_a_manifest_that_is_a_link_to_nothing_or_a_folder_is_none(studio: Studio, source: Path, old: Path) -> None:
    (old / MANIFEST).unlink()
    refused(studio, source, old, MANIFEST)
    (old / MANIFEST).symlink_to("nothing")
    refused(studio, source, old, MANIFEST)
    (old / MANIFEST).unlink()
    (old / MANIFEST).mkdir()
    refused(studio, source, old, MANIFEST)


def test_files_that_the_export_does_not_list_are_named_and_keep_it(studio: Studio, source: Path, old: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (old / name).write_text("mine")
    refused(studio, source, old, "a.txt, b.txt, c.txt and 1 more", "move that away")


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json", "additional_chat_templates/tool.jinja"])
def test_a_file_of_the_export_that_its_owner_changed_keeps_it(
    studio: Studio, source: Path, old: Path, name: str
) -> None:
    (old / name).write_text("rewritten by hand")
    refused(studio, source, old, "was changed since", Path(name).name if "/" not in name else name)


def test_a_shard_of_another_size_keeps_the_export(studio: Studio, source: Path, old: Path) -> None:
    with (old / "model.safetensors").open("ab") as file:
        file.write(b"more")
    refused(studio, source, old, "was changed since: model.safetensors")


@pytest.mark.parametrize("name", ["additional_chat_templates/mine.jinja", "notes/thesis.txt", JOURNAL, ".hidden"])
def test_a_file_of_somebody_at_any_place_keeps_the_export(studio: Studio, source: Path, old: Path, name: str) -> None:
    (old / name).parent.mkdir(exist_ok=True)
    (old / name).write_text('{"dear": "diary"}')
    refused(studio, source, old, name.split("/")[0])


def test_what_a_file_manager_leaves_in_a_folder_goes_with_it(studio: Studio, source: Path, old: Path) -> None:
    for folder in (old, old / "additional_chat_templates"):
        (folder / ".DS_Store").write_bytes(b"Bud1")
    assert studio("quantize", source, old, "--overwrite").code == 0
    assert not (old / ".DS_Store").exists()
    assert [path for path in old.parent.iterdir() if old.name in path.name] == [old]


def test_links_in_the_export_are_not_followed(studio: Studio, source: Path, old: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (old / "additional_chat_templates").rename(precious)
    (old / "additional_chat_templates").symlink_to(precious)
    refused(studio, source, old, "additional_chat_templates")
    assert (precious / "tool.jinja").is_file()
    (old / "additional_chat_templates").unlink()
    (old / "model.safetensors").rename(tmp_path / "weights")
    (old / "model.safetensors").symlink_to(tmp_path / "weights")
    assert studio("quantize", source, old, "--overwrite").code == 0
    assert (tmp_path / "weights").is_file(), "the link goes, not what it leads to"


def test_without_its_list_of_digests_what_is_not_in_the_manifest_is_nobodys(
    studio: Studio, source: Path, old: Path
) -> None:
    (old / SUMS).write_text("damaged")
    refused(studio, source, old, "config.json")


def test_what_a_list_names_outside_the_folder_stays(old: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (old / SUMS).write_text(f"{'0' * 64}  ../thesis.txt\n")
    manifest = json.loads((old / MANIFEST).read_text())
    (old / MANIFEST).write_text(json.dumps({**manifest, "tensors": {"../thesis.txt": {}, "/etc/passwd": {}}}))
    assert "../thesis.txt" not in contents(old).files
    remove(old)
    assert (tmp_path / "thesis.txt").is_file()
    assert (old / "config.json").is_file()


def test_what_will_go_is_said_before(studio: Studio, source: Path, old: Path) -> None:
    files = [path for path in old.rglob("*") if path.is_file()]
    said = f"{len(files)} files, {core.size_text(sum(path.stat().st_size for path in files))}, go"
    before = snapshot(old)
    assert said in studio("quantize", source, old, "--overwrite", "--dry-run").err
    assert snapshot(old) == before
    ran = studio("quantize", source, old, "--overwrite", "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    (event,) = [event for event in events if event["event"] == "export"]
    assert event["replaces"]["files"] == len(files)
    assert said in ran.err


def test_an_empty_folder_is_fine(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ran = studio("quantize", source, tmp_path / "out", "--overwrite")
    assert ran.code == 0
    assert "replaces" not in ran.err


def test_a_link_a_file_and_what_holds_the_source_are_refused(
    studio: Studio, source: Path, old: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(old)
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "file").write_text("a file")
    before = snapshot(tmp_path)
    for target in (tmp_path / "link", tmp_path / "broken", tmp_path / "file", tmp_path, source, source / "inside"):
        assert studio("quantize", source, target, "--overwrite").code == 4, target
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("where", ["out", "."])
def test_a_read_only_place_is_refused_before_any_work(
    source: Path, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    closed = (tmp_path / where).resolve()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != closed)
    with pytest.raises(core.ExportError, match="can not be written"):
        check_target(old, source, overwrite=True)


def quantize(source: Path, target: Path, at: Callable[[core.Event], None], **options: object) -> list[core.Event]:
    plan = core.preset("linear")
    seen = []
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        options = {"shard_nbytes": 20_000, **options}
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], target, **options)  # type: ignore[arg-type]
        for event in core.export(engine, job):
            seen.append(event)
            at(event)
    return seen


def at_the_last_shard(act: Callable[[], object]) -> Callable[[core.Event], None]:
    """Acts once a shard is written, every time: the last time is before the rename."""
    return lambda event: act() if isinstance(event, core.ShardWritten) else None  # type: ignore[func-returns-value]


def count(events: list[core.Event], kind: type) -> int:
    return sum(isinstance(event, kind) for event in events)


def test_a_file_that_appears_in_the_old_export_meanwhile_stops_the_swap_and_not_the_run(
    source: Path, old: Path
) -> None:
    before = snapshot(old)
    with pytest.raises(core.ExportError, match=r"thesis\.txt") as error:
        quantize(source, old, at_the_last_shard(lambda: (old / "thesis.txt").write_text("mine")), overwrite=True)
    assert "finished shards are kept" in error.value.hint
    assert (old / "thesis.txt").read_text() == "mine"
    (old / "thesis.txt").unlink()
    assert snapshot(old) == before
    events = quantize(source, old, lambda _: None, overwrite=True)
    assert count(events, core.Resumed)
    assert not count(events, core.ShardWritten)


@pytest.mark.parametrize("swaps", [True, False])
def test_a_file_that_appears_between_the_check_and_the_swap_is_kept_and_told(
    source: Path, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    real = Staging.publish

    def publish(self: Staging, *, overwrite: bool) -> Path | None:
        (old / "thesis.txt").write_text("mine")
        return real(self, overwrite=overwrite)

    monkeypatch.setattr(Staging, "publish", publish)
    if not swaps:
        monkeypatch.setattr(staging, "exchange", lambda *_: False)
    events = quantize(source, old, lambda _: None, overwrite=True)
    (warned,) = [event for event in events if isinstance(event, core.Warned)]
    assert "out.replaced" in warned.message
    assert [path.name for path in (tmp_path / "out.replaced").iterdir()] == ["thesis.txt"]
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("make", ["file in it", "a file", "a folder"])
def test_what_appears_at_the_target_before_the_rename_does_not_lose_the_run(
    source: Path, tmp_path: Path, make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real = tmp_path / "out", Staging.publish

    def publish(self: Staging, *, overwrite: bool) -> Path | None:
        if make == "a file":
            target.write_text("mine")
        else:
            target.mkdir()
            (target / "mine").write_text("mine")
        return real(self, overwrite=overwrite)

    monkeypatch.setattr(Staging, "publish", publish)
    with pytest.raises(core.ExportError, match="something appeared there") as error:
        quantize(source, target, lambda _: None)
    assert "finished shards are kept" in error.value.hint
    target.rename(tmp_path / "elsewhere")
    monkeypatch.undo()
    events = quantize(source, target, lambda _: None)
    assert count(events, core.Resumed)
    assert not count(events, core.ShardWritten)
    assert not (target / JOURNAL).exists()


LEFT_OVER = (JOURNAL, "model.safetensors.json")
STEPS = ("rename", "fsync", "unlink", "rmdir", "exchange")


class Steps:
    """Counts the steps of a publication; the one of a given number is where a kill hits, before it or after it."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int = 0, *, after: bool = False, swaps: bool = True) -> None:
        self.count, self._number, self._after = 0, number, after
        for name in STEPS[:-1]:
            patch.setattr(os, name, self._wrapped(getattr(os, name)))
        patch.setattr(staging, "exchange", self._wrapped(staging.exchange) if swaps else lambda *_: False)

    def _wrapped(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.count += 1
            if self._number and self.count > self._number:
                raise KilledError
            if self.count == self._number and not self._after:
                raise KilledError
            found = real(*arguments, **named)
            if self.count == self._number:
                raise KilledError
            return found

        return call


@pytest.mark.sampled(2)
@pytest.mark.parametrize("replacing", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_kill_at_any_step_of_the_publication_leaves_the_old_folder_or_the_new_one(
    studio: Studio,
    source: Path,
    tmp_path: Path,
    clean: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    replacing: bool,
    after: bool,
) -> None:
    target, real = tmp_path / "out", Staging.publish
    for number in range(1, 100):
        if replacing:
            assert studio("quantize", source, target, *OTHER).code == 0
        before = snapshot(target) if replacing else None

        def publish(self: Staging, *, overwrite: bool, number: int = number) -> Path | None:
            Steps(patch, number, after=after)
            return real(self, overwrite=overwrite)

        killed = False
        with monkeypatch.context() as patch:
            patch.setattr(Staging, "publish", publish)
            try:
                quantize(source, target, lambda _: None, overwrite=True, shard_nbytes=10**9)
            except KilledError:
                killed = True
        there = snapshot(target) if target.exists() else None
        without = {
            name: digest for name, digest in (there or {}).items() if name not in (JOURNAL, "model.safetensors.json")
        }
        assert there == before or without == clean, number
        if not killed:
            break
        if there == before:
            assert (tmp_path / "out.partial" / JOURNAL).exists()
        ran = studio("quantize", source, target, "--overwrite")
        assert ran.code == 0, (number, ran.err)
        assert there != before or "resumed" in ran.err, number
        assert snapshot(target) == clean, number
        assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "model", "out"], number
        for path in sorted(target.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        target.rmdir()
    assert number > 3


def test_where_folders_can_not_swap_a_kill_loses_neither(
    studio: Studio, source: Path, old: Path, tmp_path: Path, clean: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = snapshot(old), Staging.publish

    def publish(self: Staging, *, overwrite: bool) -> Path | None:
        Steps(patch, 1, after=True, swaps=False)
        return real(self, overwrite=overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "publish", publish)
        with pytest.raises(KilledError):
            quantize(source, old, lambda _: None, overwrite=True, shard_nbytes=10**9)
    assert snapshot(tmp_path / "out.replaced") == before
    ran = studio("quantize", source, old)
    assert ran.code == 0
    assert "resumed" in ran.err
    assert snapshot(old) == clean


def test_the_rest_of_a_replaced_export_in_the_staging_folder_goes_unless_something_else_is_there(
    studio: Studio, source: Path, old: Path, tmp_path: Path
) -> None:
    old.rename(tmp_path / "out.partial")
    (tmp_path / "out.partial" / "thesis.txt").write_text("mine")
    ran = studio("quantize", source, tmp_path / "out", "--restart")
    assert ran.code == 4
    assert "it holds thesis.txt" in ran.err
    (tmp_path / "out.partial" / "thesis.txt").unlink()
    assert studio("quantize", source, tmp_path / "out").code == 0
    assert not (tmp_path / "out.partial").exists()


def test_taking_the_rest_of_a_replaced_export_away_can_be_stopped_anywhere(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.rename(tmp_path / "out.partial")
    real, killed = os.unlink, True
    while killed:
        folder, left = Staging(tmp_path / "out"), iter([True])

        def unlink(*arguments: object, left: object = left, **named: object) -> None:
            if not next(left, False):  # type: ignore[call-overload]
                raise KilledError
            real(*arguments, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            try:
                folder.begin({}, restart=False)
                killed = False
            except KilledError:
                pass
        folder.close()
    assert [path.name for path in folder.path.iterdir()] == [JOURNAL]


def test_a_demo_replaces_a_demo_and_no_export_of_a_persons_model(studio: Studio, old: Path) -> None:
    before = snapshot(old)
    assert studio("demo", old).code == 4
    assert snapshot(old) == before


# a source that fails


def failing(source: Path, monkeypatch: pytest.MonkeyPatch, after: int, fault: Callable[[], int]) -> Callable:  # type: ignore[type-arg]
    """An event hook: once `after` shards are written, the next read of the source is `fault`."""
    real, state = os.preadv, {"shards": 0, "broken": False}

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if state["broken"] and Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(source):
            return fault()
        return real(descriptor, buffers, offset)

    def hook(event: core.Event) -> None:
        state["shards"] += isinstance(event, core.ShardWritten)
        state["broken"] = state["shards"] >= after

    monkeypatch.setattr(os, "preadv", preadv)
    return hook


def broken() -> int:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc, which is Linux's")
@pytest.mark.parametrize("fault", [broken, lambda: 0])
def test_a_failed_read_of_the_source_keeps_what_is_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], int]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(core.CheckpointError) as error:
        quantize(source, tmp_path / "out", failing(source, patch, 2, fault))
    assert str(source) in str(error.value)
    assert "finished shards are kept" in error.value.hint
    assert "same command" in error.value.hint
    events = quantize(source, tmp_path / "out", lambda _: None)
    assert count(events, core.Resumed) == 2
    quantize(source, tmp_path / "again" / "out", lambda _: None)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "again" / "out")


def test_a_read_that_fails_before_the_run_is_taken_up_keeps_what_an_earlier_one_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def stop(event: core.Event) -> None:
        if isinstance(event, core.ShardWritten):
            raise StopError

    with pytest.raises(StopError):
        quantize(source, tmp_path / "out", stop)
    plan = core.preset("linear")
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        choices = core.resolve(plan, model)
        job = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], tmp_path / "out", shard_nbytes=20_000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", lambda *_: broken())
            with pytest.raises(core.CheckpointError) as error:
                list(core.export(engine, job))
    assert "finished shards are kept" in error.value.hint
    assert count(quantize(source, tmp_path / "out", lambda _: None), core.Resumed) == 1


def test_a_source_that_changed_keeps_what_is_finished_until_it_is_discarded(
    studio: Studio, source: Path, tmp_path: Path
) -> None:
    shard = source / "model.safetensors"
    time = shard.stat().st_mtime_ns
    with pytest.raises(core.CheckpointError, match="changed") as error:
        quantize(source, tmp_path / "out", at_the_last_shard(lambda: os.utime(shard, ns=(1, 1))))
    assert "finished shards are kept" in error.value.hint
    kept = snapshot(tmp_path / "out.partial")
    ran = studio("quantize", source, tmp_path / "out", "--shard-size", "20000")
    assert ran.code == 4
    assert "--restart" in ran.err
    assert snapshot(tmp_path / "out.partial") == kept
    os.utime(shard, ns=(time, time))
    assert "resumed" in studio("quantize", source, tmp_path / "out", "--shard-size", "20000").err


def test_a_weight_that_is_refused_late_keeps_what_is_finished(studio: Studio, tmp_path: Path) -> None:
    tensors = dict(llama(2))
    last = sorted(name for name in tensors if name.endswith("up_proj.weight"))[-1]
    tensors[last] = tensors[last].copy()
    tensors[last][0, 0] = float("nan")
    source = checkpoint(tmp_path / "model", tensors)
    ran = studio("quantize", source, tmp_path / "out", "--shard-size", "20000")
    assert ran.code == 2
    assert "NaN" in ran.err
    assert "finished shards are kept" in ran.err
    assert list((tmp_path / "out.partial").glob("model-00001-*.safetensors"))


def test_a_run_that_finished_nothing_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(core.CheckpointError, match="changed") as error:
        quantize(source, tmp_path / "out", lambda _: os.utime(source / "model.safetensors", ns=(1, 1)))
    assert "kept" not in error.value.hint
    assert not (tmp_path / "out.partial").exists()
