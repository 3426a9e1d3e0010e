"""`python -m tests.consumers`: do the programs that the exports name load and run them, and does the product say so?"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from studio import core
from tests.consumers.consumers import CONSUMERS
from tests.consumers.decoding import DecodingError, write_decoded
from tests.consumers.environments import NotInstallableError, interpreter
from tests.consumers.exporting import PLANS, SERVERS, Rules, cases
from tests.consumers.judging import Judge
from tests.consumers.models import MODELS
from tests.consumers.report import END, START, line, markdown, merged, totals
from tests.consumers.verdicts import Verdict
from tests.pages import RUNTIMES, replace_between
from tests.runtimes.worker import Worker

_ROOT = Path(__file__).parents[2]
FOLDER = _ROOT / "build" / "consumers"


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
    for verdict in judged(names, models, SERVERS if options.servers else PLANS):
        verdicts.append(replace(verdict, date=time.strftime("%Y-%m-%d")))
        print(line(verdict), flush=True)
    print(totals(verdicts))
    if options.servers:
        return int(any(verdict.contradicts for verdict in verdicts))
    results = FOLDER / "results.json"
    known = merged(results, verdicts)
    results.write_text(json.dumps([verdict.to_json() for verdict in known], indent=1), encoding="utf-8")
    if options.table:
        options.table.write_text(markdown(known), encoding="utf-8")
    if options.publish:
        replace_between(RUNTIMES, START, END, markdown(known))
    return int(any(verdict.contradicts for verdict in verdicts))


def judged(
    names: Sequence[str], models: Sequence[str], plans: dict[str, tuple[str, Rules]] = PLANS
) -> Iterator[Verdict]:
    """What each consumer makes of each export of each model."""
    with TemporaryDirectory(dir=FOLDER, prefix="work-") as work, ExitStack() as processes:
        builder = Worker("tests.consumers.building", FOLDER / "building.log")
        judges = [_judge(name, Path(work)) for name in names]
        for process in (builder, *judges):
            processes.callback(process.close)
        for name in models:
            place = Path(work) / name
            builder.ask("build", name=name, folder=place / "source", demo=core.demo_checkpoint())
            yield from _of_model(name, place, [judge for judge in judges if name in judge.consumer.models], plans)
            shutil.rmtree(place)


def _of_model(
    name: str, place: Path, judges: Sequence[Judge], plans: dict[str, tuple[str, Rules]]
) -> Iterator[Verdict]:
    source, tokens = place / "source", _tokens()
    readers = frozenset(judge.consumer.reader for judge in judges)
    for case in cases(name, source, place, readers, plans):
        decoded = None
        try:
            decoded = None if case.refusal else write_decoded(source, case.folder, place / "decoded")
        except DecodingError as error:
            case = replace(case, fault=str(error))
        for judge in judges:
            if judge.consumer.reader in core.LAYOUTS[case.layout].readers:
                yield judge.judge(case, decoded, tokens[: judge.consumer.tokens])


def _judge(name: str, work: Path) -> Judge:
    consumer = CONSUMERS[name]
    print(f"{name}: preparing its environment", flush=True)
    try:
        return Judge(consumer, interpreter(consumer.environment, FOLDER), work, FOLDER / f"{name}.log")
    except NotInstallableError as error:
        print(f"{name}: can not be installed here: {error}", file=sys.stderr)
        return Judge(consumer, None, work, FOLDER / f"{name}.log", str(error))


def _tokens() -> list[int]:
    """The start of this program's licence, in the tokens of the demo."""
    tokenizer = Tokenizer.from_file(str(core.demo_checkpoint() / "tokenizer.json"))
    return tokenizer.encode((_ROOT / "LICENSE").read_text(encoding="utf-8")).ids


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.consumers", description=__doc__)
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(CONSUMERS)}")
    parser.add_argument("--models", metavar="NAME,NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--servers", action="store_true", help="formats of servers instead; nothing is kept")
    parser.add_argument("--publish", action="store_true", help="renew the table of docs/runtimes.md")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
