"""The target is whole or absent: refused before any work, stopped at any time, taken up again, never half there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio import core
from studio.core.exporting.contents import left_over
from tests.core.checkpoints import checkpoint, gaussian, large_checkpoint, llama, snapshot
from tests.core.conftest import Ran, Refused, Studio

ROOT = Path(core.__file__).parents[2]
PATIENCE_SECONDS = 600


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", shards=2)


def _hear_interrupts() -> None:
    """What a shell starts behind it does not hear them, nor do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}  # type: ignore[dict-item]
    command = [sys.executable, "-m", "studio", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _hear_interrupts, **options}
    return subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


def run(*arguments: object, **options: object) -> Ran:
    started = time.monotonic()
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert "Traceback" not in (err or "")
    return Ran(process.returncode, out or "", err or "", time.monotonic() - started)


def job(model: core.Model, target: Path, **options: object) -> core.Export:
    plan = core.preset("linear")
    return core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], target, **options)  # type: ignore[arg-type]


def refused_target(studio: Studio, source: Path, target: Path, *words: str) -> None:
    exists = len(target.name) < 256 and target.is_dir()
    before, there = snapshot(source), snapshot(target) if exists else None
    ran = studio("quantize", source, target)
    assert ran.code == 4
    assert not [word for word in words if word not in ran.err], ran.err
    assert snapshot(source) == before
    assert (snapshot(target) if exists else None) == there
    assert not list(target.parent.glob("*.partial")) if target.parent.is_dir() else True


def test_the_source_itself_is_refused(studio: Studio, source: Path, tmp_path: Path) -> None:
    refused_target(studio, source, source, "same folder")
    (tmp_path / "link").symlink_to(source)
    refused_target(studio, source, tmp_path / "link", "same folder")
    refused_target(studio, source, source / "." / "..", "same folder")
    refused_target(studio, source, source / "inside", "same folder")


