"""The commands convert and gguf."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from studio import core
from studio.cli.asked import (
    begin_stream,
    check_alone,
    crew_of,
    engine_of,
    guided,
    open_source,
    plan_of,
    resolved,
    spread_of,
    stream,
    worker_of,
)
from studio.cli.commands.quantizing import check_report, finish
from studio.cli.console import Console
from studio.cli.following import follow, shown
from studio.cli.rendering.exports import (
    show_cautions,
    show_changes,
    show_claims,
    show_conversion,
    show_export,
)

_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", None: ""}


def run_convert(options: argparse.Namespace, console: Console) -> int:
    """Store what is stored in another layout."""
    with open_source(options.source, console) as model:
        begin_stream(options, model)
        target, _ = core.target_for(options.layout or "", options.reader)
        if target is core.GGUF:
            check_alone(options, "a GGUF file is one file, which one process writes")
            options.target = core.local_target(options.target)
            core.check_gguf(model, options.target, overwrite=options.overwrite)
        with engine_of(options, console, model) as started, crew_of(options, console) as crew:
            spread = spread_of(crew, lambda: core.proof_order(model, worker_of(options)), core.Opened(model))
            how = (target, options.reader, _DTYPES[options.dtype], spread)
            (ended,) = shown(core.transcode(started, model, *how), console)
            assert isinstance(ended, core.Transcoded)
            show_conversion(ended.transcoding, console)
            if not options.allow_lossy:
                ended.transcoding.check()
            if target is core.GGUF:
                _converted_to_gguf(options, console, started, model, ended.transcoding)
            else:
                _converted(options, console, started, crew, model, ended.transcoding)
    return 0


def _converted(
    options: argparse.Namespace,
    console: Console,
    started: core.Engine,
    crew: core.Workforce | None,
    model: core.Model,
    transcoding: core.Transcoding,
) -> None:
    layout, _ = core.layout_for(options.layout or "", options.reader)
    job = core.prepare_conversion(
        model,
        transcoding,
        layout,
        core.target_path(options.target),
        overwrite=options.overwrite,
        restart=options.restart,
        shard_nbytes=options.shard_size,
    )
    stream(options, job, console)
    show_export(job, options.target, console, dry_run=options.dry_run)
    if options.dry_run:
        return
    order = partial(core.conversion_order, job, worker_of(options), stream=options.stream)
    spread = spread_of(crew, order, core.Opened(model, job.choices, job))
    _follow_conversion(core.export(started, job, spread), options.target, console)
    show_claims(job.claims, console)
    show_cautions(job, console)


def _converted_to_gguf(
    options: argparse.Namespace,
    console: Console,
    started: core.Engine,
    model: core.Model,
    transcoding: core.Transcoding,
) -> None:
    job = core.prepare_gguf_conversion(model, transcoding, options.target, overwrite=options.overwrite)
    said = {"target": str(options.target), "layout": core.GGUF.name, "nbytes": job.nbytes, "dry_run": options.dry_run}
    console.emit("export", **said)
    if options.dry_run:
        console.say(f"\nWould write {core.size_text(job.nbytes)} to {options.target}")
        return
    _follow_conversion(core.write_gguf(started, job), options.target, console)


def _follow_conversion(events: Iterator[core.Event], target: str | Path, console: Console) -> None:
    outcome = follow(events, console)
    console.emit("finished", **outcome.summary(), exit_code=0)
    console.say(f"\nWrote and verified {target}: {core.size_text(outcome.nbytes_out)}")


def run_gguf(options: argparse.Namespace, console: Console) -> int:
    """Quantize into one GGUF file."""
    quality = check_report(options)
    with guided(options.source, options, console) as model:
        core.check_decodable(model)
        plan = plan_of(options)
        if plan.activations:
            raise core.PlanError("a GGUF file holds quantized weights alone", hint="leave --activations out")
        choices = resolved(plan, model, console)
        with engine_of(options, console, model, choices) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            job = core.prepare_gguf(model, choices, options.target, overwrite=options.overwrite)
            show_changes(job.changes, console)
            outcome = follow(core.write_gguf(started, job), console)
        code = finish(options, console, model, plan, outcome, quality)
        console.say(f"\nWrote and verified {options.target}")
        return code
