"""The command line: parse, run a job, print its events. Exit codes are those of `studio.core.errors`."""

import argparse
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from studio import core
from studio.arguments import parser
from studio.console import Console
from studio.rendering import (
    show_backend,
    show_cautions,
    show_changes,
    show_claims,
    show_export,
    show_inspection,
    show_outcome,
    show_plan,
)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console(as_json=options.json, quiet=options.quiet)
    _stop_on_signals()
    try:
        return _COMMANDS[options.command](options, console)
    except core.StudioError as error:
        console.fail(error)
        return error.exit_code
    except MemoryError:
        console.fail(core.MemoryLimitError("ran out of memory", hint="--max-memory 1G keeps it within a bound"))
        return core.MemoryLimitError.exit_code
    except KeyboardInterrupt:
        console.stop_progress()
        console.log("stopped; what is finished is kept: run the same command to resume")
        console.emit("stopped", exit_code=core.STOPPED)
        return core.STOPPED
    except Exception:
        console.stop_progress()
        console.log(f"{traceback.format_exc()}This is a bug in NVFP4 Studio; nothing at the target was changed.")
        console.emit("error", message="a bug in NVFP4 Studio", hint="", exit_code=core.BUG)
        return core.BUG
    finally:
        console.stop_progress()


def _stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP stop a job as Ctrl-C does, a second one at once; what nohup ignores stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) != signal.SIG_IGN
    ]

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in heard:
            signal.signal(number, lambda *_: os._exit(core.STOPPED))
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, stop)


def plan_of(options: argparse.Namespace) -> core.Plan:
    """The plan that the options say."""
    plan = core.load_plan(options.plan) if options.plan else core.preset(options.preset)
    if options.format:
        plan = plan.with_format(options.format)
    if options.mx_exponent:
        plan = plan.with_exponent(options.mx_exponent)
    rules = [
        core.Rule(names=(pattern,), format=core.KEEP, reason="excluded on the command line")
        for pattern in options.exclude
    ]
    rules += [core.include_rule(text, plan.format) for text in options.include]
    return plan.preceded_by(rules)


def _machine(options: argparse.Namespace) -> core.Machine:
    return core.Machine(options.backend, options.threads, options.max_memory)


@contextmanager
def _start(options: argparse.Namespace, console: Console, model: core.Model | None) -> Iterator[core.Engine]:
    """An engine as the options want it; says what computes."""
    with core.start(_machine(options), model) as started:
        show_backend(started, console)
        yield started


def _open(path: Path, console: Console) -> core.Model:
    model = core.open_model(path)
    for warning in model.warnings:
        console.log(f"warning: {warning}")
        console.emit("warning", message=warning)
    return model


