"""The results as lines for the console and as a Markdown table for the documentation."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.consumers.consumers import CONSUMERS
from tests.consumers.models import MODELS
from tests.consumers.verdicts import FAILS, NO_BASELINE, NOT_INSTALLED, REFUSED, RIGHT, WRONG, Verdict

START, END = "<!-- made by make consumers -->\n", "<!-- end of consumers -->\n"
_WORDS = {RIGHT: "right", WRONG: "**wrong**", FAILS: "fails", REFUSED: "refused", NO_BASELINE: "not even plain"}


def line(verdict: Verdict) -> str:
    """One line for a verdict; what contradicts the program is marked."""
    found = verdict.verdict
    if verdict.distance is not None:
        found += f" {verdict.distance:.4f}, loss {verdict.loss:.4f} for {verdict.decoded_loss:.4f}"
    mark = " <- CONTRADICTS" if verdict.contradicts else ""
    where = f"{verdict.consumer:18}{verdict.model:15}{verdict.layout:31}{verdict.format:9}"
    return f"{where}{found}; said {verdict.said or 'nothing'}{mark}" + (f": {verdict.reason}" if verdict.reason else "")


def totals(verdicts: Sequence[Verdict]) -> str:
    """Counts by consumer, and what the program has to unsay."""
    lines = []
    for name in dict.fromkeys(verdict.consumer for verdict in verdicts):
        counts = Counter(verdict.verdict for verdict in verdicts if verdict.consumer == name)
        lines.append(f"{name:18}" + ", ".join(f"{count} {word}" for word, count in counts.most_common()))
    wrong = [verdict for verdict in verdicts if verdict.contradicts]
    lines += [f"contradicts: {line(verdict)}\n    {verdict.claim}" for verdict in wrong]
    return "\n".join([*lines, f"{len(verdicts)} verdicts, {len(wrong)} contradict what the program says"])


def merged(path: Path, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """`verdicts` and those that `path` holds of other consumers and models, in the order of the tables."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {(verdict.consumer, verdict.model) for verdict in verdicts}
    older = [Verdict(**data) for data in stored if (data["consumer"], data["model"]) not in done]
    known = [verdict for verdict in older if verdict.consumer in CONSUMERS and verdict.model in MODELS]
    places = {name: place for place, name in enumerate((*CONSUMERS, *MODELS))}
    return sorted([*known, *verdicts], key=lambda verdict: (places[verdict.consumer], places[verdict.model]))


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A row per consumer and layout, a column per format; in the cells what was seen, of how many or which models."""
    formats = list(dict.fromkeys(verdict.format for verdict in verdicts))
    rows = dict.fromkeys((verdict.consumer, verdict.layout) for verdict in verdicts)
    lines = [["consumer", "layout", *formats], ["---"] * (len(formats) + 2)]
    lines += [_row(name, layout, verdicts, formats) for name, layout in rows]
    dates = sorted({verdict.date for verdict in verdicts})
    seen = f"Seen by `make consumers`, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    right = f"Right: the logits of the decoded weights in the same program. Models: {', '.join(MODELS)}."
    plans = "`split`: attention in three tiers, the rest in two; `mixed`: several formats in one model."
    unsaid = sum(verdict.contradicts for verdict in verdicts)
    said = f"Of {len(verdicts):,} trials, {unsaid or 'none'} did otherwise than the program says before it writes."
    notes = [f"{row.title} {row.version}: {row.note}." for row in CONSUMERS.values() if row.note]
    table = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([*table, "", " ".join([seen, right, said, plans, *notes]), ""])


def _row(name: str, layout: str, verdicts: Sequence[Verdict], formats: Sequence[str]) -> list[str]:
    own = [verdict for verdict in verdicts if (verdict.consumer, verdict.layout) == (name, layout)]
    consumer = CONSUMERS[name]
    cells = [_cell([verdict for verdict in own if verdict.format == row]) for row in formats]
    return [f"{consumer.title} {consumer.version}", layout, *cells]


def _cell(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    if any(verdict.verdict == NOT_INSTALLED for verdict in verdicts):
        return "could not be installed"
    found = {word: [v.model for v in verdicts if v.verdict == verdict] for verdict, word in _WORDS.items()}
    return "; ".join(_group(word, models, len(verdicts)) for word, models in found.items() if models)


def _group(word: str, models: Sequence[str], count: int) -> str:
    """How many, where these are all or most that are right; else their names."""
    if len(models) == count or (word == _WORDS[RIGHT] and 2 * len(models) > count):
        return f"{word} {len(models)} of {count}"
    return f"{word}: {', '.join(models)}"
