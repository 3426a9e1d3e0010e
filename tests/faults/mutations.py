"""Mutations: whatever headers, indexes, configs, manifests and plans say, errors are ours, and come at once.

Small good checkpoints of every layout are changed at random; what gets an answer that was not heard before is changed
on. Rounds of 1,000 are each drawn from a seed of their own, so that a million can be run in pieces.

Usage: python -m tests.faults.mutations [--count 1000000] [--first ROUND] [--seed 1] [--only NAME] [--jobs 2]
"""

import argparse
import gc
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

from studio import core
from tests.faults.mutants import Document
from tests.faults.mutation_targets import Target, targets, words

ROUND = 1000
SLOW_SECONDS = 1.0
"""Of processor time: what takes longer is a fault."""
MEAN_SECONDS = 0.001
_MOST_KEPT = 200
_NUMBER, _QUOTED = re.compile(r"\d[\d,.]*"), re.compile(r"'[^']*'|\"[^\"]*\"|\S+\.\S+")


@dataclass
class Tally:
    """What became of the mutants of a target: how many, how they ended, answers heard, seconds, the slowest.

    And kinds of faults, how often, and the first of each.
    """

    count: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    answers: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Take in another tally."""
        self.count += other.count
        self.ends += other.ends
        self.answers |= other.answers
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.faults += other.faults
        self.first = other.first | self.first

    def note(self, kind: str, told: str) -> None:
        """Count a fault, and keep what is told of the first of its kind."""
        self.faults[kind] += 1
        self.first.setdefault(kind, told)


class Round:
    """Mutants of a target, drawn from a seed; they differ from those of every other round."""

    def __init__(self, target: Target, known: list[str], folder: Path, seed: str) -> None:
        self._target, self._known, self._folder, self._seed = target, known, folder, seed
        self._chance = random.Random(seed)
        self._kept: dict[str, list[Document]] = {name: [document] for name, document in target.documents.items()}
        self._good = {name: document.rendered() for name, document in target.documents.items()}
        self.tally = Tally()

    def run(self, count: int) -> Tally:
        """Try so many mutants."""
        self._folder.mkdir()
        for name, raw in self._target.files.items():
            (self._folder / name).write_bytes(raw)
        self._restore(self._good)
        assert self._target.read(self._folder)
        for number in range(count):
            self._try(f"{self._seed}, mutant {number}")
        return self.tally

    def _restore(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).write_bytes(self._good[name])

    def _try(self, case: str) -> None:
        chance, names = self._chance, list(self._good)
        chosen = names if chance.random() < 0.1 else [chance.choice(names)]
        mutants = {name: chance.choice(self._kept[name]).mutated(chance, self._known) for name in chosen}
        for name, (_, raw) in mutants.items():
            (self._folder / name).write_bytes(raw)
        if self._is_new(self._ask(case)):
            for name, (document, _) in mutants.items():
                self._kept[name] = [*self._kept[name][-_MOST_KEPT:], document]
        self._restore(chosen)

    def _ask(self, case: str) -> str:
        """The answer to a mutant, without what differs from one to the next."""
        started = time.thread_time()
        try:
            said = ["opened", *self._target.read(self._folder)]
        except core.StudioError as error:
            said = [type(error).__name__, error.what]
        except Exception as error:
            said = ["fault", _kind(error)]
            self.tally.note(said[1], f"{case}\n{traceback.format_exc()}" if said[1] not in self.tally.first else "")
        self._count(said[0], time.thread_time() - started, case)
        return _NUMBER.sub("#", _QUOTED.sub("~", " | ".join(dict.fromkeys(map(str, said)))))

    def _count(self, end: str, seconds: float, case: str) -> None:
        tally = self.tally
        tally.count += 1
        tally.ends[end] += 1
        tally.seconds.append(seconds)
        tally.slowest = max(tally.slowest, (seconds, case))
        if seconds > SLOW_SECONDS:
            tally.note(f"slow, {end}", f"{case}: {seconds:.1f} seconds")

    def _is_new(self, answer: str) -> bool:
        fresh = answer not in self.tally.answers
        self.tally.answers.add(answer)
        return fresh


def _kind(error: Exception) -> str:
    """What an error is, and in which function."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {frame.f_code.co_name}"


def rounds(names: list[str], first: int, count: int) -> Iterator[tuple[str, int, int]]:
    """(target, number of its round, mutants) of a run over all targets in turn."""
    for number, done in enumerate(range(0, count, ROUND), first):
        yield names[number % len(names)], number // len(names), min(ROUND, count - done)


def run_round(seed: int, asked: tuple[str, int, int]) -> tuple[str, Tally]:
    """One round, whatever ran before it."""
    name, number, count = asked
    gc.freeze()  # as the program does: looking through all that was imported takes 20 to 45 ms
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("error")
        target = next(one for one in targets(Path(place)) if one.name == name)
        return name, Round(target, words(), Path(place) / "m", f"{name}, seed {seed}, round {number}").run(count)


def main(arguments: list[str] | None = None) -> int:
    """Print what became of the mutants of each target; 1 when something was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    for option in ("--first", "--seed"):
        parser.add_argument(option, type=int, default=int(option == "--seed"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        names = [one.name for one in targets(Path(place)) if asked.only in one.name]
    found: dict[str, Tally] = defaultdict(Tally)
    with ProcessPoolExecutor(asked.jobs) as pool:
        for name, tally in pool.map(partial(run_round, asked.seed), rounds(names, asked.first, asked.count)):
            found[name].add(tally)
    return _told(found, asked.seed)


def _told(found: dict[str, Tally], seed: int) -> int:
    columns = f"{'mutants':>9}{'opened':>9}{'answers':>9}{'mean ms':>9}{'99.9% ms':>10}{'worst ms':>10}"
    print(f"{'target':24}{columns}  the worst")
    every = Tally()
    for name, tally in sorted(found.items()):
        every.add(tally)
        print(_line(name, tally))
    print(_line("all", every))
    for kind, number in every.faults.most_common():
        print(f"\n{number:,} x {kind}: {every.first[kind]}", file=sys.stderr)
    mean = fmean(every.seconds)
    slow = f", {1000 * mean:.2f} ms each, more than {1000 * MEAN_SECONDS:g}" if mean > MEAN_SECONDS else ""
    print(f"{every.count:,} mutants, seed {seed}: {every.faults.total()} faults{slow}")
    return int(bool(every.faults or slow))


def _line(name: str, tally: Tally) -> str:
    mean, (worst, case) = 1000 * fmean(tally.seconds), tally.slowest
    ordered = sorted(tally.seconds)
    most = 1000 * ordered[len(ordered) * 999 // 1000]
    figures = (
        f"{tally.count:9,}{tally.ends['opened']:9,}{len(tally.answers):9,}{mean:9.3f}{most:10.1f}{1000 * worst:10.1f}"
    )
    return f"{name:24}{figures}  {case}"


if __name__ == "__main__":
    sys.exit(main())
