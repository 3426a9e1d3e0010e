"""What the program does, without a window: open, plan, measure, export, verify, report."""

from kernels import FORMATS, __version__
from studio.core.cache import ResultCache, ScaleGroups
from studio.core.edits import command_line, hand_rules, start_command
from studio.core.errors import (
    BUG,
    STOPPED,
    BackendError,
    CheckpointError,
    ExportError,
    MemoryLimitError,
    PlanError,
    StudioError,
    ThresholdExceeded,
)
from studio.core.events import (
    Event,
    Finished,
    LayerDone,
    Progress,
    Resumed,
    ShardWritten,
    Started,
    Warned,
)
from studio.core.export import Export, prepare
from studio.core.jobs import Machine, export, keep_nonfinite, measure, start, validate, verify
from studio.core.layouts import LAYOUTS
from studio.core.model import Layer, Model
from studio.core.names import printable
from studio.core.opening import open_model
from studio.core.pipeline import Engine
from studio.core.plan import DEFAULT_FORMAT, KEEP, Choice, Plan, Rule, choose_format, plan_from_json, resolve
from studio.core.presets import load_plan, preset, preset_names
from studio.core.report import report_json, size_text, totals, write_reports
from studio.core.resources import demo_checkpoint, resources
from studio.core.results import LayerResult, Outcome
from studio.core.roles import ROLES
from studio.core.survey import LayerFailed, survey

__all__ = [
    "BUG",
    "DEFAULT_FORMAT",
    "FORMATS",
    "KEEP",
    "LAYOUTS",
    "ROLES",
    "STOPPED",
    "BackendError",
    "CheckpointError",
    "Choice",
    "Engine",
    "Event",
    "Export",
    "ExportError",
    "Finished",
    "Layer",
    "LayerDone",
    "LayerFailed",
    "LayerResult",
    "Machine",
    "MemoryLimitError",
    "Model",
    "Outcome",
    "Plan",
    "PlanError",
    "Progress",
    "ResultCache",
    "Resumed",
    "Rule",
    "ScaleGroups",
    "ShardWritten",
    "Started",
    "StudioError",
    "ThresholdExceeded",
    "Warned",
    "__version__",
    "choose_format",
    "command_line",
    "demo_checkpoint",
    "export",
    "hand_rules",
    "keep_nonfinite",
    "load_plan",
    "measure",
    "open_model",
    "plan_from_json",
    "prepare",
    "preset",
    "preset_names",
    "printable",
    "report_json",
    "resolve",
    "resources",
    "size_text",
    "start",
    "start_command",
    "survey",
    "totals",
    "validate",
    "verify",
    "write_reports",
]
