"""Forecasts: what workers take by the rates of processors, networks and a store; a slow twin steps through time."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.cluster import forecast as forecasts
from studio.core.cluster.forecast import BEGIN, END, START, Piece, Rates, forecast, pieces
from tests.core.checkpoints import checkpoint, llama
from tests.core.conftest import Studio

CORES = Rates(quantized=1e9, kept=1e9, cache=math.inf)
FIXED = START + BEGIN + END


def shards(count: int, seed: int = 0) -> list[Piece]:
    """Shards of up to some gigabytes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1e9, 9e9, count)
    return [Piece(int(size), int(size) // 10, int(size) // 3) for size in sizes]


def equal(count: int) -> list[Piece]:
    """Shards that one thread takes 4 s for, and that move 5 GB."""
    return [Piece(4 * 10**9, 0, 10**9)] * count


def seconds(todo: list[Piece], rates: Rates, workers: int, threads: int = 1, processors: int = 0) -> float:
    beginning = BEGIN * max(workers / processors - 1, 0) if processors else 0.0
    return forecast(todo, rates, workers, threads, processors).seconds - FIXED - beginning


def test_one_worker_takes_all_shards_one_after_the_other() -> None:
    todo = shards(20)
    alone = sum(piece.seconds(CORES, 1) for piece in todo)
    assert seconds(todo, CORES, 1) == pytest.approx(alone)
    assert seconds(todo, CORES, 1, threads=4) == pytest.approx(alone / 4)
    found = forecast(todo, CORES, 1)
    assert (found.bound, round(found.busy, 6)) == ("processors", 1.0)


def test_equal_shards_are_done_in_rounds() -> None:
    assert seconds(equal(8), CORES, 4) == pytest.approx(8)
    assert seconds(equal(9), CORES, 4) == pytest.approx(12)
    assert seconds(equal(8), CORES, 64) == pytest.approx(4)
    assert forecast(equal(8), CORES, 64).bound == "start and end"
    assert forecast(equal(8), replace(CORES, start=0, begin=0, end=0), 64).bound == "largest shard"


def test_a_store_is_shared_and_a_link_is_not() -> None:
    store = replace(CORES, store=2.5e9)
    assert seconds(equal(8), store, 1) == pytest.approx(32)
    assert seconds(equal(8), store, 2) == pytest.approx(16)
    assert seconds(equal(8), store, 8) == pytest.approx(16)
    assert forecast(equal(8), store, 8).bound == "store"
    links = replace(CORES, link=0.5e9)
    assert seconds(equal(8), links, 1) == pytest.approx(80)
    assert seconds(equal(8), links, 4) == pytest.approx(20)
    assert forecast(equal(8), links, 4).bound == "links"


def test_what_no_worker_can_hold_is_fetched_twice() -> None:
    small = replace(CORES, link=1e9, cache=4e9)
    assert seconds(equal(8), small, 1) == pytest.approx(80)
    assert seconds(equal(8), replace(small, cache=5e9), 1) == pytest.approx(40)


def test_workers_share_the_processors_of_a_machine() -> None:
    assert seconds(equal(8), CORES, 8, processors=2) == pytest.approx(16)
    assert seconds(equal(8), CORES, 2, processors=2) == pytest.approx(16)
    assert forecast(equal(8), CORES, 8, processors=2).busy == pytest.approx(1)


@pytest.mark.parametrize("workers", [1, 3, 16, 64])
def test_it_is_what_stepping_through_time_gives(workers: int) -> None:
    rates = replace(CORES, store=6e9, link=1.5e9, kept=2e9, cache=8e9)
    todo = shards(40, workers)
    assert seconds(todo, rates, workers, 1, 24) == pytest.approx(stepped(todo, rates, workers, 24), rel=0.01)


def stepped(todo: list[Piece], rates: Rates, workers: int, processors: int, step: float = 0.005) -> float:
    """The same, a little time after the other; what the store gives is handed out in small portions, one to each."""
    waiting = sorted(todo, key=lambda piece: piece.seconds(rates, 1))
    going: list[list[float]] = []  # left, seconds that it computes, bytes that it moves
    now = 0.0
    while waiting or going:
        while waiting and len(going) < workers:
            piece = waiting.pop()
            going.append([1.0, piece.seconds(rates, 1), piece.moved(rates.cache)])
        able = min(1.0, processors / len(going))
        needs = [min(step * able / one[1] * one[2], step * rates.link) for one in going]
        given = [0.0] * len(going)
        left = rates.store * step
        while left > 1 and (open_ := [i for i, need in enumerate(needs) if need - given[i] > 1]):
            portion = left / len(open_)
            for i in open_:
                got = min(portion, needs[i] - given[i])
                given[i] += got
                left -= got
        for one, got in zip(going, given, strict=True):
            one[0] -= got / one[2]
        going = [one for one in going if one[0] > 0]
        now += step
    return now


def test_more_workers_are_never_slower_by_more_than_a_shard() -> None:
    rates = replace(CORES, store=10e9, link=2e9)
    todo = shards(300)
    largest = max(piece.seconds(rates, 1) for piece in todo)
    taken = [seconds(todo, rates, workers) for workers in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert all(later <= earlier + largest for earlier, later in pairwise(taken))
    moved = sum(piece.moved(rates.cache) for piece in todo)
    assert taken[-1] >= moved / rates.store


def test_shards_are_those_of_the_export(tmp_path: Path) -> None:
    plan = core.preset("linear")
    with core.open_model(checkpoint(tmp_path / "model", llama(4))) as model:
        choices = core.resolve(plan, model)
        found = pieces(model, choices, core.LAYOUTS["mlx"], 40_000)
        job = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], tmp_path / "out", shard_nbytes=40_000)
        assert [piece.written for piece in found] == [shard.nbytes for shard in job.shards]
        assert sum(piece.quantized + piece.kept for piece in found) == sum(layer.nbytes for layer in model.layers)


def test_the_command_tells_what_holds_workers_up(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", llama(4))
    how = ("--shard-size", "40K", "--core-rate", "1K", "--link-rate", "1M", "--workers", 1, 2, "--price", 2)
    ran = studio("estimate", source, *how)
    assert ran.code == 0, ran.err
    assert "processors" in ran.out
    assert "networks without limit" not in ran.out
    told = [json.loads(line) for line in studio("estimate", source, *how, "--json").out.splitlines()]
    rows = [line for line in told if line["event"] == "forecast"]
    assert [row["workers"] for row in rows] == [1, 2]
    assert rows[0]["seconds"] > 1.8 * rows[1]["seconds"] > 0
    assert rows[0]["cost"] == pytest.approx(2 * rows[0]["seconds"] / 3600)


def test_rates_are_measured_by_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "SAMPLE", (512, 512))
    monkeypatch.setattr(forecasts, "REPEATS", 1)
    rates = core.measured_rates(core.preset("linear"))
    assert all(0 < rate < math.inf for rate in rates)
