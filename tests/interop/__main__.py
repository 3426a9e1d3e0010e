"""`python -m tests.interop`: checkpoints that packages make are opened, and give the weights that these decode."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from studio import core
from tests.consumers.environments import NotInstallableError, interpreter
from tests.interop.judging import NOT_INSTALLED, NOT_MADE, ZERO, Result, alarms, judged
from tests.interop.making import DECODED, MODEL
from tests.interop.packages import PACKAGES, Package
from tests.interop.report import END, START, line, markdown, merged, totals
from tests.pages import SOURCES, replace_between
from tests.runtimes.checkpoints import write_llama, write_qwen3_moe
from tests.runtimes.worker import RuntimeFailedError, Worker

FOLDER = Path(__file__).parents[2] / "build" / "interop"
RESULTS = FOLDER / "results.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the packages, print a line for each checkpoint; 1 when one gives other weights, or is not read."""
    options = _options(arguments)
    names = options.only.split(",") if options.only else list(PACKAGES)
    if unknown := sorted({*names} - {*PACKAGES}):
        print(f"error: no package is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for found in every(names, options.case):
        results += found
        if not options.case:
            _keep(results)
    print(totals(results))
    if options.publish:
        replace_between(SOURCES, START, END, markdown(merged(RESULTS, results), time.strftime("%Y-%m-%d")))
    return int(not all(result.is_right for result in results))


def _keep(results: Sequence[Result]) -> None:
    """Write what was seen, and what is known of other packages."""
    text = json.dumps([result.to_json() for result in merged(RESULTS, results)], indent=1)
    RESULTS.write_text(text, encoding="utf-8")


def every(names: Sequence[str], case: str = "") -> Iterator[list[Result]]:
    """What becomes of the checkpoints of each package, told as it is seen; `case` is a part of the wanted names."""
    with TemporaryDirectory(dir=FOLDER, prefix="work-") as work:
        sources = Path(work) / "sources"
        tokenizer = core.demo_checkpoint() / "tokenizer.json"
        write_llama(sources / "llama", tokenizer)
        write_llama(sources / "wide", tokenizer, 384)
        write_qwen3_moe(sources / "moe", tokenizer)
        for name in names:
            found = []
            for result in _of_package(PACKAGES[name], sources, Path(work) / name, case):
                print(line(result), flush=True)
                found.append(result)
            yield found


def _of_package(package: Package, sources: Path, work: Path, wanted: str) -> Iterator[Result]:
    try:
        python = interpreter(package.environment, FOLDER)
    except NotInstallableError as error:
        yield Result(package.name, package.version, "", NOT_INSTALLED, str(error))
        return
    log = FOLDER / f"{package.name}.log"
    worker = Worker("tests.interop.making", log, python, seconds=600, arguments=[package.module])
    try:
        for case in worker.ask("cases"):
            if wanted in case:
                yield _result(package, worker, case, sources, work / str(abs(hash(case))))
    except (RuntimeFailedError, AssertionError) as error:
        yield Result(package.name, package.version, "", NOT_MADE, f"{error}"[-300:], is_right=False)
    finally:
        worker.close()


def _result(package: Package, worker: Worker, case: str, sources: Path, target: Path) -> Result:
    try:
        made = worker.ask("make", case=case, sources=sources, target=target)
    except RuntimeFailedError as error:
        return Result(package.name, package.version, case, NOT_MADE, str(error)[:300], is_right=False)
    with np.load(target / DECODED) as stored:
        decoded = dict(stored)
    found = judged(target / MODEL, decoded, made["dtype"], made["refusal"])
    rightly = [*made["alarms"], *([ZERO] if any(x.ndim > 1 and not x.any() for x in decoded.values()) else [])]
    found["alarms"] = alarms(target / MODEL, sources / "llama" / "tokenizer.json", rightly)
    found["is_right"] = found["is_right"] and not found["alarms"]
    shutil.rmtree(target)
    return Result(package.name, package.version, case, loader=made["loader"], **found)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--publish", action="store_true", help="renew the table of docs/sources.md")
    parser.add_argument("--case", metavar="PART", default="", help="only checkpoints whose name has this in it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
