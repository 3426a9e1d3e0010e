"""What the program does, without a window: open, plan, measure, export, verify, report."""

from kernels import FORMATS, METHODS, STORED, STORED_FORMATS, __version__, method_of
from kernels.fidelity import relative_error
from studio.core.architectures import ROLES
from studio.core.architectures.naming import expert_index
from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import Decision, Decisions, Option, decide
from studio.core.budgets.knapsack import quick_states
from studio.core.budgets.parts import MOST_PARTS
from studio.core.budgets.planner import Change, Mix, Planner, budget_title
from studio.core.budgets.pricing import price
from studio.core.budgets.probing import Probing
from studio.core.budgets.sensitivity import Sensitivity
from studio.core.cluster.crew import Crew, crew
from studio.core.cluster.forecast import Forecast, Piece, Rates, forecast, measured_rates, pieces
from studio.core.cluster.joining import Workforce, workforce
from studio.core.cluster.order import (
    Opened,
    Order,
    choice_order,
    conversion_order,
    doctor_order,
    order_for,
    proof_order,
    verify_order,
)
from studio.core.counting import counted, size_text
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
    Calibrated,
    Compared,
    EvaluationDone,
    Event,
    Examined,
    FindingMade,
    Finished,
    LayerDone,
    Lifted,
    Loaded,
    ModelDone,
    Occupies,
    Progress,
    Published,
    Repaired,
    ReplyDone,
    Resumed,
    ShardWritten,
    Started,
    Token,
    Transcoded,
    Warned,
    WorkerRate,
    Working,
)
from studio.core.exporting.export import Export, prepare, prepare_conversion, refuse, with_quality
from studio.core.exporting.gguf import GgufExport, check_gguf, prepare_gguf, prepare_gguf_conversion, write_gguf
from studio.core.exporting.input_scales import with_input_scales
from studio.core.exporting.manifest import exported_results
from studio.core.exporting.sizes import sized_in
from studio.core.exporting.streaming import stream, stream_source
from studio.core.exporting.target import wrong_name
from studio.core.exporting.transcoding import prospect, transcode
from studio.core.exporting.verification import is_ours
from studio.core.exporting.writing import check_writable
from studio.core.findings.doctor import doctor
from studio.core.findings.finding import Examination, Finding, Repair
from studio.core.findings.repairs.repairing import repair
from studio.core.insight.block_inspection import BlockDetail, block_steps, inspect_block
from studio.core.insight.checkpoints import compare_checkpoints
from studio.core.insight.comparison import Comparison, Pair, compare
from studio.core.insight.inspection import FormatDetail, LayerDetail, Steps, inspect_layer, layer_steps
from studio.core.insight.measured import Measured, Side
from studio.core.insight.microscope import ErrorMap, Place
from studio.core.insight.regime_prediction import estimate, prepare_estimates
from studio.core.insight.regimes import ZONE_STARTS, ZONES, Regime, Tiers, no_tiers
from studio.core.jobs import Machine, export, keep_nonfinite, lift, measure, rows_together, start, validate, verify
from studio.core.layouts import GGUF, LAYOUTS, TARGETS, Layout, Target, fitted, layout_for, readers, target_for
from studio.core.layouts.fitting import changes
from studio.core.model import Layer, Model
from studio.core.names import COPIED, printable, printable_end, some_of
from studio.core.opening.checkpoint import open_model, opening
from studio.core.opening.exports import Exported, check_decodable, exported, is_exported
from studio.core.opening.side_files import is_usual
from studio.core.outcome import Outcome
from studio.core.planning.conversion import Loss, Transcoding, requantized, stored_codes
from studio.core.planning.edits import (
    START_RUNTIMES,
    command_line,
    conversion_command,
    hand_rules,
    include_rule,
    pin_rule,
    start_command,
)
from studio.core.planning.lifting import Lifting, liftable
from studio.core.planning.plan import (
    DEFAULT_FORMAT,
    DEFAULT_METHOD,
    KEEP,
    Choice,
    Plan,
    Prediction,
    Rule,
    choice_text,
    choose_by_rule,
    choose_format,
    deciding_rules,
    likeness,
    nothing_chosen,
    plan_from_json,
    resolve,
)
from studio.core.planning.presets import load_plan, preset, preset_names, save_plan
from studio.core.publishing.publish import Preview, Publication, Row, preview, publication, publish
from studio.core.quality.candidates import Candidate, as_planned, as_stored
from studio.core.quality.evaluation import Reading, evaluate, evaluation_nbytes
from studio.core.quality.generation import Generation, Prompt, generate
from studio.core.quality.noise import Estimate
from studio.core.quality.results import Evaluated, Quality, exceeded
from studio.core.reporting.budget_report import check_budget_reports, write_budget
from studio.core.reporting.pages import noisy
from studio.core.reporting.quality_report import check_quality_reports, load_quality, save_quality, write_quality
from studio.core.reporting.report import check_reports, report_head, report_json, write_reports
from studio.core.resources import calibration_text, demo_checkpoint, evaluation_text, resources
from studio.core.results import LayerResult, histogram_edges, result_of
from studio.core.running.aside import aside
from studio.core.running.cache import ResultCache, ScaleGroups
from studio.core.running.engine import Engine
from studio.core.running.result_lines import ResultLines
from studio.core.running.spread import Spread
from studio.core.running.survey import LayerFailed, survey
from studio.core.runtimes import RUNTIMES, Claim, claim_sentences, claims
from studio.core.statistics import StatisticsFile, gaps, open_statistics, unseen, with_statistics
from studio.core.statistics.calibration import Calibration, calibrate
from studio.core.statistics.moments import second_moments
from studio.core.stores.listing import Listing, listing
from studio.core.stores.remote_folder import abandon_all
from studio.core.stores.store_path import abandon, is_remote
from studio.core.stores.store_path import close as close_place
from studio.core.stores.urls import is_url, local_target, place_of, target_path

