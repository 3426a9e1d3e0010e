"""What an axis of errors shows: the data, and the warning line where it is not far off."""

from studio.gui.views.points import padded

ROOM_FOR_LINE = 0.4
"""How much of what the data takes the warning line may take besides; where it is farther off, its edge is marked."""


def error_range(
    low: float,
    high: float,
    line: float,
    *,
    from_zero: bool = False,
    positive: bool = True,
    with_line: bool = False,
    label: float = 0.0,
) -> tuple[float, float]:
    """The range shown for data from `low` to `high`.

    from_zero: begin at 0, because the lengths of bars are values. positive: never below 0. with_line: hold the line
    however far off it is. label: what the mark of a line out of sight takes, as a share of the data; it covers none.
    """
    bottom = 0.0 if from_zero else low
    span = high - bottom
    if with_line or bottom - ROOM_FOR_LINE * span <= line <= high + ROOM_FOR_LINE * span:
        low, high = min(low, line), max(high, line)
    above, below = label * span * (line > high), label * span * (line < bottom)
    low, high = padded((low, high), 0.1)
    if from_zero:
        return 0.0, high + above
    return max(low - below, 0.0) if positive else low - below, high + above
