"""What lies on a hub, and what many workers would take."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from studio import core
from studio.cli.console import Console

_FATES = {"send": "is sent", "there": "is there already", "replace": "replaces another", "remove": "is removed there"}


def show_publication(job: core.Publication, found: core.Preview, console: Console) -> None:
    """What publishing would do with each file, and whether it may."""
    for row in found.rows:
        console.emit("file", name=row.name, nbytes=row.nbytes, fate=row.fate)
    cells = [(core.printable(row.name), core.size_text(row.nbytes), _FATES[row.fate]) for row in found.rows]
    console.table(("file", ">size", "what happens"), cells)
    sent = [row for row in found.rows if row.fate in ("send", "replace")]
    amount = core.size_text(sum(row.nbytes for row in sent))
    seen = "everybody sees it" if job.public else "private"
    console.say(f"\nWould send {core.counted(len(sent), 'file')}, {amount}, to {job.url} ({seen})")
    for sentence in job.left:
        console.say(f"Stays behind: {sentence}")


def show_published(found: core.Published, console: Console) -> None:
    """Where an export is now."""
    facts = {"commit": found.commit, "private": found.private, "files": found.files, "sent": found.sent}
    console.emit("published", url=found.url, page=found.page, nbytes=found.nbytes, **facts)
    console.emit("finished", exit_code=0)
    seen = "private" if found.private else "for everybody to see"
    told = f"{core.counted(found.files, 'file')}, {core.size_text(found.nbytes)}, {found.sent:,} of them sent now"
    console.say(f"Published {found.page}, {seen}: {told}")
    console.say(f"Every file there was checked, at commit {core.printable(found.commit)}")


def show_forecasts(
    todo: Sequence[core.Piece], rates: core.Rates, rows: Sequence[core.Forecast], price: float, console: Console
) -> None:
    """How time, and what it costs, grow with the number of workers."""
    read = sum(piece.quantized + piece.kept for piece in todo)
    written = sum(piece.written for piece in todo)
    size = f"{core.size_text(read)} in {core.counted(len(todo), 'shard')}, {core.size_text(written)} when done"
    console.say(f"{size}\nRates: {_rates(rates)}\n")
    for row in rows:
        console.emit("forecast", **asdict(row), cost=_hours(row) * price)
    first = rows[0]
    cells = [
        (
            f"{row.workers:,}",
            _duration(row.seconds),
            f"{first.seconds / row.seconds:.3g}",
            f"{row.busy:.0%}",
            f"{_hours(row):,.3g}",
            f"{_hours(row) * price:,.2f}",
            row.bound,
        )
        for row in rows
    ]
    heads = (">workers", ">time", ">times faster", ">computing", ">worker hours", ">cost", "held up by")
    kept = [place for place, head in enumerate(heads) if price or head != ">cost"]
    console.table([heads[i] for i in kept], [[row[i] for i in kept] for row in cells])


def _rates(rates: core.Rates) -> str:
    """The rates in words."""
    told = [f"a thread quantizes {_rate(rates.quantized)} and copies {_rate(rates.kept)}"]
    told += [f"the store gives {_rate(rates.store)}" if math.isfinite(rates.store) else "a store without limit"]
    told += [f"a worker's network {_rate(rates.link)}" if math.isfinite(rates.link) else "networks without limit"]
    return ", ".join(told)


def _rate(nbytes: float) -> str:
    return f"{core.size_text(nbytes)}/s"


def _hours(row: core.Forecast) -> float:
    return row.workers * row.seconds / 3600


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{seconds:02}"
