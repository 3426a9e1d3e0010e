"""The pages of the documentation that hold tables made by proofs."""

from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"
RUNTIMES = _DOCS / "runtimes.md"
SOURCES = _DOCS / "sources.md"


def replace_between(page: Path, start: str, end: str, text: str) -> None:
    """Put `text` between two lines of a page. Raises ValueError when it does not have them in that order."""
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page.name} has no {start.strip()} before {end.strip()}")
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")
