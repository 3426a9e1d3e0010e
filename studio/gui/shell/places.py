"""Places: where a checkpoint lies: a path on this machine, or the address of a store, which is a text."""

import re
from pathlib import Path

Place = Path | str

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def is_address(place: Place) -> bool:
    """True for what is not on this machine."""
    return _ADDRESS.match(str(place)) is not None


def place_of(text: str) -> Place:
    """The place that a text names."""
    return text if is_address(text) else Path(text)


def lasting_text(place: Place) -> str:
    """A text that names it wherever the program is started."""
    return place if isinstance(place, str) else str(place.absolute())


def name_of(place: Place) -> str:
    """What people call it."""
    return place.rstrip("/").rpartition("/")[2] if isinstance(place, str) else place.name


def shown_name(place: Place, longest: int = 60) -> str:
    """`name_of` as a line shows it: harmless, and not longer than it has room for."""
    name = name_of(place)
    name = name if name.isprintable() else name.encode("unicode_escape").decode()
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def above(place: Place) -> str:
    """What it lies in, as a text."""
    return place.rstrip("/").rpartition("/")[0] if isinstance(place, str) else str(place.parent)
