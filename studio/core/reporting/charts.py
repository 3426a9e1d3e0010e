"""Charts of a report as inline SVG text: plain shapes, coloured by the page's style sheet."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from studio.core.counting import counted
from studio.core.names import printable
from studio.core.results import LayerResult, histogram_edges

WIDTH, HEIGHT = 960, 260
LEFT, RIGHT, TOP, BOTTOM = 68, 18, 12, 34


class _Axes:
    """Maps data to the pixels of one chart and draws its frame."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> None:
        self.x, self.y, self.height = x, y, height
        self.parts: list[Markup] = []

    def px(self, value: float) -> float:
        """Horizontal pixel of a value."""
        low, high = self.x
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """Vertical pixel of a value."""
        low, high = self.y
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def add(self, template: str, **values: object) -> None:
        """Add an SVG element; values are escaped."""
        self.parts.append(Markup(template).format(**values))  # noqa: S704 - templates are constants of this file

    def grid(self, values: Sequence[float], labels: Sequence[str]) -> None:
        """Horizontal lines with labels."""
        for value, label in zip(values, labels, strict=True):
            y = f"{self.py(value):.1f}"
            self.add('<line class="grid" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>', a=LEFT, b=WIDTH - RIGHT, y=y)
            self.add('<text class="tick end" x="{x}" y="{y}" dy="4">{t}</text>', x=LEFT - 6, y=y, t=label)

    def marks(self, values: Sequence[float], labels: Sequence[str]) -> None:
        """Labels along the horizontal axis."""
        for value, label in zip(values, labels, strict=True):
            x, y = f"{self.px(value):.1f}", self.height - BOTTOM + 16
            self.add('<text class="tick middle" x="{x}" y="{y}">{t}</text>', x=x, y=y, t=label)

    def svg(self, title: str) -> Markup:
        """The finished chart."""
        head = Markup('<svg viewBox="0 0 {w} {h}" role="img" aria-label="{t}">').format(w=WIDTH, h=self.height, t=title)
        return head + Markup("").join(self.parts) + Markup("</svg>")


def error_chart(layers: Sequence[LayerResult]) -> Markup:
    """A dot per quantized layer in file order: relative error, with its name as a tooltip."""
    if not layers:
        return Markup("")
    bottom, top, step = _range([layer.rel_err for layer in layers])
    axes = _Axes((0, max(len(layers), 2)), (bottom, top))
    lines = [bottom + i * step for i in range(round((top - bottom) / step) + 1)]
    axes.grid(lines, [f"{line:.3g}" for line in lines])
    radius = 4 if len(layers) < 200 else 2
    for place, layer in enumerate(layers):
        axes.add(
            '<circle class="{c}" cx="{x}" cy="{y}" r="{r}"><title>{t}</title></circle>',
            c=f"dot {layer.role}",
            x=f"{axes.px(place + 0.5):.1f}",
            y=f"{axes.py(min(layer.rel_err, top)):.1f}",
            r=radius,
            t=f"{printable(layer.name)}: {layer.rel_err:.4f} ({layer.format})",
        )
    for i, block in _block_starts(layers):
        axes.marks([i], [str(block)])
    axes.marks([len(layers) * 0.985], ["block"])
    return axes.svg("Relative error of every quantized layer, in file order")


