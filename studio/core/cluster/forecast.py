"""Forecast: how long an export takes on so many workers, from the rates of their processors and of the store.

A shard is worked through evenly: at every moment the slower of two things holds it up, its share of the processors, or
its share of the network. Workers take the largest shard that is left. What the store gives is shared evenly, and what a
worker does not need the others get. Time goes from the end of one shard to the next.
"""

import heapq
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np

from studio.core.containers.safetensors import place
from studio.core.exporting.export import prepare
from studio.core.exporting.shards import SHARD_NBYTES, plan_shards
from studio.core.jobs import Machine, export, start
from studio.core.layouts import Layout, layout_for
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.planning.plan import KEEP, Choice, Plan, Rule, resolve
from studio.core.stores.spool import LIMIT

START, BEGIN, END = 2.0, 2.0, 1.0
"""Seconds until workers can be started, of a processor until one of them is at work, and from the last shard on."""

SAMPLE, MATRICES = (4096, 2048), 9
"""Rows and columns of the matrices by whose export rates are measured, and how many there are."""
REPEATS = 3
FIRST, OTHERS = "*.layers.0.*", "re:layers\\.[1-9]"


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured, or is known, in bytes per second.

    quantized, kept: weights that a thread quantizes and proves, or copies and compares, as the source stores them.
    store: all that it gives and takes at a time. link: what a worker's network does. cache: bytes of a shard and its
    source that a worker can hold, so that the proof fetches neither again. start, end: seconds before the first worker
    and after the last shard. begin: those of a processor until a worker is at work.
    """

    quantized: float
    kept: float
    store: float = math.inf
    link: float = math.inf
    cache: float = LIMIT
    start: float = START
    begin: float = BEGIN
    end: float = END


@dataclass(frozen=True, slots=True)
class Piece:
    """A shard: bytes of its source that are quantized and kept, and of its file."""

    quantized: int
    kept: int
    written: int

    def moved(self, cache: float) -> int:
        """Bytes that go over the network."""
        once = self.quantized + self.kept + self.written
        return once if once <= cache else 2 * once

    def seconds(self, rates: Rates, threads: float) -> float:
        """Time on so many threads, were the network infinitely fast."""
        return (self.quantized / rates.quantized + self.kept / rates.kept) / threads


@dataclass(frozen=True, slots=True)
class Forecast:
    """What so many workers take: seconds in all; the share of time in which they compute; what holds them up."""

    workers: int
    seconds: float
    busy: float
    bound: str


def pieces(model: Model, choices: Sequence[Choice], layout: Layout, shard_nbytes: int = SHARD_NBYTES) -> list[Piece]:
    """The shards of an export as a forecast needs them."""
    found = []
    for shard in plan_shards(model, choices, layout, shard_nbytes):
        quantized = sum(choice.layer.nbytes for choice in shard.choices if choice.recipe)
        kept = sum(choice.layer.nbytes for choice in shard.choices if not choice.recipe)
        found.append(Piece(quantized, kept, shard.nbytes))
    return found


def forecast(todo: Sequence[Piece], rates: Rates, workers: int, threads: int = 1, processors: int = 0) -> Forecast:
    """What so many workers of so many threads take; `processors` is how many they share, 0 for one per thread."""
    run = _Run(rates, threads, processors or workers * threads)
    waiting = sorted(todo, key=lambda piece: piece.seconds(rates, threads))
    seconds = run.through(waiting, workers)
    fixed = rates.start + rates.begin * max(1.0, workers / run.processors) + rates.end
    alone = sum(piece.seconds(rates, threads) for piece in todo)
    share = min(1.0, run.processors / (workers * threads))
    busy = alone / (workers * share * seconds) if seconds else 0.0
    return Forecast(workers, fixed + seconds, busy, _bound(todo, rates, run, workers, fixed))


def _bound(todo: Sequence[Piece], rates: Rates, run: "_Run", workers: int, fixed: float) -> str:
    """The name of the largest of the times that it can not be shorter than."""
    moved = sum(piece.moved(rates.cache) for piece in todo)
    largest = max((max(p.seconds(rates, run.threads), p.moved(rates.cache) / rates.link) for p in todo), default=0.0)
    threads = min(workers * run.threads, run.processors)
    least = {
        "processors": sum(piece.seconds(rates, 1) for piece in todo) / threads,
        "store": moved / rates.store,
        "links": moved / (rates.link * workers),
        "largest shard": largest if workers > 1 else 0.0,
        "start and end": fixed,
    }
    return max(least, key=lambda name: least[name])


@dataclass(slots=True)
class _Going:
    """A shard at work: seconds that it takes computing and bytes that it moves, and the share that is left."""

    computing: float
    moved: float
    left: float = 1.0
    speed: float = 0.0


@dataclass(slots=True)
class _Run:
    rates: Rates
    threads: int
    processors: int
    going: list[_Going] = field(default_factory=list)

    def through(self, waiting: list[Piece], workers: int) -> float:
        """Seconds until all that waits, the largest last, is done."""
        now = 0.0
        while waiting or self.going:
            while waiting and len(self.going) < workers:
                piece = waiting.pop()
                seconds = piece.seconds(self.rates, self.threads)
                self.going.append(_Going(seconds, piece.moved(self.rates.cache)))
            self._share()
            step = min(one.left / one.speed for one in self.going)
            now += step
            for one in self.going:
                one.left -= step * one.speed
            self.going = [one for one in self.going if one.left > 1e-9]
        return now

    def _share(self) -> None:
        """The speed of every shard at work: shares of it in a second."""
        share = min(1.0, self.processors / (len(self.going) * self.threads))
        wanted = [(min(one.moved * share / one.computing, self.rates.link), i) for i, one in enumerate(self.going)]
        left, count = self.rates.store, len(wanted)
        heapq.heapify(wanted)
        while wanted:
            want, index = heapq.heappop(wanted)
            given = min(want, left / count)
            left, count = left - given, count - 1
            self.going[index].speed = given / self.going[index].moved


def measured_rates(plan: Plan, backend: str = "auto") -> tuple[float, float]:
    """`quantized` and `kept` of `Rates`, by seconds of a processor that exports of a few matrices take here.

    They are of the format and the method of the plan; takes some seconds, and 400 MB in the folder for temporary files.
    """
    with TemporaryDirectory(prefix="nvfp4-studio-") as folder:
        source = Path(folder) / "sample"
        _write_sample(source)
        few, most = (min(_exported(source, plan, backend, names) for _ in range(REPEATS)) for names in (FIRST, OTHERS))
    count, nbytes = MATRICES - 1, 2 * SAMPLE[0] * SAMPLE[1]
    whole = count**2 - 1  # few = 1 quantized and `count` kept, most = the other way round
    quantized, kept = (count * most - few) / whole, (count * few - most) / whole
    return nbytes / max(quantized, 1e-9), nbytes / max(kept, 1e-9)


def _write_sample(folder: Path) -> None:
    folder.mkdir()
    values = np.random.default_rng(0).normal(0, 0.02, SAMPLE).astype(np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    names = [f"model.layers.{block}.mlp.down_proj.weight" for block in range(MATRICES)]
    head, _ = place([(name, "BF16", SAMPLE) for name in names], {})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        for _ in names:
            file.write(data)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": MATRICES}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _exported(source: Path, plan: Plan, backend: str, quantized: str) -> float:
    """Seconds of a processor that an export takes in which these layers are quantized and the others kept."""
    rules = (Rule(names=(quantized,), format=plan.format), Rule(names=("*",), format=KEEP, reason="for comparison"))
    own = replace(plan, rules=rules)
    with open_model(source) as model, start(Machine(backend, threads=1), model) as engine:
        job = prepare(model, own, resolve(own, model), layout_for("", "")[0], source.with_name(str(uuid4())))
        before = time.process_time()
        for _ in export(engine, job):
            pass
        taken = time.process_time() - before
    shutil.rmtree(job.target)
    return taken
