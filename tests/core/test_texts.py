"""The bundled texts: what is stated of them holds, they share no passage, and they are in what is installed."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import accumulate, pairwise
from pathlib import Path

import pytest

from studio import core

ROOT = Path(__file__).parents[2]
TEXTS = {"calibration": core.calibration_text(), "evaluation": core.evaluation_text()}
STATED = json.loads((core.resources() / "texts" / "sources.json").read_text("utf-8"))
SIZES = {"calibration": (150_000, 250_000), "evaluation": (60_000, 80_000)}
KINDS = {"documentation", "code", "prose", "conversation", "languages", "encyclopaedia"}
BETWEEN = b"\n\n"
RUN = 10
"""Words in a row that make a passage."""

both = pytest.mark.parametrize("name", TEXTS)


def passages(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[start:] for start in range(RUN)), strict=False))


def kind(source: str) -> str:
    return STATED["sources"][source]["kind"]


def pieces(name: str) -> list[str]:
    data = TEXTS[name].read_bytes()
    ends = list(accumulate(nbytes + len(BETWEEN) for _, nbytes in STATED[name]))
    assert all(data[end - len(BETWEEN) : end] == BETWEEN for end in ends[:-1])
    return [data[start : end - len(BETWEEN)].decode() for start, end in pairwise([0, *ends])]


@both
def test_a_text_is_plain_utf8_of_the_promised_size(name: str) -> None:
    data = TEXTS[name].read_bytes()
    assert SIZES[name][0] <= len(data) <= SIZES[name][1]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufeff\ufffd]", data.decode("utf-8"))


@both
def test_the_stated_pieces_make_up_the_whole_text(name: str) -> None:
    found = pieces(name)
    assert "\n\n".join(found).encode() + b"\n" == TEXTS[name].read_bytes()
    assert all(piece.strip() for piece in found)
    assert len(set(found)) == len(found)


def test_every_source_says_where_it_is_from_and_under_which_licence() -> None:
    used = {source for name in TEXTS for source, _ in STATED[name]}
    assert used == set(STATED["sources"])
    for facts in STATED["sources"].values():
        assert set(facts) == {"kind", "title", "author", "licence", "from"}
        assert all(facts.values())


@both
def test_a_table_names_the_share_of_every_source(name: str) -> None:
    column = 5 + list(TEXTS).index(name)
    lines = (core.resources() / "texts" / "README.md").read_text("utf-8").splitlines()
    rows = {cells[2]: cells[column] for line in lines if len(cells := re.split(r" *\| *", line)) > column}
    nbytes: Counter[str] = Counter()
    for source, size in STATED[name]:
        nbytes[source] += size
    for source, facts in STATED["sources"].items():
        assert rows[facts["title"]] == f"{nbytes[source] / nbytes.total():.1%}"


@both
def test_every_kind_of_text_is_in_every_quarter(name: str) -> None:
    kinds = [kind(source) for source, _ in STATED[name]]
    quarter = len(kinds) // 4
    for start in range(0, 4 * quarter, quarter):
        assert set(kinds[start : start + quarter]) == KINDS


def test_the_texts_have_no_passage_in_common() -> None:
    calibration, evaluation = (passages(path.read_text("utf-8")) for path in TEXTS.values())
    assert not calibration & evaluation


@both
def test_no_passage_comes_twice(name: str) -> None:
    found = [passages(piece) for piece in pieces(name)]
    twice = Counter(passage for piece in found for passage in piece)
    assert [passage for passage, times in twice.items() if times > 1] == []


@both
def test_there_is_no_address_of_a_person(name: str) -> None:
    assert not re.search(r"[\w.+-]+@[\w-]+\.[a-z]", TEXTS[name].read_text("utf-8"))


def test_an_installed_package_holds_the_texts(tmp_path: Path) -> None:
    build = ("setup.py", "-q", "egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", tmp_path / "installed")
    environment = os.environ | {"NVFP4_STUDIO_NO_NATIVE": "1", "PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run([sys.executable, *build], cwd=ROOT, env=environment, check=True, capture_output=True)
    program = "from studio.core.resources import *; print(calibration_text()); print(evaluation_text())"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    for line, source in zip(ran.stdout.splitlines(), TEXTS.values(), strict=True):
        assert Path(line).is_relative_to(tmp_path / "installed")
        assert Path(line).read_bytes() == source.read_bytes()
