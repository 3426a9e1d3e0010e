"""Appearance: a theme put on the application: palette, style sheet, icons in the colour of text."""

from functools import lru_cache
from pathlib import Path

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

from studio.gui.shell.theme import DARK, LIGHT, THEMES, Theme

_ICON_SIZES = (16, 20, 32, 48)


def chosen_theme(name: str, font_px: int) -> Theme:
    """The theme for a setting: "light", "dark", or "system", which asks the desktop."""
    if name in THEMES:
        return THEMES[name].with_font(font_px)
    hints = QApplication.styleHints()
    dark = hints.colorScheme() == Qt.ColorScheme.Dark
    return (DARK if dark else LIGHT).with_font(font_px)


def apply_theme(application: QApplication, theme: Theme) -> None:
    """Draw the whole application with `theme`, unless it is: styling a full window again takes a tenth of a second."""
    sheet = style_sheet(theme)
    if sheet == application.styleSheet():
        return
    set_text_size(application, theme.font_px)
    application.setPalette(palette(theme))
    application.setStyleSheet(sheet)


def set_text_size(application: QApplication, pixels: int) -> None:
    """Draw all text of the application in this height."""
    font = QFont(application.font())
    font.setPixelSize(pixels)
    application.setFont(font)


def palette(theme: Theme) -> QPalette:
    """The Qt palette of a theme."""
    roles = QPalette.ColorRole
    colors = {
        roles.Window: theme.window,
        roles.WindowText: theme.text,
        roles.Base: theme.surface,
        roles.AlternateBase: theme.raised,
        roles.Text: theme.text,
        roles.Button: theme.raised,
        roles.ButtonText: theme.text,
        roles.BrightText: theme.error,
        roles.ToolTipBase: theme.surface,
        roles.ToolTipText: theme.text,
        roles.PlaceholderText: theme.muted,
        roles.Highlight: theme.selection,
        roles.HighlightedText: theme.selected_text,
        roles.Link: theme.accent,
        roles.Accent: theme.accent,
        roles.Light: theme.raised,
        roles.Midlight: theme.raised,
        roles.Mid: theme.border,
        roles.Dark: theme.border,
        roles.Shadow: theme.border,
    }
    made = QPalette()
    for role, color in colors.items():
        made.setColor(role, QColor(color))
    for role in (roles.WindowText, roles.Text, roles.ButtonText):
        made.setColor(QPalette.ColorGroup.Disabled, role, QColor(theme.muted))
    return made


