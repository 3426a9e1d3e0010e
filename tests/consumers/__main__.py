"""`python -m tests.consumers`: do the programs that the exports name load and run them, and does the product say so?"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from studio import core
from tests.consumers.consumers import CONSUMERS
from tests.consumers.decoding import write_decoded
from tests.consumers.environments import NotInstallableError, environment
from tests.consumers.exporting import cases
from tests.consumers.judging import Judge
from tests.consumers.models import MODELS
from tests.consumers.report import line, markdown, totals
from tests.consumers.verdicts import Verdict
from tests.runtimes.worker import Worker

_ROOT = Path(__file__).parents[2]
FOLDER = _ROOT / "build" / "consumers"
_TOKENS = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the consumers, print and write what became of the exports; 1 when the product said something else."""
    options = _options(arguments)
    names = options.only.split(",") if options.only else list(CONSUMERS)
    models = options.models.split(",") if options.models else list(MODELS)
    if unknown := sorted({*names, *models} - {*CONSUMERS, *MODELS}):
        print(f"error: no consumer or model is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    verdicts = []
    for verdict in judged(names, models):
        verdicts.append(verdict)
        print(line(verdict), flush=True)
    print(totals(verdicts))
    record = {"date": time.strftime("%Y-%m-%d"), "verdicts": [verdict.to_json() for verdict in verdicts]}
    (FOLDER / "results.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    if options.table:
        options.table.write_text(markdown(verdicts, record["date"]), encoding="utf-8")
    return int(any(verdict.contradicts for verdict in verdicts))


def judged(names: Sequence[str], models: Sequence[str]) -> Iterator[Verdict]:
    """What each consumer makes of each export of each model."""
    builder = Worker("tests.consumers.building", FOLDER / "building.log")
    judges = [_judge(name) for name in names]
    tokens = _tokens()
    try:
        for name in models:
            source = FOLDER / "models" / name
            builder.ask("build", name=name, folder=source, demo=core.demo_checkpoint())
            wanted = [judge for judge in judges if name in judge.consumer.models]
            yield from _of_model(name, source, wanted, tokens)
    finally:
        for process in (builder, *judges):
            process.close()


def _of_model(name: str, source: Path, judges: Sequence[Judge], tokens: list[int]) -> Iterator[Verdict]:
    place = FOLDER / "exports" / name
    readers = frozenset(judge.consumer.reader for judge in judges)
    for case in cases(name, source, place, readers):
        decoded = None if case.refusal else write_decoded(source, case.folder, place / "decoded")
        for judge in judges:
            if judge.consumer.reader in core.LAYOUTS[case.layout].readers:
                yield judge.judge(case, decoded, tokens)
    shutil.rmtree(place, ignore_errors=True)


def _judge(name: str) -> Judge:
    consumer = CONSUMERS[name]
    print(f"{name}: preparing its environment", flush=True)
    try:
        return Judge(consumer, environment(consumer, FOLDER), FOLDER)
    except NotInstallableError as error:
        print(f"{name}: can not be installed here: {error}", file=sys.stderr)
        return Judge(consumer, None, FOLDER, str(error))


def _tokens() -> list[int]:
    """The start of this program's licence, in the tokens of the demo."""
    tokenizer = Tokenizer.from_file(str(core.demo_checkpoint() / "tokenizer.json"))
    return tokenizer.encode((_ROOT / "LICENSE").read_text(encoding="utf-8")).ids[:_TOKENS]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.consumers", description=__doc__)
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(CONSUMERS)}")
    parser.add_argument("--models", metavar="NAME,NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
