"""The other end of `worker`: reads jobs from standard input, gives each to the function of its name."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def answer_jobs(functions: Mapping[str, Callable[..., Any]], output: int | None = None) -> None:
    """Answer until standard input ends, to `output`; whatever else is printed goes to standard error."""
    with os.fdopen(kept_output() if output is None else output, "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            job = json.loads(line)
            answers.write(json.dumps(_answer(functions[job.pop("do")], job)) + "\n")
            answers.flush()


def kept_output() -> int:
    """Another number for what is standard output, which itself is standard error from now on."""
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _answer(function: Callable[..., Any], job: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": function(**job)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
