"""Numbers of layers as text: "0-46999,47001" says in twenty bytes what a list says in three hundred thousand."""

from collections.abc import Iterable


def ranges(numbers: Iterable[int]) -> str:
    """The text for numbers, in their order."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in found)


def numbers_of(text: str, count: int) -> list[int]:
    """The numbers that a text stands for; raises ValueError for what is no number below `count`."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        start, stop = int(first), int(last or first)
        if not 0 <= start <= stop < count:
            raise ValueError(f"{part} is no range of {count:,} layers")
        found.extend(range(start, stop + 1))
    return found
