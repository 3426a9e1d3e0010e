"""What the doctor says of a folder."""

from pathlib import Path

from studio import core


def examined(path: Path, *, quick: bool = False, against: core.Model | None = None) -> core.Examination:
    """What the doctor found."""
    *_, ended = core.doctor(path, quick=quick, against=against)
    assert isinstance(ended, core.Examined)
    return ended.examination


def kinds(found: core.Examination, *severities: str) -> set[str]:
    """The kinds of the findings of these severities."""
    return {one.kind for one in found.findings if one.severity in severities}
