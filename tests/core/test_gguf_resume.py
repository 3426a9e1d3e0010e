"""GGUF files that grow: a stopped run is gone on with, after a look at every byte, and ends in the same file."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio import core
from studio.core.exporting.gguf_records import GgufRecords
from studio.core.running.packed_results import PackedResults
from tests.core.conftest import Studio
from tests.core.gguf_sources import made

TARGET = "a.gguf"
Events = Iterator[core.Event]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qwen2, whose rows of queries and keys are moved, and which has fused groups and biases."""
    return made(tmp_path_factory.mktemp("source") / "m", "qwen2")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run that was never stopped."""
    target = tmp_path_factory.mktemp("whole") / TARGET
    run(source, target)
    return target.read_bytes()


def run(source: Path, target: Path, stop: int = 0, plan: str = "nvfp4-3t") -> list[core.Event]:
    """Write a GGUF file with two threads, stopped after so many layers; all events."""
    events = []
    chosen = core.preset("linear").with_format(plan)
    with core.open_model(source) as model, core.start(core.Machine(threads=2), model) as engine:
        job = core.prepare_gguf(model, core.resolve(chosen, model), target)
        steps: Any = core.write_gguf(engine, job)
        for event in steps:
            events.append(event)
            if stop and sum(isinstance(one, core.LayerDone) for one in events) == stop:
                steps.close()
                break
    return events


def resumed(events: list[core.Event]) -> int:
    """Bytes that were taken over."""
    return sum(event.nbytes for event in events if isinstance(event, core.Resumed))


@pytest.mark.parametrize("stop", [1, 2, 5, 9, 13])
def test_a_stopped_run_is_gone_on_with_and_ends_in_the_same_bytes(
    source: Path, whole: bytes, tmp_path: Path, stop: int
) -> None:
    target = tmp_path / TARGET
    run(source, target, stop)
    assert not target.exists()
    assert target.with_name("a.gguf.partial").stat().st_size == len(whole)
    events = run(source, target)
    assert target.read_bytes() == whole
    assert [entry.name for entry in tmp_path.iterdir()] == [TARGET]
    names = [event.result.name for event in events if isinstance(event, core.LayerDone)]
    assert len(names) == len(set(names)) == 15
    assert resumed(events) > 0 or stop < 3


def test_a_run_that_is_stopped_again_and_again_comes_to_its_end(source: Path, whole: bytes, tmp_path: Path) -> None:
    taken = [resumed(run(source, tmp_path / TARGET, stop)) for stop in (4, 8, 12, 0)]
    assert taken == sorted(set(taken))
    assert (tmp_path / TARGET).read_bytes() == whole


def _flip_in_a_layer(target: Path) -> None:
    path = target.with_name("a.gguf.partial")
    lines = target.with_name("a.gguf.partial.json").read_bytes().splitlines()
    notes = bytes.fromhex(json.loads(lines[-1])["notes"])
    at = int.from_bytes(notes[:8], "little")
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def _cut_the_last_line(target: Path) -> None:
    path = target.with_name("a.gguf.partial.json")
    os.truncate(path, path.stat().st_size - 7)


def _spoil_a_line(target: Path) -> None:
    path = target.with_name("a.gguf.partial.json")
    first, *lines = path.read_bytes().splitlines()
    notes = b'{"result": {"name": 1}, "notes": "00"}'
    path.write_bytes(b"\n".join([first, b"\xff{", notes, b"{}", b"[]", *lines[2:], b""]))


def _cut_the_file(target: Path) -> None:
    path = target.with_name("a.gguf.partial")
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("spoil", [_flip_in_a_layer, _cut_the_last_line, _spoil_a_line, _cut_the_file])
def test_what_is_not_as_it_was_written_is_done_again(
    source: Path, whole: bytes, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    target = tmp_path / TARGET
    run(source, target, 12)
    spoil(target)
    run(source, target)
    assert target.read_bytes() == whole
    assert [entry.name for entry in tmp_path.iterdir()] == [TARGET]


def test_a_run_with_other_choices_begins_anew_and_says_so(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / TARGET, 12)
    events = run(source, tmp_path / TARGET, plan="mxfp4")
    assert [event.message for event in events if isinstance(event, core.Warned)] == [
        "a.gguf.partial: begun by a run of other weights or choices, begun anew"
    ]
    assert not resumed(events)
    run(source, tmp_path / "b.gguf", plan="mxfp4")
    assert (tmp_path / TARGET).read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_what_somebody_else_put_there_is_left_alone(source: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "a.gguf.partial"
    thesis.write_text("years of work")
    with pytest.raises(core.ExportError, match="not made by this program"):
        run(source, tmp_path / TARGET)
    thesis.rename(tmp_path / "thesis")
    thesis.symlink_to(tmp_path / "thesis")
    with pytest.raises(core.ExportError, match="not made by this program"):
        run(source, tmp_path / TARGET)
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_a_second_run_to_the_same_file_is_refused(source: Path, tmp_path: Path) -> None:
    other = GgufRecords(tmp_path / TARGET, {}, 1, PackedResults([]))
    with other, pytest.raises(core.ExportError, match="another run writes this file"):
        run(source, tmp_path / TARGET)
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_was_stopped_is_gone_on_with(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "q", "--for", "llama.cpp", "--quiet").code == 0
    assert studio("convert", tmp_path / "q", tmp_path / "whole.gguf", "--layout", "gguf").code == 0
    with core.open_model(tmp_path / "q") as model, core.start(core.Machine(threads=2), model) as engine:
        *_, ended = core.transcode(engine, model, core.GGUF)
        assert isinstance(ended, core.Transcoded)
        steps: Any = core.write_gguf(engine, core.prepare_gguf_conversion(model, ended.transcoding, tmp_path / TARGET))
        for event in steps:
            if isinstance(event, core.LayerDone):
                break
        steps.close()
    ran = studio("convert", tmp_path / "q", tmp_path / TARGET, "--layout", "gguf")
    assert ran.code == 0
    assert (tmp_path / TARGET).read_bytes() == (tmp_path / "whole.gguf").read_bytes()
