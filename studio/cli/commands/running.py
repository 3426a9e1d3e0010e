"""Commands that run models: calibrate, evaluate, generate."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from studio import core
from studio.cli.asked import engine_of, guided, open_source
from studio.cli.console import Console
from studio.cli.following import follow_evaluation, shown
from studio.cli.rendering.quality import show_calibration, show_quality, show_replies


def run_calibrate(options: argparse.Namespace, console: Console) -> int:
    """Gather statistics of the inputs of layers."""
    with open_source(options.source, console) as model:
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


def run_evaluate(options: argparse.Namespace, console: Console) -> int:
    """Show what quantizing costs in tokens."""
    if options.report:
        core.check_quality_reports(options.report)
    if options.out:
        core.check_writable(options.out.parent, [options.out.name])
    with ExitStack() as stack:
        paths = [] if options.plans and not options.against else options.targets
        opened = [stack.enter_context(open_source(path, console)) for path in paths]
        origin = options.against or (_only_source(options.targets) if options.plans else None)
        source = stack.enter_context(guided(origin, options, console)) if origin else None
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
        with engine_of(options, console, source or opened[0]) as started:
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


def run_generate(options: argparse.Namespace, console: Console) -> int:
    """Continue a prompt, by source and quantized model side by side."""
    prompt = core.Prompt(options.prompt, options.chat, options.length, options.temperature, options.seed)
    with ExitStack() as stack:
        origin = options.against or (options.target if options.plan else None)
        source = stack.enter_context(guided(origin, options, console)) if origin else None
        if options.plan and source:
            model = core.as_planned(source, core.load_plan(options.plan))
        else:
            model = core.as_stored(stack.enter_context(open_source(options.target, console)))
        against = core.as_stored(source) if source else None
        with engine_of(options, console, model.model) as started:
            how = {"runtime": options.runtime, "folder": options.cache, "max_memory": options.max_memory}
            show_replies(shown(core.generate(started, against, model, prompt, **how), console), console)
    return 0
