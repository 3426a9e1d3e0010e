"""Counts in words: 1 layer, 2 layers, 1,200 layers; and amounts of bytes."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`count` with its noun, in the plural unless it is one; `plural` where that is no added "s"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size_text(nbytes: float) -> str:
    """Bytes as people read them, decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(nbytes) < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.4g} TB"


def amount_text(nbytes: int) -> str:
    """Bytes as people read them, and to the byte: 489 MB (488,652,950 bytes)."""
    return f"{nbytes:,} bytes" if nbytes < 1000 else f"{size_text(nbytes)} ({nbytes:,} bytes)"
