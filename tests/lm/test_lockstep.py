"""Calls in lockstep take turns, and end with whoever waits for them."""

import threading

import pytest

from studio.lm.lockstep import Lockstep


def test_calls_advance_together_and_never_at_once():
    lockstep, seen, running = Lockstep(), [], []

    def call(name, pauses):
        for number in range(pauses):
            running.append(name)
            assert len(running) == 1
            seen.append((name, number))
            running.pop()
            lockstep.pause()
        seen.append((name, "end"))

    steps = list(lockstep.run([lambda: call("a", 2), lambda: call("b", 2)]))
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", "end"), ("b", "end")]
    assert steps == [0, 1, 2]


def test_what_a_call_raises_ends_all_and_leaves_no_thread():
    lockstep, ended = Lockstep(), []

    def waits():
        try:
            lockstep.pause()
        finally:
            ended.append(True)

    def fails():
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(lockstep.run([waits, fails]))
    assert ended == [True]
    assert threading.active_count() == before


def test_closing_it_ends_calls_that_wait():
    lockstep, before = Lockstep(), threading.active_count()
    run = lockstep.run([lockstep.pause, lockstep.pause])
    next(run)
    run.close()
    assert threading.active_count() == before
