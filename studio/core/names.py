"""Names from a checkpoint made safe: to show, escaped, on one line, cut to a length; to open, without a way out."""

SHOWN = 120
COPIED = 4096
"""Characters of a name that others are to read, such as a line of a CSV file."""
_LONGEST_NAME = 255


def printable(name: object, limit: int = SHOWN) -> str:
    """`name` as one line of harmless text: control, bidi and unassigned characters escaped, at most `limit` long."""
    text = str(name)
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(_escape(character) for character in text[: limit + 1])
    return shown if len(text) <= limit and len(shown) <= limit else shown[: limit - 1] + "…"


def printable_end(name: str, limit: int = SHOWN) -> str:
    """`name` as `printable` shows it, but of one that is longer the end, which tells layers apart."""
    if len(name) <= limit and name.isprintable():
        return name
    shown = "".join(_escape(character) for character in name[-limit - 1 :])
    return shown if len(name) <= limit and len(shown) <= limit else "…" + shown[-limit + 1 :]


def _escape(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def some_of(names: list[str], shown: int = 3) -> str:
    """The first names, and how many there are besides."""
    text = ", ".join(printable(name) for name in names[:shown])
    return f"{text} and {len(names) - shown:,} more" if len(names) > shown else text


def is_plain_name(name: str) -> bool:
    """True for a name of a file in a folder, on any system: nothing in it leads elsewhere."""
    return 0 < len(name) <= _LONGEST_NAME and name not in (".", "..") and not any(bad in name for bad in "/\\\0:")


def is_plain_path(path: str) -> bool:
    """True for plain names joined by "/": a file in a folder or below it."""
    return all(map(is_plain_name, path.split("/")))
