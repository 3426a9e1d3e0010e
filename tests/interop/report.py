"""The results as lines for the console and as a Markdown table for the documentation, and what they come to."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.interop.judging import EQUAL, NOT_INSTALLED, REFUSED, ROUNDED, Result
from tests.interop.packages import PACKAGES

START, END = "<!-- made by make interop -->\n", "<!-- end of interop -->\n"
_HEAD = [
    "package",
    "stored as",
    "checkpoints",
    "tensors",
    "the same to the bit",
    "once rounded as it rounds",
    "otherwise",
]
_KIND = re.compile(r"^\d+ (?:GGUF )?([A-Z][A-Z0-9_.]*|LLM\.int8)")


def line(result: Result) -> str:
    """One line for a result; one that is not as it should be is marked."""
    what = f"{result.what}{f' {result.reason}' if result.reason else ''}"
    package = f"{result.package} {result.version}"
    tensors = f"{result.tensors:4} tensors" if result.tensors else ""
    mark = "" if result.is_right else " <- WRONG"
    stored = f"  [{result.stored}]" if result.stored else ""
    alarms = f"  doctor: {result.alarms}" if result.alarms else ""
    return f"{package:28} {result.case:32} {tensors:13} {what}{mark}{stored}{alarms}"


def totals(results: Sequence[Result]) -> str:
    """Counts of what became of them."""
    counts = Counter(result.what for result in results)
    skipped = sorted({result.package for result in results if result.what == NOT_INSTALLED})
    wrong = sum(not result.is_right for result in results)
    lines = [f"skipped, as it could not be installed: {', '.join(skipped)}"] if skipped else []
    said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    return "\n".join([*lines, f"{len(results)} checkpoints: {said}; {wrong} wrong"])


def merged(path: Path, results: Sequence[Result]) -> list[Result]:
    """`results` and those that `path` holds of other packages, in the order of the table."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {result.package for result in results}
    known = [result for data in stored if (result := Result(**data)).package in {*PACKAGES} - done]
    places = {name: place for place, name in enumerate(PACKAGES)}
    return sorted([*known, *results], key=lambda result: places[result.package])


def markdown(results: Sequence[Result], date: str) -> str:
    """A row per package, and what they have in common."""
    rows = [_HEAD, ["---", "---", *["---:"] * 4, "---"]]
    rows += [
        _row([row for row in results if row.package == name])
        for name in PACKAGES
        if any(r.package == name for r in results)
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    count, packages = len(results), len({result.package for result in results})
    return f"{table}\n\nSeen by `make interop`, {date}: {count} checkpoints of {packages} packages.\n"


def _row(results: Sequence[Result]) -> list[str]:
    counts = Counter(result.what for result in results)
    kinds = dict.fromkeys(
        kind for result in results for part in result.stored.split("; ") for kind in _KIND.findall(part)
    )
    others = [f"{result.case}: {result.what}" for result in results if result.what not in (EQUAL, ROUNDED, REFUSED)]
    refused = [f"{counts[REFUSED]} refused by name"] if counts[REFUSED] else []
    tensors = sum(result.tensors for result in results)
    cells = [f"{results[0].package} {results[0].version}", ", ".join(sorted(kinds)), str(len(results)), f"{tensors:,}"]
    return [*cells, str(counts[EQUAL]), str(counts[ROUNDED]), "; ".join([*refused, *others])]
