"""The command line: parse, run a job, print its events. Exit codes are those of `studio.core.errors`."""

import argparse
import json
import math
import os
import shlex
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from studio import core
from studio.arguments import parser
from studio.console import Console
from studio.following import follow, follow_evaluation, follow_examination, follow_publication, returned, shown
from studio.rendering import (
    show_backend,
    show_budget,
    show_calibration,
    show_cautions,
    show_changes,
    show_claims,
    show_comparison,
    show_conversion,
    show_export,
    show_forecasts,
    show_inspection,
    show_outcome,
    show_plan,
    show_publication,
    show_published,
    show_quality,
    show_replies,
    show_verified,
)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    options.said = arguments
    console = Console(as_json=options.json, quiet=options.quiet)
    _stop_on_signals()
    if getattr(options, "workers", 0):
        core.warm_up()
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


def plan_of(options: argparse.Namespace, *, open_formats: bool = False) -> core.Plan:
    """The plan that the options say; `open_formats`: layers that are included without a format may get any."""
    plan = core.load_plan(options.plan) if options.plan else core.preset(options.preset)
    plan = plan.before_budget if open_formats else plan
    if options.format:
        plan = plan.with_format(options.format)
    if options.method:
        plan = plan.with_method(options.method)
    if options.mx_exponent:
        plan = plan.with_exponent(options.mx_exponent)
    if options.activations:
        plan = plan.with_activations(options.activations)
    rules = [
        core.Rule(names=(pattern,), format=core.KEEP, reason="excluded on the command line")
        for pattern in options.exclude
    ]
    rules += [core.include_rule(text, "" if open_formats else plan.format) for text in options.include]
    return plan.preceded_by(rules)


def _machine(options: argparse.Namespace) -> core.Machine:
    return core.Machine(options.backend, options.threads, options.max_memory)


@contextmanager
def _crew(options: argparse.Namespace, console: Console) -> Iterator[core.Crew | None]:
    """The workers that the options ask for, None where they ask for none."""
    if not options.workers and not options.cluster:
        yield None
        return
    with core.crew(options.cluster, options.workers) as crew:
        where = f"at {options.cluster}" if options.cluster else "on this machine"
        console.log(f"{core.counted(crew.size, 'worker')} {where}")
        console.emit("workers", count=crew.size)
        yield crew


def _spread(crew: core.Crew | None, order: Callable[[], core.Order], known: object = None) -> core.Spread | None:
    """The workers, once they have opened what this process knows, if it knows it already; None where there are none."""
    return crew.spread(order(), known) if crew else None


def _worker(options: argparse.Namespace) -> core.Machine:
    """What one of several workers may use."""
    return _machine(options).among(options.workers)


@contextmanager
def _start(
    options: argparse.Namespace, console: Console, model: core.Model | None, choices: Sequence[core.Choice] = ()
) -> Iterator[core.Engine]:
    """An engine as the options want it, for what is quantized as `choices` say; says what computes."""
    together = core.rows_together(choice.recipe for choice in choices)
    with core.start(_machine(options), model, together) as started:
        show_backend(started, console)
        yield started


def _open(path: str | Path, console: Console) -> core.Model:
    model = core.open_model(path)
    _warn(model.warnings, console)
    return model


def _guided(path: str | Path, options: argparse.Namespace, console: Console) -> core.Model:
    """The model, with the inputs of its layers known as far as the statistics tell."""
    model = _open(path, console)
    if not options.statistics:
        return model
    try:
        statistics = core.open_statistics(options.statistics, model)
    except core.StudioError:
        model.close()
        raise
    _warn(core.gaps(model, statistics), console)
    return core.with_statistics(model, statistics)


def _resolved(plan: core.Plan, model: core.Model, console: Console) -> tuple[core.Choice, ...]:
    """The choices of a plan; says which codes it gives up."""
    choices = core.resolve(plan, model)
    _warn(core.requantized(choices), console)
    return choices


def _warn(sentences: Iterable[str], console: Console) -> None:
    for sentence in sentences:
        console.log(f"warning: {sentence}")
        console.emit("warning", message=sentence)


