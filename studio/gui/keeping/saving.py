"""Save: one write of what changed, for the thread that writes."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from studio import core
from studio.gui.keeping.recall import Known
from studio.gui.keeping.shelf import Entry
from studio.gui.keeping.work import Encoder, Work


@dataclass(eq=False)
class Save:
    """One write to the disk: the work, unless it is None, and results that are new."""

    entry: Entry
    encoder: Encoder
    lines: core.ResultLines
    work: Work | None
    results: list[Known]
    future: "Future[None]" = field(default_factory=Future)

    def write(self) -> None:
        """Write; raises OSError."""
        if self.results:
            self.entry.add_lines([self.lines.line(*known) for known in self.results])
            self.results = []
        if self.work is not None:
            data = self.encoder.encode(self.work)
            if data != self.encoder.written:
                self.entry.write_work(data)
                self.encoder.written = data
