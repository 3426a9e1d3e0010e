"""What a process holds: descriptors, threads, children, files and memory; and what of it only grows."""

import ctypes
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

GROWTH = 20_000
"""Bytes of memory that a cycle may take."""
FEWEST = 40
"""Cycles from which on memory says something: before, caches fill."""
POOLED, WAITING = "Thread (pooled)", "anon_inode:[eventfd]"
"""Qt begins threads of its pools when it has work for them, at most one for each processor, and keeps them."""


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment. `memory`: bytes of anonymous memory."""

    descriptors: Counter[str]
    threads: Counter[str]
    children: Counter[str]
    files: Counter[str]
    memory: int

    def less_of(self, pool: int) -> "Held":
        """The same without so many threads of Qt's own pools, and what each of them waits at."""
        return replace(
            self,
            threads=self.threads - Counter({POOLED: pool}),
            descriptors=self.descriptors - Counter({WAITING: pool}),
        )

    def more_than(self, before: "Held") -> list[str]:
        """What is held now and was not before."""
        return [
            f"{kind}: {what}" + (f" ({count} times)" if count > 1 else "")
            for kind in ("descriptors", "threads", "children", "files")
            for what, count in (getattr(self, kind) - getattr(before, kind)).items()
        ]


def held(place: Path) -> Held:
    """What this process holds now, without memory that is free; `files` are those below `place`."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    tasks = list(Path("/proc/self/task").iterdir())
    lines = Path("/proc/self/status").read_text().splitlines()
    return Held(
        Counter(_descriptors()),
        Counter((task / "comm").read_text().strip() for task in tasks),
        Counter(child for task in tasks for child in (task / "children").read_text().split()),
        Counter(str(path.relative_to(place)) for path in place.rglob("*")),
        next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")),
    )


def _descriptors() -> list[str]:
    found = []
    for number in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the one that lists them
            found.append(str(number.readlink()))
    return found


def slope(values: Sequence[int]) -> float:
    """By how much values grow from one to the next, over their last half."""
    half = values[len(values) // 2 :]
    return float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0


def _pool(first: Held, last: Held) -> int:
    """How many threads of pools came that may come."""
    return max(0, min(last.threads[POOLED] - first.threads[POOLED], (os.cpu_count() or 1) - first.threads[POOLED]))


def leaks(first: Held, last: Held, memory: Sequence[int]) -> list[str]:
    """What leaked between two moments at which the same was open; `memory` was measured after each cycle."""
    found = last.less_of(_pool(first, last)).more_than(first)
    growth = slope(memory)
    if len(memory) >= FEWEST and growth > GROWTH:
        found.append(f"memory: {growth / 1000:.1f} kB a cycle")
    return found
