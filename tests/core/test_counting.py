"""Counts in words, and that no text of the program counts by itself."""

import re
from pathlib import Path

import pytest

import studio
from studio import core

NOUNS = "layers|rows|names|blocks|weights|files|threads|shards|rules|choices|tensors|experts|bytes|warnings|problems"
FIGURE = r"\{(?![A-Z_]+[:}])[^{}]*(?::,|len\(|count)[^{}]*\}"  # but for constants
BY_HAND = re.compile(rf"{FIGURE} (?:selected )?(?:{NOUNS})\b|['\"]s['\"] if ")
PROGRAM = Path(studio.__file__).parent
MODULES = [path for path in sorted(PROGRAM.glob("**/*.py")) if path.name != "counting.py"]


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("layer",), "0 layers"),
        (1, ("layer",), "1 layer"),
        (47163, ("layer",), "47,163 layers"),
        (1, ("layer is", "layers are"), "1 layer is"),
        (2, ("layer is", "layers are"), "2 layers are"),
    ],
)
def test_one_is_singular_and_all_else_plural(count: int, words: tuple[str, ...], text: str) -> None:
    assert core.counted(count, *words) == text


def test_every_count_that_people_read_is_put_in_words_in_one_place() -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in MODULES
        for line in path.read_text(encoding="utf-8").splitlines()
        if (match := BY_HAND.search(line)) and not (_in_core(path) and match[0].endswith("bytes"))
    ]
    assert len(MODULES) > 100
    assert found == []


def _in_core(path: Path) -> bool:
    """Bytes of files and of memory that core tells of are never one."""
    return path.relative_to(PROGRAM).parts[0] == "core"
