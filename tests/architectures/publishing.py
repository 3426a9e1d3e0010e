"""What the program and its pages say of architectures, made from the results."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.architectures.mlx_fields import required_fields
from tests.architectures.others import OTHERS
from tests.architectures.rows import ROWS, model_type
from tests.architectures.table import markdown
from tests.architectures.verdicts import CAUTIONED, FINE, REFUSED, RIGHT, Row
from tests.pages import RUNTIMES, replace_between

_ROOT = Path(__file__).parents[2]
EVIDENCE = _ROOT / "resources" / "evidence" / "architectures.json"
_RAN = (RIGHT, CAUTIONED)
_RUNTIMES = ("mlx-lm", "transformers", "compressed-tensors")
START, END = "<!-- made by make architectures -->\n", "<!-- end -->\n"
OTHERS_START, OTHERS_END = "<!-- other types, made by make architectures -->\n", "<!-- end of others -->\n"


def publish(rows: Sequence[Row]) -> None:
    """Write the evidence that claims rest on, and the tables of its page; what was not judged stays as it was."""
    EVIDENCE.parent.mkdir(exist_ok=True)
    EVIDENCE.write_text(json.dumps(evidence(rows), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    known = [row for row in rows if row.name in ROWS]
    others = [row for row in rows if row.name in OTHERS]
    if set(ROWS) <= {row.name for row in known}:
        replace_between(RUNTIMES, START, END, markdown(known))
    if set(OTHERS) <= {row.name for row in others}:
        replace_between(RUNTIMES, OTHERS_START, OTHERS_END, markdown(others))


def evidence(rows: Sequence[Row]) -> dict[str, object]:
    """Date, versions, what mlx-lm asks of configs, and what became of each model type, the worst of its rows.

    `by_weights`: the types whose parameters were compared, not their logits.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "runtimes": {name: version(name) for name in _RUNTIMES},
        "mlx_fields": required_fields(),
        "by_weights": sorted(OTHERS),
        "verdicts": {**published(), **_by_type(rows)},
    }


def published() -> dict[str, dict[str, str]]:
    """By model type and column: what was found last."""
    found: dict[str, dict[str, str]] = json.loads(EVIDENCE.read_text(encoding="utf-8"))["verdicts"]
    return found


def newly_refused(rows: Sequence[Row]) -> list[str]:
    """A sentence for every export that is refused and was right: no fault of the export, but one of the program."""
    before = published()
    return [
        f"{row.name} {column}: was right, and is refused; {verdict.reason}"
        for row in rows
        for column, verdict in row.verdicts.items()
        if verdict.verdict == REFUSED and before.get(model_type(row.name), {}).get(column, REFUSED) in _RAN
    ]


def _by_type(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for column, verdict in row.verdicts.items():
            found[model_type(row.name)][column].append(verdict.verdict)
    return {
        kind: {column: said[0] if len(set(said)) == 1 else _worst(said) for column, said in columns.items()}
        for kind, columns in found.items()
    }


def _worst(said: Sequence[str]) -> str:
    """A fault if there is one, else what is not plainly right."""
    return max(said, key=lambda verdict: FINE.index(verdict) if verdict in FINE else len(FINE))
