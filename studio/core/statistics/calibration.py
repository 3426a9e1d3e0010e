"""Calibration: statistics of a model are gathered on a text, in a process of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from os import fspath
from pathlib import Path

from studio.core.errors import ExportError
from studio.core.events import Calibrated, Event
from studio.core.exporting.writing import check_writable
from studio.core.running.child import follow, told


@dataclass(frozen=True, slots=True)
class Calibration:
    """What to gather: at most `windows` windows of `length` tokens of the texts, placed by `seed`.

    out: the file to write. max_memory: bytes that running the model may take, 0 for no limit. overwrite: replace `out`.
    """

    source: Path
    out: Path
    texts: tuple[Path, ...]
    windows: int = 64
    length: int = 512
    seed: int = 0
    max_memory: int = 0
    overwrite: bool = False

    def arguments(self) -> list[str]:
        """The arguments of the child."""
        numbers = {
            "--windows": self.windows,
            "--length": self.length,
            "--seed": self.seed,
            "--max-memory": self.max_memory,
            "--out": self.out.absolute(),
        }
        texts = [f"--text={path.absolute()}" for path in self.texts]
        return [fspath(self.source.absolute()), *(f"{key}={value}" for key, value in numbers.items()), *texts]


def calibrate(job: Calibration) -> Iterator[Event]:
    """Gather statistics and write them; ends with `Calibrated`.

    Closing the generator ends the child at once; what is gathered is kept beside `out`, and the same call goes on from
    there. Raises StudioError.
    """
    if job.out.exists() and not job.overwrite:
        raise ExportError("exists", file=job.out, hint="choose another --out, or --overwrite")
    check_writable(job.out.parent, [job.out.name])
    found = yield from told("calibrate", follow("calibrate", job.arguments()))
    yield Calibrated(
        path=Path(found["path"]),
        nbytes=found["nbytes"],
        tokens=found["tokens"],
        matrices=found["matrices"],
        idle=tuple(found["idle"]),
        unseen=tuple(found["unseen"]),
        runtime=found["runtime"],
        seconds=found["seconds"],
    )
