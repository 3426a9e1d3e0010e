"""Wanted: what is to be evaluated, as the dialog asked for it. No Qt."""

from dataclasses import dataclass
from pathlib import Path

from studio import core


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be evaluated: the plan, and it in other formats and methods; or an export against its source."""

    reading: core.Reading
    formats: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    source: Path | None = None

    def plans(self, plan: core.Plan) -> list[tuple[str, core.Plan]]:
        """The plan and its variants, each with what to call it."""
        formats, methods = self.formats or (plan.format,), self.methods or (plan.method,)
        others = [(f, m) for f in formats for m in methods if (f, m) != (plan.format, plan.method)]
        return [("The plan", plan), *((f"{f} {m}", plan.with_format(f).with_method(m)) for f, m in others)]
