"""Runs commands of the program in one process, since starting it takes longer than a small export."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from studio.cli.app import main
from tests.runtimes.answering import answer_jobs


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """The exit code of a command and all that it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = main(arguments)
    return {"code": code, "printed": printed.getvalue()}


if __name__ == "__main__":
    answer_jobs({"run": run})
