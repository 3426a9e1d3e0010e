"""A runtime in a process of its own: jobs go in as JSON lines, answers come out, and its output goes to a log file."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_SECONDS = 180
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "2",
    "PYTHONPATH": str(_ROOT),
    "TORCHDYNAMO_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class RuntimeFailedError(Exception):
    """What the runtime raised, as `Type: text`."""


def missing(packages: dict[str, str]) -> str:
    """Why a runtime can not be tested here, or "" when all `packages` are there in the wanted versions ("": any)."""
    found = []
    for name, wanted in packages.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            found.append(f"{name} is not installed")
            continue
        if wanted and installed.partition("+")[0] != wanted:
            found.append(f"{name} is {installed}, not {wanted}")
    return "; ".join(found)


class Worker:
    """Runs `module` in a process of the interpreter `python`; `ask` sends it a job and waits for the answer."""

    def __init__(
        self,
        module: str,
        log: Path,
        python: Path = Path(sys.executable),
        seconds: int = _SECONDS,
        arguments: Sequence[str] = (),
    ) -> None:
        self._module, self._log, self._arguments = module, log, arguments
        self._python, self._seconds = python, seconds
        self._process: subprocess.Popen[str] | None = None
        self._answers: dict[str, Any] = {}

    def ask(self, do: str, **job: Any) -> Any:
        """The answer to a job, kept for equal ones; raises RuntimeFailedError when the runtime does."""
        line = json.dumps({"do": do, **job}, default=str, sort_keys=True)
        if line not in self._answers:
            self._answers[line] = self._exchange(line)
        answer = self._answers[line]
        if "error" in answer:
            raise RuntimeFailedError(answer["error"])
        return answer["result"]

    def _exchange(self, line: str) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._seconds)
        answer = process.stdout.readline() if ready else ""
        if not answer:
            self.close()
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise AssertionError(f"{self._module} gave no answer within {self._seconds} s to {line}:\n{tail}")
        return json.loads(answer)

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            with self._log.open("a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    [str(self._python), "-m", self._module, *self._arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=self._log.parent,
                    env={**os.environ, **_ENVIRONMENT},
                )
        return self._process

    def close(self) -> None:
        """End the process, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
