"""The command line: each command by what it prints, writes and returns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio import core
from studio.cli.app import main
from tests.core.checkpoints import checkpoint, gaussian, llama, snapshot
from tests.core.conftest import Studio


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model")


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_inspect_lists_every_layer(studio: Studio, source: Path) -> None:
    ran = studio("inspect", source)
    assert ran.code == 0
    assert "model.layers.1.mlp.down_proj" in ran.out
    assert "LlamaForCausalLM" in ran.out


def test_plan_says_what_becomes_of_each_layer_and_saves_it(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("plan", source, "--exclude", "*o_proj", "--include", "lm_head=mxfp8", "--save", tmp_path / "p.json")
    assert ran.code == 0
    assert "excluded on the command line" in ran.out
    rows = {line.split()[0]: line for line in ran.out.splitlines() if line.startswith(("model.", "lm_head"))}
    assert " mxfp8 " in rows["lm_head"]
    assert " keep " in rows["model.layers.0.self_attn.o_proj"]
    again = studio("plan", source, "--plan", tmp_path / "p.json")
    assert again.out.splitlines()[:20] == ran.out.splitlines()[:20]


def test_plan_refuses_a_layout_that_can_not_store_it(studio: Studio, source: Path) -> None:
    ran = studio("plan", source, "--format", "int4-g32", "--layout", "modelopt")
    assert ran.code == 2
    assert "can not store int4-g32" in ran.err


def test_measure_writes_nothing_but_the_reports(studio: Studio, source: Path, tmp_path: Path) -> None:
    before = snapshot(source)
    ran = studio("measure", source, "--report", tmp_path / "report")
    assert ran.code == 0
    assert snapshot(source) == before
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["report.csv", "report.html", "report.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "report"]


def test_json_lines_carry_the_events_and_nothing_else(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("quantize", source, tmp_path / "out", "--json")
    events = lines(ran.out)
    assert [event["event"] for event in events][:3] == ["backend", "export", "started"]
    assert [event["event"] for event in events][-2:] == ["report", "finished"]
    layers = [event for event in events if event["event"] == "layer"]
    with core.open_model(source) as model:
        assert sorted(str(layer["name"]) for layer in layers) == sorted(model.by_name)


def test_a_threshold_that_is_exceeded_ends_with_1_and_names_the_layer(studio: Studio, source: Path) -> None:
    assert studio("measure", source, "--max-rel-err", "0.5").code == 0
    ran = studio("measure", source, "--max-rel-err", "0.05")
    assert ran.code == 1
    assert "exceed a relative error of 0.05" in ran.err
    assert "model.layers." in ran.err


def test_dry_run_writes_nothing_and_states_the_exact_size(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("quantize", source, tmp_path / "out", "--dry-run")
    assert ran.code == 0
    assert "Would write" in ran.out
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_shards_are_cut_at_the_size_asked_for_and_indexed(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("quantize", source, tmp_path / "out", "--shard-size", "20k", "--layout", "compressed-tensors")
    assert ran.code == 0, ran.err
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(set(index["weight_map"].values())) == shards
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


def test_overwrite_replaces_an_older_export(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "out").code == 0
    assert studio("quantize", source, tmp_path / "out").code == 4
    assert studio("quantize", source, tmp_path / "out", "--overwrite", "--format", "mxfp8").code == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]["mode"] == "mxfp8"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "out"]


def test_every_source_dtype_is_quantized(studio: Studio, tmp_path: Path) -> None:
    for name in ("float16", "float32"):
        source = checkpoint(tmp_path / name, llama(1, dtype=name))
        assert studio("quantize", source, tmp_path / f"{name}-out", "--format", "int4-g32").code == 0
        assert studio("verify", tmp_path / f"{name}-out", "--source", source).code == 0


def test_a_single_file_is_a_checkpoint_too(studio: Studio, source: Path, tmp_path: Path) -> None:
    file = tmp_path / "alone" / "weights.safetensors"
    file.parent.mkdir()
    (source / "model.safetensors").rename(file)
    assert studio("quantize", file, tmp_path / "out", "--layout", "modelopt").code == 0
    assert studio("verify", tmp_path / "out", "--source", file).code == 0


def test_the_mx_rule_can_be_that_of_the_standard(studio: Studio, source: Path) -> None:
    errors = []
    for rule in ("ceil", "floor"):
        ran = studio("measure", source, "--format", "mxfp4", "--method", "max", "--mx-exponent", rule, "--json")
        errors.append(lines(ran.out)[-1]["rel_err"])
    assert errors[0] != errors[1]


def test_demo_goes_the_whole_way_and_may_be_repeated(studio: Studio, tmp_path: Path) -> None:
    for _ in range(2):
        ran = studio("demo", tmp_path / "demo")
        assert ran.code == 0, ran.err
        assert "verified against the source" in ran.out
        assert "Next:" in ran.out
    assert (tmp_path / "demo-report" / "report.html").exists()
    assert all(name in ran.out for name in core.FORMATS)


def test_demo_never_replaces_a_folder_of_somebody_else(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years of work")
    assert studio("demo", tmp_path / "demo").code == 4
    assert (tmp_path / "demo" / "thesis.txt").read_text() == "years of work"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(core.__file__).parents[2])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=True)


def test_the_command_line_imports_no_qt_no_mlx_and_no_torch() -> None:
    heavy = ("PySide6", "mlx", "torch", "rich", "jinja2")
    code = f"import sys, studio.cli.app; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_odd_scales_of_small_weights_are_told(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "small", {"model.layers.0.mlp.up_proj.weight": gaussian(64, 64, sigma=1e-4)})
    ran = studio("measure", source, "--format", "nvfp4-2t")
    assert "became zero" in ran.err
    assert studio("measure", source, "--format", "nvfp4-3t", "--quiet").err == ""
    assert "warning" not in studio("measure", source, "--format", "nvfp4-3t").err


def test_a_bug_ends_with_70_and_a_traceback(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "measure", lambda *_: 1 / 0)
        code = main(["measure", str(source)])
    assert code == core.BUG
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_validate_prints_its_tables_and_passes(studio: Studio) -> None:
    pytest.importorskip("mlx.core", reason="the operations need mlx: pip install 'nvfp4-studio[gpu]'")
    ran = studio("validate", "--quick", "--backend", "cpu")
    assert ran.code == 0
    assert "all passed" in ran.out
    assert json.loads(studio("validate", "--quick", "--json").out)["passed"] is True
