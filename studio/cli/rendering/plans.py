"""What a plan chooses, and what a budget buys."""

from collections.abc import Sequence

from studio import core
from studio.cli.console import Console
from studio.cli.rendering.layers import shape_text, show_shares


def show_plan(
    model: core.Model, plan: core.Plan, choices: Sequence[core.Choice], layout: core.Target, console: Console
) -> None:
    """What a plan does: a line per layer, and how much of the model it covers, in the sizes of a layout."""
    sizes = [choice.nbytes for choice in choices]
    if console.as_json:
        for choice, nbytes in zip(choices, sizes, strict=True):
            said = {"format": choice.format, "nbytes": nbytes, "reason": choice.reason, "lift": choice.layer.lift}
            console.emit("choice", name=choice.layer.name, **said)
    rows = [
        (
            core.printable(c.layer.name),
            c.layer.role,
            shape_text(c.layer.shape),
            f"{c.format} x 2**{c.layer.lift}" if c.layer.lift else c.format,
            c.method,
            core.size_text(c.layer.nbytes),
            core.size_text(nbytes),
            core.printable(c.reason),
        )
        for c, nbytes in zip(choices, sizes, strict=True)
    ]
    console.table(("layer", "role", ">shape", "format", "method", ">before", ">after", "why"), rows)
    chosen = [choice for choice in choices if choice.recipe]
    before, after = sum(c.layer.nbytes for c in choices), sum(sizes)
    why = core.nothing_chosen(choices)
    share = sum(c.layer.count for c in chosen) / max(sum(c.layer.count for c in choices), 1)
    console.say()
    show_shares(choices, console)
    title = plan.title or plan.name or "custom plan"
    console.say(f"\n{core.printable(title)}")
    console.say(
        f"{len(chosen):,} of {core.counted(len(choices), 'layer')}, {share:.1%} of the weights: "
        f"{core.size_text(before)} becomes {core.size_text(after)} ({core.counted(after, 'byte')})"
    )
    console.say(model.read_by)
    if why:
        console.say(f"Nothing will be quantized: {why}")
    console.emit("plan", **plan.to_json(), nbytes_before=before, nbytes_after=after, layout=layout.name, nothing=why)


def show_budget(planner: core.Planner, mix: core.Mix, console: Console) -> None:
    """What a mix comes to beside single formats, and what is known of its damage."""
    known, count = planner.sensitivity.is_known, planner.decisions.model.count
    rows = [_mix_row(name, found, count) for name, found in [*planner.uniforms(), ("this mix", mix)]]
    console.say()
    console.table(("", ">size", ">bits", ">worst layer", ">KL" if known else ">damage"), [row for _, row in rows])
    console.emit("budget", mixes=[said for said, _ in rows], gap=mix.gap, **planner.sensitivity.to_json())
    if known:
        console.say("\nKL is predicted from short plans that were run on a text; evaluate --plans measures it.")
    else:
        console.say(
            "\nDamage is the squared error of the outputs of layers over their squares, added up; --probe runs short "
            "plans on a text and tells what that means in tokens."
        )
    if planner.is_blind:
        console.say(
            "Without statistics, hessian stands for importance by the norm in front of a layer, or for search where "
            "there is none; calibrate gathers some."
        )
    better = f"at most {mix.gap:.2%} from the best" if mix.gap else "no mix within the budget is better"
    console.say(f"Of {core.counted(len(planner.decisions.items), 'decision')}: {better}, by what is known.")


def _mix_row(name: str, mix: core.Mix, count: int) -> tuple[dict[str, object], tuple[str, ...]]:
    """A mix as JSON values and as a row of a table."""
    bits = 8 * mix.nbytes / max(count, 1)
    said = {"name": name, "nbytes": mix.nbytes, "bits_per_weight": bits, "rel_err": mix.rel_err}
    effect = mix.damage if mix.kl is None else mix.kl
    noise = f" ± {mix.noise:.2g}" if mix.noise else ""
    row = (name, core.size_text(mix.nbytes), f"{bits:.3f}", f"{mix.rel_err:.4f}", f"{effect:.4g}{noise}")
    return {**said, "damage": mix.damage, "kl": mix.kl, "noise": mix.noise}, row
