"""Exports of a checkpoint: every layout as each of its readers gets it, with what the program says of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio import core

Rules = tuple[tuple[tuple[str, ...], str], ...]

_FEED_FORWARD = ("*mlp*", "*experts*", "*feed_forward*")
PLANS: dict[str, tuple[str, Rules]] = {
    "nvfp4-2t": ("nvfp4-2t", ()),
    "nvfp4-3t": ("nvfp4-3t", ()),
    "split": ("nvfp4-3t", ((_FEED_FORWARD, "nvfp4-2t"),)),
    "mixed": (
        "nvfp4-2t",
        ((("*down_proj", "*.w2"), "nvfp4-3t"), (("*o_proj",), "int8-g64"), (("*v_proj",), core.KEEP)),
    ),
}
"""What the layers are stored as: a format and rules. split: attention has three tiers, the rest two. mixed: two tiers
with three tiers, 8 bits and plain weights among them."""

SERVERS: dict[str, tuple[str, Rules]] = {
    "mxfp4": ("mxfp4", ()),
    "mxfp8": ("mxfp8", ()),
    "fp8-channel": ("fp8-channel", ()),
    "fp8-block": ("fp8-block", ()),
    "int4-sym-g32": ("int4-sym-g32", ()),
    "int8-sym-g128": ("int8-sym-g128", ()),
    "servers": ("nvfp4-3t", ((("*down_proj",), "fp8-channel"), (("*o_proj",), "int8-sym-g128"))),
}
"""Formats of servers, and a mix of them: their columns are not published."""

_ROLES = ("linear", "expert")
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """An export that was made, or the sentence that refused it.

    claims: (verdict, sentence) by the reader's name. fault: why its bytes are not those of its source.
    """

    model: str
    layout: str
    reader: str
    format: str
    folder: Path
    claims: dict[str, tuple[str, str]]
    refusal: str = ""
    fault: str = ""

    @property
    def title(self) -> str:
        """The layout, and for whom it is written where that makes a difference."""
        return f"{self.layout} for {self.reader}" if self.reader else self.layout


def cases(
    name: str, source: Path, folder: Path, wanted: frozenset[str], plans: dict[str, tuple[str, Rules]] = PLANS
) -> Iterator[Case]:
    """Make the exports of a checkpoint that one of the `wanted` readers loads, one after the other."""
    with core.open_model(source) as model, core.start(core.Machine(threads=_THREADS), model) as engine:
        for layout in core.LAYOUTS.values():
            for row, told in plans.items() if wanted & set(layout.readers) else ():
                if _formats(told) <= set(layout.formats):
                    yield from _variants(name, model, engine, layout, (row, _plan(told)), folder)


def _variants(
    name: str, model: core.Model, engine: core.Engine, layout: core.Layout, named: tuple[str, core.Plan], folder: Path
) -> Iterator[Case]:
    row, plan = named
    seen: list[object] = []
    for reader in layout.readers:
        target = folder / f"{layout.name}-{row}-{reader}"
        choices, refusals = core.fitted(layout, reader, model, core.resolve(plan, model))
        made = [(choice.layer.name, choice.format) for choice in choices], bool(refusals)
        if made in seen:
            continue
        told = reader if seen else ""
        seen.append(made)
        if refusals := refusals or [why for why in [core.nothing_chosen(choices)] if why]:
            yield Case(name, layout.name, told, row, target, {}, refusals[0])
            continue
        job = core.prepare(model, plan, core.resolve(plan, model), layout, target, overwrite=True, reader=reader)
        for _ in core.export(engine, job):
            pass
        said = zip(layout.readers, job.claims, strict=True)
        yield Case(name, layout.name, told, row, target, {who: (claim.verdict, str(claim)) for who, claim in said})


def _formats(told: tuple[str, Rules]) -> set[str]:
    base, rules = told
    return {base, *(chosen for _, chosen in rules)} - {core.KEEP}


def _plan(told: tuple[str, Rules]) -> core.Plan:
    base, rules = told
    own = [core.Rule(names=patterns, roles=_ROLES, format=chosen, optional=True) for patterns, chosen in rules]
    return core.preset("linear").with_format(base).preceded_by(own)
