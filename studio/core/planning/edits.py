"""Edits: formats chosen by hand, layer by layer, as the rules and the command line that say the same."""

import glob
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from kernels import FORMATS
from studio.core.errors import PlanError
from studio.core.layouts import Layout
from studio.core.names import printable
from studio.core.planning.plan import DEFAULT_METHOD, KEEP, Choice, Plan, Rule, check_format, check_method, choice_text

COMMAND_PATTERNS = 12


def hand_rules(edits: Mapping[str, str], names: Iterable[str]) -> tuple[Rule, ...]:
    """Rules that give the layers in `edits` (name -> format, or format/method) that, among the layers called `names`.

    Where every layer of one kind has the same choice, one pattern stands for all of them.
    """
    return tuple(_hand_rule(said, patterns) for said, patterns in _patterns(edits, names).items())


def _hand_rule(said: str, names: tuple[str, ...]) -> Rule:
    format_, _, method = said.partition("/")
    return Rule(names=names, format=format_, method=method, reason="kept by hand" if format_ == KEEP else "")


def _patterns(edits: Mapping[str, str], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        members[_suffix(name)].append(name)
    found: dict[str, list[str]] = defaultdict(list)
    for suffix, group in members.items():
        formats = {edits.get(name) for name in group}
        ends = f".{suffix}"
        alone = all(name.endswith(ends) for name in group) and not any(other.endswith(ends) for other in members)
        whole = alone and len(formats) == 1 and len(group) > 1
        for name in group[:1] if whole else group:
            if format_ := edits.get(name):
                found[format_].append(f"*.{glob.escape(suffix)}" if whole else glob.escape(name))
    return {format_: tuple(patterns) for format_, patterns in sorted(found.items())}


def include_rule(text: str, default: str) -> Rule:
    """The rule of `--include PATTERN[=NAME[/METHOD]]`; without a name layers get the format `default`.

    Only what follows the last "=" and is a format splits: regular expressions hold "=" of their own. Raises PlanError
    for a glob that ends in something else.
    """
    pattern, sign, said = text.rpartition("=")
    name, slash, method = said.partition("/")
    if sign and (name in FORMATS or name == KEEP):
        if slash:
            check_method(method)
        return Rule(names=(pattern,), format=name, method=method)
    if sign and not text.startswith("re:"):
        check_format(name)
    return Rule(names=(text,), format=default)


def pin_rule(text: str) -> Rule:
    """The rule of `--pin PATTERN=NAME[/METHOD]`. Raises PlanError where no format is named."""
    rule = include_rule(text, "")
    if not rule.format:
        raise PlanError(f"a pin names a format: {printable(text)}", hint="write it as --pin '*down_proj=mxfp8'")
    return rule


def _suffix(name: str) -> str:
    """The last two parts of a name, without numbers: what layers of one kind have in common."""
    parts = name.split(".")[-2:]
    return ".".join(part for part in parts if not part.isdigit())


def command_line(
    verb: str,
    source: Path,
    plan: Plan,
    rules: Iterable[Rule] = (),
    *,
    plan_file: Path | None = None,
    target: Path | None = None,
    options: Mapping[str, str | bool] | None = None,
) -> str | None:
    """The command that does the same as the window: a preset or a plan in a file, its format, and rules made by hand.

    `options` are further ones by name; those that are False or empty are left out. None when the rules are too many
    for a command line: then the plan belongs in a file.
    """
    patterns = [
        ("exclude", name) if rule.format == KEEP else ("include", f"{name}={choice_text(rule.format, rule.method)}")
        for rule in rules
        for name in rule.names
    ]
    if len(patterns) > COMMAND_PATTERNS:
        return None
    words = ["nvfp4-studio", verb, *(str(path.absolute()) for path in (source, target) if path is not None)]
    words += _option("plan", str(plan_file.absolute())) if plan_file else _option("preset", plan.name)
    words += _option("format", plan.format)
    words += _option("method", plan.method) if plan.method != DEFAULT_METHOD else []
    words += _option("mx-exponent", plan.exponent) if plan.exponent != "ceil" else []
    words += _option("activations", plan.activations)
    for name, value in [*(options or {}).items(), *patterns]:
        words += _option(name, value)
    return shlex.join(words)


def conversion_command(source: Path, target: Path, options: Mapping[str, str | bool]) -> str:
    """The command that converts a checkpoint; `options` as in `command_line`."""
    words = ["nvfp4-studio", "convert", str(source.absolute()), str(target.absolute())]
    return shlex.join([*words, *(word for name, value in options.items() for word in _option(name, value))])


def _option(name: str, value: str | bool) -> list[str]:
    if not value:
        return []
    if value is True:
        return [f"--{name}"]
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


START_RUNTIMES = {"mlx": "mlx-lm", "modelopt": "vLLM", "compressed-tensors": "vLLM"}
"""Layout -> the runtime whose command `start_command` gives."""


def start_command(layout: Layout, folder: Path, choices: Iterable[Choice]) -> str:
    """The command that runs a model exported to `folder`."""
    tiered = any(choice.recipe and choice.recipe.format.tensor_scale for choice in choices)
    place = shlex.quote(str(folder))
    if layout.name == "mlx":
        trust = " --trust-remote-code" if tiered else ""
        return f'mlx_lm.generate --model {place}{trust} --prompt "Hello"'
    return f"vllm serve {place}"
