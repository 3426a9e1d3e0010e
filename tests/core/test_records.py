"""Records: a shard is finished when its record says so; what can not be read is no reason to throw anything away."""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from studio import core
from studio.core.exporting import shards
from studio.core.exporting.contents import JOURNAL, MANIFEST, contents
from studio.core.exporting.layer_lines import LayerLines, layer_line, with_layers
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.records import read_record, without_statistics
from tests.core.checkpoints import checkpoint, llama, snapshot
from tests.core.conftest import Studio

PLAN = core.preset("linear")
SHARD = 40_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", llama(1))


class StopError(Exception):
    """A run ends here."""


def quantize(source: Path, target: Path, each: Callable[[core.Event], None] = lambda _: None) -> list[core.Event]:
    events = []
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        choices = core.resolve(PLAN, model)
        job = core.prepare(model, PLAN, choices, core.LAYOUTS["mlx"], target, shard_nbytes=SHARD)
        for event in core.export(engine, job):
            events.append(event)
            each(event)
    return events


@pytest.fixture
def clean(source: Path, tmp_path: Path) -> dict[str, str]:
    quantize(source, tmp_path / "clean")
    return snapshot(tmp_path / "clean")


@pytest.fixture
def stopped(source: Path, tmp_path: Path) -> Path:
    """The staging folder of a run that two shards are finished of."""
    written = []

    def stop(event: core.Event) -> None:
        if isinstance(event, core.ShardWritten):
            written.append(event.shard)
            if len(written) == 2:
                raise StopError

    with pytest.raises(StopError):
        quantize(source, tmp_path / "out", stop)
    return tmp_path / "out.partial"


def resumed(events: list[core.Event]) -> list[str]:
    return [event.shard for event in events if isinstance(event, core.Resumed)]


def test_a_finished_shard_has_a_record_and_the_journal_is_written_once(stopped: Path) -> None:
    records = sorted(stopped.glob("*.safetensors.json"))
    assert len(records) == 2
    for path in records:
        record = read_record(path)
        assert record is not None
        shard = stopped / record.shard
        assert (record.nbytes, record.sha256) == (shard.stat().st_size, sha256(shard.read_bytes()).hexdigest())
        assert json.loads(path.read_text())["layers"]
    assert set(json.loads((stopped / JOURNAL).read_text())) == {"identity"}
    assert (stopped / JOURNAL).stat().st_mtime_ns <= min(path.stat().st_mtime_ns for path in records)


def test_the_lines_of_the_records_are_those_of_the_manifest(source: Path, tmp_path: Path) -> None:
    lines: list[bytes] = []

    def keep(event: core.Event) -> None:
        if isinstance(event, core.ShardWritten):
            record = read_record(tmp_path / "out.partial" / f"{event.shard}.json")
            assert record is not None
            lines.extend(record.lines.lines())

    events = quantize(source, tmp_path / "out", keep)
    assert list(LayerLines(tmp_path / "out" / MANIFEST).lines()) == list(map(without_statistics, lines))
    assert not list((tmp_path / "out").glob("*.safetensors.json"))
    shards = json.loads((tmp_path / "out" / MANIFEST).read_text())["shards"]
    assert shards == {
        event.shard: {"nbytes": event.nbytes, "sha256": event.sha256}
        for event in events
        if isinstance(event, core.ShardWritten)
    }