__all__ = [
    "BUG",
    "COPIED",
    "DEFAULT_FORMAT",
    "DEFAULT_METHOD",
    "FORMATS",
    "GGUF",
    "KEEP",
    "LAYOUTS",
    "METHODS",
    "MOST_PARTS",
    "ROLES",
    "RUNTIMES",
    "START_RUNTIMES",
    "STOPPED",
    "STORED",
    "STORED_FORMATS",
    "TARGETS",
    "ZONES",
    "ZONE_STARTS",
    "BackendError",
    "BlockDetail",
    "Calibrated",
    "Calibration",
    "Candidate",
    "Change",
    "CheckpointError",
    "Choice",
    "Claim",
    "Compared",
    "Comparison",
    "Costs",
    "Crew",
    "Decision",
    "Decisions",
    "Engine",
    "ErrorMap",
    "Estimate",
    "Evaluated",
    "EvaluationDone",
    "Event",
    "Examination",
    "Examined",
    "Export",
    "ExportError",
    "Exported",
    "Finding",
    "FindingMade",
    "Finished",
    "Forecast",
    "FormatDetail",
    "Generation",
    "GgufExport",
    "Layer",
    "LayerDetail",
    "LayerDone",
    "LayerFailed",
    "LayerResult",
    "Layout",
    "Lifted",
    "Lifting",
    "Listing",
    "Loaded",
    "Loss",
    "Machine",
    "Measured",
    "MemoryLimitError",
    "Mix",
    "Model",
    "ModelDone",
    "Occupies",
    "Opened",
    "Option",
    "Order",
    "Outcome",
    "Pair",
    "Piece",
    "Place",
    "Plan",
    "PlanError",
    "Planner",
    "Prediction",
    "Preview",
    "Probing",
    "Progress",
    "Prompt",
    "Publication",
    "Published",
    "Quality",
    "Rates",
    "Reading",
    "Regime",
    "Repair",
    "Repaired",
    "ReplyDone",
    "ResultCache",
    "ResultLines",
    "Resumed",
    "Row",
    "Rule",
    "ScaleGroups",
    "Sensitivity",
    "ShardWritten",
    "Side",
    "Spread",
    "Started",
    "StatisticsFile",
    "Steps",
    "StudioError",
    "Target",
    "ThresholdExceeded",
    "Tiers",
    "Token",
    "Transcoded",
    "Transcoding",
    "Warned",
    "WorkerRate",
    "Workforce",
    "Working",
    "__version__",
    "abandon",
    "abandon_all",
    "as_planned",
    "as_stored",
    "aside",
    "block_steps",
    "budget_title",
    "calibrate",
    "calibration_text",
    "changes",
    "check_budget_reports",
    "check_decodable",
    "check_gguf",
    "check_quality_reports",
    "check_reports",
    "check_writable",
    "choice_order",
    "choice_text",
    "choose_by_rule",
    "choose_format",
    "claim_sentences",
    "claims",
    "close_place",
    "command_line",
    "compare",
    "compare_checkpoints",
    "conversion_command",
    "conversion_order",
    "counted",
    "crew",
    "decide",
    "deciding_rules",
    "demo_checkpoint",
    "doctor",
    "doctor_order",
    "estimate",
    "evaluate",
    "evaluation_nbytes",
    "evaluation_text",
    "exceeded",
    "expert_index",
    "export",
    "exported",
    "exported_results",
    "fitted",
    "forecast",
    "gaps",
    "generate",
    "hand_rules",
    "histogram_edges",
    "include_rule",
    "inspect_block",
    "inspect_layer",
    "is_exported",
    "is_ours",
    "is_remote",
    "is_url",
    "is_usual",
    "keep_nonfinite",
    "layer_steps",
    "layout_for",
    "lift",
    "liftable",
    "likeness",
    "listing",
    "load_plan",
    "load_quality",
    "local_target",
    "measure",
    "measured_rates",
    "method_of",
    "no_tiers",
    "noisy",
    "nothing_chosen",
    "open_model",
    "open_statistics",
    "opening",
    "order_for",
    "pieces",
    "pin_rule",
    "place_of",
    "plan_from_json",
    "prepare",
    "prepare_conversion",
    "prepare_estimates",
    "prepare_gguf",
    "prepare_gguf_conversion",
    "preset",
    "preset_names",
    "preview",
    "price",
    "printable",
    "printable_end",
    "proof_order",
    "prospect",
    "publication",
    "publish",
    "quick_states",
    "readers",
    "refuse",
    "relative_error",
    "repair",
    "report_head",
    "report_json",
    "requantized",
    "resolve",
    "resources",
    "result_of",
    "rows_together",
    "save_plan",
    "save_quality",
    "second_moments",
    "size_text",
    "sized_in",
    "some_of",
    "start",
    "start_command",
    "stored_codes",
    "stream",
    "stream_source",
    "survey",
    "target_for",
    "target_path",
    "transcode",
    "unseen",
    "validate",
    "verify",
    "verify_order",
    "with_input_scales",
    "with_quality",
    "with_statistics",
    "workforce",
    "write_budget",
    "write_gguf",
    "write_quality",
    "write_reports",
    "wrong_name",
]
