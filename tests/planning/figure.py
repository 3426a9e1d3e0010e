"""The figure: predicted KL of the best mixes over their size, measured mixes and single formats beside it, as SVG."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 34, 46
INK, FAINT, MIX, SINGLE = "#57606a", "#d0d7de", "#0969da", "#bc4c00"


def figure(title: str, rows: Sequence[Any], curve: tuple[np.ndarray, np.ndarray], count: int) -> str:
    """An SVG; KL is on a logarithmic axis."""
    bits = [row.bits for row in rows]
    kl = [value for row in rows for value in (row.kl, row.predicted) if value > 0]
    low, high = math.floor(math.log10(min(kl))), math.ceil(math.log10(max(kl)) * 4) / 4
    first, last = min(bits) - 0.1, max(bits) + 0.1

    def x(value: float) -> float:
        return LEFT + (value - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - math.log10(value)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 20, f"{title}: KL to the source over bits per weight", size=14)]
    for power in range(low, math.floor(high) + 1):
        at = y(10.0**power)
        parts += [_line(LEFT, at, WIDTH - RIGHT, at, FAINT), _text(LEFT - 8, at + 4, f"{10.0**power:g}", "end")]
    for value in range(math.ceil(first), math.floor(last) + 1):
        parts += [_line(x(value), HEIGHT - BOTTOM, x(value), HEIGHT - BOTTOM + 4, INK)]
        parts += [_text(x(value), HEIGHT - BOTTOM + 18, str(value), "middle")]
    shown = [(8 * n / count, k) for n, k in zip(*curve, strict=True) if k > 10.0**low and 8 * n / count <= last]
    points = " ".join(f"{x(b):.1f},{y(k):.1f}" for b, k in shown)
    parts.append(f'<polyline points="{points}" fill="none" stroke="{MIX}" stroke-width="1.5"/>')
    for row in rows:
        if row.kl > 0:
            parts.append(_dot(x(row.bits), y(row.kl), MIX if row.mix else SINGLE, row.name))
    parts += _numbers([(x(row.bits), y(row.kl), row.name) for row in rows if not row.mix and row.kl > 0])
    key = ((MIX, "mixes, measured; line: predicted"), (SINGLE, "single formats, measured"))
    for number, (colour, text) in enumerate(key):
        at = HEIGHT - BOTTOM - 30 + 18 * number
        parts += [_dot(LEFT + 14, at - 4, colour, text), _text(LEFT + 24, at, text)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *parts, "</svg>", ""])


def _numbers(places: Sequence[tuple[float, float, str]]) -> list[str]:
    """A number beside each dot, what it means at the right."""
    found: list[str] = []
    taken: list[tuple[float, float]] = []
    for number, (left, top, text) in enumerate(sorted(places), 1):
        aside = sum(abs(left - x) < 9 and abs(top - y) < 9 for x, y in taken)
        taken.append((left, top))
        found.append(_text(left + 6 + 11 * aside, top - 5, str(number), size=10))
        found.append(_text(WIDTH - RIGHT + 14, TOP + 14 + 15 * number, f"{number}  {text}", size=10))
    return found


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}"'
    return f"<text {place}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{escape(title)}</title></circle>'