def _inspect(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        show_inspection(model, console)
    return 0


def _plan(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        model.check_plain()
        plan = plan_of(options)
        choices = core.resolve(plan, model)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        asked, (choices, refusals) = choices, core.fitted(layout, reader, model, choices)
        if refusals and (options.layout or options.reader):
            core.refuse(model, asked, layout, refusals)
        show_changes(core.changes(asked, choices), console)
        if options.lift and not refusals:
            show_changes(core.liftable(model, choices), console)
        show_plan(model, plan, choices if refusals else core.sized(model, choices, layout), layout, console)
        if refusals:
            console.say(
                f"Note: {layout.name}, the default layout, can not store it: {core.printable(refusals[0], 400)}"
            )
        elif not options.layout:
            whose = "that of --for" if options.reader else "the default"
            console.say(f"Sizes are those of the layout {layout.name}, {whose}; --layout names another.")
    if options.save:
        core.save_plan(plan, options.save)
        console.log(f"wrote {options.save}")
    return 0


def _measure(options: argparse.Namespace, console: Console) -> int:
    _check_report(options)
    with _open(options.source, console) as model:
        model.check_plain()
        plan = plan_of(options)
        choices = core.resolve(plan, model)
        with _start(options, console, model) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            outcome = _follow(core.measure(started, model, choices), console)
        return _finish(options, console, model, plan, outcome)


def _quantize(options: argparse.Namespace, console: Console) -> int:
    _check_report(options)
    with _open(options.source, console) as model:
        model.check_plain()
        plan = plan_of(options)
        choices = core.resolve(plan, model)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        with _start(options, console, model) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            prepare = partial(
                core.prepare,
                model,
                plan,
                choices,
                layout,
                options.target,
                overwrite=options.overwrite,
                restart=options.restart,
                reader=reader,
                shard_nbytes=options.shard_size,
            )
            job = prepare()
            if options.lift:
                job = prepare(lifting=_lifting(started, job, console))
            show_changes(job.changes, console)
            if options.dry_run:
                show_plan(model, plan, job.choices, job.layout, console)
                show_export(job, options.target, console, dry_run=True)
                return 0
            show_export(job, options.target, console)
            if job.doubt:
                console.log(f"warning: {job.doubt}")
            outcome = _follow(core.export(started, job), console)
        code = _finish(options, console, model, plan, outcome)
        console.say(f"\nWrote and verified {options.target}")
        show_claims(job.claims, console)
        show_cautions(job, console)
        return code


def _lifting(started: core.Engine, job: core.Export, console: Console) -> core.Lifting:
    """What lifting finds for an export that can be written without it."""
    ended = _ending(core.lift(started, job.model, job.choices), console)
    assert isinstance(ended, core.Lifted)
    lifting = ended.lifting
    console.emit("lift", exponents=dict(lifting.exponents), refused=dict(lifting.refused))
    return lifting


def _verify(options: argparse.Namespace, console: Console) -> int:
    source = _open(options.source, console) if options.source else None
    try:
        with _start(options, console, source) as started:
            outcome = _follow(core.verify(started, options.target, source), console)
    finally:
        if source:
            source.close()
    compared = "and its errors are the ones it states" if source else "(--source SRC compares it with its source)"
    count = core.counted(len(outcome.layers), "layer decodes", "layers decode")
    console.say(f"{options.target} is whole: {count} {compared}")
    console.emit("verified", path=str(options.target), layers=len(outcome.layers), compared=source is not None)
    return 0


def _validate(options: argparse.Namespace, console: Console) -> int:
    report = core.validate(options.backend, quick=options.quick)
    console.say(report.text())
    console.emit("validation", **json.loads(report.to_json()))
    return 0 if report.passed else core.ThresholdExceeded.exit_code


def _demo(options: argparse.Namespace, console: Console) -> int:
    from studio.demo import open_window, run_demo

    code = run_demo(options.target, _machine(options), console, _follow)
    if options.window:
        open_window(console)
    return code


def _follow(events: Iterator[core.Event], console: Console) -> core.Outcome:
    """Run a job to its end, showing its events; returns its outcome."""
    ended = _ending(events, console)
    assert isinstance(ended, core.Finished)
    return ended.outcome


def _ending(events: Iterator[core.Event], console: Console) -> core.Event | None:
    """Run a job, showing its events; the generator is closed whatever happens. Returns the event that ends it."""
    ended = None
    try:
        for event in events:
            match event:
                case core.Started(phase, total, layers):
                    console.start_progress(phase, total)
                    console.emit("started", phase=phase, total=total, layers=layers)
                case core.Progress(phase, done, layer):
                    console.progress(done, layer)
                case core.LayerDone(result):
                    console.emit("layer", **result.to_json())
                case core.Resumed(shard, nbytes):
                    console.log(f"resumed: {shard} is finished already")
                    console.emit("resumed", shard=shard, nbytes=nbytes)
                case core.ShardWritten(shard, nbytes, digest):
                    console.emit("shard", shard=shard, nbytes=nbytes, sha256=digest)
                case core.Warned(message):
                    console.log(f"warning: {message}")
                    console.emit("warning", message=message)
                case core.Finished() | core.Lifted():
                    ended = event
    finally:
        console.stop_progress()
        if hasattr(events, "close"):
            events.close()
    return ended


def _check_report(options: argparse.Namespace) -> None:
    """Refuse reports that could not be written before the work that they are about."""
    if options.report:
        core.check_reports(options.report)


def _finish(
    options: argparse.Namespace, console: Console, model: core.Model, plan: core.Plan, outcome: core.Outcome
) -> int:
    """Show the outcome, write the reports, apply the threshold; returns the exit code."""
    show_outcome(model, outcome, console)
    paths = core.write_reports(options.report, model, plan, outcome) if options.report else []
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


_COMMANDS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "inspect": _inspect,
    "plan": _plan,
    "measure": _measure,
    "quantize": _quantize,
    "verify": _verify,
    "validate": _validate,
    "demo": _demo,
}