def test_a_folder_that_is_not_empty_is_refused(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    refused_target(studio, source, tmp_path / "out", "not empty")


def test_an_empty_folder_is_used(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert studio("quantize", source, tmp_path / "out").code == 0


def test_a_file_is_refused(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    refused_target(studio, source, tmp_path / "out", "not a folder")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_staging_folder_of_somebody_else_is_left_alone(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("years of work")
    ran = studio("quantize", source, tmp_path / "out")
    assert ran.code == 4
    assert "not made by this program" in ran.err
    assert (tmp_path / "out.partial" / "thesis.txt").read_text() == "years of work"


def test_a_place_that_can_not_be_written_is_named(studio: Studio, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused_target(studio, source, tmp_path / "file" / "out", "out")
    refused_target(studio, source, tmp_path / ("n" * 300), "nnn")


def test_missing_parents_are_made(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "a" / "b" / "out").code == 0


def test_too_little_room_is_refused_at_the_start(
    refused: Refused, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(source, "disk space", "1,000", code=4)


def test_a_source_that_changes_meanwhile_is_not_published(source: Path, tmp_path: Path) -> None:
    shard = next(source.glob("*.safetensors"))
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        events = core.export(engine, job(model, tmp_path / "out"))
        next(events)
        os.utime(shard, ns=(1, 1))
        with pytest.raises(core.CheckpointError, match="changed"):
            list(events)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_of_two_exports_to_one_place_the_second_is_refused_at_once(source: Path, tmp_path: Path) -> None:
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        first = core.export(engine, job(model, tmp_path / "out"))
        next(first)
        with pytest.raises(core.ExportError, match="another export"):
            next(core.export(engine, job(model, tmp_path / "out")))
        list(first)
    assert (tmp_path / "out" / "config.json").exists()


def test_closing_the_events_stops_within_a_slab_and_the_next_run_goes_on(source: Path, tmp_path: Path) -> None:
    with core.open_model(source) as model, core.start(core.Machine(threads=2), model) as engine:
        clean = job(model, tmp_path / "clean", shard_nbytes=20_000)
        list(core.export(engine, clean))
        stopped = core.export(engine, job(model, tmp_path / "out", shard_nbytes=20_000))
        for event in stopped:
            if isinstance(event, core.ShardWritten):
                break
        started = time.monotonic()
        stopped.close()
        assert time.monotonic() - started < 5
        assert not (tmp_path / "out").exists()
        events = list(core.export(engine, job(model, tmp_path / "out", shard_nbytes=20_000)))
    assert sum(isinstance(event, core.Resumed) for event in events) == 1
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "clean")


@pytest.mark.parametrize("change", ["plan", "layout", "source", "shards"])
def test_another_plan_or_source_does_not_continue_a_stopped_run(
    studio: Studio, source: Path, tmp_path: Path, change: str
) -> None:
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        events = core.export(engine, job(model, tmp_path / "out"))
        next(events)
        events.close()
    options = {"plan": ("--format", "mxfp8"), "layout": ("--layout", "modelopt"), "shards": ("--shard-size", "20k")}
    if change == "source":
        os.utime(next(source.glob("*.safetensors")), ns=(1, 1))
    ran = studio("quantize", source, tmp_path / "out", *options.get(change, ()))
    assert ran.code == 4
    assert change.removesuffix("s") in ran.err
    assert "--restart" in ran.err
    assert studio("quantize", source, tmp_path / "out", "--restart", *options.get(change, ())).code == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_and_the_same_command_resumes(tmp_path: Path, name: signal.Signals) -> None:
    source = large_checkpoint(tmp_path / "model", 6)
    command = ("quantize", source, tmp_path / "out", "--shard-size", "10M", "--threads", "1")
    for _ in range(5):  # a run may be over before it is seen to have begun
        process = start(*command)
        while not list((tmp_path / "out.partial").glob("model-00002*")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(name)
        sent = time.monotonic()
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode:
            break
        shutil.rmtree(tmp_path / "out")
    assert process.returncode == 130, err
    assert time.monotonic() - sent < 10
    assert "resume" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    ran = run(*command)
    assert ran.code == 0
    assert "resumed" in ran.err
    assert run("quantize", source, tmp_path / "clean", *command[3:]).code == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "clean")


def started_export(tmp_path: Path, **options: object) -> subprocess.Popen[str]:
    """An export in a process of its own that is under way."""
    command = ("quantize", large_checkpoint(tmp_path / "model", 6), tmp_path / "out", "--shard-size", "10M")
    process = start(*command, "--threads", "1", **options)
    while not list(tmp_path.glob("out.partial/journal.json")) and process.poll() is None:
        time.sleep(0.01)
    return process


def test_signals_on_each_others_heels_end_it_without_a_traceback(tmp_path: Path) -> None:
    process = started_export(tmp_path)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(name)
        time.sleep(0.02)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode in (130, -signal.SIGTERM, -signal.SIGINT)
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.proof
def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    process = started_export(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.proof
def test_killed_at_any_moment_nothing_half_is_visible_and_the_bytes_end_equal(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", llama(6), shards=3)
    command = ("quantize", source, tmp_path / "out", "--shard-size", "60k", "--quiet")
    started = time.monotonic()
    assert run("quantize", source, tmp_path / "clean", *command[3:]).code == 0
    whole, clean = time.monotonic() - started, snapshot(tmp_path / "clean")
    for i in range(8):
        process = start(*command)
        time.sleep(whole * (i + 1) / 9)
        process.kill()
        process.communicate()
        if (tmp_path / "out").exists():
            there, last = snapshot(tmp_path / "out"), left_over(tmp_path / "out")  # what goes last
            assert {name: digest for name, digest in there.items() if name not in last} == clean
        ran = run(*command, "--overwrite")
        assert ran.code == 0, ran.err
        assert snapshot(tmp_path / "out") == clean
        shutil.rmtree(tmp_path / "out")


def test_few_file_descriptors_suffice_for_many_shards(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", llama(8), shards=60)
    limited = ["sh", "-c", f'ulimit -n 40; exec "{sys.executable}" -m studio quantize "$0" "$1" --quiet']
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*limited, str(source), str(tmp_path / "out")], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr


def test_a_broken_stdout_or_a_missing_home_does_not_stop_an_export(source: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("quantize", source, tmp_path / "a", stdout=full)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert (tmp_path / "a" / "config.json").exists()
    closed = f'exec "{sys.executable}" -m studio quantize "$0" "$1" --json >&-'
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        ["sh", "-c", closed, str(source), str(tmp_path / "b")], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "b" / "config.json").exists()


def test_locale_and_clock_do_not_matter(source: Path, tmp_path: Path) -> None:
    assert run("quantize", source, tmp_path / "a").code == 0
    other = {"LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"}
    assert run("quantize", source, tmp_path / "b", env=other).code == 0
    named = (tmp_path / "b" / "README.md").read_text()
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b"), named


def anonymous_peak(source: Path, target: Path, *options: str) -> int:
    """Kilobytes of anonymous memory at the most while `source` is exported."""
    process = start("quantize", source, target, "--quiet", *options)
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max([peak, *found])
        time.sleep(0.005)
    process.communicate()
    assert process.returncode == 0
    return peak


@pytest.mark.proof
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux's")
def test_memory_stays_under_150_mb_and_does_not_grow_with_the_model(tmp_path: Path) -> None:
    small = anonymous_peak(large_checkpoint(tmp_path / "small", 2), tmp_path / "a")
    large = anonymous_peak(large_checkpoint(tmp_path / "large", 12), tmp_path / "b")
    one = anonymous_peak(large_checkpoint(tmp_path / "one", 1, rows=49152), tmp_path / "c")
    row = anonymous_peak(large_checkpoint(tmp_path / "row", 1, rows=16, columns=1 << 20), tmp_path / "d")
    assert max(small, large, one, row) < 150_000
    assert max(large, one) < small + 20_000


def test_memory_that_can_not_suffice_is_refused_before_the_start(refused: Refused, source: Path) -> None:
    refused(source, "memory", options=("--max-memory", "10M"), code=3)


def test_less_memory_makes_smaller_slabs_and_the_same_bytes(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", {"model.layers.0.mlp.up_proj.weight": gaussian(2048, 512)})
    assert studio("quantize", source, tmp_path / "a").code == 0
    assert studio("quantize", source, tmp_path / "b", "--max-memory", "72M").code == 0
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
