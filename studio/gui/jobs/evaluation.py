"""Evaluation: what was wanted and found; in a sentence, as a command line, and as JSON that is kept."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import core
from studio.gui.jobs.estimate import duration
from studio.gui.jobs.wanted import Wanted
from studio.gui.layers.choices import PlanState
from studio.gui.layers.document import Document


@dataclass(eq=False)
class Evaluation:
    """What was wanted, and what is known of it so far.

    plans: name -> plan, the plan of then first; none for an export. state: the choices that the first of them stands
    for, None where the plan is another one by now. statistics: the file that told of inputs. rows: of the models that
    are through, the source first if there is one. names: of the others, all of them. notes: what is to be said of it
    while there is no quality. report: the folder where its report and its plans are.
    """

    wanted: Wanted
    plans: dict[str, core.Plan]
    state: PlanState | None
    compared: bool
    statistics: Path | None = None
    rows: list[core.Evaluated] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quality: core.Quality | None = None
    report: Path | None = None

    @property
    def source(self) -> core.Evaluated | None:
        """The row of the source."""
        return self.rows[0] if self.compared and self.rows else None

    @property
    def models(self) -> list[core.Evaluated]:
        """The rows of the others."""
        return self.rows[int(self.compared) :]


def plan_file(folder: Path, name: str) -> Path:
    """Where the plan of a model is beside its report."""
    return folder / f"{name.lower().replace(' ', '-')}.json"


def command_of(found: Evaluation, model: core.Model, machine: core.Machine) -> str | None:
    """The command line that does the same; None where it would name plans that are in no file."""
    files = [plan_file(found.report, name) for name in found.plans] if found.report else []
    if found.plans and not (files and all(file.is_file() for file in files)):
        return None
    words = ["nvfp4-studio", "evaluate", str(model.path.absolute())]
    words += ["--plans", *map(str, files)] if files else []
    for name, value in (("against", found.wanted.source), ("statistics", found.statistics)):
        words += [f"--{name}", str(value)] if value else []
    return shlex.join([*words, *_reading_options(found.wanted.reading), *_machine_options(machine)])


def _reading_options(reading: core.Reading) -> Sequence[str]:
    texts = ["--text", *(str(path) for path in reading.texts)] if reading.texts else []
    return ["--windows", str(reading.windows), "--length", str(reading.length), *texts]


def _machine_options(machine: core.Machine) -> Sequence[str]:
    values = {
        "--backend": "" if machine.backend == "auto" else machine.backend,
        "--threads": str(machine.threads or ""),
        "--max-memory": str(machine.max_memory or ""),
    }
    return [word for name, value in values.items() if value for word in (name, value)]


def kept(found: Evaluation, model: core.Model) -> dict[str, Any]:
    """What `restored` takes, of an evaluation that is through."""
    assert found.quality is not None
    reading = found.wanted.reading
    said = {
        "quality": found.quality.to_json(),
        "plans": [[name, plan.to_json()] for name, plan in found.plans.items()],
        "files": files_of(model),
        "windows": reading.windows,
        "length": reading.length,
        "texts": list(map(str, reading.texts)),
        "formats": list(found.wanted.formats),
        "methods": list(found.wanted.methods),
        "source": str(found.wanted.source or ""),
        "statistics": str(found.statistics or ""),
    }
    again: dict[str, Any] = json.loads(json.dumps(said))  # lists, as they are read again
    return again


def restored(said: Mapping[str, Any], document: Document) -> Evaluation:
    """The evaluation that `kept` gave. Raises what comes of what is damaged."""
    quality = core.Quality.from_json(said["quality"])
    reading = core.Reading(tuple(map(Path, said["texts"])), int(said["windows"]), int(said["length"]))
    source, statistics = (Path(said[key]) if said[key] else None for key in ("source", "statistics"))
    wanted = Wanted(reading, tuple(said["formats"]), tuple(said["methods"]), source)
    plans = {str(name): core.plan_from_json(plan) for name, plan in said["plans"]}
    same = next(iter(plans.values()), None) == document.plan
    rows = [*filter(None, [quality.source]), *quality.models]
    state = document.state if same else None
    return Evaluation(wanted, plans, state, bool(quality.source), statistics, rows, quality=quality)


def files_of(model: core.Model) -> list[list[Any]]:
    """What tells the bytes of a checkpoint from others; nothing where a file is gone."""
    if core.is_remote(model.path):
        return [[file.path.name, file.size, file.fingerprint.version] for file in model.files]
    try:
        stats = [(file.path.name, file.path.stat()) for file in model.files]
    except OSError:
        return []
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def sentence(quality: core.Quality) -> str:
    """On what, by what, how long."""
    text, source = quality.text, quality.source
    tokens = next((row.tokens for row in quality.models), 0)
    read = f"{text.windows:,} × {text.length:,} tokens of {core.printable(text.name, 60)} ({tokens:,} predicted)"
    noise = source.perplexity.noise if source else None
    plain = f"the source's perplexity is {source.perplexity.value:.2f}" if source else ""
    said = f"{plain} ± {noise:.2f}" if noise is not None else plain
    runtime = f"{quality.runtime} {quality.version}, {duration(quality.seconds)}"
    return "; ".join(filter(None, (read, said, runtime))) + "."


def rate(known: Evaluation) -> float:
    """Tokens per second that were run last."""
    seconds = sum(row.seconds for row in known.rows)
    return sum(row.tokens for row in known.rows) / seconds if seconds else 0.0
