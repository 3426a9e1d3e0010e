"""The process that runs models: its words become events and errors, and it ends when nobody waits for it."""

import os
import sys
import textwrap
import time

import pytest

from studio.core.errors import BackendError, CheckpointError, MemoryLimitError, StudioError
from studio.core.events import Progress, Started, Warned
from studio.core.running.child import PYTHON, Child, follow, told

WORDS = """
import json, os, sys, time
def say(event, **data):
    print(json.dumps({"event": event, **data}), flush=True)
"""


@pytest.fixture
def child_that(tmp_path, monkeypatch):
    """child_that(code): from now on a child runs this code instead of a model."""

    def become(code):
        script = tmp_path / "child.py"
        script.write_text(WORDS + textwrap.dedent(code))
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
        python.chmod(0o755)
        monkeypatch.setenv(PYTHON, str(python))

    return become


def run():
    return list(told("calibrate", follow("calibrate", [])))


def test_what_it_says_becomes_events(child_that):
    child_that("""
        say("started", total=8, what="first")
        say("progress", done=3, what="block 1")
        say("warning", message="odd")
        say("result", answer=7)
    """)
    found = {}

    def job():
        found.update((yield from told("calibrate", follow("calibrate", []))))

    assert [event for event in job() if event != Progress("calibrate", 0, "")] == [
        Started("calibrate", 8, 0),
        Progress("calibrate", 3, "block 1"),
        Warned("odd"),
    ]
    assert found["answer"] == 7


def test_its_errors_are_raised_as_what_they_are(child_that):
    child_that("""
        say("error", kind="CheckpointError", message="no such thing", file="/a/b", tensor="c", hint="do this")
        sys.exit(2)
    """)
    with pytest.raises(CheckpointError, match=r"/a/b: tensor c: no such thing") as caught:
        run()
    assert caught.value.hint == "do this"


def test_a_fault_of_a_runtime_is_told_in_a_line(child_that):
    child_that('say("bug", message="KeyError: x"); sys.exit(70)')
    with pytest.raises(StudioError, match="could not be run: KeyError: x"):
        run()


def test_a_child_that_the_system_ends_wanted_too_much_memory(child_that):
    child_that("os.kill(os.getpid(), 9)")
    with pytest.raises(MemoryLimitError, match="ended by the system") as caught:
        run()
    assert "--max-memory" in caught.value.hint


def test_a_child_that_dies_silently_is_an_error_with_its_last_words(child_that):
    child_that('sys.stderr.write("Fatal: \\x1b[31mboom\\n"); sys.exit(3)')
    with pytest.raises(StudioError, match=r"ended with 3: Fatal: \\x1b\[31mboom"):
        run()
    child_that("sys.exit(0)")
    with pytest.raises(StudioError, match="without a result"):
        run()


def test_closing_ends_a_silent_child_at_once(child_that):
    child_that("time.sleep(600)")
    job = told("calibrate", follow("calibrate", []))
    next(job)
    began = time.monotonic()
    job.close()
    assert time.monotonic() - began < 60


def test_a_child_hears_answers_and_is_gone_after_it_was_closed(child_that):
    child_that("""
        say("ask", number=1)
        say("result", heard=sys.stdin.readline().strip())
        time.sleep(600)
    """)
    with Child("moments", []) as child:
        for line in child.lines():
            if line["event"] == "ask":
                child.answer("yes")
            elif line["event"] == "result":
                assert line["heard"] == "yes"
                break
    with pytest.raises(ProcessLookupError):
        os.kill(child.process.pid, 0)


def test_a_python_without_the_program_is_told_what_to_install(child_that):
    child_that("""sys.stderr.write("/usr/bin/python: No module named studio"); sys.exit(1)""")
    with pytest.raises(BackendError, match="has no nvfp4-studio") as caught:
        run()
    assert "pip install" in caught.value.hint


def test_the_bundled_program_says_that_it_needs_a_python(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(BackendError, match="bundled program") as caught:
        run()
    assert PYTHON in caught.value.hint


def test_a_python_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(BackendError, match=r"nowhere: can not be started: No such file") as caught:
        run()
    assert PYTHON in caught.value.hint


def test_another_python_gets_no_libraries_of_the_bundled_program(child_that, monkeypatch):
    child_that('say("result", path=os.environ.get("LD_LIBRARY_PATH", ""))')
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundle")
    assert next(line for line in follow("calibrate", []) if line["event"] == "result")["path"] == ""
    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/before")
    assert next(line for line in follow("calibrate", []) if line["event"] == "result")["path"] == "/before"
