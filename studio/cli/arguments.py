"""The arguments of the command line: every command and option, its default and its help."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from studio import core

PROGRAM = "nvfp4-studio"
DEFAULT_LAYOUT = "mlx"
_SOURCE = "a Hugging Face folder, a .safetensors or a .gguf file, here or at hf://, s3://, https://"
_TARGET = "folder to write, here or at s3://"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}

Command = Callable[[str, str], argparse.ArgumentParser]
"""Makes a command from its name and what it does."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the form of every other error, instead of all options at once."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end with exit code 2."""
        self.exit(core.StudioError.exit_code, f"error: {message}\nhint: {self.prog} --help lists what it takes\n")


def parser() -> argparse.ArgumentParser:
    """The parser; `command` of its result names the command."""
    root = _Parser(
        prog=PROGRAM, description="See every layer of a language model, quantize it to NVFP4, prove what it cost."
    )
    root.add_argument("--version", action="version", version=f"{PROGRAM} {core.__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=name)
        sub.add_argument("--json", action="store_true", help="write JSON lines to stdout: events, then the report")
        sub.add_argument("--quiet", action="store_true", help="no progress and no messages, results and errors only")
        return sub

    _add_quantizing(command)
    _add_checking(command)
    _add_running(command)
    _add_showing(command)
    return root


def _add_quantizing(command: Command) -> None:
    """Commands that read, plan and write."""
    inspect = command("inspect", "list what a checkpoint holds; reads headers only")
    inspect.add_argument("source", type=_source, metavar="SRC", help=_SOURCE)
    plan = command("plan", "show what a plan does to every layer, or find the best one for a budget")
    measure = command("measure", "quantize in memory and report the error of every layer")
    quantize = command("quantize", "quantize a checkpoint, export it and verify the export")
    for sub in (plan, measure, quantize):
        sub.add_argument("source", type=_source, metavar="SRC", help=_SOURCE)
    quantize.add_argument("target", type=_source, metavar="DST", help=f"{_TARGET}; it appears whole or not at all")
    for sub in (plan, measure, quantize):
        _add_plan_options(sub)
    for sub in (measure, quantize):
        _add_cluster(_add_machine_options(sub))
        _add_result_options(sub)
    plan.add_argument("--save", "--out", type=Path, metavar="FILE", help="write the plan as JSON, for --plan")
    layouts = sorted([*core.LAYOUTS, core.GGUF.name])
    plan.add_argument("--layout", choices=layouts, help="show what an export in this layout would hold")
    _add_reader(plan)
    _add_lift(plan)
    _add_budget_options(plan)
    _add_export_options(quantize)
    estimate = command("estimate", "tell how long an export takes on so many workers, and what holds it up")
    _add_estimate_options(estimate)
    convert = command("convert", "store a checkpoint in another layout without losing a bit, quantized or not")
    _add_conversion_options(convert)
    gguf = command("gguf", "quantize a checkpoint into one GGUF file for llama.cpp, read back before it appears")
    gguf.add_argument(
        "source", type=_source, metavar="SRC", help="a Hugging Face folder, a .safetensors or a .gguf file"
    )
    gguf.add_argument("target", type=Path, metavar="FILE", help="the .gguf file to write")
    _add_plan_options(gguf)
    _add_machine_options(gguf)
    _add_result_options(gguf)
    gguf.add_argument("--overwrite", action="store_true", help="replace FILE")


def _add_checking(command: Command) -> None:
    """Commands for what is written."""
    verify = command("verify", "check every byte and every weight of an export, and that any checkpoint decodes")
    verify.add_argument("target", type=_source, metavar="DST", help="a folder written by quantize, or any checkpoint")
    verify.add_argument("--source", type=_source, metavar="SRC", help="compare decoded weights with this checkpoint")
    _add_cluster(_add_machine_options(verify))
    compare = command("compare", "compare two checkpoints of one model, quantized or not, layer by layer")
    compare.add_argument("a", type=_source, metavar="A", help="a checkpoint in any layout that is read")
    compare.add_argument("b", type=_source, metavar="B", help="another one of the same model")
    compare.add_argument(
        "--source", type=_source, metavar="SRC", help="errors are those against this one; default: of B against A"
    )
    compare.add_argument("--plan", type=Path, metavar="FILE", help="write the formats of B as a plan, for --plan")
    _add_machine_options(compare)
    doctor = command("doctor", "find what is wrong with a checkpoint, whoever wrote it")
    doctor.add_argument("target", type=Path, metavar="DIR", help="a folder or a .safetensors file, whole or broken")
    depth = doctor.add_mutually_exclusive_group()
    depth.add_argument("--quick", action="store_true", help="read no codes and no block scales")
    depth.add_argument("--fix", type=Path, metavar="OUT", help="write a copy in which all that is certain is mended")
    doctor.add_argument(
        "--source", type=_source, metavar="SRC", help="compare some rows of every layer with this checkpoint"
    )
    doctor.add_argument(
        "--statistics",
        type=Path,
        metavar="STATS",
        help="say which inputs float16 has no number for, by a file that calibrate wrote for SRC, or for DIR",
    )
    doctor.add_argument(
        "--fail-on", default="error", choices=("error", "warning", "never"), help="exit with 1 from this severity on"
    )
    _add_cluster(_add_machine_options(doctor))
    publish = command("publish", "send an export to a repository of a Hugging Face hub, and check what lies there then")
    _add_publishing_options(publish)


def _add_running(command: Command) -> None:
    """Commands that run models."""
    calibrate = command("calibrate", "run a model on a text, to quantize it better: writes a file of statistics")
    _add_calibration_options(calibrate)
    evaluate = command("evaluate", "run models on a text: perplexity, KL to the source, agreement with it")
    _add_evaluation_options(evaluate)
    _add_machine_options(evaluate)
    generate = command("generate", "continue a prompt with a source and a quantized model, side by side")
    _add_generation_options(generate)
    _add_machine_options(generate)


def _add_showing(command: Command) -> None:
    """Commands that show the program itself."""
    validate = command("validate", "compare a backend with the reference and with the original figures")
    validate.add_argument("--quick", action="store_true", help="smaller matrices: seconds instead of a minute")
    _add_backend_option(validate)
    demo = command("demo", "quantize the bundled demo checkpoint and show what there is to see")
    demo.add_argument("target", type=Path, nargs="?", default=Path("demo-nvfp4"), metavar="DST", help="folder to write")
    demo.add_argument("--window", action="store_true", help="open the window on the demo checkpoint afterwards")
    _add_machine_options(demo)


def _add_plan_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("plan")
    formats = [*core.FORMATS, core.KEEP]
    group.add_argument("--preset", default="linear", choices=core.preset_names(), help="default: linear")
    group.add_argument("--plan", type=Path, metavar="FILE", help="a plan as JSON, instead of a preset")
    group.add_argument("--format", choices=formats, metavar="NAME", help=f"{', '.join(formats)}; default: nvfp4-3t")
    group.add_argument(
        "--method",
        choices=core.METHODS,
        metavar="NAME",
        help=f"how codes are chosen: {', '.join(core.METHODS)}; default: {core.DEFAULT_METHOD}, if inputs are known",
    )
    _add_statistics(group)
    pattern = 'a glob, or a regular expression after "re:"'
    group.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN[=NAME[/METHOD]]",
        help=f"quantize these layers too, to format NAME by METHOD if given; {pattern}",
    )
    group.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help=f"keep these; {pattern}")
    group.add_argument(
        "--activations",
        choices=("fp4",),
        help="quantize the inputs of layers in NVFP4 too, by the largest that statistics saw; default: weights alone",
    )
    group.add_argument(
        "--mx-exponent", choices=("ceil", "floor"), help="scale rule of MXFP4 and MXFP8: MLX's or OCP's; default: ceil"
    )


def _add_budget_options(plan: argparse.ArgumentParser) -> None:
    """What is to be kept, and how the mix of formats that keeps it is found."""
    group = plan.add_argument_group(
        "budget", "find the formats and methods that lose least; reads all weights, without a budget headers only"
    )
    budget = group.add_mutually_exclusive_group()
    budget.add_argument("--target-size", type=_size, metavar="SIZE", help="of the files of weights, e.g. 4GB")
    budget.add_argument("--bits", type=_threshold, metavar="X", help="per weight of the whole model")
    budget.add_argument("--max-kl", type=_threshold, metavar="X", help="predicted KL to the source; runs probes")
    budget.add_argument("--max-rel-err", type=_threshold, metavar="X", help="relative error of every layer")
    group.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="PATTERN=NAME[/METHOD]",
        help="these layers, and what runtimes join with them, get format NAME; the first that matches a layer counts",
    )
    group.add_argument(
        "--forbid",
        action="append",
        default=[],
        choices=[*core.FORMATS, core.KEEP],
        metavar="NAME",
        help="a format that nothing gets that is not pinned to it",
    )
    group.add_argument(
        "--probe", action="store_true", help="run short plans on a text, once, to predict KL: minutes for small models"
    )
    group.add_argument("--report", type=Path, metavar="DIR", help="write plan.html and plan.json: curve and reasons")
    _add_text_options(plan, windows=8)
    _add_runtime(plan)
    _add_machine_options(plan)


def _add_backend_option(sub: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    group = sub.add_argument_group("machine")
    backends = ("auto", "cpu", "numpy", "reference", "metal", "cuda")
    group.add_argument("--backend", default="auto", choices=backends, help="default: auto")
    return group


def _add_machine_options(sub: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    group = _add_backend_option(sub)
    group.add_argument("--threads", type=_positive, default=0, metavar="N", help="default: one per processor")
    group.add_argument("--max-memory", type=_size, default=0, metavar="SIZE", help="refuse to need more, e.g. 500M")
    return group


def _add_cluster(group: "argparse._ArgumentGroup") -> None:
    several = group.add_mutually_exclusive_group()
    several.add_argument("--workers", type=_positive, default=0, metavar="N", help="spread it over N processes here")
    several.add_argument("--cluster", default="", metavar="ADDRESS", help="over the workers of this scheduler of Dask")


def _add_result_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("result")
    group.add_argument("--report", type=Path, metavar="DIR", help="write report.html, report.csv and report.json")
    group.add_argument(
        "--quality", type=Path, metavar="FILE", help="what evaluate --out found, for the report and the model card"
    )
    group.add_argument(
        "--max-rel-err", type=_threshold, metavar="X", help="exit with 1 when the relative error of a layer exceeds X"
    )
    group.add_argument(
        "--skip-nonfinite", action="store_true", help="keep layers that hold NaN or Inf instead of refusing"
    )


def _add_export_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("export")
    group.add_argument("--layout", choices=sorted(core.LAYOUTS), help="default: that of --for, or mlx")
    _add_reader(group)
    group.add_argument(
        "--overwrite", action="store_true", help="replace DST here when it is an earlier export and holds nothing else"
    )
    group.add_argument("--restart", action="store_true", help="discard what a stopped run left")
    group.add_argument("--shard-size", type=_size, default=5 * 10**9, metavar="SIZE", help="default: 5G")
    _add_stream(group)
    _add_lift(group)
    group.add_argument("--dry-run", action="store_true", help="check everything, show sizes and choices, write nothing")


def _add_conversion_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", type=_source, metavar="SRC", help="a checkpoint in any layout that is read")
    sub.add_argument(
        "target", type=_source, metavar="DST", help=f"{_TARGET}, or .gguf file; it appears whole or not at all"
    )
    group = sub.add_argument_group("conversion")
    group.add_argument(
        "--layout", choices=sorted(core.TARGETS), help="default: that of --for, or mlx; plain: decoded; gguf: one file"
    )
    _add_reader(group)
    group.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), help="of decoded weights; default: that of the model"
    )
    group.add_argument("--allow-lossy", action="store_true", help="round what no dtype or format asked for holds")
    group.add_argument("--overwrite", action="store_true", help="replace DST when it is an earlier export")
    group.add_argument("--restart", action="store_true", help="discard what a stopped run left")
    group.add_argument("--shard-size", type=_size, default=5 * 10**9, metavar="SIZE", help="default: 5G")
    _add_stream(group)
    group.add_argument("--dry-run", action="store_true", help="prove everything, write nothing")
    _add_cluster(_add_machine_options(sub))


def _add_estimate_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", type=_source, metavar="SRC", help=f"{_SOURCE}; headers are read")
    _add_plan_options(sub)
    group = sub.add_argument_group("export")
    group.add_argument("--layout", choices=sorted(core.LAYOUTS), help="default: that of --for, or mlx")
    _add_reader(group)
    group.add_argument("--shard-size", type=_size, default=5 * 10**9, metavar="SIZE", help="default: 5G")
    machines = sub.add_argument_group("machines")
    machines.add_argument("--workers", type=_positive, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N")
    machines.add_argument("--threads", type=_positive, default=1, metavar="N", help="of each worker; default: 1")
    machines.add_argument(
        "--processors", type=_positive, default=0, metavar="N", help="that all workers share; default: one per thread"
    )
    machines.add_argument(
        "--core-rate", type=_size, metavar="SIZE", help="that a thread quantizes in 1 s; default: measured"
    )
    machines.add_argument("--store-rate", type=_size, metavar="SIZE", help="of the store in 1 s, for all together")
    machines.add_argument("--link-rate", type=_size, metavar="SIZE", help="of the network of a worker in 1 s")
    machines.add_argument("--price", type=_threshold, default=0.0, metavar="X", help="of a worker for an hour")


def _add_publishing_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("target", type=Path, metavar="DIR", help="a folder written by quantize or convert")
    sub.add_argument("repository", metavar="hf://USER/NAME", help="is made, private, when there is none")
    sub.add_argument("--public", action="store_true", help="everybody may see it")
    sub.add_argument("--base-model", default="", metavar="ORG/NAME", help="what was quantized, for the model card")
    sub.add_argument("--quality", type=Path, metavar="FILE", help="what evaluate --out found of it, for the model card")
    sub.add_argument(
        "--overwrite", action="store_true", help="replace other files of these names, and remove other weights"
    )
    sub.add_argument("--dry-run", action="store_true", help="list files and what would be sent; send nothing")


def _add_calibration_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", type=_source, metavar="SRC", help="a Hugging Face folder")
    sub.add_argument("--out", type=Path, metavar="STATS", help="default: NAME.statistics.safetensors in this folder")
    sub.add_argument("--overwrite", action="store_true", help="replace STATS")
    _add_text_options(sub, windows=64)
    machine = sub.add_argument_group("machine")
    machine.add_argument("--max-memory", type=_size, default=0, metavar="SIZE", help="refuse to need more, e.g. 8G")


def _add_text_options(sub: argparse.ArgumentParser, *, windows: int) -> None:
    text = sub.add_argument_group("text")
    text.add_argument(
        "--text",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="UTF-8 text like that of the use; default: a bundled mix",
    )
    text.add_argument("--windows", type=_count, default=windows, metavar="N", help=f"at most; default: {windows}")
    text.add_argument("--length", type=_count, default=512, metavar="N", help="tokens of a window; default: 512")
    text.add_argument("--seed", type=_seed, default=0, metavar="N", help="where in the text windows lie; default: 0")


def _add_evaluation_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "targets",
        type=_source,
        nargs="+",
        metavar="DIR",
        help="exports to evaluate, or plain checkpoints; with --plans SRC",
    )
    _add_source(sub)
    _add_text_options(sub, windows=32)
    plans = sub.add_argument_group("plans")
    plans.add_argument(
        "--plans", type=Path, nargs="+", default=[], metavar="FILE", help="quantize SRC in memory by these"
    )
    _add_statistics(plans)
    plans.add_argument("--layout", choices=sorted(core.LAYOUTS), help="as an export in this layout would hold them")
    _add_reader(plans)
    result = sub.add_argument_group("result")
    result.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")
    result.add_argument("--report", type=Path, metavar="DIR", help="write quality.html and quality.json")
    result.add_argument("--max-kl", type=_threshold, metavar="X", help="exit with 1 when a KL to the source exceeds X")
    result.add_argument(
        "--max-ppl-increase", type=_percent, metavar="X%", help="exit with 1 when perplexity rises by more, e.g. 5%%"
    )
    _add_runtime(sub)


def _add_generation_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("target", type=_source, metavar="DIR", help="an export, or a plain checkpoint")
    sub.add_argument("prompt", metavar="PROMPT", help="the text to go on from")
    _add_source(sub)
    sub.add_argument("--plan", type=Path, metavar="FILE", help="quantize DIR in memory by this plan")
    _add_statistics(sub)
    sub.add_argument("--chat", action="store_true", help="as a question, by the model's chat template")
    sub.add_argument("--length", type=_count, default=128, metavar="N", help="tokens at most; default: 128")
    sub.add_argument(
        "--temperature", type=_threshold, default=0.0, metavar="T", help="0, the default, takes the likeliest"
    )
    sub.add_argument("--seed", type=_seed, default=0, metavar="N", help="for a temperature; default: 0")
    _add_runtime(sub)


def _add_statistics(group: "argparse._ActionsContainer") -> None:
    group.add_argument("--statistics", type=Path, metavar="FILE", help="what calibrate told of the layers' inputs")


def _add_source(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--against", type=_source, metavar="SRC", help="the checkpoint that it was made from")


def _add_runtime(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("runtime")
    group.add_argument("--runtime", default="", choices=("mlx-lm", "transformers"), help="default: the one that fits")
    group.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="scratch space and records of stopped runs; default: the user's caches",
    )


def _add_lift(group: "argparse._ActionsContainer") -> None:
    text = "move powers of two between tensors, where that is exact, so that two tiers lose no more than three"
    group.add_argument("--lift", action="store_true", help=text)


def _add_stream(group: "argparse._ActionsContainer") -> None:
    text = "hold what one shard needs of SRC, behind a URL, and one shard of DST, at s3://, on this disk at a time"
    group.add_argument("--stream", action="store_true", help=text)


def _add_reader(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--for",
        dest="reader",
        default="",
        choices=core.readers(),
        help="write what this runtime loads; default: the first that the layout is for",
    )


def _source(text: str) -> str | Path:
    """A URL is no path: it would lose a slash."""
    return text if core.is_url(text) else Path(text)


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError("must be between 1 and 1024")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1 << 20:
        raise argparse.ArgumentTypeError("must be between 1 and 1,048,576")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be a whole number from zero on")
    return value


def _percent(text: str) -> float:
    return _threshold(text.removesuffix("%")) / 100


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError("must be a number from zero on, for example 0.1")
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
