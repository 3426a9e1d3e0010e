"""The command line: parse, run a job, print its events. Exit codes are those of `studio.core.errors`."""

import argparse
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from studio import core
from studio.arguments import parser
from studio.console import Console
from studio.rendering import show_claims, show_inspection, show_outcome, show_plan


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
        return core.STOPPED
    except Exception:
        console.stop_progress()
        console.log(f"{traceback.format_exc()}This is a bug in NVFP4 Studio; nothing at the target was changed.")
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
    for text in options.include:
        pattern, _, name = text.rpartition("=") if "=" in text else (text, "", "")
        rules.append(core.Rule(names=(pattern,), format=name or plan.format))
    return plan.preceded_by(rules)


def _machine(options: argparse.Namespace) -> core.Machine:
    return core.Machine(options.backend, options.threads, options.max_memory)


def _open(path: Path, console: Console) -> core.Model:
    model = core.open_model(path)
    for warning in model.warnings:
        console.log(f"warning: {warning}")
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
        if options.layout or options.reader:
            choices = _fitted(options, console, model, choices)
        show_plan(model, plan, choices, console)
    if options.save:
        core.save_plan(plan, options.save)
        console.log(f"wrote {options.save}")
    return 0


def _fitted(
    options: argparse.Namespace, console: Console, model: core.Model, choices: tuple[core.Choice, ...]
) -> tuple[core.Choice, ...]:
    """The choices as an export in the layout asked for would hold them; what differs is said."""
    layout, reader = core.layout_for(options.layout or "", options.reader)
    fitted, refusals = core.fitted(layout, reader, model, choices)
    for sentence in core.changes(choices, fitted):
        console.log(f"note: {sentence}")
    if refusals:
        raise core.PlanError(core.printable("; ".join(refusals[:3]), 400))
    return fitted


def _measure(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        model.check_plain()
        plan = plan_of(options)
        choices = core.resolve(plan, model)
        with core.start(_machine(options), model) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            outcome = _follow(core.measure(started, model, choices), console)
        return _finish(options, console, model, plan, outcome)


def _quantize(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        model.check_plain()
        plan = plan_of(options)
        choices = core.resolve(plan, model)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        with core.start(_machine(options), model) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            job = core.prepare(
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
            for sentence in job.changes:
                console.log(f"note: {sentence}")
            if options.dry_run:
                show_plan(model, plan, job.choices, console)
                files = ", ".join(f"{shard.name} {core.size_text(shard.nbytes)}" for shard in job.shards)
                console.say(f"\nWould write {core.size_text(job.nbytes)} to {options.target}: {files}")
                return 0
            outcome = _follow(core.export(started, job), console)
        code = _finish(options, console, model, plan, outcome)
        console.say(f"\nWrote and verified {options.target}")
        show_claims(job.claims, console)
        for sentence in job.cautions:
            console.say(f"Note: {sentence}")
        return code


def _verify(options: argparse.Namespace, console: Console) -> int:
    source = _open(options.source, console) if options.source else None
    try:
        with core.start(_machine(options), source) as started:
            outcome = _follow(core.verify(started, options.target, source), console)
    finally:
        if source:
            source.close()
    compared = "and its errors are the ones it states" if source else "(--source SRC compares it with its source)"
    console.say(f"{options.target} is whole: {len(outcome.layers)} layers decode {compared}")
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
    """Run a job to its end, showing its events; the generator is closed whatever happens."""
    outcome = None
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
                case core.Finished(found):
                    outcome = found
    finally:
        console.stop_progress()
        if hasattr(events, "close"):
            events.close()
    assert outcome is not None
    return outcome


def _finish(
    options: argparse.Namespace, console: Console, model: core.Model, plan: core.Plan, outcome: core.Outcome
) -> int:
    """Show the outcome, write the reports, apply the threshold; returns the exit code."""
    show_outcome(model, outcome, console)
    console.emit("finished", **outcome.summary(), seconds=outcome.seconds)
    if options.report:
        paths = core.write_reports(options.report, model, plan, outcome)
        console.log(f"wrote {', '.join(map(str, paths))}")
    worse = [r for r in outcome.quantized if options.max_rel_err is not None and r.rel_err > options.max_rel_err]
    if worse:
        name = core.printable(max(worse, key=lambda r: r.rel_err).name)
        what = f"{len(worse)} layers exceed a relative error of {options.max_rel_err:g}, the worst is {name}"
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