def _block_starts(layers: Sequence[LayerResult]) -> list[tuple[float, int]]:
    starts: dict[int, float] = {}
    for i, layer in enumerate(layers):
        if layer.block is not None:
            starts.setdefault(layer.block, i + 0.5)
    step = max(len(starts) // 20, 1)
    return [(i, block) for block, i in list(starts.items())[::step]]


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """(bottom, top, step) of round numbers around finite values; dots need no zero line."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    span = max(high - low, 0.02 * high, 1e-9)
    scale = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= span / 4)
    return math.floor(low / step) * step, (math.floor(high / step) + 1) * step, step


Point = tuple[str, float, float]
"""A name, bits per weight, and what is lost."""


def budget_chart(
    curve: Sequence[tuple[float, float]],
    singles: Sequence[Point],
    mix: Point,
    what: str,
    noise: Sequence[tuple[float, float, float]] = (),
) -> Markup:
    """The curve of the best mixes, (bits per weight, `what` is lost) each, with single formats and a mix as dots.

    noise: (bits per weight, least, most) at places of the curve, shown as a band. What is lost is on a logarithmic
    axis; points that lose nothing are beyond it.
    """
    lost = [y for y in (*(y for _, y in curve), *(y for _, _, y in singles), mix[2]) if y > 0]
    if not lost:
        return Markup("")
    bits = [x for x, _ in curve] + [x for _, x, _ in singles]
    bottom, top = math.floor(max(math.log10(min(lost)), math.log10(max(lost)) - _DECADES)), math.log10(max(lost)) + 0.1
    axes = _Axes((min(bits) - 0.1, max(bits) + 0.1), (bottom, top), 320)
    axes.grid(range(bottom, math.floor(top) + 1), [f"{10.0**d:g}" for d in range(bottom, math.floor(top) + 1)])
    axes.marks(whole := range(math.ceil(min(bits)), math.floor(max(bits)) + 1), list(map(str, whole)))
    _band(axes, noise, bottom)
    shown = ((x, max(math.log10(y), bottom)) for x, y in curve if y > 0)
    path = " ".join(f"{axes.px(x):.1f},{axes.py(y):.1f}" for x, y in shown)
    axes.add('<polyline class="curve" points="{p}"/>', p=path)
    for kind, (name, x, y) in [*(("single", point) for point in singles), ("mix", mix)]:
        if y > 0 and math.log10(y) >= bottom:
            axes.add(
                '<circle class="dot {k}" cx="{x}" cy="{y}" r="5"><title>{t}</title></circle>',
                k=kind,
                x=f"{axes.px(x):.1f}",
                y=f"{axes.py(math.log10(y)):.1f}",
                t=f"{name}: {x:.3f} bits, {what} {y:.4g}",
            )
    return axes.svg(f"{what} of the best mixes by bits per weight, and of single formats")


def _band(axes: _Axes, noise: Sequence[tuple[float, float, float]], bottom: float) -> None:
    edges = [(x, low) for x, low, _ in noise] + [(x, high) for x, _, high in reversed(noise)]
    shown = ((x, max(math.log10(y), bottom) if y > 0 else bottom) for x, y in edges)
    points = " ".join(f"{axes.px(x):.1f},{axes.py(y):.1f}" for x, y in shown)
    if noise:
        axes.add('<polygon class="noise" points="{p}"/>', p=points)


_DECADES = 5


def histogram_chart(layers: Sequence[LayerResult]) -> Markup:
    """All weights with statistics: share per bin of |w| / sigma of their layer, both axes logarithmic."""
    histograms = [layer.statistics.histogram for layer in layers if layer.statistics and layer.quantized]
    if not histograms:
        return Markup("")
    total = [sum(column) for column in zip(*histograms, strict=True)]
    weights = sum(total)
    edges = [math.log2(edge) for edge in histogram_edges()]
    floor = math.log10(1 / weights) if weights > 1 else -1.0
    axes = _Axes((edges[0], edges[-1]), (floor - 0.3, 0))
    decades = range(math.ceil(floor), 1, 2)
    axes.grid(list(decades), [f"{100 * 10.0**d:.10g} %" for d in decades])
    for low, high, count in zip(edges[:-1], edges[1:], total, strict=True):
        if count:
            x, y = axes.px(low), axes.py(math.log10(count / weights))
            axes.add(
                '<rect class="bar" x="{x}" y="{y}" width="{w}" height="{h}"><title>{t}</title></rect>',
                x=f"{x:.1f}",
                y=f"{y:.1f}",
                w=f"{axes.px(high) - x - 1:.1f}",
                h=f"{axes.py(floor - 0.3) - y:.1f}",
                t=f"{2**low:.3g} to {2**high:.3g} sigma: {counted(count, 'weight')}",
            )
    _sigma_mark(axes)
    powers = list(range(int(edges[0]), int(edges[-1]) + 1, 2))
    axes.marks(powers, [f"{2.0**p:.2g}" if p < 0 else str(2**p) for p in powers])
    return axes.svg("Share of the quantized weights by magnitude in units of sigma")


def _sigma_mark(axes: _Axes) -> None:
    x = f"{axes.px(math.log2(6)):.1f}"
    axes.add('<line class="mark" x1="{x}" x2="{x}" y1="{a}" y2="{b}"/>', x=x, a=TOP, b=axes.height - BOTTOM)
    axes.add('<text class="tick" x="{x}" y="{y}" dx="5">6 sigma</text>', x=x, y=TOP + 10)


def scale_chart(layers: Sequence[LayerResult]) -> Markup:
    """Blocks per E4M3 scale byte over all NVFP4 layers, with the zones of E4M3."""
    scales = [r.scale_counts for r in layers if r.format.startswith("nvfp4") and r.scale_counts]
    if not scales:
        return Markup("")
    total = [sum(column) for column in zip(*scales, strict=True)][:127]
    peak = max(total) or 1
    axes = _Axes((0, 127), (0, peak * 1.05), 220)
    for first, last, zone in ((0, 1, "zero"), (1, 8, "subnormal"), (8, 126, "normal"), (126, 127, "largest")):
        axes.add(
            '<rect class="zone {z}" x="{x}" y="{y}" width="{w}" height="{h}"><title>{z} scales</title></rect>',
            z=zone,
            x=f"{axes.px(first):.1f}",
            y=TOP,
            w=f"{axes.px(last) - axes.px(first):.1f}",
            h=axes.height - TOP - BOTTOM,
        )
    axes.grid([0, peak], ["0", f"{peak:,}"])
    for byte, count in enumerate(total):
        if count:
            axes.add(
                '<rect class="bar" x="{x}" y="{y}" width="{w}" height="{h}"><title>{t}</title></rect>',
                x=f"{axes.px(byte):.1f}",
                y=f"{axes.py(count):.1f}",
                w=f"{axes.px(byte + 1) - axes.px(byte) - 1:.1f}",
                h=f"{axes.py(0) - axes.py(count):.1f}",
                t=f"scale byte 0x{byte:02X}: {counted(count, 'block')}",
            )
    marks = [(0, "0"), (8, "2^-6"), (56, "1"), (88, "16"), (126, "448")]
    axes.marks([byte + 0.5 for byte, _ in marks], [text for _, text in marks])
    return axes.svg("NVFP4 blocks by E4M3 scale")
