"""Presets: plans that come with the program."""

import json
from dataclasses import replace
from pathlib import Path

from studio.core.containers.strict_json import read_object
from studio.core.errors import PlanError
from studio.core.exporting.writing import writing
from studio.core.names import printable
from studio.core.planning.plan import Plan, plan_from_json
from studio.core.resources import resources


def preset_names() -> tuple[str, ...]:
    """Names of the presets, the default first."""
    names = sorted(path.stem for path in (resources() / "presets").glob("*.json"))
    return tuple(sorted(names, key=lambda name: name != "linear"))


def preset(name: str) -> Plan:
    """The preset called `name`, whose rules may all match nothing; raises PlanError for an unknown one."""
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise PlanError(f"unknown preset {printable(name)!r}", hint=f"choose one of: {known}")
    plan = load_plan(resources() / "presets" / f"{name}.json")
    return replace(plan, rules=tuple(replace(rule, optional=True) for rule in plan.rules))


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON that `load_plan` reads; raises ExportError when it can not be written."""
    with writing(path):
        path.write_text(json.dumps(plan.to_json(), indent=2) + "\n", encoding="utf-8")


def load_plan(path: Path) -> Plan:
    """The plan in a JSON file."""
    return plan_from_json(read_object(path, limit=1 << 20))
