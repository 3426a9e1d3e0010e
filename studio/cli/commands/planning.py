"""The command plan: what a plan does to every layer, or the best one for a budget."""

import argparse
import shlex

from studio import core
from studio.cli.asked import engine_of, guided, plan_of, resolved, texts_of, warn
from studio.cli.console import Console
from studio.cli.following import returned
from studio.cli.rendering.exports import (
    show_changes,
)
from studio.cli.rendering.plans import show_budget, show_plan


def run_plan(options: argparse.Namespace, console: Console) -> int:
    """Show what a plan does to every layer, or find the best one for a budget."""
    if _has_budget(options):
        return _plan_budget(options, console)
    with guided(options.source, options, console) as model:
        core.check_decodable(model)
        plan = plan_of(options)
        choices = resolved(plan, model, console)
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
    with guided(options.source, options, console) as model:
        model.check_plain()
        plan = plan_of(options, open_formats=True).preceded_by([core.pin_rule(text) for text in options.pin])
        _check_pins(options, plan, model)
        layout, reader = core.target_for(options.layout or "", options.reader)
        decisions = core.decide(model, plan, layout, reader, frozenset(options.forbid))
        planner = _planner(options, decisions, console)
        warn(planner.cautions, console)
        mix = _mix(options, planner)
        found = planner.plan(mix, title=core.budget_title(mix, model))
        show_plan(model, found, decisions.sized(mix.options), layout, console)
        show_budget(planner, mix, console)
        paths = []
        if options.report:
            paths += core.write_budget(options.report, planner, mix, _recipe(options), texts_of(options))
    if options.save:
        core.save_plan(found, options.save)
        paths.append(options.save)
    if paths:
        console.log(f"wrote {', '.join(map(str, paths))}")
    return 0


def _check_pins(options: argparse.Namespace, plan: core.Plan, model: core.Model) -> None:
    """Raise PlanError for a pin all of whose layers are pinned by those before it."""
    used = set(core.deciding_rules(plan, model)) if len(options.pin) > 1 else {0}
    for place, text in enumerate(options.pin):
        if place not in used:
            hint = "the first pin that matches a layer counts: name the one for fewer layers first, or leave one out"
            raise core.PlanError(f"--pin {core.printable(text)} pins nothing that those before it leave", hint=hint)


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


def _planner(options: argparse.Namespace, decisions: core.Decisions, console: Console) -> core.Planner:
    """What answers budgets, once all options are priced and, where that is asked for, probes are run."""
    reading = core.Reading(texts_of(options), options.windows, options.length, options.seed)
    reading.digests()  # what can not be read is refused before the work begins
    with engine_of(options, console, decisions.model, list(decisions.tried())) as started:
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