def style_sheet(theme: Theme) -> str:
    """What the palette can not say: spacing, borders, the few widgets that stand out."""
    small = max(theme.font_px - 2, 9)
    icons = icon_folder()
    check = (icons / f"check-{theme.name}.svg").as_posix()
    down, up = ((icons / f"chevron-{way}-{theme.name}.svg").as_posix() for way in ("down", "up"))
    return f"""
    QToolTip {{ background: {theme.surface}; color: {theme.text}; border: 1px solid {theme.border}; padding: 4px; }}
    QToolBar {{ background: {theme.window}; border: 0; border-bottom: 1px solid {theme.border}; spacing: 4px;
        padding: 4px 6px; }}
    QToolBar::separator {{ background: {theme.border}; width: 1px; margin: 5px 7px; }}
    QToolButton {{ padding: 4px 8px; border: 1px solid transparent; border-radius: 5px; }}
    QToolButton:hover:enabled {{ background: {theme.raised}; border-color: {theme.border}; }}
    QToolButton:pressed, QToolButton:checked {{ background: {theme.selection}; color: {theme.selected_text}; }}
    QToolButton:focus {{ border-color: {theme.accent}; }}
    QMenuBar {{ background: {theme.window}; }}
    QMenuBar::item {{ padding: 4px 9px; background: transparent; }}
    QMenuBar::item:selected, QMenu::item:selected {{ background: {theme.selection}; color: {theme.selected_text}; }}
    QMenu {{ background: {theme.surface}; border: 1px solid {theme.border}; padding: 4px; }}
    QMenu::item {{ padding: 5px 24px 5px 10px; }}
    QMenu::item:disabled {{ color: {theme.muted}; background: transparent; }}
    QMenu::separator {{ height: 1px; background: {theme.grid}; margin: 4px 6px; }}
    QHeaderView::section {{ background: {theme.raised}; color: {theme.muted}; border: 0;
        border-bottom: 1px solid {theme.border}; padding: 4px 6px; }}
    QTableView, QTreeWidget {{ background: {theme.surface}; border: 1px solid {theme.border}; outline: 0; }}
    QTreeWidget::item {{ padding: 2px 6px; }}
    QLineEdit, QPlainTextEdit, QListView {{ background: {theme.surface}; border: 1px solid {theme.border};
        border-radius: 5px; padding: 4px 6px; }}
    QComboBox, QAbstractSpinBox {{ background: {theme.surface}; border: 1px solid {theme.border};
        border-radius: 5px; padding: 3px 6px; }}
    QComboBox:hover, QAbstractSpinBox:hover {{ border-color: {theme.muted}; }}
    QComboBox:disabled, QAbstractSpinBox:disabled {{ background: {theme.window}; color: {theme.muted}; }}
    QComboBox::drop-down {{ border: 0; width: 20px; }}
    QComboBox::down-arrow {{ image: url("{down}"); width: 14px; height: 14px; }}
    QComboBox QAbstractItemView {{ border-radius: 0; padding: 2px; }}
    QAbstractSpinBox QLineEdit {{ border: 0; padding: 0 4px; background: transparent; }}
    QAbstractSpinBox::up-button, QAbstractSpinBox::down-button {{ border: 0; width: 18px; background: transparent; }}
    QAbstractSpinBox::up-arrow {{ image: url("{up}"); width: 11px; height: 11px; }}
    QAbstractSpinBox::down-arrow {{ image: url("{down}"); width: 11px; height: 11px; }}
    QLineEdit:focus, QPlainTextEdit:focus, QListView:focus, QTableView:focus, QComboBox:focus, QAbstractSpinBox:focus
        {{ border-color: {theme.accent}; }}
    QScrollBar {{ background: transparent; border: 0; }}
    QScrollBar:vertical {{ width: 12px; }}
    QScrollBar:horizontal {{ height: 12px; }}
    QScrollBar::handle {{ background: {theme.border}; border-radius: 4px; margin: 2px; }}
    QScrollBar::handle:vertical {{ min-height: 28px; }}
    QScrollBar::handle:horizontal {{ min-width: 28px; }}
    QScrollBar::handle:hover, QScrollBar::handle:pressed {{ background: {theme.muted}; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
    QAbstractScrollArea::corner {{ background: transparent; border: 0; }}
    QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
    QLineEdit[wrong="true"] {{ border-color: {theme.error}; }}
    QPushButton {{ background: {theme.raised}; border: 1px solid {theme.border}; border-radius: 5px;
        padding: 5px 14px; }}
    QPushButton:hover:enabled {{ border-color: {theme.accent}; }}
    QPushButton:focus {{ border-color: {theme.accent}; }}
    QPushButton:disabled {{ color: {theme.muted}; background: {theme.window}; }}
    QPushButton[primary="true"]:enabled {{ background: {theme.accent}; color: {theme.surface};
        border-color: {theme.accent}; font-weight: 600; }}
    QPushButton[primary="true"]:focus {{ border-color: {theme.text}; }}
    QPushButton[flat="true"] {{ background: transparent; border-color: transparent; padding: 3px 8px;
        color: {theme.accent}; }}
    QPushButton[flat="true"]:disabled {{ color: {theme.muted}; }}
    QPushButton[flat="true"]:hover {{ border-color: {theme.border}; }}
    QPushButton[flat="true"]:focus {{ border-color: {theme.accent}; }}
    QTabWidget::pane {{ border: 1px solid {theme.border}; background: {theme.surface}; top: -1px; }}
    QTabBar::tab {{ background: transparent; color: {theme.muted}; padding: 5px 12px; border: 0;
        border-bottom: 2px solid transparent; }}
    QTabBar::tab:selected {{ color: {theme.text}; border-bottom: 2px solid {theme.accent}; }}
    QTabBar::tab:hover {{ color: {theme.text}; }}
    QTabBar::tab:selected:focus {{ background: {theme.selection}; color: {theme.selected_text}; }}
    QSplitter::handle {{ background: {theme.window}; }}
    QSplitter::handle:hover {{ background: {theme.selection}; }}
    QCheckBox::indicator, QRadioButton::indicator {{ width: 14px; height: 14px; border: 1px solid {theme.muted};
        border-radius: 3px; background: {theme.surface}; }}
    QRadioButton::indicator {{ border-radius: 8px; }}
    QCheckBox::indicator:checked {{ background: {theme.accent}; border-color: {theme.accent}; image: url("{check}"); }}
    QRadioButton::indicator:checked {{ width: 8px; height: 8px; border: 4px solid {theme.accent}; }}
    QCheckBox::indicator:focus, QRadioButton::indicator:focus {{ border-color: {theme.accent}; }}
    QRadioButton::indicator:disabled, QCheckBox::indicator:disabled {{ border-color: {theme.border}; }}
    QStatusBar {{ background: {theme.window}; color: {theme.muted}; border-top: 1px solid {theme.border}; }}
    QStatusBar::item {{ border: 0; }}
    QGroupBox {{ border: 1px solid {theme.border}; border-radius: 6px; margin-top: {theme.font_px}px; padding: 8px; }}
    QGroupBox::title {{ subcontrol-origin: margin; left: 10px; color: {theme.muted}; }}
    QLabel[muted="true"] {{ color: {theme.muted}; }}
    QToolButton[chip="true"] {{ color: {theme.muted}; font-size: {small}px; padding: 0 6px; }}
    QToolButton[chip="true"]::menu-indicator {{ image: none; }}
    QLabel[small="true"] {{ color: {theme.muted}; font-size: {small}px; }}
    QLabel[title="true"] {{ font-size: {round(theme.font_px * 1.25)}px; font-weight: 600; }}
    QLabel[hero="true"] {{ font-size: {round(theme.font_px * 2.1)}px; font-weight: 300; }}
    QLabel[bold="true"] {{ font-weight: 600; }}
    QLabel[tone="good"] {{ color: {theme.good}; }}
    QLabel[tone="warning"] {{ color: {theme.warning}; }}
    QLabel[tone="error"] {{ color: {theme.error}; }}
    QLabel[tone="info"] {{ color: {theme.accent}; }}
    QDialogButtonBox {{ dialogbuttonbox-buttons-have-icons: 0; }}
    QLabel#qt_msgbox_label, QLabel#qt_msgbox_informativelabel {{ min-width: {26 * theme.font_px}px; }}
    QLabel#qt_msgbox_label {{ font-size: {round(theme.font_px * 1.25)}px; font-weight: 600; }}
    QFrame[card="true"] {{ background: {theme.surface}; border: 1px solid {theme.border}; border-radius: 8px; }}
    QFrame[card="true"][tone="error"] {{ border-color: {theme.error}; }}
    QFrame[card="true"][tone="warning"] {{ border-color: {theme.warning}; }}
    QFrame[card="true"][tone="good"] {{ border-color: {theme.good}; }}
    QFrame[card="true"][tone="info"] {{ border-color: {theme.accent}; }}
    QFrame[drop="true"] {{ background: {theme.surface}; border: 2px dashed {theme.border}; border-radius: 14px; }}
    QFrame[drop="true"][hover="true"] {{ border-color: {theme.accent}; background: {theme.raised}; }}
    """


def icon_folder() -> Path:
    """The folder of our icons: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[2]
    places = [base / "resources" / "icons" for base in (package, package.parent)]
    return next((place for place in places if place.is_dir()), places[0])


@lru_cache(maxsize=256)
def icon(name: str, color: str, muted: str) -> QIcon:
    """The icon called `name` drawn in `color`, and in `muted` where it is disabled."""
    made = QIcon()
    for mode, ink in ((QIcon.Mode.Normal, color), (QIcon.Mode.Disabled, muted)):
        for size in _ICON_SIZES:
            made.addPixmap(_drawn(name, ink, size), mode)
    return made


def themed_icon(name: str, theme: Theme) -> QIcon:
    """The icon called `name` in the colours of `theme`."""
    return icon(name, theme.text, theme.muted)


def _drawn(name: str, ink: str, size: int) -> QPixmap:
    source = (icon_folder() / f"{name}.svg").read_text(encoding="utf-8").replace("currentColor", ink)
    picture = QPixmap(size, size)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    QSvgRenderer(QByteArray(source.encode())).render(painter, QRectF(0, 0, size, size))
    painter.end()
    return picture