def test_results_that_a_record_kept_are_those_that_were_measured(
    source: Path, tmp_path: Path, stopped: Path, clean: dict[str, str]
) -> None:
    assert stopped.exists()
    events = quantize(source, tmp_path / "out")
    whole = quantize(source, tmp_path / "again")
    assert len(resumed(events)) == 2
    assert isinstance(events[-1], core.Finished)
    assert isinstance(whole[-1], core.Finished)
    assert list(events[-1].outcome.layers) == list(whole[-1].outcome.layers)
    assert snapshot(tmp_path / "out") == clean


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"shard": "model.safetensors", "nbytes": 1, "sha256": "", "layers": []}',
        None,
        "cut",
        "flip",
        "short",
    ],
    ids=str,
)
def test_a_damaged_record_costs_its_shard_and_no_other(
    source: Path, tmp_path: Path, stopped: Path, clean: dict[str, str], damage: bytes | str | None
) -> None:
    first, second = sorted(stopped.glob("*.safetensors.json"))
    text = first.read_bytes()
    if damage is None:
        first.unlink()
    elif damage == "cut":
        first.write_bytes(text[: len(text) // 2])
    elif damage == "flip":
        first.write_bytes(text.replace(b'"layers"', b'"layerz"', 1))
    elif damage == "short":
        lines = text.split(b"\n")
        first.write_bytes(b"\n".join([*lines[:-5], lines[-5].rstrip(b","), *lines[-3:]]))
    else:
        first.write_bytes(damage)  # type: ignore[arg-type]
    events = quantize(source, tmp_path / "out")
    assert resumed(events) == [second.name.removesuffix(".json")]
    assert snapshot(tmp_path / "out") == clean


def test_a_shard_that_is_not_the_recorded_one_is_written_again(
    source: Path, tmp_path: Path, stopped: Path, clean: dict[str, str]
) -> None:
    shard = stopped / sorted(stopped.glob("*.safetensors.json"))[0].name.removesuffix(".json")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert len(resumed(quantize(source, tmp_path / "out"))) == 1
    assert snapshot(tmp_path / "out") == clean


@pytest.mark.parametrize("victim", [JOURNAL, ".safetensors.json"])
def test_what_can_not_be_read_now_is_kept_for_another_time(
    source: Path, tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    before = snapshot(stopped)
    real_open, real_read = os.open, Path.read_bytes

    def refuse(path: object, *rest: object, **named: object) -> int:
        if str(path).endswith(victim) and str(stopped) in str(path):
            raise OSError(5, os.strerror(5))
        return real_open(path, *rest, **named)  # type: ignore[arg-type]

    def read_bytes(self: Path) -> bytes:
        if str(self).endswith(victim):
            raise OSError(5, os.strerror(5))
        return real_read(self)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        patch.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(core.StudioError) as error:
            quantize(source, tmp_path / "out")
    assert "Input/output error" in str(error.value)
    assert "finished shards are kept" in error.value.hint or victim != JOURNAL
    assert snapshot(stopped) == before
    assert len(resumed(quantize(source, tmp_path / "out"))) == 2


def test_records_that_a_kill_left_in_an_export_are_ours(
    studio: Studio, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda path, **named: None if "out" in str(path) else real(path, **named))
        quantize(source, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors.json"))
    assert left
    assert not contents(tmp_path / "out").strangers
    ran = studio("verify", tmp_path / "out")
    assert ran.code == 0
    assert "not part of the export" not in ran.err
    assert studio("quantize", source, tmp_path / "out", "--overwrite").code == 0


def test_a_shard_never_holds_more_layers_than_are_known_at_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MOST_LAYERS", 3)
    with core.open_model(source) as model:
        job = core.prepare(model, PLAN, core.resolve(PLAN, model), core.LAYOUTS["mlx"], tmp_path / "out")
    assert len(job.shards) > 1
    assert all(len(shard.choices) <= 3 or shard.choices[0].layer.group for shard in job.shards)
    assert [c.layer.name for shard in job.shards for c in shard.choices] == [c.layer.name for c in job.choices]


# documents with a line per layer


def write(path: Path, head: dict[str, object], layers: list[dict[str, object]]) -> LayerLines:
    path.write_bytes(b"".join(with_layers(head, map(layer_line, layers))))
    return LayerLines(path)


@pytest.mark.parametrize(
    "layers", [[], [{"name": "a"}], [{"name": '",\n    ]"', "n": 1}, {"name": "\u2028 ü"}]], ids=str
)
def test_such_a_document_is_json_and_reads_line_by_line(tmp_path: Path, layers: list[dict[str, object]]) -> None:
    lines = write(tmp_path / "a.json", {"layout": "mlx", "of": [1, {"two": 2}]}, layers)
    assert json.loads((tmp_path / "a.json").read_bytes()) == {**lines.head, "layers": layers}
    assert list(lines.layers()) == layers
    assert len(list(lines.lines())) == len(layers)


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_the_same_in_other_lines_is_read_too(tmp_path: Path, indent: int | None) -> None:
    data = {"layout": "mlx", "layers": [{"name": "a"}, {"name": "b"}]}
    (tmp_path / "a.json").write_text(json.dumps(data, indent=indent))
    lines = LayerLines(tmp_path / "a.json")
    assert lines.head["layout"] == "mlx"
    assert list(lines.layers()) == data["layers"]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6, 8, 15])
def test_an_end_that_is_missing_is_noticed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.json"
    write(path, {"layout": "mlx"}, [{"name": "a"}, {"name": "b"}])
    path.write_bytes(path.read_bytes()[:-cut])
    if cut == 1:
        return  # the last line need not end
    with pytest.raises(core.CheckpointError):
        list(LayerLines(path).layers())


def test_the_statistics_are_cut_from_a_line_and_from_no_name() -> None:
    layer = {"name": 'a,"statistics":{}', "rel_err": 0.1}
    line = layer_line({**layer, "statistics": {"sigma": 1.0, "histogram": {"size": 80}}})
    assert json.loads(without_statistics(line)) == layer
    assert json.loads(without_statistics(layer_line(layer))) == layer


# exports of the first version


def as_schema_1(export: Path) -> None:
    """Write the manifest as the first version did."""
    found = Manifest(export)
    entries = list(found.entries())
    data = json.loads((export / MANIFEST).read_text())
    tensors: dict[str, dict[str, str]] = {shard: {} for shard in data.pop("shards")}
    data["schema"], data["layers"] = 1, []
    for entry in entries:
        parts = [{"name": m.name, "rows": m.rows, "columns": m.columns, "parts": []} for m in entry.matrices]
        for matrix, there in zip(entry.matrices, parts, strict=True):
            there["parts"] = [_part(part) for part in matrix.parts]
        kept = [_part(part) for part in entry.kept]
        for part in [*kept, *(part for matrix in parts for part in matrix["parts"])]:  # type: ignore[misc]
            tensors[entry.shard][part["name"]] = "0" * 64
        result = entry.result.to_json()
        result.pop("statistics")
        data["layers"].append({**result, "shard": entry.shard, "matrices": parts, "kept": kept})
    path = export / MANIFEST
    path.write_text(json.dumps({**data, "tensors": tensors}, indent=2))
    sums = (export / "SHA256SUMS").read_text().splitlines()
    digest = f"{sha256(path.read_bytes()).hexdigest()}  {path.name}"
    (export / "SHA256SUMS").write_text("".join(f"{digest if line.endswith(path.name) else line}\n" for line in sums))


def _part(part: object) -> dict[str, object]:
    names = ("content", "name", "dtype", "shape", "nbytes", "offset")
    data = {name: getattr(part, name) for name in names}
    return data if data["offset"] else {name: value for name, value in data.items() if name != "offset"}


@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_an_export_of_the_first_version_is_verified_and_replaced(
    studio: Studio, source: Path, tmp_path: Path, layout: str
) -> None:
    target = tmp_path / "out"
    assert studio("quantize", source, target, "--layout", layout).code == 0
    as_schema_1(target)
    assert studio("verify", target, "--source", source).code == 0
    assert core.exported_results(target)
    assert studio("quantize", source, target, "--layout", layout, "--overwrite").code == 0
    assert json.loads((target / MANIFEST).read_text())["schema"] == 2
