"""Commands that write nothing: inspect, verify, compare, doctor; and those that show the program itself."""

import argparse
import json
from contextlib import ExitStack

from studio import core
from studio.cli.asked import check_alone, crew_of, engine_of, machine_of, open_source, spread_of, worker_of
from studio.cli.console import Console
from studio.cli.following import follow, follow_examination, shown
from studio.cli.rendering.comparisons import show_comparison, show_verified
from studio.cli.rendering.models import show_inspection


def run_inspect(options: argparse.Namespace, console: Console) -> int:
    """Show what a checkpoint holds."""
    with open_source(options.source, console) as model:
        show_inspection(model, console)
    return 0


def run_verify(options: argparse.Namespace, console: Console) -> int:
    """Check every byte and weight of a folder."""
    place = core.place_of(options.target)
    source = open_source(options.source, console) if options.source else None
    try:
        with engine_of(options, console, source) as started, crew_of(options, console) as crew:
            spread = spread_of(crew, lambda: core.verify_order(place, worker_of(options), source))
            outcome = follow(core.verify(started, place, source, spread), console)
        show_verified(place, outcome, source, console)
    finally:
        core.close_place(place)
        if source:
            source.close()
    return 0


def run_doctor(options: argparse.Namespace, console: Console) -> int:
    """Show what is wrong with a folder, and mend it if asked to."""
    with ExitStack() as stack:
        against = stack.enter_context(open_source(options.source, console)) if options.source else None
        if options.fix:
            check_alone(options, "a repaired copy is written by one process")
            started = stack.enter_context(engine_of(options, console, against))
            job = core.repair(started, options.target, options.fix, against=against)
        else:
            crew = stack.enter_context(crew_of(options, console))
            spread = spread_of(crew, lambda: core.doctor_order(options.target, worker_of(options)))
            job = core.doctor(
                options.target, quick=options.quick, against=against, spread=spread, statistics=options.statistics
            )
        found = follow_examination(job, console)
    worst = options.fail_on
    return core.ThresholdExceeded.exit_code if worst != "never" and found.reaches(worst) else 0


def run_compare(options: argparse.Namespace, console: Console) -> int:
    """Show where two checkpoints of one model differ."""
    if options.plan:
        core.check_writable(options.plan.parent, [options.plan.name])
    with ExitStack() as stack:
        a, b = (stack.enter_context(open_source(path, console)) for path in (options.a, options.b))
        source = stack.enter_context(open_source(options.source, console)) if options.source else None
        with engine_of(options, console, source or a) as started:
            (ended,) = shown(core.compare_checkpoints(started, a, b, source), console)
    assert isinstance(ended, core.Compared)
    show_comparison(ended.measured, console)
    if options.plan:
        core.save_plan(ended.measured.plan, options.plan)
        console.log(f"wrote {options.plan}")
    return 0


def run_validate(options: argparse.Namespace, console: Console) -> int:
    """Check kernels against the reference, and show the tables."""
    report = core.validate(options.backend, quick=options.quick)
    console.say(report.text())
    console.emit("validation", **json.loads(report.to_json()))
    return 0 if report.passed else core.ThresholdExceeded.exit_code


def run_demo(options: argparse.Namespace, console: Console) -> int:
    """Show everything on the checkpoint that comes along."""
    from studio.cli.demo import open_window, run_demo

    code = run_demo(options.target, machine_of(options), console, follow)
    if options.window:
        open_window(console)
    return code
