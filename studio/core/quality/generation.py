"""Generation: a prompt is continued by a source and a quantized model, side by side, in a process of their own."""

import json
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from os import fspath
from pathlib import Path
from typing import Any, Self

from studio.core.errors import StudioError
from studio.core.events import Event, Loaded, Progress, ReplyDone, Token
from studio.core.quality.candidates import Candidate, check, check_memory, only_runtime, prepare, reading_folder
from studio.core.quality.window_records import cache_folder, evaluation_space
from studio.core.running.child import Child, Line
from studio.core.running.engine import Engine

SIDES = ("source", "model")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to go on from, and how: at most `length` tokens, the most likely ones, or drawn by `seed` at `temperature`.

    chat: as a question in the form that the model's template gives it.
    """

    text: str
    chat: bool = False
    length: int = 128
    temperature: float = 0.0
    seed: int = 0


class Generation:
    """A source, a quantized model, or both, loaded for prompts. Use it as a context manager: leaving ends the child.

    Iterate over `load` first, then over `reply` for each prompt; closing either generator stops it at once.
    """

    def __init__(
        self,
        started: Engine,
        source: Candidate | None,
        model: Candidate | None,
        *,
        runtime: str = "",
        folder: Path | None = None,
        max_memory: int = 0,
    ) -> None:
        self._started, self._sides = started, {"source": source, "model": model}
        chosen = [side for side in (source, model) if side]
        if model:
            check(model, source.model if source else None)
        self._warnings = list(check_memory([side.model for side in chosen], 1, max_memory))
        known = runtime or only_runtime(source, chosen)
        with ExitStack() as stack:
            self._scratch = stack.enter_context(evaluation_space(folder or cache_folder()))
            place = fspath(reading_folder(chosen[0].model, self._scratch).absolute())
            self._child = stack.enter_context(Child("generate", [place, f"--runtime={known}"]))
            self._cleanup = stack.pop_all()
        self._lines = self._child.lines()
        self._number, self._closed = 0, False

    def load(self) -> Iterator[Event]:
        """Load what is to answer; ends with `Loaded`."""
        yield from self._warnings
        folders = dict.fromkeys(SIDES, "")
        source = self._sides["source"].model if self._sides["source"] else None
        for name, side in self._sides.items():
            if side:
                where, _ = yield from prepare(
                    self._started, side, source, self._scratch / name, self._scratch / f"{name}-feedback"
                )
                folders[name] = str(where.absolute())
        self._child.answer(json.dumps(folders))
        for line in self._lines:
            if line["event"] == "ready":
                yield Loaded(line["runtime"], line["version"], line["chat"])
                return
            yield Progress("generate", 0, "loading")
        raise StudioError("the process that ran the model ended without a word")

    def reply(self, prompt: Prompt) -> Generator[Event, None, None]:
        """Continue a prompt: a `Token` of each side in turn, then `ReplyDone`."""
        self._number += 1
        asked = {"number": self._number, "prompt": prompt.text, "chat": prompt.chat, "length": prompt.length}
        self._child.answer(json.dumps({**asked, "temperature": prompt.temperature, "seed": prompt.seed}))
        done = False
        try:
            for line in self._lines:
                if line.get("number", self._number) == self._number:
                    event = _event(line)
                    done = isinstance(event, ReplyDone)
                    yield event
                if done:
                    return
        finally:
            if not (done or self._closed):
                self._child.answer("stop")

    def close(self) -> None:
        """End the child, at once, and remove what was written for it."""
        self._closed = True
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def generate(
    started: Engine,
    source: Candidate | None,
    model: Candidate | None,
    prompt: Prompt,
    *,
    runtime: str = "",
    folder: Path | None = None,
    max_memory: int = 0,
) -> Iterator[Event]:
    """Load both sides and continue one prompt; see `Generation`."""
    how: dict[str, Any] = {"runtime": runtime, "folder": folder, "max_memory": max_memory}
    with Generation(started, source, model, **how) as generation:
        yield from generation.load()
        yield from generation.reply(prompt)


def _event(line: Line) -> Event:
    told: dict[str, Any] = dict(line)
    match told["event"]:
        case "token":
            return Token(told["side"], told["index"], told["token"], told["text"], told["differs"])
        case "done":
            return ReplyDone(told["differs_at"])
    return Progress("generate", 0, "")