def _inspect(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        show_inspection(model, console)
    return 0


def _plan(options: argparse.Namespace, console: Console) -> int:
    if _has_budget(options):
        return _plan_budget(options, console)
    with _guided(options.source, options, console) as model:
        core.check_decodable(model)
        plan = plan_of(options)
        choices = _resolved(plan, model, console)
        layout, reader = core.target_for(options.layout or "", options.reader)
        asked, (choices, refusals) = choices, core.fitted(layout, reader, model, choices)
        if refusals and (options.layout or options.reader):
            core.refuse(model, asked, layout, refusals)
        show_changes(core.changes(asked, choices), console)
        if not refusals and (plan.activations or options.layout or options.reader):
            choices, lent = core.with_input_scales(choices, layout, plan.activations)
            show_changes(lent, console)
        if options.lift and not refusals:
            show_changes(core.liftable(model, choices), console)
        show_plan(model, plan, choices if refusals else core.sized_in(model, choices, layout), layout, console)
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


def _has_budget(options: argparse.Namespace) -> bool:
    """True where a plan is to be found; raises PlanError for what only makes sense then, or only otherwise."""
    budgets = (options.target_size, options.bits, options.max_kl, options.max_rel_err)
    if not any(budget is not None for budget in budgets):
        if options.pin or options.forbid or options.probe or options.report:
            hint = "give --target-size, --bits, --max-kl or --max-rel-err"
            raise core.PlanError("--pin, --forbid, --probe and --report are for a plan within a budget", hint=hint)
        return False
    for name in ("format", "activations", "lift"):
        if getattr(options, name):
            hint = f"leave --{name} out" + (": --forbid rules formats out" if name == "format" else "")
            raise core.PlanError(f"--{name} does not go with a budget", hint=hint)
    return True


def _plan_budget(options: argparse.Namespace, console: Console) -> int:
    if options.save:
        core.check_writable(options.save.parent, [options.save.name])
    if options.report:
        core.check_budget_reports(options.report)
    with _guided(options.source, options, console) as model:
        model.check_plain()
        plan = plan_of(options, open_formats=True).preceded_by([core.pin_rule(text) for text in options.pin])
        layout, reader = core.target_for(options.layout or "", options.reader)
        decisions = core.decide(model, plan, layout, reader, frozenset(options.forbid))
        planner = _planner(options, decisions, console)
        _warn(planner.cautions, console)
        mix = _mix(options, planner)
        found = planner.plan(mix, title=core.budget_title(mix, model))
        show_plan(model, found, core.sized_in(model, decisions.choices(mix.options), layout), layout, console)
        show_budget(planner, mix, console)
        paths = []
        if options.report:
            paths += core.write_budget(options.report, planner, mix, _recipe(options), _texts(options))
    if options.save:
        core.save_plan(found, options.save)
        paths.append(options.save)
    if paths:
        console.log(f"wrote {', '.join(map(str, paths))}")
    return 0


def _recipe(options: argparse.Namespace) -> list[str]:
    """The commands that make a plan, an export by it, and what that loses."""
    source, plan = str(options.source), str(options.save or "plan.json")
    more = ["--statistics", str(options.statistics)] if options.statistics else []
    layout = ["--layout", options.layout] if options.layout else []
    reader = ["--for", options.reader] if options.reader else []
    gguf = options.layout == core.GGUF.name
    export = ["gguf", source, "FILE.gguf"] if gguf else ["quantize", source, "DST", *layout, *reader]
    return [
        shlex.join(["nvfp4-studio", *options.said]),
        shlex.join(["nvfp4-studio", "evaluate", source, "--plans", plan, *more]),
        shlex.join(["nvfp4-studio", *export, "--plan", plan, *more]),
    ]


def _texts(options: argparse.Namespace) -> tuple[Path, ...]:
    return tuple(options.text or [core.evaluation_text()])


def _planner(options: argparse.Namespace, decisions: core.Decisions, console: Console) -> core.Planner:
    """What answers budgets, once all options are priced and, where that is asked for, probes are run."""
    reading = core.Reading(_texts(options), options.windows, options.length, options.seed)
    with _start(options, console, decisions.model, list(decisions.tried())) as started:
        costs = returned(core.price(started, decisions), console)
        probing = core.Probing(costs, reading, options.runtime)
        known = probing.known()
        if known is None and (options.probe or options.max_kl is not None):
            run = probing.run(started, folder=options.cache, max_memory=options.max_memory)
            known = returned(run, console)
    return core.Planner(costs, known)


def _mix(options: argparse.Namespace, planner: core.Planner) -> core.Mix:
    """The mix that keeps the budget."""
    if options.target_size is not None:
        return planner.within_file_nbytes(options.target_size)
    if options.bits is not None:
        return planner.within_nbytes(int(options.bits * planner.decisions.model.count / 8))
    if options.max_kl is not None:
        return planner.within_kl(options.max_kl)
    return planner.within_rel_err(options.max_rel_err)


def _measure(options: argparse.Namespace, console: Console) -> int:
    quality = _check_report(options)
    with _guided(options.source, options, console) as model:
        plan = plan_of(options)
        choices = _resolved(plan, model, console)
        _check_measurable(model, choices, console)
        with _start(options, console, model, choices) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            with _crew(options, console) as crew:
                order = partial(core.order_for, model, plan, choices, _worker(options), options.statistics)
                spread = _spread(crew, order, core.Opened(model, choices))
                outcome = follow(core.measure(started, model, choices, spread), console)
        return _finish(options, console, model, plan, outcome, quality)


def _check_measurable(model: core.Model, choices: Sequence[core.Choice], console: Console) -> None:
    """Layers that can not be read are left out where others are measured: nothing is written that would lose them.

    Raises CheckpointError where there are no others.
    """
    if not any(choice.recipe for choice in choices):
        core.check_decodable(model)
    elif model.quantized_by and not core.is_exported(model):
        console.log(f"warning: left out, as it is quantized already: {model.quantized_by}")
        console.emit("warning", message=model.quantized_by)


def _quantize(options: argparse.Namespace, console: Console) -> int:
    quality = _check_report(options)
    with _guided(options.source, options, console) as model:
        core.check_decodable(model)
        _begin_stream(options, model)
        plan = plan_of(options)
        choices = _resolved(plan, model, console)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        with _start(options, console, model, choices) as started:
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
            _stream(options, job, console)
            show_changes(job.changes, console)
            if options.dry_run:
                show_plan(model, plan, job.choices, job.layout, console)
                show_export(job, options.target, console, dry_run=True)
                return 0
            show_export(job, options.target, console)
            if job.doubt:
                console.log(f"warning: {job.doubt}")
            with _crew(options, console) as crew:
                how = (_worker(options), options.statistics, job)
                order = partial(core.order_for, model, plan, choices, *how, stream=options.stream)
                spread = _spread(crew, order, core.Opened(job.model, job.choices, job))
                outcome = follow(core.export(started, job, spread), console)
        code = _finish(options, console, model, plan, outcome, quality)
        console.say(f"\nWrote and verified {options.target}")
        show_claims(job.claims, console)
        show_cautions(job, console)
        return code


def _begin_stream(options: argparse.Namespace, model: core.Model) -> None:
    if options.stream:
        core.stream_source(model, options.shard_size)


def _stream(options: argparse.Namespace, job: core.Export, console: Console) -> None:
    """Hold a shard at a time, if that is asked for; says what disk that takes."""
    if options.stream:
        occupied = core.stream(job, max(getattr(options, "workers", 0), 1))
        list(shown(iter([occupied]), console))


def _estimate(options: argparse.Namespace, console: Console) -> int:
    with _guided(options.source, options, console) as model:
        core.check_decodable(model)
        plan = plan_of(options)
        choices = _resolved(plan, model, console)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        fitted, refusals = core.fitted(layout, reader, model, choices)
        if refusals:
            core.refuse(model, choices, layout, refusals)
        todo = core.pieces(model, fitted, layout, options.shard_size)
    given = options.core_rate
    quantized, kept = (given, given) if given else core.measured_rates(plan)
    rates = core.Rates(quantized, kept, options.store_rate or math.inf, options.link_rate or math.inf)
    rows = [core.forecast(todo, rates, count, options.threads, options.processors) for count in options.workers]
    show_forecasts(todo, rates, rows, options.price, console)
    return 0


_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", None: ""}


def _convert(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        _begin_stream(options, model)
        target, _ = core.target_for(options.layout or "", options.reader)
        if target is core.GGUF:
            _check_alone(options, "a GGUF file is one file, which one process writes")
            options.target = core.local_target(options.target)
            core.check_gguf(model, options.target, overwrite=options.overwrite)
        with _start(options, console, model) as started, _crew(options, console) as crew:
            spread = _spread(crew, lambda: core.proof_order(model, _worker(options)), core.Opened(model))
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


def _check_alone(options: argparse.Namespace, why: str) -> None:
    """Raise PlanError where workers are asked for."""
    if options.workers or options.cluster:
        raise core.PlanError(why, hint="leave --workers and --cluster out")


def _converted(
    options: argparse.Namespace,
    console: Console,
    started: core.Engine,
    crew: core.Crew | None,
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
    _stream(options, job, console)
    show_export(job, options.target, console, dry_run=options.dry_run)
    if options.dry_run:
        return
    order = partial(core.conversion_order, job, _worker(options), stream=options.stream)
    spread = _spread(crew, order, core.Opened(model, job.choices, job))
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


def _gguf(options: argparse.Namespace, console: Console) -> int:
    quality = _check_report(options)
    with _guided(options.source, options, console) as model:
        core.check_decodable(model)
        plan = plan_of(options)
        if plan.activations:
            raise core.PlanError("a GGUF file holds quantized weights alone", hint="leave --activations out")
        choices = _resolved(plan, model, console)
        with _start(options, console, model, choices) as started:
            if options.skip_nonfinite:
                choices = core.keep_nonfinite(started, choices)
            job = core.prepare_gguf(model, choices, options.target, overwrite=options.overwrite)
            show_changes(job.changes, console)
            outcome = follow(core.write_gguf(started, job), console)
        code = _finish(options, console, model, plan, outcome, quality)
        console.say(f"\nWrote and verified {options.target}")
        return code


def _lifting(started: core.Engine, job: core.Export, console: Console) -> core.Lifting:
    """What lifting finds for an export that can be written without it."""
    (ended,) = shown(core.lift(started, job.model, job.choices), console)
    assert isinstance(ended, core.Lifted)
    lifting = ended.lifting
    console.emit("lift", exponents=dict(lifting.exponents), refused=dict(lifting.refused))
    return lifting


def _verify(options: argparse.Namespace, console: Console) -> int:
    place = core.place_of(options.target)
    source = _open(options.source, console) if options.source else None
    try:
        with _start(options, console, source) as started, _crew(options, console) as crew:
            spread = _spread(crew, lambda: core.verify_order(place, _worker(options), source))
            outcome = follow(core.verify(started, place, source, spread), console)
        show_verified(place, outcome, source, console)
    finally:
        core.close_place(place)
        if source:
            source.close()
    return 0


def _doctor(options: argparse.Namespace, console: Console) -> int:
    with ExitStack() as stack:
        against = stack.enter_context(_open(options.source, console)) if options.source else None
        if options.fix:
            _check_alone(options, "a repaired copy is written by one process")
            started = stack.enter_context(_start(options, console, against))
            job = core.repair(started, options.target, options.fix, against=against)
        else:
            crew = stack.enter_context(_crew(options, console))
            spread = _spread(crew, lambda: core.doctor_order(options.target, _worker(options)))
            job = core.doctor(
                options.target, quick=options.quick, against=against, spread=spread, statistics=options.statistics
            )
        found = follow_examination(job, console)
    worst = options.fail_on
    return core.ThresholdExceeded.exit_code if worst != "never" and found.reaches(worst) else 0


def _publish(options: argparse.Namespace, console: Console) -> int:
    quality = core.load_quality(options.quality) if options.quality else None
    how = {"public": options.public, "overwrite": options.overwrite, "base_model": options.base_model}
    job = core.publication(options.target, options.repository, quality=quality, **how)
    if not options.base_model:
        _warn(["the model card names no base model: --base-model ORG/NAME does"], console)
    if options.dry_run:
        (found,) = filter(None, core.preview(job))
        show_publication(job, found, console)
        if found.objection:
            raise found.objection
        return 0
    show_published(follow_publication(core.publish(job), console), console)
    return 0


def _compare(options: argparse.Namespace, console: Console) -> int:
    if options.plan:
        core.check_writable(options.plan.parent, [options.plan.name])
    with ExitStack() as stack:
        a, b = (stack.enter_context(_open(path, console)) for path in (options.a, options.b))
        source = stack.enter_context(_open(options.source, console)) if options.source else None
        with _start(options, console, source or a) as started:
            (ended,) = shown(core.compare_checkpoints(started, a, b, source), console)
    assert isinstance(ended, core.Compared)
    show_comparison(ended.measured, console)
    if options.plan:
        core.save_plan(ended.measured.plan, options.plan)
        console.log(f"wrote {options.plan}")
    return 0


def _calibrate(options: argparse.Namespace, console: Console) -> int:
    with _open(options.source, console) as model:
        model.check_plain()
        out = options.out or Path(f"{model.name}.statistics.safetensors")
        texts = tuple(options.text or [core.calibration_text()])
        job = core.Calibration(
            model.folder,
            out,
            texts,
            options.windows,
            options.length,
            options.seed,
            options.max_memory,
            options.overwrite,
        )
    for event in shown(core.calibrate(job), console):
        if isinstance(event, core.Calibrated):
            show_calibration(event, options.source, console)
    return 0


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    if options.report:
        core.check_quality_reports(options.report)
    if options.out:
        core.check_writable(options.out.parent, [options.out.name])
    with ExitStack() as stack:
        paths = [] if options.plans and not options.against else options.targets
        opened = [stack.enter_context(_open(path, console)) for path in paths]
        origin = options.against or (_only_source(options.targets) if options.plans else None)
        source = stack.enter_context(_guided(origin, options, console)) if origin else None
        _check_limits(options, source)
        candidates = [core.as_stored(model) for model in opened]
        for path in options.plans:
            assert source is not None
            layout, reader = options.layout or "", options.reader
            candidates.append(core.as_planned(source, core.load_plan(path), path.stem, layout, reader))
        reading = core.Reading(
            tuple(options.text or [core.evaluation_text()]), options.windows, options.length, options.seed
        )
        against = core.as_stored(source) if source else None
        with _start(options, console, source or opened[0]) as started:
            how = {"runtime": options.runtime, "folder": options.cache, "max_memory": options.max_memory}
            quality = follow_evaluation(core.evaluate(started, against, candidates, reading, **how), console)
    return _finish_evaluation(options, console, quality)


def _only_source(paths: Sequence[str | Path]) -> str | Path:
    """The checkpoint that plans are for."""
    if len(paths) != 1:
        raise core.PlanError("--plans need one checkpoint to quantize", hint="give it alone, or with --against SRC")
    return paths[0]


def _check_limits(options: argparse.Namespace, source: core.Model | None) -> None:
    if source is None and (options.max_kl is not None or options.max_ppl_increase is not None):
        raise core.PlanError("without its source there is nothing to hold it to", hint="give it with --against SRC")


def _finish_evaluation(options: argparse.Namespace, console: Console, quality: core.Quality) -> int:
    """Show what was found, write it, apply the limits; returns the exit code."""
    show_quality(quality, console)
    paths = core.write_quality(options.report, quality) if options.report else []
    if options.out:
        core.save_quality(quality, options.out)
        paths.append(options.out)
    if paths:
        console.log(f"wrote {', '.join(map(str, paths))}")
    console.emit("finished", **quality.to_json())
    if worse := core.exceeded(quality, options.max_kl, options.max_ppl_increase):
        hint = "choose a finer format or a better method, or keep more layers"
        console.fail(core.ThresholdExceeded("; ".join(worse), hint=hint))
        return core.ThresholdExceeded.exit_code
    return 0


def _generate(options: argparse.Namespace, console: Console) -> int:
    prompt = core.Prompt(options.prompt, options.chat, options.length, options.temperature, options.seed)
    with ExitStack() as stack:
        origin = options.against or (options.target if options.plan else None)
        source = stack.enter_context(_guided(origin, options, console)) if origin else None
        if options.plan and source:
            model = core.as_planned(source, core.load_plan(options.plan))
        else:
            model = core.as_stored(stack.enter_context(_open(options.target, console)))
        against = core.as_stored(source) if source else None
        with _start(options, console, model.model) as started:
            how = {"runtime": options.runtime, "folder": options.cache, "max_memory": options.max_memory}
            show_replies(shown(core.generate(started, against, model, prompt, **how), console), console)
    return 0


def _validate(options: argparse.Namespace, console: Console) -> int:
    report = core.validate(options.backend, quick=options.quick)
    console.say(report.text())
    console.emit("validation", **json.loads(report.to_json()))
    return 0 if report.passed else core.ThresholdExceeded.exit_code


def _demo(options: argparse.Namespace, console: Console) -> int:
    from studio.demo import open_window, run_demo

    code = run_demo(options.target, _machine(options), console, follow)
    if options.window:
        open_window(console)
    return code


def _check_report(options: argparse.Namespace) -> core.Quality | None:
    """What an evaluation found, for the reports; refuses those that could not be written, before the work."""
    if options.report:
        core.check_reports(options.report)
    return core.load_quality(options.quality) if options.quality else None


def _finish(
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


_COMMANDS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "inspect": _inspect,
    "plan": _plan,
    "measure": _measure,
    "quantize": _quantize,
    "estimate": _estimate,
    "convert": _convert,
    "gguf": _gguf,
    "verify": _verify,
    "compare": _compare,
    "doctor": _doctor,
    "publish": _publish,
    "calibrate": _calibrate,
    "evaluate": _evaluate,
    "generate": _generate,
    "validate": _validate,
    "demo": _demo,
}
