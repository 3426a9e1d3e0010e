"""Details: looks closer at the layers that views ask for, on the background thread, and remembers what it saw."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending, Task
from studio.gui.layers.choices import Indices
from studio.gui.layers.document import Document
from studio.gui.pages.registry import keys_of_page
from studio.gui.shell.faults import message_of
from studio.gui.shell.specs import keys_of
from studio.gui.views import Views

REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class _Look:
    """What is being read: of which layer, and who wants to know."""

    task: Task
    name: str
    about: object
    answer: Callable[[Any], None]


class Details(QObject):
    """Answers what views want to know of one layer. The newest question counts: older ones are dropped at once.

    Signals:
        changed(): something is being read, or no longer is.
        told(Message): something to show.
    """

    changed = Signal()
    told = Signal(object)

    def __init__(
        self, document: Document, views: Views, compute: Compute, runs: Runs, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._views, self._compute, self._runs = document, views, compute, runs
        self._inspector = views["InspectorView"]
        self._seen: OrderedDict[object, core.LayerDetail] = OrderedDict()
        self._looks: dict[str, _Look] = {}
        self._other = ""
        for view in views.values():
            view.detail_wanted.connect(self.show_detail)
        self._inspector.other_wanted.connect(self.show_detail)
        self._inspector.block_wanted.connect(self._show_block)
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        document.selected.connect(self._follow)
        document.opened.connect(self._forget)

    @property
    def active(self) -> bool:
        """True while something is being read."""
        return bool(self._looks)

    def look_at(self, name: str) -> None:
        """Show a layer closer, unless it is shown."""
        shown = self._inspector.detail
        if shown is None or shown.name != name:
            self.show_detail(name)

    def show_detail(self, name: str, other: str | None = None) -> None:
        """Show one layer closer, in every view that can; `other`: what to show beside it, see `InspectorView`."""
        store = self._document.store
        if name not in store.index:
            return
        self._other = self._other if other is None else other
        choice = self._choice(name)
        if not choice.layer.matrices:
            self._say_why_not(choice.layer)
            return
        result = self._document.valid_result(name) if choice.recipe else None
        beside = self._beside(choice) if self._other and not self._document.exported else None
        about = (name, choice.recipe, beside.recipe if beside else None, result)
        if about in self._seen:
            self._drop("detail")
            self._show(self._seen[about])
            return

        def answer(detail: core.LayerDetail) -> None:
            self._remember(about, detail)
            self._show(detail)

        self._ask("detail", name, about, lambda engine: core.layer_steps(engine, choice, beside, result), answer)

    def _say_why_not(self, layer: core.Layer) -> None:
        """A vector has no blocks to look at."""
        self._drop("detail")
        self._inspector.show_nothing(f"{core.printable(layer.name)} is kept: {layer.obstacle}.")

    def _choice(self, name: str) -> core.Choice:
        """What is chosen for a layer; an exported one is looked at as it is, since its codes can not get worse."""
        choice = self._document.choices[self._document.store.index[name]]
        return replace(choice, recipe=None, reason="as it was exported") if self._document.exported else choice

    def _beside(self, choice: core.Choice) -> core.Choice:
        """The choice that is shown as B: what it does not name is as it is chosen for the layer, or as planned."""
        document, plan = self._document, self._document.state.plan
        format_name, _, method = self._other.partition("/")
        own = choice.format if choice.recipe else plan.format
        wanted = method or document.wanted_method(document.store.index[choice.layer.name])
        return core.choose_format(choice.layer, format_name or own, plan.exponent, wanted)

    def _remember(self, about: object, detail: core.LayerDetail) -> None:
        self._seen[about] = detail
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _show(self, detail: core.LayerDetail) -> None:
        for view in self._views.values():
            view.show_detail(detail)

    def _show_block(self, name: str, matrix: int, row: int, block: int) -> None:
        choice = self._choice(name)
        result = self._document.valid_result(name) if choice.recipe else None
        self._ask(
            "block",
            name,
            (name, matrix, row, block),
            lambda engine: core.block_steps(engine, choice, matrix, row, block, result),
            self._inspector.show_block,
        )

    def stop(self) -> None:
        """Read no more, because the user said so."""
        for look in list(self._looks.values()):
            self._compute.cancel(look.task)

    def _ask(
        self,
        key: str,
        name: str,
        about: object,
        steps: Callable[[core.Engine], core.Steps[Any]],
        answer: Callable[[Any], None],
    ) -> None:
        if key in self._looks and self._looks[key].about == about:
            return
        machine = self._runs.machine
        task = Task(key, "Inspecting", lambda: tasks.inspecting(machine, steps), preview=True)
        self._looks[key] = _Look(task, name, about, answer)
        if key == "detail":  # a block is there before its text could be read
            self._inspector.busy(f"Reading {core.printable(name)} …")
        self._compute.submit(task)
        self.changed.emit()

    def _drop(self, key: str) -> None:
        """Nobody wants to know this any more."""
        if (look := self._looks.pop(key, None)) is not None:
            self._compute.cancel(look.task)
            self._inspector.busy("")
            self.changed.emit()

    def _follow(self, selected: Indices) -> None:
        """Another selection: what is being read of a layer that is not in it is not wanted any more."""
        for key, look in list(self._looks.items()):
            if len(selected) and self._document.store.index[look.name] not in selected:
                self._drop(key)

    def _forget(self) -> None:
        self._seen.clear()
        for key in list(self._looks):
            self._drop(key)

    def _of(self, task: Task) -> _Look | None:
        look = self._looks.get(task.key)
        return look if look is not None and look.task is task else None

    def _reported(self, task: Task, found: list[Any]) -> None:
        if (look := self._of(task)) is None:
            return
        if isinstance(found[-1], float):
            name, cancel = core.printable(look.name), keys_of("stop")
            self._inspector.busy(f"Reading {name} … {found[-1]:.0%}, {cancel} cancels")
        else:
            self._inspector.busy("")
            look.answer(found[-1])

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if (look := self._of(task)) is None:
            return
        del self._looks[task.key]
        name = core.printable(look.name)
        if ending == "failed":
            self._inspector.busy(f"{name} can not be read. Problems and log ({keys_of('messages')}) say why.")
            hint = f"Read the checkpoint again ({keys_of('reload')})."
            self.told.emit(message_of(error, "This layer can not be inspected", hint))
        elif ending == "stopped":
            self._inspector.busy(f"{name} was not read: you cancelled. {keys_of_page('inspect')} reads it.")
        self.changed.emit()
