"""What options ask for: the plan, the machine, the workers, the model with what is known of it."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from studio import core
from studio.cli.console import Console
from studio.cli.following import shown
from studio.cli.rendering.models import show_backend


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


def machine_of(options: argparse.Namespace) -> core.Machine:
    """The machine that the options describe."""
    return core.Machine(options.backend, options.threads, options.max_memory)


@contextmanager
def crew_of(options: argparse.Namespace, console: Console) -> Iterator[core.Workforce | None]:
    """The workers that the options ask for, None where they ask for none."""
    if not options.workers and not options.cluster:
        yield None
        return
    with core.workforce(options.cluster, options.workers) as crew:
        where = f"at {options.cluster}" if options.cluster else "on this machine, begun where they save time"
        console.log(f"{core.counted(crew.size, 'worker')} {where}")
        console.emit("workers", count=crew.size)
        yield crew


def spread_of(crew: core.Workforce | None, order: Callable[[], core.Order], known: object = None) -> core.Spread | None:
    """The workers, once they have opened what this process knows, if it knows it already; None where there are none."""
    return crew.spread(order(), known) if crew else None


def worker_of(options: argparse.Namespace) -> core.Machine:
    """What one of several workers may use."""
    return machine_of(options).among(options.workers)


@contextmanager
def engine_of(
    options: argparse.Namespace, console: Console, model: core.Model | None, choices: Sequence[core.Choice] = ()
) -> Iterator[core.Engine]:
    """An engine as the options want it, for what is quantized as `choices` say; says what computes."""
    together = core.rows_together(choice.recipe for choice in choices)
    with core.start(machine_of(options), model, together) as started:
        show_backend(started, console)
        yield started


def open_source(path: str | Path, console: Console) -> core.Model:
    """Open a checkpoint; says what is strange about it."""
    model = core.open_model(path)
    warn(model.warnings, console)
    return model


def guided(path: str | Path, options: argparse.Namespace, console: Console) -> core.Model:
    """The model, with the inputs of its layers known as far as the statistics tell."""
    model = open_source(path, console)
    if not options.statistics:
        return model
    try:
        statistics = core.open_statistics(options.statistics, model)
    except core.StudioError:
        model.close()
        raise
    warn(core.gaps(model, statistics), console)
    return core.with_statistics(model, statistics)


def resolved(plan: core.Plan, model: core.Model, console: Console) -> tuple[core.Choice, ...]:
    """The choices of a plan; says which codes it gives up."""
    choices = core.resolve(plan, model)
    warn(core.requantized(choices), console)
    return choices


def warn(sentences: Iterable[str], console: Console) -> None:
    """Say sentences that nothing stops for."""
    for sentence in sentences:
        console.log(f"warning: {sentence}")
        console.emit("warning", message=sentence)


def texts_of(options: argparse.Namespace) -> tuple[Path, ...]:
    """The texts that models run on; the bundled ones where none is given."""
    return tuple(options.text or [core.evaluation_text()])


def begin_stream(options: argparse.Namespace, model: core.Model) -> None:
    """Read a source a shard at a time, if that is asked for."""
    if options.stream:
        core.stream_source(model, options.shard_size)


def stream(options: argparse.Namespace, job: core.Export, console: Console) -> None:
    """Hold a shard at a time, if that is asked for; says what disk that takes."""
    if options.stream:
        occupied = core.stream(job, max(options.workers, 1))
        list(shown(iter([occupied]), console))


def check_alone(options: argparse.Namespace, why: str) -> None:
    """Raise PlanError where workers are asked for."""
    if options.workers or options.cluster:
        raise core.PlanError(why, hint="leave --workers and --cluster out")
