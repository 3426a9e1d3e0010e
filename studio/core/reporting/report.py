"""Reports of a run, as text for people and programs: JSON, CSV, a self-contained HTML page, a Markdown model card."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kernels
from studio.core.counting import counted, size_text
from studio.core.exporting.writing import check_writable, writing
from studio.core.layouts import Layout
from studio.core.model import Model
from studio.core.names import printable
from studio.core.outcome import Outcome
from studio.core.planning.plan import Plan, Prediction
from studio.core.quality.results import Evaluated, Quality
from studio.core.reporting.budget_card import budget_lines
from studio.core.reporting.charts import error_chart, histogram_chart, scale_chart
from studio.core.reporting.pages import markdown, noisy, page_templates
from studio.core.results import LayerResult
from studio.core.runtimes import Claim, claim_sentences

CSV_COLUMNS: dict[str, Callable[[LayerResult], Any]] = {
    "name": lambda r: r.name,
    "role": lambda r: r.role,
    "block": lambda r: "" if r.block is None else r.block,
    "shape": lambda r: "x".join(map(str, r.shape)),
    "dtype": lambda r: r.dtype,
    "format": lambda r: r.format,
    "weights": lambda r: r.count,
    "bytes_before": lambda r: r.nbytes_in,
    "bytes_after": lambda r: r.nbytes_out,
    "bits_per_weight": lambda r: f"{r.bits_per_weight:.4f}",
    "rel_err": lambda r: f"{r.rel_err:.6g}" if r.measured else "",
    "snr_db": lambda r: f"{r.snr:.3f}" if r.measured else "",
    "max_error": lambda r: f"{r.max_error:.6g}" if r.quantized else "",
    "became_zero": lambda r: r.vanished if r.quantized else "",
    "zero_rows": lambda r: r.vanished_rows if r.quantized else "",
    "sigma": lambda r: f"{r.statistics.sigma:.6g}" if r.statistics else "",
    "max_abs": lambda r: f"{r.statistics.max_abs:.6g}" if r.statistics else "",
    "kurtosis": lambda r: f"{r.statistics.kurtosis:.4g}" if r.statistics else "",
    "outliers_6_sigma": lambda r: r.statistics.outliers if r.statistics else "",
    "lift": lambda r: r.lift or "",
    "reason": lambda r: r.reason,
}
"""The columns of the CSV report, in order."""


def report_json(model: Model, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Everything that a run found out, as one JSON object."""
    return {**report_head(model, plan, outcome), "layers": [layer.to_json() for layer in outcome.layers]}


