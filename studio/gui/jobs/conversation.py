"""Conversation: a source and a quantized model that stay loaded between prompts, for the background thread."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import core


@dataclass(frozen=True, eq=False)
class Sides:
    """What is to answer: a plan's model beside its checkpoint, or an export beside its source where that is known."""

    model: core.Model
    plan: core.Plan | None = None
    source: Path | None = None

    @property
    def compared(self) -> bool:
        """True when there is a source to compare with."""
        return self.plan is not None or self.source is not None

    @property
    def title(self) -> str:
        """What the quantized side is called."""
        return f"The plan: {self.plan.format} {self.plan.method}" if self.plan else "This export"

    def same(self, other: "Sides | None") -> bool:
        """True when both answer the same."""
        if other is None or self.model is not other.model:
            return False
        return (self.plan, self.source) == (other.plan, other.source)


class Conversation:
    """Loads sides when they are first asked, and keeps them until others are. All of it is for one thread."""

    def __init__(self) -> None:
        self._sides: Sides | None = None
        self._loaded: core.Generation | None = None

    @property
    def is_loaded(self) -> bool:
        """True while sides are loaded."""
        return self._loaded is not None

    def reply(self, machine: core.Machine, sides: Sides, prompt: core.Prompt) -> Iterator[Any]:
        """Continue a prompt: yields the title of the backend and `Loaded` where sides are loaded, then the replies.

        Tokens of both sides are counted as progress. Closing it while it loads ends the loading, later only the reply.
        """
        if self._loaded is None or not sides.same(self._sides):
            yield from self._load(machine, sides)
        try:
            yield from self._counted(prompt)
        except core.StudioError:
            self.close()
            raise

    def _load(self, machine: core.Machine, sides: Sides) -> Iterator[Any]:
        self.close()
        with ExitStack() as opened, core.start(machine, sides.model) as engine:
            yield engine.backend.title
            source, model = _candidates(sides, opened)
            loading = core.Generation(engine, source, model, max_memory=machine.max_memory)
            try:
                yield from loading.load()
            except BaseException:  # stopped, too
                loading.close()
                raise
        self._loaded, self._sides = loading, sides

    def _counted(self, prompt: core.Prompt) -> Iterator[Any]:
        assert self._loaded is not None
        yield core.Started("generate", prompt.length * 2, 0)
        count = 0
        with closing(self._loaded.reply(prompt)) as events:
            for event in events:
                yield event
                if isinstance(event, core.Token):
                    count += 1
                    yield core.Progress("generate", count, "")

    def close(self) -> None:
        """End the process that holds the models, if there is one."""
        loaded, self._loaded, self._sides = self._loaded, None, None
        if loaded is not None:
            loaded.close()


def _candidates(sides: Sides, opened: ExitStack) -> tuple[core.Candidate | None, core.Candidate]:
    """Source and model; what is opened for them is closed by `opened`."""
    if sides.plan:
        return core.as_stored(sides.model), core.as_planned(sides.model, sides.plan)
    origin = opened.enter_context(core.open_model(sides.source)) if sides.source else None
    return core.as_stored(origin) if origin else None, core.as_stored(sides.model)
