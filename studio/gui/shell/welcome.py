"""Welcome: what to do when nothing is open: drop a folder, open one, go on with a recent one, try the demo."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from studio.gui.shell.appearance import themed_icon
from studio.gui.shell.places import Place, above, place_of, shown_name
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import Elided, button, label
from studio.gui.shell.theme import LIGHT, Theme

MAIN_WIDTH = 800
FIRST = (
    f"First time here? Open the demo checkpoint, quantize it ({keys_of('quantize')}), and see what each layer lost. "
    "What you open is listed here the next time."
)


class Welcome(QWidget):
    """The page that is shown while no checkpoint is open.

    Signals:
        open_wanted(), address_wanted(), demo_wanted(): a button was pressed.
        recent_wanted(str): open this path.
    """

    open_wanted = Signal()
    address_wanted = Signal()
    demo_wanted = Signal()
    recent_wanted = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Welcome")
        self._theme = LIGHT
        self._icons: list[tuple[QPushButton, str]] = []
        middle = QVBoxLayout()
        middle.addStretch(2)
        middle.addWidget(self._drop_area())
        middle.addSpacing(18)
        self.rows: dict[str, Recent] = {}
        self.recents = QVBoxLayout()
        self.recents.setSpacing(2)
        middle.addLayout(self.recents)
        middle.addStretch(3)
        across = QHBoxLayout(self)
        column = QWidget()
        column.setLayout(middle)
        column.setMaximumWidth(MAIN_WIDTH)
        across.addStretch(1)
        across.addWidget(column, 100)
        across.addStretch(1)

    def _drop_area(self) -> QFrame:
        self.drop = QFrame()
        self.drop.setProperty("drop", True)
        rows = QVBoxLayout(self.drop)
        rows.setContentsMargins(32, 34, 32, 30)
        rows.setSpacing(10)
        title = label("Drop a model folder here", "hero")
        about = label(
            "A Hugging Face folder with config.json and .safetensors, or one .safetensors or .gguf file.",
            "muted",
            wrap=True,
        )
        more = label("Opening reads headers only. Nothing is changed, nothing is sent anywhere.", "muted", wrap=True)
        for line in (title, about, more):
            line.setAlignment(Qt.AlignmentFlag.AlignCenter)
            rows.addWidget(line)
        rows.addSpacing(10)
        rows.addLayout(self._buttons())
        return self.drop

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addStretch(1)
        wanted: tuple[tuple[str, Callable[[], object], str, str], ...] = (
            ("Open folder…", self.open_wanted.emit, "open", keys_of("open")),
            ("Open address…", self.address_wanted.emit, "address", "A model on a hub, a web server or in a bucket"),
            ("Try the demo checkpoint", self.demo_wanted.emit, "demo", "A small Llama that comes with the program"),
        )
        for text, clicked, name, about in wanted:
            made = button(text, clicked, "primary" if name == "open" else "", about)
            made.setIconSize(QSize(18, 18))
            self._icons.append((made, name))
            row.addWidget(made)
        row.addStretch(1)
        return row

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme
        for made, name in self._icons:
            shown = theme if name != "open" else _on_accent(theme)
            made.setIcon(themed_icon(name, shown))

    def set_hover(self, over: bool) -> None:
        """Show that what is dragged can be dropped."""
        self.drop.setProperty("hover", over)
        self.drop.style().unpolish(self.drop)
        self.drop.style().polish(self.drop)

    def show_recents(self, paths: Sequence[str]) -> None:
        """List what was opened before, or say how to begin."""
        while (item := self.recents.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        self.rows = {path: Recent(place_of(path), self.recent_wanted.emit) for path in paths}
        self.recents.addWidget(label("Recent" if paths else FIRST, "muted", wrap=not paths))
        for row in self.rows.values():
            self.recents.addWidget(row)

    def mark(self, path: str, there: bool) -> None:
        """What is gone can not be opened, and says so."""
        if (row := self.rows.get(path)) is not None:
            row.mark(there)


def _on_accent(theme: Theme) -> Theme:
    from dataclasses import replace

    return replace(theme, text=theme.surface)


class Recent(QWidget):
    """A checkpoint that was opened before. Whether it is still there is told later: asking may take long."""

    def __init__(self, path: Place, chosen: Callable[[str], object]) -> None:
        super().__init__()
        self._folder = above(path)
        columns = QGridLayout(self)
        columns.setContentsMargins(0, 0, 0, 0)
        self.open = button(shown_name(path).replace("&", "&&"), lambda: chosen(str(path)), "flat", str(path))
        self.place = Elided(self._folder)
        self.place.setEnabled(False)
        columns.addWidget(self.open, 0, 0)
        columns.addWidget(self.place, 0, 1)
        columns.setColumnStretch(1, 1)

    def mark(self, there: bool) -> None:
        """It is still there, or gone."""
        self.open.setEnabled(there)
        self.place.set_text(self._folder if there else f"{self._folder}  (not there any more)")
