"""Judges an export in a consumer: its logits beside those of the decoded weights in the same consumer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.consumers.consumers import Consumer
from tests.consumers.exporting import Case
from tests.consumers.verdicts import (
    FAILS,
    NO_BASELINE,
    NOT_INSTALLED,
    REFUSED,
    RIGHT,
    WRONG,
    Verdict,
    distance,
    is_right,
    loss,
)
from tests.runtimes.worker import RuntimeFailedError, Worker

_SECONDS = 600


class Judge:
    """One consumer in a process of its own; `problem` says why there is none. Close it at the end."""

    def __init__(self, consumer: Consumer, python: Path | None, folder: Path, log: Path, problem: str = "") -> None:
        self.consumer, self.problem = consumer, problem
        self._outputs = folder / f"logits-{consumer.name}"
        self._outputs.mkdir()
        self._worker = Worker(consumer.module, log, python, _SECONDS) if python else None
        self._baselines: dict[Path, str] = {}

    def close(self) -> None:
        """End the process."""
        if self._worker:
            self._worker.close()

    def judge(self, case: Case, decoded: Path | None, tokens: list[int]) -> Verdict:
        """Judge an export; `decoded` is the checkpoint of its weights, None where there is none."""
        said, claim = case.claims.get(self.consumer.reader, ("", ""))
        is_claimed = self.consumer.is_claimed
        start = Verdict(
            self.consumer.name, case.model, case.title, case.format, "", said=said, claim=claim, is_claimed=is_claimed
        )
        if self.problem:
            return replace(start, verdict=NOT_INSTALLED, reason=self.problem)
        if decoded is None:
            return replace(start, verdict=WRONG if case.fault else REFUSED, reason=case.fault or case.refusal)
        if problem := self._baseline(decoded, tokens):
            return replace(start, verdict=NO_BASELINE, reason=problem)
        found = self._outputs / "found.npy"
        if problem := self._run(case.folder, found, tokens):
            return replace(start, verdict=FAILS, reason=problem)
        return replace(start, **self._compared(np.load(found), np.load(self._expected(decoded)), tokens))

    def _baseline(self, decoded: Path, tokens: list[int]) -> str:
        if decoded not in self._baselines:
            self._baselines[decoded] = self._run(decoded, self._expected(decoded), tokens)
        return self._baselines[decoded]

    def _expected(self, decoded: Path) -> Path:
        return self._outputs / f"{decoded.name}.npy"

    def _run(self, folder: Path, file: Path, tokens: list[int]) -> str:
        """Write logits; the error of the consumer, or "" . A crash is an error."""
        assert self._worker
        file.unlink(missing_ok=True)
        try:
            self._worker.ask("logits", folder=folder, file=file, tokens=tokens)
        except (RuntimeFailedError, AssertionError) as error:
            return " ".join(str(error).split())[:300]
        return ""

    def _compared(self, found: np.ndarray, expected: np.ndarray, tokens: list[int]) -> dict[str, Any]:
        if found.shape != expected.shape:
            return {"verdict": WRONG, "reason": f"logits have the shape {found.shape}, not {expected.shape}"}
        far, ours, decoded = distance(found, expected), loss(found, tokens), loss(expected, tokens)
        verdict = RIGHT if is_right(far, ours - decoded, self.consumer.noise) else WRONG
        return {"verdict": verdict, "distance": far, "loss": ours, "decoded_loss": decoded}
