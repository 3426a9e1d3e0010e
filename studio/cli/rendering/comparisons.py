"""How checkpoints differ, and whether they are what they should be."""

from pathlib import Path

from studio import core
from studio.cli.console import Console
from studio.cli.rendering.layers import error_text


def show_comparison(found: core.Measured, console: Console) -> None:
    """How far two checkpoints are apart: a line per layer that differs, what only one has, and the totals."""
    compared = found.comparison
    for pair in compared.pairs:
        console.emit("pair", **pair.to_json())
    if compared.pairs:
        columns = ("layer", "A", "B", ">bits A", ">bits B", *([">error A"] if found.reference else []), ">error B")
        console.table(columns, [_pair_row(pair, with_a=bool(found.reference)) for pair in compared.pairs])
    for title, names in (("A", compared.only_a), ("B", compared.only_b), ("the source", found.lost)):
        if names:
            console.say(f"only {title} has {core.counted(len(names), 'layer')}: {core.some_of(list(names))}")
    console.say()
    console.table(("", "checkpoint", ">layers", ">size", ">bits", ">error", "stored as"), _side_rows(found))
    for format_, count in found.untaken.items():
        console.say(f"no plan knows {core.printable(format_)}: {core.counted(count, 'layer')} of B kept in its plan")
    same = f"{core.counted(found.equal, 'layer')} the same in both" if found.equal else "no layer is the same in both"
    console.say(f"\n{same}\n{found.sentence()}")
    alone = {"only_a": compared.only_a, "only_b": compared.only_b, "lost": found.lost, "untaken": found.untaken}
    sides = [side.to_json() for side in found.sides]
    console.emit(
        "compared",
        sides=sides,
        equal=found.equal,
        source=found.reference,
        sentence=found.sentence(),
        plan=found.plan.to_json(),
        **alone,
    )


def _pair_row(pair: core.Pair, *, with_a: bool) -> tuple[str, ...]:
    errors = (pair.error_a, pair.error_b) if with_a else (pair.error_b,)
    titles = (core.printable(pair.title_a), core.printable(pair.title_b))
    return core.printable(pair.name), *titles, *(f"{bits:.2f}" for bits in pair.bits), *map(error_text, errors)


def _side_rows(found: core.Measured) -> list[tuple[str, ...]]:
    return [
        (
            letter,
            core.printable(side.name),
            f"{side.layers:,}",
            core.size_text(side.nbytes),
            f"{side.bits:.2f}",
            "" if side.rel_err is None else error_text(side.rel_err),
            ", ".join(core.printable(name) for name, _ in side.formats[:3]),
        )
        for letter, side in zip("AB", found.sides, strict=True)
    ]


def show_verified(target: Path, outcome: core.Outcome, source: core.Model | None, console: Console) -> None:
    """What verifying found, of an export of ours or of a checkpoint of others."""
    count = core.counted(len(outcome.layers), "layer decodes", "layers decode")
    ours = core.is_ours(target)
    if ours and not outcome.cautions:
        compared = "and its errors are the ones it states" if source else "(--source SRC compares it with its source)"
        console.say(f"{target} is whole: {count} {compared}")
    else:
        _show_foreign(target, count, outcome, source, console)
    told = {"ours": ours, "notes": list(outcome.cautions)}
    console.emit("verified", path=str(target), layers=len(outcome.layers), compared=source is not None, **told)


def _show_foreign(target: Path, count: str, outcome: core.Outcome, source: core.Model | None, console: Console) -> None:
    differ = [layer for layer in outcome.layers if layer.sum_error]
    if source and differ:
        rows = [
            (
                core.printable(r.name),
                core.printable(r.reason or r.format),
                f"{r.bits_per_weight:.2f}",
                error_text(r.rel_err),
            )
            for r in differ
        ]
        console.table(("layer", "stored as", ">bits", ">rel_err"), rows)
        console.say()
    console.say(f"{target}: {count}; {'; '.join(outcome.cautions)}")
    if source:
        total = core.relative_error(sum(r.sum_error for r in differ), sum(r.sum_squares for r in differ))
        errors = f"{core.counted(len(differ), 'layer differs', 'layers differ')}, relative error {error_text(total)}"
        there = {result.name for result in outcome.layers}
        lacking = sum(layer.name not in there for layer in source.layers)
        missing = f"; {core.counted(lacking, 'layer of it is', 'layers of it are')} not here" if lacking else ""
        same = "the same weights, bit by bit"
        console.say(f"Against {core.printable(source.name)}: {errors if differ else same}{missing}")
    else:
        console.say("--source SRC compares it with its source")
