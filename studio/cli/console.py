"""What the command line shows: tables, a progress bar, messages. Output that can not be written never stops a job."""

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from studio import core

WIDE = 240
_NARROWEST = 28
_GAP = "  "
_LINE_EVERY = 5.0
_WORKERS = 16


class Console:
    """Results go to stdout, everything else to stderr; `as_json` makes stdout a stream of JSON lines in UTF-8."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self._progress: _Progress | None = None
        for stream in (sys.stdout, sys.stderr):
            _take_any_name(stream)
        if as_json and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(
                encoding="utf-8", errors="backslashreplace"
            )  # as JSON must be; half a surrogate pair becomes its escape

    def say(self, text: str = "") -> None:
        """A line of the result."""
        if not self.as_json:
            self._write(sys.stdout, text)

    def log(self, text: str) -> None:
        """A line beside the result."""
        if not self.quiet:
            self._write(sys.stderr, text)

    def emit(self, kind: str, /, **data: Any) -> None:
        """One JSON line, when JSON was asked for."""
        if self.as_json:
            self._write(sys.stdout, json.dumps({"event": kind, **data}, ensure_ascii=False))

    def fail(self, error: core.StudioError) -> None:
        """Show an error and what to do about it."""
        self.stop_progress()
        self._write(sys.stderr, f"{self._red('error:', sys.stderr)} {error}")
        if error.hint:
            self._write(sys.stderr, f"hint: {error.hint}")
        self.emit("error", message=str(error), hint=error.hint, exit_code=error.exit_code)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; a title that starts with ">" aligns right; the first column loses its front where room is short."""
        if self.as_json:
            return
        from rich.cells import set_cell_size
        from rich.console import Console as Rich

        terminal = _is_terminal(sys.stdout)
        heads = [title.removeprefix(">") for title in columns]
        widths = [_widest(column) for column in zip(heads, *rows, strict=True)]
        room = (Rich(file=sys.stdout).width if terminal else WIDE) - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
        widths[0] = min(widths[0], max(room, _cells(heads[0]), _NARROWEST))

        sides = [">" if title.startswith(">") else "<" for title in columns]
        plain = _GAP.join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))

        def line(cells: Sequence[str]) -> str:
            if len(cells[0]) <= widths[0] and (text := plain.format(*cells)).isascii():
                return text.rstrip()
            aligned = []
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
                space = width - _cells(cell)
                if space < 0:
                    aligned.append("…" + set_cell_size(cell[::-1], width - 1)[::-1])
                else:
                    aligned.append(" " * space + cell if sides[place] == ">" else cell + " " * space)
            return _GAP.join(aligned).rstrip()

        top = line(heads)
        self._write(sys.stdout, "\n".join([f"\x1b[1m{top}\x1b[0m" if terminal else top, *map(line, rows)]))

    def start_progress(self, title: str, total: int, unit: str = "") -> None:
        """Begin to show progress on stderr, in `unit`, by default in bytes."""
        self.stop_progress()
        if not self.quiet:
            self._progress = _Progress(title, total, unit)

    def progress(self, done: int, what: str) -> None:
        """Show that `done` bytes, or other units, are worked through."""
        if self._progress:
            self._progress.update(done, core.printable(what, 40))

    def show_workers(self, lines: Sequence[str]) -> None:
        """Show a line for each worker with the progress; the first of them, where there are many."""
        if self._progress:
            more = [f"and {len(lines) - _WORKERS:,} more"] if len(lines) > _WORKERS else []
            self._progress.workers = [*lines[:_WORKERS], *more]

    def stop_progress(self) -> None:
        """Remove the progress bar."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _write(self, stream: TextIO | None, text: str) -> None:
        if stream is None:
            return
        try:
            stream.write(text + "\n")
            stream.flush()
        except (OSError, ValueError):
            _drop(stream)

    @staticmethod
    def _red(text: str, stream: TextIO) -> str:
        return f"\x1b[31m{text}\x1b[0m" if _is_terminal(stream) else text


def _cells(text: str) -> int:
    """Cells of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _widest(texts: Sequence[str]) -> int:
    """The most cells of a terminal that one of them takes."""
    return max(map(len, texts)) if all(map(str.isascii, texts)) else max(map(_cells, texts))


class _Progress:
    """A bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, max(total, 1), unit
        self.workers: Sequence[str] = ()
        self._started = self._shown = time.monotonic()
        self._bar: Any = None
        if _is_terminal(sys.stderr):
            self._bar, self._task = self._terminal_bar()

    def _terminal_bar(self) -> tuple[Any, Any]:
        from rich.console import Console as Rich
        from rich.console import RenderableType
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.text import Text

        class Bar(Progress):
            def get_renderables(bar) -> Iterable[RenderableType]:  # noqa: N805 - it shows what this object knows
                yield from super().get_renderables()
                yield from (Text(f"  {line}", overflow="ellipsis", no_wrap=True) for line in self.workers)

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *(
                [MofNCompleteColumn(), TextColumn(self._unit)]
                if self._unit
                else [DownloadColumn(), TransferSpeedColumn()]
            ),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", markup=False),
        )
        bar = Bar(*columns, console=Rich(stderr=True), transient=True)
        bar.start()
        return bar, bar.add_task(self._title, total=self._total, what="")

    def update(self, done: int, what: str) -> None:
        now = time.monotonic()
        if self._bar is not None:
            if now - self._shown > 0.05 or done >= self._total:
                self._bar.update(self._task, completed=done, what=what)
                self._shown = now
            return
        if now - self._shown >= _LINE_EVERY and sys.stderr is not None:
            self._shown = now
            rate = done / (now - self._started)
            left = (self._total - done) / rate if rate else 0
            speed = f"{rate:,.0f} {self._unit}" if self._unit else core.size_text(rate)
            soon = f", {left:.0f} s left" if rate else ""
            lines = [f"{self._title}: {done / self._total:.0%}, {speed}/s{soon}, {what}", *self.workers]
            text = "\n  ".join(lines) + "\n"
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except (OSError, ValueError):
                _drop(sys.stderr)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")
    except ValueError:
        return False


def _take_any_name(stream: TextIO | None) -> None:
    """Let a stream of any encoding show what it can and escape the rest."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """Send what is still written to a broken stream nowhere."""
    replacement = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as the process
    if stream is sys.stdout:
        sys.stdout = replacement
    elif stream is sys.stderr:
        sys.stderr = replacement
