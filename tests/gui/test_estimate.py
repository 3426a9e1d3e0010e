"""The time left: near what it turns out to be, for short runs and long ones, and never nonsense."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from studio import core
from studio.gui.jobs.estimate import Estimate, duration
from studio.gui.jobs.job import EXPORT, Job


def test_a_pause_counts_neither_for_the_rate_nor_for_the_time_left() -> None:
    estimate = Estimate(1000, started=0.0)
    for step in range(1, 5):
        estimate.update(10 * step, float(step))
    estimate.hold(4.5)
    estimate.update(45, 60.0)
    estimate.go_on(104.5)
    estimate.update(50, 105.0)
    assert estimate.rate == pytest.approx(10, rel=0.1)
    assert estimate.left == pytest.approx(95, rel=0.1)
    assert estimate.waited == 100


def test_no_rate_is_made_of_a_moment() -> None:
    estimate = Estimate(1000, started=0.0)
    estimate.update(100, 0.001)
    estimate.update(100, 1.0)
    assert estimate.rate == 100


def test_the_time_left_never_jumps() -> None:
    estimate = Estimate(1000, started=0.0)
    shown = []
    for step in range(1, 60):
        estimate.update(10 * step if step < 30 else 300 + 2 * (step - 30), float(step))
        shown.append(estimate.left)
    known = [value for value in shown if value is not None]
    assert len(known) > 50
    for before, after in pairwise(known):
        assert abs(after - (before - 1)) <= 0.2 * max(before, 1) + 1e-9


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.4, 61, 3700)] == ["0:00", "1:01", "1:01:40"]


def told(done: Callable[[float], float], seconds: float, total: int = 1000) -> list[tuple[float, float]]:
    """(moment, time left) of a run that takes so many seconds, told ten times a second."""
    estimate, found = Estimate(started=0.0), []
    estimate.expect(total, 0.0)
    for tenth in range(1, int(10 * seconds)):
        estimate.update(int(total * done(tenth / 10 / seconds)), tenth / 10)
        if estimate.left is not None:
            found.append((tenth / 10, estimate.left))
    return found


def test_a_slow_start_does_not_make_a_short_run_look_long() -> None:
    """The first second works through a hundredth, as reading and compiling do: not 0:57 of 0:15."""
    found = told(lambda share: max(0.15 * share, (share - 1 / 15) * 1.07), 15)
    assert found
    assert max(left for _, left in found) < 30
    assert all(abs(moment + left - 15) < 5 for moment, left in found if moment > 4)


def test_a_run_that_gets_slower_is_never_said_to_be_over() -> None:
    estimate = Estimate(started=0.0)
    estimate.expect(1000, 0.0)
    texts = []
    for tenth in range(1, 600):
        estimate.update(9 * tenth if tenth < 100 else 900 + (tenth - 100) // 10, tenth / 10)
        texts.append(estimate.left_text)
    assert "0:00 left" not in texts
    assert estimate.left is not None
    assert 25 < estimate.left < 60


def test_a_run_of_two_seconds_is_not_told_how_long_it_takes() -> None:
    assert told(lambda share: share, 2) == []


def test_a_run_that_is_through_has_no_time_left() -> None:
    estimate = Estimate(1000, started=0.0)
    for step in range(1, 11):
        estimate.update(100 * step, float(step))
    assert estimate.left_text == ""


def test_what_goes_before_the_work_counts_for_the_time_but_not_for_the_rate() -> None:
    estimate = Estimate(started=0.0)
    estimate.expect(1000, 30.0)
    for step in range(1, 5):
        estimate.update(100 * step, 30.0 + step)
    assert estimate.rate == pytest.approx(100)
    assert estimate.left == pytest.approx(6)
    assert estimate.seconds(34.0) == 34


def test_a_pause_while_the_work_begins_counts_once() -> None:
    estimate = Estimate(started=0.0)
    estimate.hold(1.0)
    estimate.expect(1000, 2.0)
    assert estimate.seconds(50.0) == 1
    estimate.go_on(101.0)
    for step in range(1, 5):
        estimate.update(100 * step, 101.0 + step)
    assert estimate.rate == pytest.approx(100)
    assert estimate.seconds(105.0) == 5


def test_shards_of_an_earlier_run_do_not_make_this_one_look_fast() -> None:
    job = Job(EXPORT, "Exporting", lambda: iter(()))
    job.begin(0.0)
    job.estimate.expect(10_000, 0.0)
    job.take(core.Resumed("model-00001.safetensors", 5000))
    job.follow(5100, 1.0)
    for step in range(1, 10):
        job.follow(5100 + 100 * step, 1.0 + step)
    assert job.estimate.rate == pytest.approx(100, rel=0.15)
    assert job.estimate.left == pytest.approx(40, rel=0.2)
