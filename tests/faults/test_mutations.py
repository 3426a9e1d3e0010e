"""The mutations in short, and that they find what is wrong, the same way each time."""

import json
import time
from pathlib import Path

import pytest

from studio import core
from tests.faults.mutants import Document
from tests.faults.mutation_targets import Target, targets, words
from tests.faults.mutations import SLOW_SECONDS, Round, run_round

MUTANTS = 20
GOOD = Document("json", json.dumps({"a": {"b": 1}, "words": ["x", "y"]}))


def test_a_few_mutants_of_every_layout_get_an_answer(tmp_path: Path) -> None:
    for target in targets(tmp_path):
        tally = Round(target, words(), tmp_path / f"{target.name} m", f"{target.name}, short").run(MUTANTS)
        assert not tally.first, "\n".join(tally.first.values())
        assert tally.count == MUTANTS == tally.ends.total()


def _read(folder: Path) -> list[str]:
    """What a reader with a hole says: it trusts that `a` holds `b`."""
    try:
        found = json.loads((folder / "f").read_bytes())
    except (ValueError, RecursionError):
        raise core.CheckpointError("not JSON", file=folder / "f") from None
    if not isinstance(found, dict) or not isinstance(found.get("a"), dict):
        raise core.CheckpointError("malformed", file=folder / "f")
    return [f"b is {found['a']['b']}"]


def _round(folder: Path, seed: str) -> Round:
    return Round(Target("hole", {"f": GOOD}, _read, {}), ["b", "c"], folder, seed)


def test_a_hole_is_found_and_the_same_seed_finds_it_again(tmp_path: Path) -> None:
    first, second = (_round(tmp_path / name, "seed").run(100) for name in "ab")
    assert set(first.faults) == {"KeyError in _read"}
    assert first.first["KeyError in _read"].partition("\n")[0] == second.first["KeyError in _read"].partition("\n")[0]
    assert (first.faults, first.ends, first.answers) == (second.faults, second.ends, second.answers)
    assert _round(tmp_path / "c", "another").run(100).answers != first.answers


def test_an_answer_that_takes_long_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "thread_time", lambda: float(next(clock)) * SLOW_SECONDS)
    found = _round(tmp_path / "m", "seed").run(3)
    assert sum(number for kind, number in found.faults.items() if kind.startswith("slow")) == 3


def test_a_round_is_that_of_its_number_alone() -> None:
    (name, first), (_, again), (_, other) = (run_round(1, ("plan", number, 20)) for number in (0, 0, 1))
    assert name == "plan"
    assert first.answers == again.answers != other.answers
