"""Comparing: the two sides of the compare view: the plan, formats, presets, each by any method, or folders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.document import Document, Order
from studio.gui.pages.answers import Answers
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of
from studio.gui.shell.text import sentence

PLAN, FORMAT, PRESET, EXPORT, CHOOSE = "plan", "format:", "preset:", "export:", "choose"
AGAIN = "Press Compare to go on."
WHAT_CAN = "Choose an export of this program or, beside a checkpoint that is no export, any other of the same model."
Results = Sequence[core.LayerResult]


@dataclass(eq=False)
class _Request:
    """A comparison that is wanted, and what is known for it so far.

    tried: sides that were quantized for it, as far as they can be. read: results of exported folders. choices: what the
    other sides choose for each layer. waits: until the run that goes on is over.
    """

    first: str
    second: str
    tried: set[str] = field(default_factory=set)
    read: dict[str, Results] = field(default_factory=dict)
    choices: dict[str, Sequence[core.Choice]] = field(default_factory=dict)
    waits: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.first, self.second)))


class Comparing(QObject):
    """Finds the results of both sides, quantizing what is not known yet, and shows their comparison.

    The newest request counts. Each ends in a comparison, or in a sentence that says why there is none and how to go on.

    Signals:
        told(Message): something to show.
        exports_shown(): the comparison of two exports is about to be shown.
    """

    told = Signal(object)
    exports_shown = Signal()

    def __init__(
        self, document: Document, runs: Runs, answers: Answers, view: Any, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._runs, self._answers, self._view = document, runs, answers, view
        self._exports: dict[str, str] = {}
        self._request: _Request | None = None
        view.sides_wanted.connect(self.compare)
        view.apply_wanted.connect(self._apply)
        document.opened.connect(self._start_anew)
        runs.ended.connect(self._run_ended)

    def _start_anew(self) -> None:
        self._request = None
        self._view.show_comparison(None)
        self.refresh_sides()

    def refresh_sides(self) -> None:
        """Offer what can be compared."""
        sides = [(PLAN, "This export" if self._document.exported else "The plan of now")]
        if not self._document.exported:
            sides += [(FORMAT + name, f"Everything in {name}") for name in core.FORMATS]
            sides += [(PRESET + name, f"Preset {name}") for name in core.preset_names()]
        sides += list(self._exports.items())
        sides.append((CHOOSE, "A folder …"))
        self._view.set_sides(sides, by_method=not self._document.exported)

    # from a request to its comparison

    def compare(self, first: str, second: str) -> None:
        """Compare two sides by their keys."""
        if self._document.model is None or not first or not second:
            return
        if CHOOSE in (first, second):
            self._choose(first, second)
        else:
            self._go_on(_Request(first, second))

    def _go_on(self, request: _Request) -> None:
        if self._document.model is None:
            return
        self._request = request
        request.waits = False
        unread = [key for key in request.keys if key.startswith(EXPORT) and key not in request.read]
        plans = [key for key in request.keys if key.startswith((FORMAT, PRESET)) and key not in request.choices]
        if unread:
            self._read(request, unread)
        elif plans:
            self._resolve(request, plans)
        else:
            self._finish(request)

    def _finish(self, request: _Request) -> None:
        for key in request.keys:
            if key not in request.tried and (order := self._missing(request, key)).choices:
                self._quantize(request, key, order)
                return
        self._show(request)

    def _read(self, request: _Request, keys: Sequence[str]) -> None:
        def answer(found: list[Results | None], ending: Ending, error: object) -> None:
            if ending == "failed":
                self.told.emit(message_of(error, "This folder can not be compared", WHAT_CAN))
            results = [one for one in found if one is not None]
            self._take(request, request.read, dict(zip(keys, results, strict=False)), ending)

        self._view.busy("Reading what the folder says of its layers, or decoding them …")
        paths = [Path(key.removeprefix(EXPORT)) for key in keys]
        machine, source = self._runs.machine, self._source
        reading = partial(tasks.reading_exports, paths, machine, source)
        self._answers.ask("exports", reading, answer, lasting=source is None)

    @property
    def _source(self) -> core.Model | None:
        """What checkpoints of others can be compared with."""
        return None if self._document.exported else self._document.model

    def _resolve(self, request: _Request, keys: Sequence[str]) -> None:
        """Find which rules decide on the thread: names of 47,155 layers against patterns take a while."""
        model, plans = self._document.model, [self._plan(key) for key in keys]
        assert model is not None

        def answer(found: list[Sequence[int]], ending: Ending, error: object) -> None:
            if ending == "failed":
                self.told.emit(message_of(error, "This can not be compared"))
            both = zip(plans, found, strict=False) if ending == "finished" else ()
            choices = [
                self._document.choices_for(plan, rules, method_of(key))
                for key, (plan, rules) in zip(keys, both, strict=False)
            ]
            self._take(request, request.choices, dict(zip(keys, choices, strict=False)), ending)

        self._answers.ask("choices", lambda: tasks.deciding(model, plans), answer)

    def _take(self, request: _Request, into: dict[str, Any], found: dict[str, Any], ending: Ending) -> None:
        """Go on with what was found, unless another comparison is wanted by now."""
        if request is not self._request:
            return
        if ending == "finished":
            into.update(found)
            self._go_on(request)
        else:
            self._give_up(request, "you cancelled" if ending == "stopped" else "the message says why")

    def _quantize(self, request: _Request, key: str, order: Order) -> None:
        if reason := self._runs.hindrance():
            self._view.busy(f"Not compared: {reason}. Press Compare once that is over.")
        elif self._runs.active:
            request.waits = True
            self._view.busy("Waits for the work that runs, and goes on by itself once it is over …")
        else:
            request.tried.add(key)
            title = f"Quantizing to {self._title(key)}"
            unknown = core.counted(len(order.choices), "layer is", "layers are")
            self._view.busy(f"{title}: {unknown} not known yet …")
            self._runs.survey(order, title, lambda ending: self._quantized(request, ending))

    def _quantized(self, request: _Request, ending: Ending) -> None:
        if request is not self._request:
            return
        if ending == "finished":
            self._go_on(request)
        else:
            self._give_up(request, "you cancelled" if ending == "stopped" else "quantizing failed")

    def _run_ended(self, ending: Ending) -> None:
        """The work that a request waited for is over."""
        request = self._request
        if request is None or not request.waits or self._runs.active:
            return
        if ending == "stopped":
            self._give_up(request, "you cancelled what it waited for")
        else:
            self._go_on(request)

    def _give_up(self, request: _Request, why: str) -> None:
        """Say why there is no comparison; what was quantized for it is kept, and going on does the rest."""
        anew = _Request(request.first, request.second)
        self._request = None
        what = f"Comparing {self._title(request.first)} with {self._title(request.second)} ended"
        self._view.busy(f"{what}: {why}. {AGAIN}")
        if why.startswith("you"):
            again = ("Go on", lambda: self._go_on(anew))
            self.told.emit(Message("warning", what, sentence(why), fixes=(again,)))

    def _show(self, request: _Request) -> None:
        self._view.busy("")
        first, second = request.first, request.second
        results = [self._results(request, key) for key in (first, second)]
        self._view.show_comparison(core.compare(self._title(first), results[0], self._title(second), results[1]))

    # folders

    def _choose(self, first: str, second: str) -> None:
        window: QWidget = self._view.window()
        self._view.busy("")
        near = self._document.near
        ask_folder(window, "A folder to compare", lambda path: self._take_export(path, first, second), near)

    def _take_export(self, path: Path, first: str, second: str) -> None:
        def answer(_found: list[None], ending: Ending, error: object) -> None:
            if ending == "finished":
                self._view.busy("")
                chosen = self._offer_export(path)
                self._compare_shown(*(chosen if key == CHOOSE else key for key in (first, second)))
                return
            self._view.busy("Not compared. Choose another folder.")
            if ending == "failed":
                self.told.emit(message_of(error, "This folder can not be compared", WHAT_CAN))

        self._view.busy(f"Reading {core.printable(path.name, 60)} …")
        source = self._source
        self._answers.ask("exports", lambda: tasks.opening_other(path, source), answer, lasting=True)

    def _offer_export(self, path: Path) -> str:
        key = EXPORT + str(path)
        self._exports[key] = f"Folder {core.printable(path.name)}"
        self.refresh_sides()
        return key

    def _compare_shown(self, first: str, second: str) -> None:
        self._view.choose_sides(first, second)
        self.compare(first, second)

    def compare_exports(self, first: Path, second: Path) -> None:
        """Show the comparison of two exported folders."""
        both = self._offer_export(first), self._offer_export(second)
        self.exports_shown.emit()
        self._compare_shown(*both)

    # sides

    def _missing(self, request: _Request, key: str) -> Order:
        return Order({}, {}) if key in request.read else self._document.order_for(self._choices(request, key))

    def _choices(self, request: _Request, key: str) -> Sequence[core.Choice]:
        if key == PLAN:
            return self._document.choices
        if side_of(key) == PLAN and key not in request.choices:
            request.choices[key] = self._document.choices_by(method_of(key))
        return request.choices[key]

    def _plan(self, key: str) -> core.Plan:
        plan, side = self._document.state.plan, side_of(key)
        if side.startswith(FORMAT):
            return plan.with_format(side.removeprefix(FORMAT))
        return core.preset(side.removeprefix(PRESET)).with_format(plan.format).with_method(plan.method)

    def _results(self, request: _Request, key: str) -> Results:
        return request.read[key] if key in request.read else self._document.results_for(self._choices(request, key))

    def _title(self, key: str) -> str:
        titles = {PLAN: "this export" if self._document.exported else "plan", **self._exports}
        side, method = side_of(key), method_of(key)
        title = titles.get(side, side.partition(":")[2])
        return f"{title} by {method}" if method else title

    def _apply(self, choices: dict[str, str]) -> None:
        if choices:
            self._document.set_choices(choices, f"B for {core.counted(len(choices), 'layer')}")


def side_of(key: str) -> str:
    """The key of a side without the method that is chosen for it; paths of exports hold slashes of their own."""
    return key if key.startswith(EXPORT) else key.partition("/")[0]


def method_of(key: str) -> str:
    """The method that is chosen for a side, "" for the planned one."""
    return "" if key.startswith(EXPORT) else key.partition("/")[2]
