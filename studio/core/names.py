"""Names from a checkpoint made safe to show: escaped, on one line, cut to a length."""

SHOWN = 120


def printable(name: object, limit: int = SHOWN) -> str:
    """`name` as one line of harmless text: control, bidi and unassigned characters escaped, at most `limit` long."""
    text = str(name)
    shown = "".join(_escape(character) for character in text[: limit + 1])
    return shown if len(text) <= limit and len(shown) <= limit else shown[: limit - 1] + "…"


def _escape(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
