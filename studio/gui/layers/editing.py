"""Editing: what the user does to the plan and the selection: formats, presets, undo, copying, plans in files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.layers.choices import CODES, METHOD_CODES
from studio.gui.layers.columns import csv_of
from studio.gui.layers.document import Document
from studio.gui.layers.layer_view import LayerView
from studio.gui.layers.method_words import why_not
from studio.gui.layers.store import FAILED
from studio.gui.shell.ask import ask_file, ask_folder, ask_save
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of
from studio.gui.shell.settings import Settings
from studio.gui.shell.specs import keys_of


class Editing(QObject):
    """Acts on the document for the actions of the same names.

    Signals:
        told(Message): something to show.
        report_wanted(Path): write a report into this folder.
    """

    told = Signal(object)
    report_wanted = Signal(object)

    def __init__(
        self, document: Document, layers: LayerView, settings: Settings, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._layers, self._settings = document, layers, settings
        self._files: dict[Path, core.Plan] = {}

    @property
    def _window(self) -> QWidget:
        return self._layers.window()

    # formats and plans

    def set_format(self, name: str) -> None:
        """Choose a format for the selection; say so where it does not fit."""
        chosen, store = self._document.selected_indices, self._document.store
        if not len(chosen):
            return
        self._document.set_format_at(chosen, name)
        misfits = chosen[store.codes[chosen] != CODES[name]]
        if name != core.KEEP and len(misfits):
            first = int(misfits[0])
            many = f"{core.counted(len(misfits), 'layer')} stay as they are"
            shown = core.printable(store.names[first]) if len(misfits) == 1 else many
            self.told.emit(Message("info", shown, store.reason_of(first)))

    def set_method(self, name: str) -> None:
        """Choose a method for the selection; say so where it comes to another one."""
        document, store, chosen = self._document, self._document.store, self._document.selected_indices
        if not len(chosen):
            return
        document.set_method_at(chosen, name)
        others = chosen[store.methods[chosen] != METHOD_CODES[name]]
        if len(others):
            first = int(others[0])
            kept = store.method_of(first) == ""
            why = "It is kept as it is." if kept else why_not(document.choices[first], name)
            many = f"{core.counted(len(others), 'layer')} of {len(chosen):,} take no {name}"
            one = f"{core.printable(store.names[first])} takes no {name}"
            self.told.emit(Message("info", one if len(chosen) == 1 else many, why))

    def reset_format(self) -> None:
        """What the plan says for the selection."""
        self._document.reset_choices(self._document.selection)

    def set_preset(self, name: str) -> None:
        """Follow a preset, with the format and method of now; choices by hand stay."""
        self._follow(_adapted(core.preset(name), self._document.state.plan), f"preset {name}")

    def set_plan_method(self, name: str) -> None:
        """Another method for all layers that the plan quantizes; choices by hand stay."""
        self._follow(self._document.state.plan.with_method(name), f"{name} for the plan")

    def set_plan_format(self, name: str) -> None:
        """Another format for all layers that the plan quantizes; choices by hand stay."""
        self._follow(self._document.state.plan.with_format(name), f"{name} for the plan")

    def _follow(self, plan: core.Plan, text: str) -> None:
        try:
            self._document.set_plan(plan, text, self._document.state.edits)
        except core.StudioError as error:
            self.told.emit(message_of(error, "This plan does not fit the checkpoint"))
            return
        if edits := list(self._document.state.edits):
            who = f"{core.counted(len(edits), 'layer')} {'keeps' if len(edits) == 1 else 'keep'}"
            fix = ("Give them up", lambda: self._document.reset_choices(edits))
            self.told.emit(Message("info", f"{who} what was chosen by hand", fixes=(fix,)))

    def save_plan(self) -> None:
        """Save the plan with all choices as JSON."""
        model = self._document.model
        assert model is not None
        ask_save(self._window, "Save plan", "Plan (*.json)", self.write_plan, f"{model.name}-plan.json")

    def write_plan(self, path: Path) -> None:
        """Write the plan to `path`."""
        try:
            core.save_plan(self._document.plan, path)
        except core.StudioError as error:
            self.told.emit(message_of(error, "The plan could not be saved"))
            return
        self._files[path] = self._document.plan
        self._document.undo.setClean()
        self.told.emit(Message("good", f"Plan saved as {core.printable(path.name)}", f"Use it with --plan {path}"))

    def load_plan(self) -> None:
        """Choose as a saved plan says."""
        ask_file(self._window, "Load plan", "Plan (*.json)", self.read_plan)

    def read_plan(self, path: Path) -> None:
        """Follow the plan in a file."""
        edits = len(self._document.state.edits)
        try:
            plan = core.load_plan(path)
            self._document.set_plan(plan, f"plan {path.name}")
        except core.StudioError as error:
            self.told.emit(message_of(error, "This plan can not be used"))
            return
        self._files[path] = plan
        self.told.emit(
            Message(
                "good",
                f"Plan {core.printable(path.name)} is in use",
                f"It takes the place of {core.counted(edits, 'choice')} by hand; undo brings them back."
                if edits
                else "Undo goes back.",
            )
        )

    def report(self) -> None:
        """Write HTML, CSV and JSON."""
        ask_folder(self._window, "Folder for the report", self.report_wanted.emit, self._document.near)

    # copying

    def copy_rows(self) -> None:
        """The selected layers as CSV, or all that are shown."""
        selected, listed = self._document.selected_indices, self._layers.table.listed
        chosen = listed[np.isin(listed, selected)] if len(selected) else listed
        self._copy(csv_of(self._document.store, chosen), core.counted(len(chosen), "row"))

    def copy_names(self) -> None:
        """Names of the selected layers, one per line."""
        names = self._document.selection
        self._copy("\n".join(core.printable(name, core.COPIED) for name in names), core.counted(len(names), "name"))

    def copy_command(self) -> None:
        """The command line that does the same."""
        text = self.command()
        if text is None:
            hint = f"Save the plan ({keys_of('save_plan')}), then copy again: the command names the file."
            self.told.emit(Message("warning", "Too many choices by hand for one command line", hint=hint))
            return
        self._copy(text, "the command")

    def command(self, target: Path | None = None, options: Mapping[str, str | bool] | None = None) -> str | None:
        """The command that measures, or with a target exports, the same; None when only a saved plan could say it."""
        model, plan, rules = self._document.model, self._document.state.plan, self._document.hand_rules()
        whole = self._file_of(self._document.plan)
        file = whole or self._file_of(plan)
        if model is None or not (file or _is_preset(plan)):
            return None
        more = {**(options or {}), **_machine_options(self._settings)}
        more |= {"statistics": str(statistics)} if (statistics := self._document.statistics) else {}
        verb = "quantize" if target else "measure"
        return core.command_line(
            verb, model.path, plan, () if whole else rules, plan_file=file, target=target, options=more
        )

    def _file_of(self, plan: core.Plan) -> Path | None:
        """The file that holds a plan, but for its format, method and scale rule, which have options of their own."""
        same = (file for file, saved in self._files.items() if _adapted(saved, plan) == plan and file.is_file())
        return next(same, None)

    def _copy(self, text: str, what: str) -> None:
        QGuiApplication.clipboard().setText(text)
        self.told.emit(Message("info", f"Copied {what}"))

    # selecting

    def select_all(self) -> None:
        """Every layer that passes the filter."""
        self._document.select_around(self._layers.table.visible)

    def select_invert(self) -> None:
        """The other layers that pass the filter."""
        shown = self._layers.table.visible
        self._document.select_around(shown[~np.isin(shown, self._document.selected_indices)])

    def select_kind(self) -> None:
        """All layers of the kinds that are selected."""
        self._select_like(self._document.store.kind_sections.of)

    def select_block(self) -> None:
        """All layers of the blocks that are selected."""
        sections = self._document.store.sections
        self._select_like(sections.outer[sections.of])

    def _select_like(self, groups: NDArray[np.int64]) -> None:
        """All layers of the groups that are selected, `groups` being the one of each layer."""
        alike = np.isin(groups, groups[self._document.selected_indices])
        order = self._document.store.sections.order
        self._document.select_around(order[alike[order]])

    def select_worst(self) -> None:
        """Layers above the warning line."""
        line = self._document.warning_line
        above = np.flatnonzero(self._document.store.rel_err > line)
        self._document.select_at(above)
        if not len(above):
            self.told.emit(Message("good", f"No layer is above the warning line of {line:g}"))

    def step_problem(self, step: int) -> None:
        """The next or previous layer that failed or is above the line."""
        store, document = self._document.store, self._document
        bad = (store.rel_err > document.warning_line) | (store.state == FAILED)
        shown = self._layers.table.listed
        order = shown[bad[shown]]
        if not len(order):
            hidden = int(bad.sum())
            text = f"The filter hides {core.counted(hidden, 'layer')} with problems"
            self.told.emit(Message("info" if hidden else "good", text if hidden else "There are no problems"))
            return
        found = np.flatnonzero(np.isin(order, document.selected_indices[-1:]))
        at = int(found[0]) if len(found) else (-1 if step > 0 else 0)
        document.select_at(order[[(at + step) % len(order)]])


def _adapted(plan: core.Plan, to: core.Plan) -> core.Plan:
    return plan.with_format(to.format).with_exponent(to.exponent).with_method(to.method)


def _is_preset(plan: core.Plan) -> bool:
    return plan.name in core.preset_names() and _adapted(core.preset(plan.name), plan) == plan


def _machine_options(settings: Settings) -> dict[str, str | bool]:
    backend, threads, limit = settings["backend"], settings["threads"], settings["memory_limit"]
    cluster = settings["cluster"].strip()
    return {
        "backend": "" if backend == "auto" else backend,
        "threads": str(threads) if threads else "",
        "max-memory": f"{limit}M" if limit else "",
        "cluster": cluster,
        "workers": str(settings["workers"] or "") if not cluster else "",
    }
