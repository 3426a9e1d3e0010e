"""What the command line promises: refusals before the work, JSON that is JSON, sizes to the byte, patterns as meant."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from studio import core
from studio.cli.app import main
from studio.cli.console import Console
from tests.core.checkpoints import BF16, QUERY, checkpoint, gaussian, llama, snapshot, tensors_of, write_json
from tests.core.conftest import Refused, Studio
from tests.core.statistics_files import statistics_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model")


def events(text: str) -> dict[str, list[dict[str, object]]]:
    """JSON lines by the kind of their event."""
    found: dict[str, list[dict[str, object]]] = {}
    for line in text.splitlines():
        event = json.loads(line)
        found.setdefault(event["event"], []).append(event)
    return found


def put_in_the_way(kind: str, report: Path) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a file":
        report.write_text("")
    elif kind == "a folder named like a report":
        (report / "report.html").mkdir(parents=True)
    elif kind == "a fifo named like a report":
        report.mkdir()
        os.mkfifo(report / "report.csv")
    else:
        report.symlink_to("/proc/nothing")


@pytest.mark.parametrize(
    "kind", ["a file", "a folder named like a report", "a fifo named like a report", "a link to where nothing can be"]
)
@pytest.mark.parametrize("command", ["measure", "quantize"])
def test_a_report_that_can_not_be_written_is_refused_before_any_work(
    studio: Studio, source: Path, tmp_path: Path, command: str, kind: str
) -> None:
    put_in_the_way(kind, tmp_path / "report")
    before = snapshot(tmp_path)
    ran = studio(
        command, source, *([tmp_path / "out"] if command == "quantize" else []), "--report", tmp_path / "report"
    )
    assert ran.code == 4
    assert ran.err.startswith("error: ")
    assert "backend" not in ran.err
    assert snapshot(tmp_path) == before


def test_looking_whether_a_report_can_be_written_leaves_everything_as_it_was(
    studio: Studio, source: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "report.csv").write_text("kept")
    before = snapshot(tmp_path)
    for report in (old, tmp_path / "new" / "inside"):
        assert studio("quantize", source, tmp_path / "out", "--dry-run", "--report", report).code == 0
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf", "-0.1", "x", "", "1e999"])
def test_a_threshold_that_is_no_number_from_zero_on_is_refused(
    source: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["measure", str(source), f"--max-rel-err={value}"])
    assert ended.value.code == 2
    assert "--max-rel-err" in capsys.readouterr().err


def test_an_error_that_is_no_number_is_within_no_threshold(
    studio: Studio, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.LayerResult, "rel_err", property(lambda r: math.nan if "q_proj" in r.name else 0.0))
    ran = studio("measure", source, "--max-rel-err", "0.5")
    assert ran.code == 1
    assert "2 layers exceed" in ran.err
    assert "q_proj" in ran.err


@pytest.mark.parametrize("backend", ["cpu", "numpy", "reference"])
@pytest.mark.parametrize("name", ["int4-g32", "int4-g64", "int8-g64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_affine_scales_that_overflow_are_the_fault_of_the_layer_and_never_of_the_disk(
    refused: Refused, studio: Studio, tmp_path: Path, name: str, backend: str, dtype: str
) -> None:
    signs = np.sign(np.random.default_rng(0).standard_normal((64, 64)))
    large = (signs * 3e38).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    source = checkpoint(tmp_path / "model", {**llama(1), QUERY: large})
    options = ("--format", name, "--backend", backend)
    said = refused(source, QUERY, "so large", name, "keep it", options=options)
    assert "disk" not in said
    refused(source, QUERY, "so large", options=options, command="measure")
    assert studio("quantize", source, tmp_path / "out", *options, "--exclude", "*q_proj").code == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16", "cp1252"])
def test_json_is_utf_8_whatever_the_encoding_of_the_terminal_is(tmp_path: Path, encoding: str) -> None:
    source = checkpoint(tmp_path / "mod\u00e8le \u6a21", {**llama(1), "\u4e2d\u6587.weight": gaussian(16, 16)})
    environment = {**os.environ, "PYTHONPATH": str(Path(core.__file__).parents[2]), "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "studio", "inspect", str(source), "--json"]
    ran = subprocess.run(command, capture_output=True, env=environment, check=True)
    found = events(ran.stdout.decode("utf-8"))
    assert found["model"][0]["name"] == "mod\u00e8le \u6a21"
    assert "\u4e2d\u6587" in {layer["name"] for layer in found["layer"]}


def test_json_holds_the_warnings_the_backend_the_export_the_report_and_the_summary(
    studio: Studio, source: Path, tmp_path: Path
) -> None:
    (source / "logo.png").write_bytes(b"")
    ran = studio("quantize", source, tmp_path / "out", "--json", "--report", tmp_path / "report", "--backend", "numpy")
    assert ran.code == 0
    found = events(ran.out)
    assert "logo.png" in str(found["warning"][0]["message"])
    assert (found["backend"][0]["name"], found["backend"][0]["title"]) == ("numpy", "numpy")
    (export,) = found["export"]
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    (report,) = found["report"]
    assert report["paths"] == [str(tmp_path / "report" / f"report.{kind}") for kind in ("json", "csv", "html")]
    assert {key: value for key, value in report.items() if key not in ("event", "paths")} == {
        key: value for key, value in written.items() if key != "layers"
    }
    assert written["backend"] == "numpy"
    assert written["layout"] == export["layout"] == "mlx"
    assert written["cautions"] == export["cautions"]
    assert any("trust_remote_code" in str(sentence) for sentence in written["cautions"])
    assert report["summary"] == {key: found["finished"][0][key] for key in written["summary"]}
    assert "computed by numpy" in (tmp_path / "report" / "report.html").read_text()


def test_json_of_a_dry_run_holds_the_shards_that_would_be_written(studio: Studio, source: Path, tmp_path: Path) -> None:
    options = ("--shard-size", "40k", "--layout", "modelopt", "--format", "nvfp4-2t")
    (export,) = events(studio("quantize", source, tmp_path / "out", "--dry-run", "--json", *options).out)["export"]
    assert export["dry_run"] is True
    assert studio("quantize", source, tmp_path / "out", *options).code == 0
    for shard in export["shards"]:  # type: ignore[attr-defined]
        assert (tmp_path / "out" / shard["name"]).stat().st_size == shard["nbytes"]
    assert len(export["shards"]) == len(list((tmp_path / "out").glob("*.safetensors"))) > 1  # type: ignore[arg-type]


def test_a_dry_run_says_the_cautions_too(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert "Note: three tiers" in studio("quantize", source, tmp_path / "out", "--dry-run").out


@pytest.mark.sampled(2)
@pytest.mark.parametrize("command", ["measure", "quantize", "verify", "demo"])
def test_what_computes_is_named(studio: Studio, source: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    assert studio("quantize", source, out).code == 0
    arguments = {"measure": [source], "quantize": [source, tmp_path / "two"], "verify": [out], "demo": [tmp_path / "d"]}
    ran = studio(command, *arguments[command], "--backend", "numpy")
    assert "backend: numpy" in ran.out + ran.err


CASES = [(layout.name, name) for layout in core.LAYOUTS.values() for name in layout.formats if name in core.FORMATS]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("layout", "name"), CASES)
def test_sizes_are_exact_to_the_byte_in_every_layout(
    studio: Studio, source: Path, tmp_path: Path, layout: str, name: str
) -> None:
    options: tuple[object, ...] = ("--layout", layout, "--format", name, "--json")
    if name in core.LAYOUTS[layout].static_inputs:
        with core.open_model(source) as model:
            options += ("--statistics", statistics_of(model, tmp_path / "statistics"))
    plan = events(studio("plan", source, *options).out)
    done = events(studio("quantize", source, tmp_path / "out", *options).out)
    stored = sum(tensor.nbytes for tensor in tensors_of(tmp_path / "out" / "model.safetensors").values())
    assert plan["plan"][0]["nbytes_after"] == done["finished"][0]["nbytes_out"] == stored
    assert plan["plan"][0]["layout"] == layout
    each = {choice["name"]: choice["nbytes"] for choice in plan["choice"]}
    assert each == {layer["name"]: layer["nbytes_out"] for layer in done["layer"]}


def test_a_plan_without_a_layout_says_whose_sizes_it_shows(studio: Studio, source: Path) -> None:
    assert "Sizes are those of the layout mlx, the default" in studio("plan", source).out
    assert "Sizes are those" not in studio("plan", source, "--layout", "modelopt").out


def test_progress_ends_at_the_work_that_was_announced(source: Path, tmp_path: Path) -> None:
    plan = core.preset("linear").with_format("nvfp4-2t")
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["modelopt"], tmp_path / "out")
        found = list(core.export(engine, job))
    assert [e.done for e in found if isinstance(e, core.Progress)][-1] == job.work


INCLUDES = {
    "re:(?=.*down)model.*": ("re:(?=.*down)model.*", "mxfp8"),
    "re:(?=.*down).*=int8-g64": ("re:(?=.*down).*", "int8-g64"),
    "re:x(?<=down_proj)": ("re:x(?<=down_proj)", "mxfp8"),
    "re:a=b": ("re:a=b", "mxfp8"),
    "*down_proj=keep": ("*down_proj", "keep"),
    "*down_proj": ("*down_proj", "mxfp8"),
    "a=b=nvfp4-2t": ("a=b", "nvfp4-2t"),
}


@pytest.mark.parametrize("text", INCLUDES)
def test_a_pattern_is_split_at_the_name_of_a_format_alone(text: str) -> None:
    pattern, name = INCLUDES[text]
    assert core.include_rule(text, "mxfp8") == core.Rule(names=(pattern,), format=name)


@pytest.mark.parametrize("text", ["*down_proj=nvfp5", "*down_proj=", "a=b"])
def test_a_glob_with_a_format_that_is_none_lists_the_formats(studio: Studio, source: Path, text: str) -> None:
    ran = studio("plan", source, "--include", text)
    assert ran.code == 2
    assert "unknown format" in ran.err
    assert all(name in ran.err for name in core.FORMATS)


def test_a_look_ahead_reaches_the_layers_that_it_means(studio: Studio, source: Path) -> None:
    plan = events(studio("plan", source, "--include", "re:(?=.*down)model", "--exclude", "*", "--json").out)
    assert all(choice["format"] == "keep" for choice in plan["choice"])
    plan = events(studio("plan", source, "--preset", "experts", "--include", "re:^(?=.*down)model", "--json").out)
    chosen = [str(choice["name"]) for choice in plan["choice"] if choice["format"] != "keep"]
    assert chosen == [f"model.layers.{block}.mlp.down_proj" for block in (0, 1)]


@pytest.mark.parametrize("layout", core.LAYOUTS)
def test_the_hint_after_a_refused_layout_names_others_that_really_store_the_plan(source: Path, layout: str) -> None:
    with core.open_model(source) as model:
        choices = core.resolve(core.preset("all").with_format("nvfp4-2t"), model)
        refusing = type("Refusing", (type(core.LAYOUTS[layout]),), {"refusals": lambda *_: ["no"]})()
        with pytest.raises(core.PlanError) as refusal:
            core.refuse(model, choices, refusing, ["no"])
    assert layout not in refusal.value.hint.split(": ")[-1].split(", ")
    assert ("mlx" in refusal.value.hint) == (layout != "mlx"), "an embedding can be stored there alone"


def test_plan_and_quantize_give_the_same_hint(studio: Studio, source: Path, tmp_path: Path) -> None:
    options = ("--format", "int4-g32", "--layout", "modelopt")
    hints = [studio("plan", source, *options).err, studio("quantize", source, tmp_path / "out", *options).err]
    assert all("hint: layouts that store this plan: mlx\n" in hint for hint in hints)


def test_threads_are_honoured_on_a_system_that_does_not_count_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert core.Machine(threads=3).workers == 3
    assert core.Machine().workers == os.cpu_count()


NOTHING = {
    "no tensors": ({}, "the checkpoint holds no tensors"),
    "norms alone": ({"model.norm.weight": np.ones(64, BF16)}, "1 x norms"),
    "no width that fits": ({"model.layers.0.mlp.up_proj.weight": gaussian(8, 20)}, "its width 20"),
}


@pytest.mark.parametrize("case", NOTHING)
@pytest.mark.parametrize("preset", core.preset_names())
def test_a_checkpoint_with_nothing_to_quantize_is_shown_and_says_why(
    studio: Studio, tmp_path: Path, refused: Refused, case: str, preset: str
) -> None:
    tensors, why = NOTHING[case]
    source = checkpoint(tmp_path / "model", tensors)
    assert studio("inspect", source).code == 0
    ran = studio("plan", source, "--preset", preset)
    assert ran.code == 0
    assert f"Nothing will be quantized: {'the plan keeps every layer: ' if tensors else ''}" in ran.out
    assert why in ran.out or (tensors and preset != "linear")
    assert studio("measure", source, "--preset", preset).code == 0
    refused(source, "nothing to quantize", options=("--preset", preset))


def test_a_rule_of_a_plan_file_still_must_match(studio: Studio, source: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", {"schema": 1, "rules": [{"names": ["*ghost"]}]})
    ran = studio("plan", source, "--plan", tmp_path / "plan.json")
    assert ran.code == 2
    assert "the rule for *ghost matches no layer" in ran.err


def test_a_table_keeps_the_end_of_a_name_where_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("studio.cli.console.WIDE", 50)
    rows = [("model.layers.10.self_attn.q_proj", "64 x 64", "kept"), ("模型.norm", "64", "norms are never quantized")]
    Console().table(("layer", ">shape", "note"), rows)
    assert capsys.readouterr().out.splitlines() == [
        "layer                           shape  note",
        "….layers.10.self_attn.q_proj  64 x 64  kept",
        "模型.norm                          64  norms are never quantized",
    ]
