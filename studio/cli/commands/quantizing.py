"""The commands measure and quantize."""

import argparse
from collections.abc import Sequence
from functools import partial

from studio import core
from studio.cli.asked import begin_stream, crew_of, engine_of, guided, plan_of, resolved, spread_of, stream, worker_of
from studio.cli.console import Console
from studio.cli.following import follow, shown
from studio.cli.rendering.exports import (
    show_cautions,
    show_changes,
    show_claims,
    show_export,
    show_outcome,
)
from studio.cli.rendering.plans import show_plan


def run_measure(options: argparse.Namespace, console: Console) -> int:
    """Show what quantizing would cost, and write nothing."""
    quality = check_report(options)
    with guided(options.source, options, console) as model:
        plan = plan_of(options)
        choices = resolved(plan, model, console)
        _check_measurable(model, choices, console)
        with engine_of(options, console, model, choices) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            with crew_of(options, console) as crew:
                order = partial(core.order_for, model, plan, choices, worker_of(options), options.statistics)
                spread = spread_of(crew, order, core.Opened(model, choices))
                outcome = follow(core.measure(started, model, choices, spread), console)
        return finish(options, console, model, plan, outcome, quality)


def _check_measurable(model: core.Model, choices: Sequence[core.Choice], console: Console) -> None:
    """Layers that can not be read are left out where others are measured: nothing is written that would lose them.

    Raises CheckpointError where there are no others.
    """
    if not any(choice.recipe for choice in choices):
        core.check_decodable(model)
    elif model.quantized_by and not core.is_exported(model):
        console.log(f"warning: left out, as it is quantized already: {model.quantized_by}")
        console.emit("warning", message=model.quantized_by)


def run_quantize(options: argparse.Namespace, console: Console) -> int:
    """Write an export, and verify it."""
    quality = check_report(options)
    with guided(options.source, options, console) as model:
        core.check_decodable(model)
        begin_stream(options, model)
        plan = plan_of(options)
        choices = resolved(plan, model, console)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        with engine_of(options, console, model, choices) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            prepare = partial(
                core.prepare,
                model,
                plan,
                choices,
                layout,
                core.target_path(options.target),
                overwrite=options.overwrite,
                restart=options.restart,
                reader=reader,
                shard_nbytes=options.shard_size,
            )
            job = prepare()
            if options.lift:
                job = prepare(lifting=_lifting(started, job, console))
            if quality:
                job = core.with_quality(job, quality)
            stream(options, job, console)
            show_changes(job.changes, console)
            if options.dry_run:
                show_plan(model, plan, job.choices, job.layout, console)
                show_export(job, options.target, console, dry_run=True)
                return 0
            show_export(job, options.target, console)
            if job.doubt:
                console.log(f"warning: {job.doubt}")
            with crew_of(options, console) as crew:
                how = (worker_of(options), options.statistics, job)
                order = partial(core.order_for, model, plan, choices, *how, stream=options.stream)
                spread = spread_of(crew, order, core.Opened(job.model, job.choices, job))
                outcome = follow(core.export(started, job, spread), console)
        code = finish(options, console, model, plan, outcome, quality)
        console.say(f"\nWrote and verified {options.target}")
        show_claims(job.claims, console)
        show_cautions(job, console)
        return code


def _lifting(started: core.Engine, job: core.Export, console: Console) -> core.Lifting:
    """What lifting finds for an export that can be written without it."""
    (ended,) = shown(core.lift(started, job.model, job.choices), console)
    assert isinstance(ended, core.Lifted)
    lifting = ended.lifting
    console.emit("lift", exponents=dict(lifting.exponents), refused=dict(lifting.refused))
    return lifting


def check_report(options: argparse.Namespace) -> core.Quality | None:
    """What an evaluation found, for the reports; refuses those that could not be written, before the work."""
    if options.report:
        core.check_reports(options.report)
    return core.load_quality(options.quality) if options.quality else None


def finish(
    options: argparse.Namespace,
    console: Console,
    model: core.Model,
    plan: core.Plan,
    outcome: core.Outcome,
    quality: core.Quality | None,
) -> int:
    """Show the outcome, write the reports, apply the threshold; returns the exit code."""
    show_outcome(model, outcome, console)
    paths = core.write_reports(options.report, model, plan, outcome, quality) if options.report else []
    if paths:
        console.log(f"wrote {', '.join(map(str, paths))}")
    console.emit("report", paths=list(map(str, paths)), **core.report_head(model, plan, outcome))
    console.emit("finished", **outcome.summary(), seconds=outcome.seconds)
    limit = options.max_rel_err
    if limit is None:
        return 0
    worse = [(r.rel_err, r.name) for r in outcome.layers if r.quantized and not r.rel_err <= limit]  # as NaN is
    if worse:
        name = core.printable(max(worse, key=lambda found: (found[0] != found[0], found[0]))[1])
        count = core.counted(len(worse), "layer exceeds", "layers exceed")
        what = f"{count} a relative error of {options.max_rel_err:g}, the worst is {name}"
        console.fail(core.ThresholdExceeded(what, hint="exclude them, or choose a finer format for them"))
        return core.ThresholdExceeded.exit_code
    return 0
