"""Reports of an evaluation: JSON, and a self-contained page with a table and a bar per model."""

import json
from pathlib import Path

import kernels
from studio.core.exporting.writing import check_writable, writing
from studio.core.quality.results import Quality
from studio.core.reporting.pages import page_templates

QUALITY_REPORTS = ("quality.json", "quality.html")


def check_quality_reports(folder: Path) -> None:
    """Raise ExportError when `write_quality` could not write into `folder`; leaves everything as it was."""
    check_writable(folder, QUALITY_REPORTS)


def save_quality(quality: Quality, path: Path) -> None:
    """Write an evaluation as JSON. Raises ExportError when it can not be written."""
    with writing(path):
        path.write_text(json.dumps(quality.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def quality_html(quality: Quality) -> str:
    """One self-contained page."""
    title = (quality.source or quality.models[0]).name
    return page_templates().get_template("quality.html").render(title=title, quality=quality, kernels=kernels)


def write_quality(folder: Path, quality: Quality) -> list[Path]:
    """Write the files `QUALITY_REPORTS` into `folder`, which is made when it is missing.

    Raises ExportError when it can not be written.
    """
    data, page = (folder / name for name in QUALITY_REPORTS)
    text = quality_html(quality)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    save_quality(quality, data)
    return [data, page]
