"""The results as a Markdown table for the documentation."""

from collections import defaultdict
from collections.abc import Sequence

from tests.architectures.verdicts import BROKEN, CAUTIONED, FINE, REFUSED, REQUANTIZED, RIGHT, Row, Verdict

_HEADS = {
    "mlx-2t": "mlx 2t",
    "mlx-3t": "mlx 3t",
    "mlx-int4": "mlx int4",
    "ct-3t": "compressed-tensors 3t",
    "ct-2t": "compressed-tensors 2t",
}
_MARKS = {
    RIGHT: "right",
    BROKEN: "runtime can not",
    CAUTIONED: "right with `dequantize=True`",
    REQUANTIZED: "right, quantized twice in part",
}
_REASON = 70


def markdown(rows: Sequence[Row]) -> str:
    """One line for all architectures with equal verdicts, and a line of totals."""
    columns = [column for column in _HEADS if all(column in row.verdicts for row in rows)]
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        together[tuple(_mark(row.verdicts[column]) for column in columns)].append(row.name)
    lines = [_line("architectures", [_HEADS[column] for column in columns]), "|---" * (len(columns) + 1) + "|"]
    lines += [_line(", ".join(names), marks) for marks, names in together.items()]
    lines.append(_line("**right of those that the runtime loads unquantized**", [_total(rows, c) for c in columns]))
    return "\n".join(lines) + "\n"


def _line(first: str, others: Sequence[str]) -> str:
    return f"| {' | '.join([first, *others])} |"


def _mark(verdict: Verdict) -> str:
    if verdict.verdict == REFUSED:
        return f"refused: {_shortened(verdict.reason)}"
    return _MARKS.get(verdict.verdict, f"**{verdict.verdict}**")


def _shortened(reason: str) -> str:
    text = reason.replace("|", "/")
    return text if len(text) <= _REASON else f"{text[: _REASON - 1].rstrip()}…"


def _total(rows: Sequence[Row], column: str) -> str:
    found = [row.verdicts[column].verdict for row in rows if row.verdicts[column].verdict != BROKEN]
    right = sum(verdict in FINE and verdict != REFUSED for verdict in found)
    return f"{right} of {len(found)}"
