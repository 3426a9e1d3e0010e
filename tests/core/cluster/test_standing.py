"""What is told of workers: bytes a second of each, which part it holds, and who was lost."""

import json
import re

import pytest

from studio import core
from studio.cli.console import Console
from studio.cli.following import shown
from studio.core.cluster import standing
from studio.core.cluster.standing import Standing
from studio.core.running.spread import Part, PartDone, cut, in_order

ONE, TWO = "tls://a:1", "tls://b:2"


class Clock:
    """Seconds as a test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(standing, "time", clock)
    return clock


def told(there: Standing, index: int, process: int, done: int, address: str = ONE) -> list[str]:
    message = {"index": index, "attempt": f"host:{process}:0", "worker": address, "done": done}
    return [warning.message for warning in there.take(message)]


def parts(*works: int) -> list[Part]:
    return [Part(f"model-{index}", work, None) for index, work in enumerate(works)]  # type: ignore[arg-type]


def rows(there: Standing, *addresses: str) -> list[tuple[str, str, int, int]]:
    found = there.working(set(addresses or (ONE, TWO))).workers
    return [(row.name, row.part, row.done, round(row.rate)) for row in found]


def test_rates_are_those_of_the_last_seconds(clock: Clock) -> None:
    there = Standing(parts(10_000, 10_000))
    for second in range(31):
        clock.now = 100.0 + second
        told(there, 0, 1, 100 * second)
        told(there, 1, 2, 10 * second if second < 20 else 190, TWO)
    assert rows(there) == [("host:1", "model-0", 3000, 100), ("host:2", "model-1", 190, 0)]
    assert there.done == 3190
    clock.now += 5
    assert rows(there)[0][3] in range(45, 60)
    assert there.working({ONE}).workers[0].silent == 5.0


def test_what_a_worker_has_finished_counts_and_it_holds_nothing(clock: Clock) -> None:
    there = Standing(parts(1000, 500))
    told(there, 0, 1, 0)
    clock.now += 2
    told(there, 0, 1, 400)
    clock.now += 2
    there.finish(0)
    assert rows(there) == [("host:1", "", 1000, 250)]
    told(there, 1, 1, 100)
    assert rows(there) == [("host:1", "model-1", 1100, 275)]
    assert there.done == 1100


def test_a_lost_worker_is_named_and_what_it_did_does_not_count(clock: Clock) -> None:
    there = Standing(parts(1000))
    told(there, 0, 1, 600)
    clock.now += 1
    assert told(there, 0, 2, 50, TWO) == ["model-0 begins again: its worker host:1 was lost"]
    assert told(there, 0, 1, 700) == []  # what it sent before it died
    assert there.done == 50
    assert rows(there) == [("host:2", "model-0", 50, 50)]
    assert rows(there, ONE) == []


def test_names_are_escaped() -> None:
    there = Standing([Part("a\x1b[31m", 10, None)])  # type: ignore[arg-type]
    told(there, 0, 1, 5)
    assert "\x1b" not in rows(there)[0][1]


def test_parts_that_end_early_wait_for_their_turn() -> None:
    events = [PartDone(2, "c"), core.Progress("verify", 1, ""), PartDone(0, "a"), PartDone(1, "b"), PartDone(3, "d")]
    found = [event.found if isinstance(event, PartDone) else "-" for event in in_order(iter(events))]
    assert found == ["-", "a", "b", "c", "d"]


@pytest.mark.parametrize("works", [[], [0], [0, 0, 0], [100 << 20] * 7, [1, 1 << 40, 1, 1 << 30, 5]])
def test_cuts_hold_everything_once_in_order(works: list[int]) -> None:
    found = list(cut(works, 2))
    assert [index for part in found for index in part] == list(range(len(works)))
    assert all(found)


WORKING = core.Working(
    (
        core.WorkerRate("host:1", "model-1", 10_000_000, 2_000_000.0, 0.3),
        core.WorkerRate("host:2", "model-2", 0, 0.0, 61.0),
        core.WorkerRate("host:3", "", 5, 0.0, 9.0),
    )
)


def test_lines_and_json_tell_each_worker(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.cli.console._LINE_EVERY", 0.0)
    events = [core.Started("quantize", 100, 1), WORKING, core.Progress("quantize", 50, "layer")]
    assert list(shown(iter(events), Console(as_json=True))) == []
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()][-1]
    assert found["event"] == "working"
    assert found["workers"][0] == {"name": "host:1", "part": "model-1", "done": 10_000_000, "rate": 2e6, "silent": 0.3}
    first, *lines = err.splitlines()
    assert re.fullmatch(r"quantize: 50%, .*, layer", first)
    assert lines == ["  host:1: 2 MB/s, model-1", "  host:2: 0 B/s, model-2, silent for 61 s", "  host:3: waits"]


def test_of_many_workers_the_first_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.cli.console._LINE_EVERY", 0.0)
    console = Console()
    console.start_progress("quantize", 100)
    console.show_workers([f"worker {number}" for number in range(64)])
    console.progress(1, "")
    assert capsys.readouterr().err.splitlines()[-2:] == ["  worker 15", "  and 48 more"]
