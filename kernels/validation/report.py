"""Tables of what was found, as text and as JSON."""

import json
from dataclasses import asdict, dataclass

Row = tuple[str | float | bool | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One part of a report; the last column tells whether the row passed, None where nothing is judged."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """True when no row failed."""
        return all(row[-1] is not False for row in self.rows)

    def text(self) -> str:
        """The table in columns, with a line for its title."""
        cells = [self.columns, *(tuple(_cell(value) for value in row) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([self.title, *(f"  {line}" for line in lines)])


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "pass" if value else "FAIL"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Report:
    """What validation found out about a backend."""

    backend: str
    tables: tuple[Table, ...]

    @property
    def passed(self) -> bool:
        """True when every table passed."""
        return all(table.passed for table in self.tables)

    def to_json(self) -> str:
        """The report as JSON: backend, passed, tables with title, columns, rows and passed."""
        tables = [{**asdict(table), "passed": table.passed} for table in self.tables]
        return json.dumps({"backend": self.backend, "passed": self.passed, "tables": tables}, indent=1, allow_nan=False)

    def text(self) -> str:
        """The report to print."""
        verdict = "all passed" if self.passed else "FAILED"
        return "\n\n".join([self.backend, *(table.text() for table in self.tables), verdict])
