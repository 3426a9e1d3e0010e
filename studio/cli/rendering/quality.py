"""What statistics hold, what a plan costs in tokens, and what models say."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from studio import core
from studio.cli.console import Console


def show_calibration(found: core.Calibrated, source: Path, console: Console) -> None:
    """What is in a file of statistics, what is not, and what to do with it."""
    console.emit("calibrated", **{**asdict(found), "path": str(found.path)})
    told = f"{core.counted(found.matrices, 'matrix', 'matrices')}, {core.counted(found.tokens, 'token')} of text"
    console.say(
        f"Wrote {found.path}: {told}, {core.size_text(found.nbytes)}, in {found.seconds:.0f} s ({found.runtime})"
    )
    for names, what in (
        (found.idle, "of experts saw no token and will be quantized without statistics; more text reaches more"),
        (found.unseen, "are not in it, since the runtime has them in another form, and will be quantized without it"),
    ):
        if names:
            console.say(f"{core.counted(len(names), 'matrix', 'matrices')} {what}: {core.printable(names[0])} first")
    console.say(
        f"\nNext: nvfp4-studio quantize {shlex.quote(str(source))} DST --statistics {shlex.quote(str(found.path))}"
    )


def show_quality(quality: core.Quality, console: Console) -> None:
    """What an evaluation found: a line per model, the source first."""
    rows = [_quality_row(row) for row in (*([quality.source] if quality.source else []), *quality.models)]
    columns: tuple[str, ...] = (
        "model",
        "format",
        "method",
        ">rel_err",
        ">perplexity",
        ">increase",
        ">KL to source",
        ">predicted",
        ">top-1",
        ">seconds",
    )
    if all(row.predicted is None for row in quality.models):
        place = columns.index(">predicted")
        columns, *rows = [(*cells[:place], *cells[place + 1 :]) for cells in (columns, *rows)]
    console.table(columns, rows)
    text = quality.text
    console.say(
        f"\n{core.printable(text.name)}: {core.counted(text.windows, 'window')} of {text.length:,} tokens, "
        f"{quality.runtime} {quality.version} in float32; ± is one standard error over windows"
    )
    if not quality.source:
        console.say("Without its source only perplexity is known: --against SRC adds KL and agreement.")


def _quality_row(row: core.Evaluated) -> tuple[str, ...]:
    return (
        core.printable(row.name),
        row.format,
        " by ".join(filter(None, (row.method, row.guide))) or "-",
        "-" if row.rel_err is None else f"{row.rel_err:.4f}",
        _noisy(row.perplexity, "%.2f"),
        _noisy(row.increase, "%+.1f", 100, " %"),
        _noisy(row.kl, "%.4f"),
        "-" if row.predicted is None else f"{row.predicted:.4f}",
        _noisy(row.top1, "%.1f", 100, " %"),
        f"{row.seconds:.0f}",
    )


def _noisy(found: core.Estimate | None, form: str, factor: float = 1, unit: str = "") -> str:
    return core.noisy(found, form, factor, unit) if found else "-"


def show_replies(events: Iterable[core.Event], console: Console) -> None:
    """What each side made of a prompt, the first token that is another one in brackets."""
    texts: dict[str, str] = {}
    for event in events:
        match event:
            case core.Loaded(runtime, version, _):
                console.log(f"{runtime} {version}, in float32")
            case core.Token(side, index, token, text, differs):
                console.emit("token", side=side, index=index, token=token, text=text, differs=differs)
                texts[side] = texts.get(side, "") + (f"[{text or 'end'}]" if differs else text)
            case core.ReplyDone(differs_at):
                console.emit("finished", differs_at=differs_at)
                _show_texts(texts, differs_at, console)


def _show_texts(texts: Mapping[str, str], differs_at: int | None, console: Console) -> None:
    for side, text in texts.items():
        console.say(f"{side}:\n{_lines(text)}\n")
    if len(texts) > 1:
        console.say("Both say the same." if differs_at is None else f"They differ from token {differs_at + 1} on.")


def _lines(text: str) -> str:
    """What a model said, its line ends kept, all else that a terminal would take for an order escaped."""
    return "\n".join(core.printable(line, len(line) * 10 + 1) for line in text.split("\n"))
