"""Counts in words: 1 layer, 2 layers, 1,200 layers."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`count` with its noun, in the plural unless it is one; `plural` where that is no added "s"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