def report_head(model: Model, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """What a run found out of the model as a whole."""
    return {
        "schema": 1,
        "program": {"name": "nvfp4-studio", "version": kernels.__version__},
        "model": {"name": model.name, "architecture": model.architecture, "warnings": list(model.warnings)},
        "plan": plan.to_json(),
        "backend": outcome.backend,
        "target": outcome.target,
        "layout": outcome.layout,
        "cautions": list(outcome.cautions),
        "summary": outcome.summary(),
        "totals": [{**row, "worst": row["worst"].name if row["worst"] else None} for row in outcome.totals],
        "seconds": outcome.seconds,
        "warnings": outcome.warnings(),
    }


def report_csv(outcome: Outcome) -> str:
    """One row per layer; a cell that a spreadsheet could take for a formula is quoted with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for layer in outcome.layers:
        writer.writerow([_harmless(column(layer)) for column in CSV_COLUMNS.values()])
    return text.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = printable(value, 1000)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def report_html(model: Model, plan: Plan, outcome: Outcome, quality: Quality | None = None) -> str:
    """One self-contained page: no script, no font, no picture from elsewhere."""
    charts = {
        "errors": error_chart(outcome.quantized),
        "histogram": histogram_chart(outcome.layers),
        "scales": scale_chart(outcome.quantized),
    }
    found = {"model": model, "plan": plan, "outcome": outcome, "quality": quality, "kernels": kernels}
    return page_templates().get_template("report.html").render(charts=charts, **found)


REPORTS = ("report.json", "report.csv", "report.html")


def check_reports(folder: Path) -> None:
    """Raise ExportError when `write_reports` could not write into `folder`; leaves everything as it was."""
    check_writable(folder, REPORTS)


def write_reports(
    folder: Path, model: Model, plan: Plan, outcome: Outcome, quality: Quality | None = None
) -> list[Path]:
    """Write the files `REPORTS` into `folder`, which is made when it is missing; the page shows `quality` too.

    Raises ExportError when it can not be written.
    """
    texts = (
        json.dumps(report_json(model, plan, outcome), ensure_ascii=False, indent=1) + "\n",
        report_csv(outcome),
        report_html(model, plan, outcome, quality),
    )
    contents = dict(zip(REPORTS, texts, strict=True))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


TABLE = "| role | format | layers | weights | size | relative error |"
TOKENS = "## What it costs in tokens"
"""Lines of a model card: the head of its table of layers, and the title above what an evaluation found."""


def model_card(
    model: Model,
    plan: Plan,
    layout: Layout,
    outcome: Outcome,
    notes: Sequence[str],
    claims: Sequence[Claim],
    quality: Quality | None = None,
    told: Prediction | None = None,
) -> bytes:
    """README.md of an export: what it is, where it runs by what evidence, what quantizing cost.

    told: what a plan for a budget said of these weights.
    """
    lines = [
        f"# {markdown(model.name)}, quantized",
        "",
        f"{markdown(model.architecture) or 'A model'} with {counted(outcome.count, 'weight')}, "
        f"quantized by NVFP4 Studio {kernels.__version__} "
        f"from {size_text(outcome.nbytes_in)} to {size_text(outcome.nbytes_out)} "
        f"({outcome.bits_per_weight:.2f} bits per weight).",
        "",
        f"- Plan: {markdown(plan.title or plan.name or 'custom')}",
        f"- Layout: {layout.title}; {layout.scale_convention}",
        *_error_lines(outcome),
        *(f"- Note: {markdown(sentence)}" for sentence in notes),
        "",
        "## Where it runs",
        "",
        *(f"- {markdown(sentence)}" for sentence in claim_sentences(claims)),
        "",
        *(budget_lines(told, model, layout.name) if told else ()),
        *(quality_lines(quality) if quality else ()),
        TABLE,
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in outcome.totals:
        error = f"{row['rel_err']:.4f}" if row["worst"] else "-"
        size = size_text(row["nbytes_out"])
        lines.append(f"| {row['role']} | {row['format']} | {row['layers']} | {row['count']:,} | {size} | {error} |")
    lines += [
        "",
        "Relative error is ||W - decoded|| / ||W||. `nvfp4_studio.json` holds the plan, the conventions and the error",
        "of every layer; `nvfp4-studio verify` checks them, `sha256sum --check SHA256SUMS` the bytes.",
        "",
    ]
    return "\n".join(lines).encode()


def _error_lines(outcome: Outcome) -> list[str]:
    """What quantizing cost the weights, as far as it was seen here."""
    stored = outcome.taken_over
    lines = []
    if worst := outcome.worst:
        of = "the weights quantized here" if stored else "the quantized weights"
        error = f"{outcome.rel_err:.4f}; worst layer {markdown(worst.name)} with {worst.rel_err:.4f}"
        lines.append(f"- Relative error of {of}: {error}")
    if stored:
        lines.append(
            f"- Codes of {counted(stored, 'layer')} were taken over as they were stored, with no further error; "
            "that of quantizing them is not known here (`verify --source` tells it)"
        )
    return lines


def quality_lines(quality: Quality) -> list[str]:
    """What an evaluation found, for a model card."""
    text = quality.text
    what = f"{counted(text.windows, 'window')} of {text.length:,} tokens of {markdown(text.name)}"
    return [
        TOKENS,
        "",
        "| model | format | method | perplexity | increase | KL to the source | KL predicted | top-1 |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        *(_quality_line(row) for row in (quality.source, *quality.models) if row),
        "",
        f"Run by {quality.runtime} {quality.version} in float32 on {what} (SHA-256 {text.digest[:16]});",
        "± is one standard error over windows.",
        "",
    ]


def _quality_line(row: Evaluated) -> str:
    cells = (
        markdown(row.name),
        row.format,
        " by ".join(filter(None, (row.method, row.guide))),
        noisy(row.perplexity, "%.2f"),
        noisy(row.increase, "%+.1f", 100, " %") if row.increase else "",
        noisy(row.kl, "%.4f") if row.kl else "",
        "" if row.predicted is None else f"{row.predicted:.4f}",
        noisy(row.top1, "%.1f", 100, " %") if row.top1 else "",
    )
    return f"| {' | '.join(cells)} |"
