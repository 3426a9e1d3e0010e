"""The demo: the whole way of a checkpoint in a few seconds, and what each format costs on it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from studio import core
from studio.cli.console import Console
from studio.cli.rendering.exports import show_outcome

Follow = Callable[[Iterator[core.Event], Console], core.Outcome]


def run_demo(target: Path, machine: core.Machine, console: Console, follow: Follow) -> int:
    """Quantize the bundled checkpoint to three tiers, export, verify, report; returns the exit code."""
    plan = core.preset("linear")
    with core.open_model(core.demo_checkpoint()) as model, core.start(machine, model) as started:
        size = f"{core.counted(model.count, 'weight')}, {core.size_text(model.nbytes)}"
        console.say(f"1. {model.name}: {model.architecture}, {size}")
        console.say(f"   backend: {started.backend.title}\n")
        console.emit("backend", name=started.backend.name, title=started.backend.title)
        job = core.prepare(
            model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], target, overwrite=_is_demo(target, model)
        )
        outcome = follow(core.export(started, job), console)
        console.say("2. Quantized to NVFP4 with three tiers:\n")
        show_outcome(model, outcome, console, worst=3)
        verified = follow(core.verify(started, target, model), console)
        count = core.counted(len(verified.layers), "layer")
        console.say(f"\n3. Exported to {target} and verified against the source: {count}\n")
        console.say("4. The same layers in every format:\n")
        _compare_formats(started, model, plan, console, follow)
        report = target.with_name(target.name + "-report")
        paths = core.write_reports(report, model, plan, outcome)
    console.say(f"\n5. Report: {next(path for path in paths if path.suffix == '.html')}")
    console.emit("finished", **outcome.summary(), target=str(target), report=str(report))
    _say_next(target, console)
    return 0


def _compare_formats(
    started: core.Engine, model: core.Model, plan: core.Plan, console: Console, follow: Follow
) -> None:
    rows = []
    for name, row in core.FORMATS.items():
        choices = core.resolve(plan.with_format(name), model)
        outcome = follow(core.measure(started, model, choices), console)
        worst = outcome.worst
        bits = 8 * sum(r.nbytes_out for r in outcome.quantized) / outcome.quantized_count
        most = f"{worst.rel_err:.4f}" if worst else "-"
        rows.append((name, row.title, f"{bits:.2f}", f"{outcome.rel_err:.4f}", most))
    console.table(("format", "", ">bits per weight", ">rel_err", ">worst layer"), rows)


def _is_demo(target: Path, model: core.Model) -> bool:
    """True for a folder that an earlier demo wrote, which may be replaced."""
    try:
        return {result.name for result in core.exported_results(target)} == set(model.by_name)
    except core.StudioError:
        return False


def _say_next(target: Path, console: Console) -> None:
    program = "nvfp4-studio" if shutil.which("nvfp4-studio") else os.path.relpath(sys.argv[0])
    commands = {
        "inspect FOLDER": "what is in your checkpoint",
        "measure FOLDER": "what each layer would lose; nothing is written",
        "quantize FOLDER TARGET": "quantize, export, verify",
        f"verify {target}": "check an export again",
    }
    width = max(map(len, commands))
    console.say("\nNext:")
    for command, text in commands.items():
        console.say(f"  {program} {command:<{width}}   {text}")
    console.say(f"  {program} {'':<{width}}   the window (without arguments, or with a FOLDER to open)")


def open_window(console: Console) -> None:
    """Open the window on the demo checkpoint, in a process of its own."""
    console.say("\nOpening the window on the demo checkpoint.")
    subprocess.Popen([sys.executable, "-m", "studio", str(core.demo_checkpoint())], start_new_session=True)  # noqa: S603
