"""Registry: the pages beside the table; each is described here alone: its tab, its action, and what makes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from studio.gui.shell.specs import Spec
from studio.gui.views import Views

if TYPE_CHECKING:
    from studio.gui.layers.document import Document


@dataclass(frozen=True, slots=True)
class Page:
    """A tab, and the action that brings it to the front.

    make: makes the page from the document and the views, once numpy and pyqtgraph are loaded. The other fields are
    those of `Spec`.
    """

    key: str
    title: str
    text: str
    help: str
    keys: tuple[str, ...]
    icon: str
    make: Callable[["Document", Views], QWidget]
    local: bool = False

    @property
    def spec(self) -> Spec:
        """The action that shows it."""
        return Spec(self.key, self.text, self.help, self.keys, self.icon, "open", self.local, menu="View")


def _overview(_document: "Document", views: Views) -> QWidget:
    from studio.gui.pages.overview import Overview

    return Overview(views)


def _inspector(_document: "Document", views: Views) -> QWidget:
    inspector: QWidget = views["InspectorView"]
    return inspector


def _compare(_document: "Document", views: Views) -> QWidget:
    compare: QWidget = views["CompareView"]
    return compare


def _quality(_document: "Document", views: Views) -> QWidget:
    from studio.gui.pages.quality import QualityPage

    return QualityPage(views)


def _budget(_document: "Document", views: Views) -> QWidget:
    budget: QWidget = views["BudgetView"]
    return budget


def _metadata(document: "Document", _views: Views) -> QWidget:
    from studio.gui.pages.metadata import Metadata

    return Metadata(document)


def _doctor(_document: "Document", _views: Views) -> QWidget:
    from studio.gui.pages.doctor import DoctorPage

    return DoctorPage()


PAGES = (
    Page(
        "overview",
        "Overview",
        "&Overview",
        "Errors, outliers and scale regimes of all layers.",
        ("Ctrl+1",),
        "layers",
        _overview,
    ),
    Page(
        "inspect",
        "Inspector",
        "&Inspector",
        "One layer down to a block of 16 weights.",
        ("Ctrl+2", "Ctrl+Shift+I"),
        "inspect",
        _inspector,
    ),
    Page(
        "compare",
        "Compare",
        "&Compare A and B",
        "Two formats, plans or exports side by side.",
        ("C", "Ctrl+3"),
        "compare",
        _compare,
        local=True,
    ),
    Page(
        "quality",
        "Quality",
        "&Quality",
        "What quantizing costs in tokens: perplexity, KL, agreement, and a prompt to try.",
        ("Ctrl+4",),
        "report",
        _quality,
    ),
    Page(
        "budget",
        "Budget",
        "&Budget",
        "The mix of formats that loses least for a size: a curve, and a budget to drag.",
        ("Ctrl+5",),
        "report",
        _budget,
    ),
    Page(
        "metadata",
        "Metadata",
        "&Metadata",
        "Configuration, files and what was odd about them.",
        ("Ctrl+6",),
        "info",
        _metadata,
    ),
    Page(
        "doctor",
        "Doctor",
        "&Doctor",
        "What is wrong with the checkpoint, by what evidence, and what helps.",
        ("Ctrl+7",),
        "doctor",
        _doctor,
    ),
)


def keys_of_page(key: str) -> str:
    """The shortcut of a page as the platform writes it."""
    return next(page.spec.written_keys for page in PAGES if page.key == key)
