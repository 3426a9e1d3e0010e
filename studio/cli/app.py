"""The command line: parse, run a command, tell errors. Exit codes are those of `studio.core.errors`."""

import _thread
import argparse
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from studio import core
from studio.cli.arguments import parser
from studio.cli.commands.converting import run_convert, run_gguf
from studio.cli.commands.looking import run_compare, run_demo, run_doctor, run_inspect, run_validate, run_verify
from studio.cli.commands.planning import run_plan
from studio.cli.commands.quantizing import run_measure, run_quantize
from studio.cli.commands.running import run_calibrate, run_evaluate, run_generate
from studio.cli.commands.spreading import run_estimate, run_publish
from studio.cli.console import Console


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    options.said = arguments
    console = Console(as_json=options.json, quiet=options.quiet)
    _stop_on_signals()
    try:
        with _heard(console):
            return _COMMANDS[options.command](options, console)
    except core.StudioError as error:
        console.fail(error)
        return error.exit_code
    except MemoryError:
        console.fail(core.MemoryLimitError("ran out of memory", hint="--max-memory 1G keeps it within a bound"))
        return core.MemoryLimitError.exit_code
    except KeyboardInterrupt:
        console.stop_progress()
        console.log("stopped; what is finished is kept: run the same command to resume")
        console.emit("stopped", exit_code=core.STOPPED)
        return core.STOPPED
    except Exception:
        console.stop_progress()
        console.log(f"{traceback.format_exc()}This is a bug in NVFP4 Studio; nothing at the target was changed.")
        console.emit("error", message="a bug in NVFP4 Studio", hint="", exit_code=core.BUG)
        return core.BUG
    finally:
        console.stop_progress()


@contextmanager
def _heard(console: Console) -> Iterator[None]:
    """Show what the engine logs meanwhile: requests that are made again."""
    log, handler = logging.getLogger("studio"), _ToConsole(console)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _ToConsole(logging.Handler):
    """Shows lines; of several files that wait for the same reason only the first."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._last = console, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line."""
        text = record.getMessage()
        _, _, why = text.partition(": ")
        if why != self._last:
            self._console.log(text)
        self._last = why


def _stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP stop a job as Ctrl-C does, a second one at once; what nohup ignores stays ignored.

    Nothing waits for a store any more.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) != signal.SIG_IGN
    ]

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in heard:
            signal.signal(number, lambda *_: os._exit(core.STOPPED))
        _thread.start_new_thread(core.abandon_all, ())  # no lock is taken here: this interrupts whatever holds it
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, stop)


_COMMANDS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "inspect": run_inspect,
    "plan": run_plan,
    "measure": run_measure,
    "quantize": run_quantize,
    "estimate": run_estimate,
    "convert": run_convert,
    "gguf": run_gguf,
    "verify": run_verify,
    "compare": run_compare,
    "doctor": run_doctor,
    "publish": run_publish,
    "calibrate": run_calibrate,
    "evaluate": run_evaluate,
    "generate": run_generate,
    "validate": run_validate,
    "demo": run_demo,
}
