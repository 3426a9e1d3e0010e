"""plan with a budget, on the command line: what it writes holds, and what does not go together is refused."""

import json
from pathlib import Path

import pytest

from studio import core
from studio.cli.app import main
from tests.core.budgets.conftest import mixture
from tests.core.checkpoints import CONFIG, checkpoint, llama
from tests.core.conftest import Studio


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", llama(2, hidden=128))


def test_a_plan_within_a_size_is_exported_within_it(studio: Studio, source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    ran = studio("plan", source, "--target-size", "300K", "--out", plan)
    assert ran.code == 0, ran.err
    assert "this mix" in ran.out
    assert "no mix within the budget is better" in ran.out
    assert studio("quantize", source, tmp_path / "out", "--plan", plan).code == 0
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert 200_000 < written <= 300_000
    told = core.load_plan(plan).prediction
    with core.open_model(source) as model:
        candidate = core.as_planned(model, core.load_plan(plan))
        assert candidate.predicted is None
        assert told.nbytes <= written


def test_the_card_of_an_export_says_what_the_budget_bought(studio: Studio, source: Path, tmp_path: Path) -> None:
    plan, other = tmp_path / "plan.json", tmp_path / "other.json"
    assert studio("plan", source, "--bits", "7", "--out", plan).code == 0
    data = json.loads(plan.read_text())
    told = data["prediction"]
    assert len(told["curve"]) > 5
    assert "int8-g64/max" in [name for name, _, _ in told["singles"]]
    told |= {"kl": 0.25, "noise": 0.01, "texts": [["a|b.txt", "ab" * 32]], "statistics": "cd" * 32}
    plan.write_text(json.dumps(data))
    told["weights"] = "0" * 32
    other.write_text(json.dumps(data))
    for path in (plan, other):
        assert studio("quantize", source, tmp_path / path.stem, "--plan", path).code == 0
    card = (tmp_path / "plan" / "README.md").read_text()
    assert "## What the budget bought" in card
    assert "| **this mix** |" in card
    assert "**0.25 ± 0.01**" in card
    assert card.count("| best mix |") == len(told["curve"])
    assert "TEXT a\\|b.txt abababababababab" in card
    assert "What the budget bought" not in (tmp_path / "other" / "README.md").read_text()
    bits = card.partition("--bits ")[2].split()[0]
    assert "--statistics STATS --probe --text TEXT" in card
    again = tmp_path / "again.json"
    assert studio("plan", source, "--bits", bits, "--out", again).code == 0
    assert core.load_plan(again).rules == core.load_plan(plan).rules


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("curve", [[1]], "curve must be a list of lists of 2"),
        ("singles", [[1, 2, 3]], "singles holds 1"),
        ("texts", {}, "texts must be"),
        ("noise", -1, "noise must be"),
    ],
)
def test_a_damaged_prediction_is_refused(key: str, value: object, word: str) -> None:
    told = {"weights": "", "nbytes": 1, "rel_err": 0.1, "damage": 0.1, key: value}
    with pytest.raises(core.PlanError, match=word):
        core.plan_from_json({"schema": 1, "rules": [], "prediction": told})


def test_a_plan_says_nothing_of_other_weights(source: Path, studio: Studio, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert studio("plan", source, "--bits", "7", "--out", plan).code == 0
    data = json.loads(plan.read_text())
    data["prediction"]["kl"] = 0.25
    found = core.plan_from_json(data)
    other = checkpoint(
        tmp_path / "other", {**llama(2, hidden=128), "model.norm.weight": llama(hidden=128)["lm_head.weight"][0]}
    )
    with core.open_model(source) as model, core.open_model(other) as changed:
        assert core.as_planned(model, found).predicted == 0.25
        assert (
            core.as_planned(model, found.preceded_by([core.Rule(names=("*.0.*o_proj",), format="mxfp4")])).predicted
            is None
        )
        assert core.as_planned(changed, found).predicted is None


def test_bits_pins_and_forbidden_formats_hold(studio: Studio, tmp_path: Path) -> None:
    config = {**CONFIG, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 3}
    source, plan = checkpoint(tmp_path / "model", mixture(), config=config), tmp_path / "plan.json"
    options = ["--bits", "7.5", "--pin", "*.0.*down_proj=mxfp8", "--forbid", "int8-g64", "--forbid", "keep", "--json"]
    ran = studio("plan", source, *options, "--out", plan)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in ran.out.splitlines()]
    told = next(line for line in lines if line["event"] == "budget")
    mine = next(mix for mix in told["mixes"] if mix["name"] == "this mix")
    assert mine["bits_per_weight"] <= 7.5
    with core.open_model(source) as model:
        choices = core.resolve(core.load_plan(plan), model)
        assert sum(choice.nbytes for choice in choices) == mine["nbytes"]
        down = {c.format for c in choices if "layers.0.mlp.experts" in c.layer.name and "down" in c.layer.name}
        assert down == {"mxfp8"}
        assert "int8-g64" not in {choice.format for choice in choices}
        assert all(choice.recipe for choice in choices if choice.layer.role in ("linear", "expert"))


