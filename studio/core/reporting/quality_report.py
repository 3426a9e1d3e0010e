"""Reports of an evaluation: JSON, and a self-contained page with a table and a bar per model."""

import json
from pathlib import Path

import kernels
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.exporting.writing import check_writable, writing
from studio.core.names import printable
from studio.core.quality.results import SCHEMA, Quality
from studio.core.reporting.pages import page_templates

QUALITY_REPORTS = ("quality.json", "quality.html")


def check_quality_reports(folder: Path) -> None:
    """Raise ExportError when `write_quality` could not write into `folder`; leaves everything as it was."""
    check_writable(folder, QUALITY_REPORTS)


def save_quality(quality: Quality, path: Path) -> None:
    """Write an evaluation as JSON. Raises ExportError when it can not be written."""
    with writing(path):
        path.write_text(json.dumps(quality.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_quality(path: Path) -> Quality:
    """The evaluation in a JSON file. Raises CheckpointError for one that `save_quality` did not write."""
    data = read_object(path, 16 << 20)
    if data.get("schema") != SCHEMA:
        what = f"not an evaluation of schema {SCHEMA}: {printable(data.get('schema'))}"
        raise CheckpointError(what, file=path, hint="nvfp4-studio evaluate --out FILE writes one")
    try:
        return Quality.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"a damaged evaluation: {type(error).__name__} {printable(error)}", file=path) from None


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
