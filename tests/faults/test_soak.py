"""The soak in short, and that it finds what leaks."""

import os
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from subprocess import run

import pytest

from tests.faults.held import FEWEST, GROWTH, POOLED, Held, held, leaks, slope

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc, which is Linux's")
NOTHING = Held(Counter(), Counter(), Counter(), Counter(), 0)


@pytest.mark.proof
def test_five_cycles_leave_nothing_behind() -> None:
    pytest.importorskip("PySide6", reason="the window is not installed")
    done = run((sys.executable, "-m", "tests.faults.soak", "5"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("nothing leaked\n")


def test_a_descriptor_a_thread_and_a_file_are_found(tmp_path: Path) -> None:
    before, end = held(tmp_path), threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    descriptor = os.open(tmp_path / "a.partial", os.O_CREAT)
    try:
        found = held(tmp_path).more_than(before)
    finally:
        end.set()
        thread.join()
        os.close(descriptor)
    assert [one.partition(":")[0] for one in found] == ["descriptors", "threads", "files"]
    assert found[0].endswith("a.partial")
    assert found[2] == "files: a.partial"


def test_only_as_many_pooled_threads_as_processors_may_come() -> None:
    most = os.cpu_count() or 1
    assert not leaks(NOTHING, replace(NOTHING, threads=Counter({POOLED: most})), ())
    assert leaks(NOTHING, replace(NOTHING, threads=Counter({POOLED: most + 1})), ()) == [f"threads: {POOLED}"]


def test_memory_that_grows_is_found_once_there_are_cycles_enough() -> None:
    grown = [number * 2 * GROWTH for number in range(FEWEST)]
    assert slope(grown) == pytest.approx(2 * GROWTH)
    assert leaks(NOTHING, replace(NOTHING, memory=grown[-1]), grown) == ["memory: 40.0 kB a cycle"]
    assert not leaks(NOTHING, NOTHING, grown[:-1])
    assert not leaks(NOTHING, NOTHING, [min(value, grown[FEWEST // 2]) for value in grown])
