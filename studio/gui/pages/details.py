"""Details: looks closer at the layers that views ask for, on the background thread, and remembers what it saw."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute, Task
from studio.gui.jobs.runs import Runs, message_of
from studio.gui.layers.document import Document
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.actions import keys_of

REMEMBERED = 32


class Details(QObject):
    """Answers what views want to know of one layer, or of two sides.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(
        self, document: Document, workspace: Workspace, compute: Compute, runs: Runs, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._workspace, self._compute, self._runs = document, workspace, compute, runs
        self._seen: OrderedDict[Any, Any] = OrderedDict()
        self._answers: dict[Task, Callable[[Any], None]] = {}
        self._other = ""
        for view in workspace.views.values():
            view.detail_wanted.connect(self.show_detail)
        inspector = workspace.views["InspectorView"]
        if hasattr(inspector, "other_wanted"):
            inspector.other_wanted.connect(self._show_other)
            inspector.block_wanted.connect(self._show_block)
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        document.opened.connect(self._forget)

    def _forget(self) -> None:
        self._seen.clear()

    def show_detail(self, name: str, other: str | None = None) -> None:
        """Show one layer closer, in every view that can."""
        store = self._document.store
        if name not in store.index or not hasattr(core, "inspect_layer"):
            return
        self._other = self._other if other is None else other
        choice = self._document.choices[store.index[name]]
        result = self._document.valid_result(name)
        beside = core.choose_format(choice.layer, self._other) if self._other else None
        key = (name, choice.recipe, beside.recipe if beside else None, result)
        if key in self._seen:
            self._show(self._seen[key])
            return

        def answer(detail: Any) -> None:
            self._seen[key] = detail
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            if self._document.current in ("", name):
                self._show(detail)

        self._workspace.views["InspectorView"].busy(f"Reading {core.printable(name)} …")
        self._ask("detail", lambda engine: core.inspect_layer(engine, choice, beside, result), answer)

    def _show(self, detail: Any) -> None:
        self._workspace.views["InspectorView"].busy("")
        for view in self._workspace.views.values():
            view.show_detail(detail)

    def _show_other(self, name: str, format_name: str) -> None:
        self.show_detail(name, format_name)

    def _show_block(self, name: str, matrix: int, row: int, block: int) -> None:
        choice = self._document.choices[self._document.store.index[name]]
        result = self._document.valid_result(name)
        inspector = self._workspace.views["InspectorView"]
        self._ask(
            "block", lambda engine: core.inspect_block(engine, choice, matrix, row, block, result), inspector.show_block
        )

    def _ask(self, key: str, call: Callable[[Any], Any], answer: Callable[[Any], None]) -> None:
        machine = self._runs.machine
        task = Task(key, "Inspecting", lambda: tasks.inspecting(machine, call), preview=True)
        self._answers[task] = answer
        self._compute.submit(task)

    def _reported(self, task: Task, found: list[Any]) -> None:
        if task in self._answers:
            self._answers[task](found[-1])

    def _ended(self, task: Task, ending: str, error: object) -> None:
        if self._answers.pop(task, None) is not None and ending == "failed":
            self._workspace.views["InspectorView"].busy("")
            hint = f"Read the checkpoint again ({keys_of('reload')})."
            self.told.emit(message_of(error, "This layer can not be inspected", hint))
