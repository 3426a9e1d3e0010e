"""The command line: parse, run a job, print its events. Exit codes are those of `studio.core.errors`."""

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from studio import core
from studio.console import Console
from studio.rendering import show_inspection, show_outcome, show_plan

PROGRAM = "nvfp4-studio"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(as_json=options.json, quiet=options.quiet)
    _stop_on_signals()
    try:
        return int(options.run(options, console))
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
    finally:
        console.stop_progress()


def _stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP stop a job as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="See every layer of a language model, quantize it to NVFP4, prove what it cost."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {core.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace, Console], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="write JSON lines to stdout: events, then the report")
        sub.add_argument("--quiet", action="store_true", help="no progress and no messages, results and errors only")
        return sub

    inspect = command("inspect", _inspect, "list what a checkpoint holds; reads headers only")
    inspect.add_argument("source", type=Path, metavar="SRC", help="a Hugging Face folder or a .safetensors file")
    plan = command("plan", _plan, "show what a plan does to every layer; reads headers only")
    measure = command("measure", _measure, "quantize in memory and report the error of every layer")
    quantize = command("quantize", _quantize, "quantize a checkpoint, export it and verify the export")
    for sub in (plan, measure, quantize):
        sub.add_argument("source", type=Path, metavar="SRC", help="a Hugging Face folder or a .safetensors file")
    quantize.add_argument("target", type=Path, metavar="DST", help="folder to write; it appears whole or not at all")
    for sub in (plan, measure, quantize):
        _add_plan_options(sub)
    for sub in (measure, quantize):
        _add_machine_options(sub)
        _add_result_options(sub)
    plan.add_argument("--save", type=Path, metavar="FILE", help="write the plan as JSON, for --plan")
    plan.add_argument("--layout", choices=sorted(core.LAYOUTS), help="check that this layout can store it")
    _add_export_options(quantize)
    verify = command("verify", _verify, "check every byte and every weight of an export")
    verify.add_argument("target", type=Path, metavar="DST", help="a folder written by quantize")
    verify.add_argument("--source", type=Path, metavar="SRC", help="compare the decoded weights with this checkpoint")
    _add_machine_options(verify)
    demo = command("demo", _demo, "quantize the bundled demo checkpoint and show what there is to see")
    demo.add_argument("target", type=Path, nargs="?", default=Path("demo-nvfp4"), metavar="DST", help="folder to write")
    _add_machine_options(demo)
    return parser


def _add_plan_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("plan")
    formats = [*core.FORMATS, core.KEEP]
    group.add_argument("--preset", default="linear", choices=core.preset_names(), help="default: linear")
    group.add_argument("--plan", type=Path, metavar="FILE", help="a plan as JSON, instead of a preset")
    group.add_argument("--format", choices=formats, metavar="NAME", help=f"{', '.join(formats)}; default: nvfp4-3t")
    pattern = 'a glob, or a regular expression after "re:"'
    group.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN[=NAME]",
        help=f"quantize these layers too, to format NAME if given; {pattern}",
    )
    group.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help=f"keep these; {pattern}")
    group.add_argument(
        "--mx-exponent", choices=("ceil", "floor"), help="scale rule of MXFP4 and MXFP8: MLX's or OCP's; default: ceil"
    )


def _add_machine_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("machine")
    backends = ("auto", "cpu", "numpy", "reference", "metal", "cuda")
    group.add_argument("--backend", default="auto", choices=backends, help="default: auto")
    group.add_argument("--threads", type=_positive, default=0, metavar="N", help="default: one per processor")
    group.add_argument("--max-memory", type=_size, default=0, metavar="SIZE", help="refuse to need more, e.g. 500M")


def _add_result_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("result")
    group.add_argument("--report", type=Path, metavar="DIR", help="write report.html, report.csv and report.json")
    group.add_argument(
        "--max-rel-err", type=float, metavar="X", help="exit with 1 when the relative error of a layer exceeds X"
    )
    group.add_argument(
        "--skip-nonfinite", action="store_true", help="keep layers that hold NaN or Inf instead of refusing"
    )


def _add_export_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("export")
    group.add_argument("--layout", default="mlx", choices=sorted(core.LAYOUTS), help="default: mlx")
    group.add_argument("--overwrite", action="store_true", help="replace DST when it is a folder that is not empty")
    group.add_argument("--restart", action="store_true", help="discard what a stopped run left")
    group.add_argument("--shard-size", type=_size, default=5 * 10**9, metavar="SIZE", help="default: 5G")
    group.add_argument("--dry-run", action="store_true", help="check everything, show sizes and choices, write nothing")


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError("must be between 1 and 1024")
    return value


def _size(text: str) -> int:
    number = text.rstrip("KMGkmgiIbB ")
    unit = text[len(number) :].strip().upper().removesuffix("B")
    try:
        value = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"not a size: {text!r}; write it as 500M or 1.5G") from None
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than zero")
    return value


def _plan_of(options: argparse.Namespace) -> core.Plan:
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
        plan = _plan_of(options)
        choices = core.resolve(plan, model)
        if options.layout and (refusals := core.LAYOUTS[options.layout].refusals(model, choices)):
            raise core.PlanError(core.printable("; ".join(refusals[:3]), 400))
        show_plan(plan, choices, console)
    if options.save:
        options.save.write_text(json.dumps(plan.to_json(), indent=2) + "\n", encoding="utf-8")
        console.log(f"wrote {options.save}")
    return 0


def _measure(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        plan = _plan_of(options)
        choices = core.resolve(plan, model)
        if model.quantized_by:
            raise core.CheckpointError(f"already quantized: {model.quantized_by}", file=model.path)
        with core.start(_machine(options), model) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            outcome = _follow(core.measure(started, model, choices), console)
        return _finish(options, console, model, plan, outcome)


def _quantize(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        plan = _plan_of(options)
        choices = core.resolve(plan, model)
        with core.start(_machine(options), model) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            job = core.prepare(
                model,
                plan,
                choices,
                core.LAYOUTS[options.layout],
                options.target,
                overwrite=options.overwrite,
                restart=options.restart,
                shard_nbytes=options.shard_size,
            )
            if options.dry_run:
                show_plan(plan, choices, console)
                files = ", ".join(f"{shard.name} {core.size_text(shard.nbytes)}" for shard in job.shards)
                console.say(f"\nWould write {core.size_text(job.nbytes)} to {options.target}: {files}")
                return 0
            outcome = _follow(core.export(started, job), console)
        code = _finish(options, console, model, plan, outcome)
        console.say(f"\nWrote and verified {options.target}")
        console.say(f"It runs on: {core.LAYOUTS[options.layout].runs}")
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


def _demo(options: argparse.Namespace, console: Console) -> int:
    from studio.demo import run_demo

    return run_demo(options.target, _machine(options), console, _follow)


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
