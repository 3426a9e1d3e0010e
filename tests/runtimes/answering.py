"""The other end of `worker`: reads jobs from standard input, gives each to the function of its name."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def answer_jobs(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer until standard input ends; whatever else is printed goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            job = json.loads(line)
            answers.write(json.dumps(_answer(functions[job.pop("do")], job)) + "\n")
            answers.flush()


def _answer(function: Callable[..., Any], job: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": function(**job)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
