"""Comparing: the two sides of the compare view: formats, presets, the plan of now, or exported folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs.runs import Runs, message_of
from studio.gui.layers.document import Document, Order
from studio.gui.shell.ask import ask_folder

PLAN, FORMAT, PRESET, EXPORT, CHOOSE = "plan", "format:", "preset:", "export:", "choose"


class Comparing(QObject):
    """Finds the results of both sides, quantizing what is not known yet, and shows their comparison.

    Signals:
        told(Message): something to show.
        exports_shown(): the comparison of two exports is about to be shown.
    """

    told = Signal(object)
    exports_shown = Signal()

    def __init__(self, document: Document, runs: Runs, view: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document, self._runs, self._view = document, runs, view
        self._exports: dict[str, str] = {}
        self._wanted = ("", "")
        if hasattr(view, "sides_wanted"):
            view.sides_wanted.connect(lambda first, second: self.compare(first, second))
            view.apply_wanted.connect(self._apply)
            document.opened.connect(self.refresh_sides)

    def refresh_sides(self) -> None:
        """Offer what can be compared."""
        sides = [(PLAN, "The plan of now")]
        sides += [(FORMAT + name, f"Everything in {name}") for name in core.FORMATS]
        sides += [(PRESET + name, f"Preset {name}") for name in core.preset_names()]
        sides += list(self._exports.items())
        self._view.set_sides([*sides, (CHOOSE, "An exported folder …")])

    def compare(self, first: str, second: str, tried: frozenset[str] = frozenset()) -> None:
        """Compare two sides by their keys; those in `tried` were quantized just now, as far as they can be."""
        if self._document.model is None or not first or not second:
            return
        if CHOOSE in (first, second):
            other = second if first == CHOOSE else first
            place = 0 if first == CHOOSE else 1
            ask_folder(self._window(), "An exported folder", lambda path: self._take_export(path, other, place))
            return
        self._wanted = (first, second)
        keys = [key for key in (first, second) if key not in tried]
        missing = [(key, order) for key in keys if (order := self._missing(key)).choices]
        if missing and self._runs.active:
            self._view.busy("Waits until the work that runs is done …")
            return
        if not missing:
            self._show()
            return
        self._view.busy("Quantizing what is not known yet …")
        key, order = missing[0]
        self._runs.survey(
            order, f"Quantizing to {self._title(key)}", lambda: self.compare(first, second, tried | {key})
        )

    def _window(self) -> QWidget:
        window: QWidget = self._view.window()
        return window

    def _take_export(self, path: Path, other: str, place: int) -> None:
        try:
            core.exported_results(path)
        except core.StudioError as error:
            hint = "Choose a folder that this program exported: it holds nvfp4_studio.json."
            self.told.emit(message_of(error, "This folder can not be compared", hint))
            return
        key = self._offer_export(path)
        both = (key, other) if place == 0 else (other, key)
        self._view.choose_sides(*both)
        self.compare(*both)

    def _offer_export(self, path: Path) -> str:
        key = EXPORT + str(path)
        self._exports[key] = f"Export {core.printable(path.name)}"
        self.refresh_sides()
        return key

    def compare_exports(self, first: Path, second: Path) -> None:
        """Show the comparison of two exported folders."""
        both = self._offer_export(first), self._offer_export(second)
        self._view.choose_sides(*both)
        self.exports_shown.emit()
        self.compare(*both)

    def _missing(self, key: str) -> Order:
        return Order({}, {}) if key.startswith(EXPORT) else self._document.order_for(self._choices(key))

    def _choices(self, key: str) -> Sequence[core.Choice]:
        document, model = self._document, self._document.model
        assert model is not None
        if key == PLAN:
            return document.choices
        plan = document.state.plan
        chosen = plan.with_format(key.removeprefix(FORMAT)) if key.startswith(FORMAT) else None
        return core.resolve(chosen or core.preset(key.removeprefix(PRESET)).with_format(plan.format), model)

    def _results(self, key: str) -> Sequence[core.LayerResult]:
        if key.startswith(EXPORT):
            return core.exported_results(Path(key.removeprefix(EXPORT)))
        return self._document.results_for(self._choices(key))

    def _title(self, key: str) -> str:
        titles = {PLAN: "plan", **self._exports}
        return titles.get(key, key.partition(":")[2])

    def _show(self) -> None:
        first, second = self._wanted
        self._view.busy("")
        both = (self._title(first), self._results(first), self._title(second), self._results(second))
        self._view.show_comparison(core.compare(*both))

    def _apply(self, formats: dict[str, str]) -> None:
        if formats:
            self._document.set_formats(formats, f"B for {core.counted(len(formats), 'layer')}")
