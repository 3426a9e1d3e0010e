"""What the program and its pages say of architectures, made from the results."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.architectures.mlx_fields import required_fields
from tests.architectures.rows import model_type
from tests.architectures.table import markdown
from tests.architectures.verdicts import FINE, Row
from tests.pages import RUNTIMES, replace_between

_ROOT = Path(__file__).parents[2]
EVIDENCE = _ROOT / "resources" / "evidence" / "architectures.json"
_RUNTIMES = ("mlx-lm", "transformers", "compressed-tensors")
START, END = "<!-- made by make architectures -->\n", "<!-- end -->\n"


def publish(rows: Sequence[Row]) -> None:
    """Write the evidence that claims rest on, and the table of its page."""
    EVIDENCE.parent.mkdir(exist_ok=True)
    EVIDENCE.write_text(json.dumps(evidence(rows), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    replace_between(RUNTIMES, START, END, markdown(rows))


def evidence(rows: Sequence[Row]) -> dict[str, object]:
    """Date, versions, what mlx-lm asks of configs, and what became of each model type, the worst of its rows."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for column, verdict in row.verdicts.items():
            found[model_type(row.name)][column].append(verdict.verdict)
    verdicts = {
        kind: {column: said[0] if len(set(said)) == 1 else _worst(said) for column, said in columns.items()}
        for kind, columns in found.items()
    }
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "runtimes": {name: version(name) for name in _RUNTIMES},
        "mlx_fields": required_fields(),
        "verdicts": verdicts,
    }


def _worst(said: Sequence[str]) -> str:
    """A fault if there is one, else what is not plainly right."""
    return max(said, key=lambda verdict: FINE.index(verdict) if verdict in FINE else len(FINE))
