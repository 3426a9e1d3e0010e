"""Theme: every colour and the size of text, as data; light and dark."""

from dataclasses import dataclass, replace

SMALLEST_FONT, DEFAULT_FONT, LARGEST_FONT = 10, 13, 24


@dataclass(frozen=True, slots=True)
class Theme:
    """What the window is drawn with. Colours are "#rrggbb"; those of text reach a contrast of 4.5 on both grounds.

    window, surface: the ground, and what lies on it (tables, plots, cards). raised: headers and block rows. border:
    lines around things. grid: lines inside plots. selection, selected_text: a selected row. roles, formats: colours
    that tell roles of layers and formats apart. kinds: those of marks in plots. All do so for colour-blind eyes too,
    and are never the only sign. font_px: text height.
    """

    name: str
    dark: bool
    window: str
    surface: str
    text: str
    muted: str
    grid: str
    accent: str
    warning: str
    error: str
    good: str
    roles: dict[str, str]
    font_px: int
    raised: str
    border: str
    selection: str
    selected_text: str
    formats: dict[str, str]
    kinds: dict[str, str]

    def with_font(self, pixels: int) -> "Theme":
        """The same colours with text of another height, kept within what stays usable."""
        return replace(self, font_px=min(max(pixels, SMALLEST_FONT), LARGEST_FONT))

    def format_color(self, name: str) -> str:
        """The colour of a format, that of muted text for a kept layer or an unknown name."""
        return self.formats.get(name, self.muted)


LIGHT = Theme(
    name="light",
    dark=False,
    window="#f3f4f6",
    surface="#ffffff",
    text="#1b1e23",
    muted="#59626f",
    grid="#e2e5ea",
    accent="#1f62ad",
    warning="#8f5a00",
    error="#b3261e",
    good="#1a7346",
    roles={
        "linear": "#0072b2",
        "expert": "#b94e00",
        "embedding": "#00805d",
        "head": "#b34d86",
        "router": "#8a6d00",
        "norm": "#6b7280",
        "other": "#5a4fcf",
    },
    font_px=DEFAULT_FONT,
    raised="#e9ecf0",
    border="#c9ced6",
    selection="#cfe2f7",
    selected_text="#10151c",
    formats={
        "nvfp4-2t": "#4a76b8",
        "nvfp4-3t": "#0057a8",
        "mxfp4": "#b35400",
        "mxfp8": "#00765a",
        "int4-g32": "#a4428a",
        "int4-g64": "#86338f",
        "int8-g64": "#3d6a85",
        "int8-g128": "#4d6472",
    },
    kinds={
        "query": "#2233dd",
        "key": "#0396e8",
        "value": "#12393f",
        "output": "#6a1a96",
        "gate": "#a08c0a",
        "up": "#7a3a0c",
        "down": "#dd4a90",
        "router": "#2e7d32",
        "embedding": "#00807f",
        "head": "#b3261e",
        "ssm": "#6b7a00",
        "norm": "#6b7280",
        "other": "#59626f",
    },
)

DARK = Theme(
    name="dark",
    dark=True,
    window="#16181c",
    surface="#1d2025",
    text="#e6e9ee",
    muted="#9ea7b3",
    grid="#30353d",
    accent="#6cabf0",
    warning="#e3aa42",
    error="#f4877f",
    good="#5bc48e",
    roles={
        "linear": "#56b4e9",
        "expert": "#f28e45",
        "embedding": "#2fc39a",
        "head": "#e59bc8",
        "router": "#e6d84a",
        "norm": "#9ea7b3",
        "other": "#aab4ff",
    },
    font_px=DEFAULT_FONT,
    raised="#262a31",
    border="#3d434d",
    selection="#274b73",
    selected_text="#ffffff",
    formats={
        "nvfp4-2t": "#8fb6ea",
        "nvfp4-3t": "#58a6ff",
        "mxfp4": "#f0943f",
        "mxfp8": "#3dc7a0",
        "int4-g32": "#e08fcf",
        "int4-g64": "#c98be0",
        "int8-g64": "#86bfe0",
        "int8-g128": "#a3b9c6",
    },
    kinds={
        "query": "#6f76cf",
        "key": "#aed0f7",
        "value": "#2fe6bb",
        "output": "#9a45f5",
        "gate": "#f5e03f",
        "up": "#d48a48",
        "down": "#d63672",
        "router": "#7bd88f",
        "embedding": "#4fb3b3",
        "head": "#ff7a70",
        "ssm": "#b9c93a",
        "norm": "#9ea7b3",
        "other": "#9ea7b3",
    },
)

THEMES: dict[str, Theme] = {theme.name: theme for theme in (LIGHT, DARK)}
