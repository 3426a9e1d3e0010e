"""`python -m tests.architectures`: which architectures run exports with the right numbers, in stock runtimes."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.architectures.judging import Judge
from tests.architectures.others import OTHERS
from tests.architectures.publishing import newly_refused, publish
from tests.architectures.rows import ROWS, SUBSET
from tests.architectures.table import markdown
from tests.architectures.verdicts import COLUMNS, OTHER_COLUMNS, Row

FOLDER = Path(__file__).parents[2] / "build" / "architectures"
_WORKERS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge rows, print and write the results; 1 when something has to be mended."""
    options = _options(arguments)
    names = options.only.split(",") if options.only else list(SUBSET if options.subset else [*ROWS, *OTHERS])
    if unknown := sorted(set(names) - set(ROWS) - set(OTHERS)):
        print(f"error: no row is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    columns = options.formats.split(",") if options.formats else list(COLUMNS)
    started = time.monotonic()
    found = {}
    for row in judged(names, columns):
        found[row.name] = row
        print(_line(row), flush=True)
    rows = [found[name] for name in names]
    refused = newly_refused(rows)
    _print_totals(rows, columns)
    for sentence in refused:
        print(f"  {sentence}")
    print(f"{len(rows)} rows in {time.monotonic() - started:.0f} s")
    text = json.dumps([row.to_json() for row in rows], indent=1)
    (FOLDER / "results.json").write_text(text, encoding="utf-8")
    if options.table:
        known = [row for row in rows if row.name in ROWS]
        others = [row for row in rows if row.name in OTHERS]
        options.table.write_text("\n".join(map(markdown, filter(None, (known, others)))), encoding="utf-8")
    if options.publish:
        publish(rows)
    return 0 if all(row.fine for row in rows) and not refused else 1


def judged(names: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
    """The rows as they are done, by two judges at a time."""
    judges: SimpleQueue[Judge] = SimpleQueue()
    everyone = [Judge(FOLDER, number) for number in range(_WORKERS)]
    for judge in everyone:
        judges.put(judge)

    def one(name: str) -> Row:
        judge = judges.get()
        try:
            known = OTHER_COLUMNS if name in OTHERS else COLUMNS
            return judge.judge(name, [column for column in columns if column in known])
        finally:
            judges.put(judge)

    try:
        with ThreadPoolExecutor(_WORKERS) as pool:
            yield from pool.map(one, names)
    finally:
        for judge in everyone:
            judge.close()


def _line(row: Row) -> str:
    return f"{row.name:24}" + "  ".join(f"{column} {verdict}" for column, verdict in row.verdicts.items())


def _print_totals(rows: Sequence[Row], columns: Sequence[str]) -> None:
    for column in columns:
        counts = Counter(row.verdicts[column].verdict for row in rows if column in row.verdicts)
        print(f"{column:9}" + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    for row in rows:
        for column, verdict in row.verdicts.items():
            if not verdict.fine:
                print(f"  {row.name} {column}: {verdict}; {verdict.reason}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument("--only", metavar="NAME,NAME", help="these rows")
    parser.add_argument("--formats", metavar="COLUMN,COLUMN", help=f"of {', '.join(COLUMNS)}")
    parser.add_argument("--subset", action="store_true", help="the rows that the tests judge")
    parser.add_argument("--publish", action="store_true", help="renew docs/runtimes.md and the evidence of claims")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
