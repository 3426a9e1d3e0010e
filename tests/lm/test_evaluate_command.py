"""`evaluate` and `generate` on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio import core
from tests.core.conftest import Studio
from tests.lm.models import write_llama, write_text

for needed in ("torch", "transformers", "mlx_lm"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")

SMALL = ("--windows", "3", "--length", "24", "--runtime", "mlx-lm")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "llama")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    core.save_plan(core.preset("linear"), tmp_path / "mine.json")
    return tmp_path / "mine.json"


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_an_evaluation_is_told_as_json_and_written(
    studio: Studio, source: Path, text: Path, plan: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "result.json", tmp_path / "report"
    ran = studio(
        "evaluate", source, "--plans", plan, "--text", text, "--json", "--cache", tmp_path / "cache", *SMALL,
        "--out", out, "--report", report, "--max-kl", "0.001", "--max-ppl-increase", "1000%",
    )  # fmt: skip
    events = lines(ran.out)
    assert [event["event"] for event in events] == [
        "backend", "occupies", "started", "model", "model", "finished", "error",
    ]  # fmt: skip
    row = events[4]
    assert (row["name"], row["format"]) == ("mine", "nvfp4-3t")
    assert all(row[key]["noise"] > 0 for key in ("perplexity", "kl", "top1"))
    assert ran.code == 1
    assert "mine: KL to the source" in events[-1]["message"]
    assert "perplexity" not in events[-1]["message"]
    written = json.loads(out.read_text())
    assert written == json.loads((report / "quality.json").read_text())
    assert written["models"][0]["kl"] == row["kl"]
    page = (report / "quality.html").read_text()
    assert f"{row['kl']['value']:.4f} ± {row['kl']['noise']:.4f}" in page
    assert "<script" not in page
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.proof
def test_people_see_a_row_per_model(studio: Studio, source: Path, text: Path, tmp_path: Path) -> None:
    ran = studio("evaluate", source, "--text", text, "--cache", tmp_path / "cache", *SMALL)
    assert ran.code == 0
    assert "llama" in ran.out.splitlines()[1]
    assert "3 windows of 24 tokens, mlx-lm" in ran.out
    assert "--against SRC adds KL" in ran.out


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "the text is empty"), (b"ab\0cd" * 100, "not a text"), (b"Too short.", "the text is too short")],
)
def test_a_text_that_can_not_serve_is_refused(
    studio: Studio, source: Path, tmp_path: Path, content: bytes, word: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    ran = studio("evaluate", source, "--text", path, "--cache", tmp_path / "cache", *SMALL)
    assert ran.code == 2
    assert word in ran.err
    assert "bad.txt" in ran.err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--max-kl", "0.1"), "without its source"),
        (("--max-ppl-increase", "5%"), "without its source"),
        (("--text", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_what_can_not_be_told_is_refused(
    studio: Studio, source: Path, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    ran = studio("evaluate", source, "--cache", tmp_path / "cache", *options)
    assert ran.code == 2
    assert word in ran.err


@pytest.mark.parametrize(
    "options",
    [("--seed", "-1"), ("--windows", "0"), ("--length", "x"), ("--max-kl", "nan"), ("--max-ppl-increase", "%")],
)
def test_numbers_that_make_no_sense_are_refused_at_once(studio: Studio, source: Path, options: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as refused:
        studio("evaluate", source, *options)
    assert refused.value.code == 2


def test_plans_need_one_checkpoint(studio: Studio, source: Path, plan: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "export", "--quiet").code == 0
    for folders, word in (([tmp_path / "export"], "already quantized"), ([source, source], "--plans need one")):
        ran = studio("evaluate", *folders, "--plans", plan, "--cache", tmp_path / "cache")
        assert ran.code == 2
        assert word in ran.err
    ran = studio("evaluate", source, "--against", tmp_path / "export", "--cache", tmp_path / "cache")
    assert ran.code == 2
    assert "an export is no source" in ran.err


def test_a_disk_that_is_too_small_is_told_before_anything_runs(
    studio: Studio, source: Path, text: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    ran = studio("evaluate", source, "--plans", plan, "--text", text, "--cache", tmp_path / "cache", *SMALL)
    assert ran.code == 4
    assert "not enough disk space" in ran.err
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_limit_of_memory_is_kept_by_refusing(studio: Studio, source: Path, text: Path, tmp_path: Path) -> None:
    told = ("--text", text, "--cache", tmp_path / "cache", *SMALL, "--max-memory")
    for command in (
        ("evaluate", source, *told),
        ("generate", source, "A", "--cache", tmp_path / "cache", "--max-memory"),
    ):
        ran = studio(*command, "100M")
        assert ran.code == 3
        assert "of memory, 100 MB (100,000,000 bytes) are allowed" in ran.err
    assert not (tmp_path / "cache").exists()


@pytest.mark.proof
def test_a_prompt_is_continued_side_by_side(studio: Studio, source: Path, plan: Path, tmp_path: Path) -> None:
    ran = studio(
        "generate", source, "Sentence number", "--plan", plan, "--length", "6", "--json",
        "--cache", tmp_path / "cache", "--runtime", "mlx-lm",
    )  # fmt: skip
    assert ran.code == 0
    tokens = [event for event in lines(ran.out) if event["event"] == "token"]
    sides = {side: [event["token"] for event in tokens if event["side"] == side] for side in ("source", "model")}
    differs = [event["index"] for event in tokens if event["differs"]]
    first = next((i for i, pair in enumerate(zip(*sides.values(), strict=True)) if len(set(pair)) > 1), None)
    assert len(sides["source"]) == len(sides["model"]) == 6
    assert lines(ran.out)[-1] == {"event": "finished", "differs_at": first}
    assert differs == ([] if first is None else [first, first])


@pytest.mark.proof
def test_chat_needs_a_template(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("generate", source, "Hello", "--chat", "--cache", tmp_path / "cache", "--runtime", "mlx-lm")
    assert ran.code == 2
    assert "has no chat template" in ran.err
