"""What the program does, without a window: open, plan, measure, export, verify, report."""

from kernels import FORMATS, __version__
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
from studio.core.jobs import Machine, export, keep_nonfinite, measure, start, verify
from studio.core.layouts import LAYOUTS
from studio.core.model import Layer, Model
from studio.core.names import printable
from studio.core.opening import open_model
from studio.core.pipeline import Engine
from studio.core.plan import DEFAULT_FORMAT, KEEP, Choice, Plan, Rule, plan_from_json, resolve
from studio.core.presets import load_plan, preset, preset_names
from studio.core.report import report_json, size_text, totals, write_reports
from studio.core.resources import demo_checkpoint, resources
from studio.core.results import LayerResult, Outcome
from studio.core.roles import ROLES

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
    "LayerResult",
    "Machine",
    "MemoryLimitError",
    "Model",
    "Outcome",
    "Plan",
    "PlanError",
    "Progress",
    "Resumed",
    "Rule",
    "ShardWritten",
    "Started",
    "StudioError",
    "ThresholdExceeded",
    "Warned",
    "__version__",
    "demo_checkpoint",
    "export",
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
    "totals",
    "verify",
    "write_reports",
]