def test_every_layer_keeps_a_relative_error(studio: Studio, source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert studio("plan", source, "--max-rel-err", "0.1", "--out", plan).code == 0
    assert studio("measure", source, "--plan", plan, "--max-rel-err", "0.1").code == 0
    assert studio("plan", source, "--max-rel-err", "0.1", "--forbid", "mxfp8", "--layout", "modelopt").code == 0


def test_the_same_command_gives_the_same_plan(studio: Studio, source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert studio("plan", source, "--bits", "8", "--out", tmp_path / name).code == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_plan_is_made_anew_from_what_it_was_made_from(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("plan", source, "--bits", "9", "--exclude", "*.0.*o_proj", "--out", tmp_path / "one").code == 0
    assert studio("plan", source, "--bits", "7", "--exclude", "*.0.*o_proj", "--out", tmp_path / "two").code == 0
    assert studio("plan", source, "--bits", "7", "--plan", tmp_path / "one", "--out", tmp_path / "again").code == 0
    again, two = (core.load_plan(tmp_path / name) for name in ("again", "two"))
    assert (again.rules, again.prediction) == (two.rules, two.prediction)


def test_what_does_not_go_together_is_refused(studio: Studio, source: Path, tmp_path: Path) -> None:
    refusals = {
        ("--report", str(tmp_path / "r")): "are for a plan within a budget",
        ("--pin", "*o_proj=mxfp8"): "are for a plan within a budget",
        ("--bits", "6", "--format", "mxfp4"): "--format does not go with a budget",
        ("--bits", "6", "--lift"): "--lift does not go with a budget",
        ("--bits", "6", "--pin", "*o_proj"): "a pin names a format",
        ("--bits", "6", "--pin", "*nothing=mxfp8"): "matches no layer",
        ("--bits", "9", "--pin", "*o_proj=mxfp8", "--pin", "*o_proj=mxfp4"): "pins nothing that those before it leave",
        ("--bits", "5", "--pin", "*o_proj=mxfp8"): "bytes those that have one format to choose",
        ("--bits", "2"): "5.586 bits per weight",
        ("--bits", "9", "--text", str(tmp_path / "none.txt")): "none.txt",
        ("--target-size", "10K"): "the smallest export takes",
        ("--bits", "6", "--out", str(tmp_path / "missing" / "plan.json")): "missing",
    }
    for options, words in refusals.items():
        ran = studio("plan", source, *options)
        assert (ran.code, words in ran.err) == (4 if "missing" in words else 2, True), ran.err
    with pytest.raises(SystemExit):
        main(["plan", str(source), "--bits", "6", "--max-kl", "0.1"])


def test_a_plan_for_a_file_for_llama_cpp_fits_into_it(studio: Studio, tmp_path: Path) -> None:
    plan, target, file = tmp_path / "plan.json", 4_300_000, tmp_path / "demo.gguf"
    ran = studio("plan", core.demo_checkpoint(), "--layout", "gguf", "--target-size", target, "--out", plan)
    assert ran.code == 0, ran.err
    used = {rule.format for rule in core.load_plan(plan).rules if rule.format}
    assert used <= {"nvfp4-2t", "nvfp4-3t", "mxfp4", "keep"}
    assert len(used) > 1
    assert studio("gguf", core.demo_checkpoint(), file, "--plan", plan).code == 0
    assert target - 50_000 < file.stat().st_size <= target
    with core.open_model(core.demo_checkpoint()) as model:
        choices = core.resolve(core.load_plan(plan), model)
        tensors = sum(choice.nbytes for choice in core.sized_in(model, choices, core.GGUF))
        assert core.load_plan(plan).prediction.nbytes == tensors
        job = core.prepare_gguf(model, choices, tmp_path / "other.gguf")
        assert sum(tensor.nbytes for tensor in job.tensors.values()) == tensors
