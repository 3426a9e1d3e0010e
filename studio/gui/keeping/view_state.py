"""How a checkpoint is looked at, as plain data: filter, order and columns of the table, panes, page, selection."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from PySide6.QtCore import QSignalBlocker
from PySide6.QtWidgets import QSplitter, QTabWidget

from studio.gui.keeping.ranges import numbers_of, ranges
from studio.gui.layers.columns import KEYS
from studio.gui.layers.layer_table import LayerTable
from studio.gui.layers.layer_view import LayerView
from studio.gui.pages.workspace import Workspace

State = Mapping[str, Any]
TABLE = "table"
"""The name of the panes that divide table and plots."""


def view_state(workspace: Workspace) -> dict[str, Any]:
    """What `restore_view` takes."""
    return {
        "filter": workspace.filter_bar.field.text(),
        "page": workspace.page,
        "panes": {TABLE: [workspace.split.sizes()], **workspace.overview.panes()},
        "tabs": {name: _title(tabs) for name, tabs in _tabs(workspace).items()},
        "columns": _table_state(workspace.layers),
        "selection": list(workspace.document.selection),
        "current": workspace.document.current,
    }


def restore_view(workspace: Workspace, state: State) -> None:
    """Look at the open checkpoint as `view_state` said; what makes no sense is left as it is."""
    _restore_panes(workspace, _mapping(state, "panes"))
    for name, tabs in _tabs(workspace).items():
        _bring_up(tabs, _mapping(state, "tabs").get(name))
    _restore_table(workspace.layers, _mapping(state, "columns"))
    workspace.filter_bar.field.setText(_text(state, "filter"))
    if (page := _text(state, "page")) in workspace.shown:
        workspace.show_page(page)
    _select(workspace, state)


def view_changed(workspace: Workspace, call: Callable[[], object]) -> None:
    """Call when any of it changes."""

    def changed(*_: object) -> None:
        call()

    head = workspace.layers.horizontalHeader()
    tabs = (workspace.pages, *_tabs(workspace).values())
    for signal in (
        workspace.filter_bar.field.textChanged,
        workspace.layers.table.modelReset,
        head.sectionMoved,
        head.sectionResized,
        *(pane.splitterMoved for pane in _panes(workspace)),
        *(one.currentChanged for one in tabs),
    ):
        signal.connect(changed)


def _panes(workspace: Workspace) -> tuple[QSplitter, ...]:
    return workspace.split, workspace.overview.whole, workspace.overview.below


def _restore_panes(workspace: Workspace, panes: State) -> None:
    sizes = {name: found for name, found in panes.items() if _are_sizes(found, 1 if name == TABLE else 2)}
    if table := sizes.pop(TABLE, None):
        workspace.split.setSizes(table[0])
    if sizes:
        workspace.overview.restore_panes(sizes)


def _are_sizes(found: object, panes: int) -> bool:
    if not isinstance(found, list) or len(found) != panes:
        return False
    return all(
        isinstance(row, list) and any(row) and all(type(size) is int and size >= 0 for size in row) for row in found
    )


def _tabs(workspace: Workspace) -> dict[str, QTabWidget]:
    return {"first": workspace.overview.first, "second": workspace.overview.second}


def _title(tabs: QTabWidget) -> str:
    return tabs.tabText(tabs.currentIndex())


def _bring_up(tabs: QTabWidget, title: object) -> None:
    for number in range(tabs.count()):
        if tabs.tabText(number) == title:
            tabs.setCurrentIndex(number)


# the table


def _table_state(view: LayerView) -> dict[str, Any]:
    table, head = view.table, view.horizontalHeader()
    order = sorted(range(len(KEYS)), key=head.visualIndex)
    shown = [number for number in order if number and not view.isColumnHidden(number)]  # names take what is left
    return {
        "order": [KEYS[number] for number in order],
        "said": view.said_columns,
        "widths": {KEYS[number]: view.columnWidth(number) for number in shown},
        "by_kind": table.by_kind,
        "sort": [KEYS[table.sort_column], table.descending] if table.sort_column >= 0 else [],
        **(_folds(table) if view.has_layers else {}),
    }


def _folds(table: LayerTable) -> dict[str, Any]:
    """What the user folded and unfolded; the numbers mean something only for as many sections."""
    folded, unfolded = table.said_folds
    return {"sections": len(table.sections), "folded": ranges(folded), "unfolded": ranges(unfolded)}


def _restore_table(view: LayerView, state: State) -> None:
    if not state:
        return
    table, sort = view.table, state.get("sort")
    view.divide_by_kind(state.get("by_kind") is True)
    if state.get("sections") == len(table.sections):
        for key, folded in (("folded", True), ("unfolded", False)):
            table.fold(_numbers(_text(state, key), len(table.sections)), folded)
    if isinstance(sort, list) and len(sort) == 2 and sort[0] in KEYS:
        table.sort_column, table.descending = KEYS.index(sort[0]), bool(sort[1])
        table.rearrange()
    _restore_columns(view, state)


def _numbers(text: str, count: int) -> list[int]:
    """The numbers that a text stands for, none where it makes no sense."""
    found: list[int] = []
    with suppress(ValueError):
        found = numbers_of(text, count).tolist()
    return found


def _restore_columns(view: LayerView, state: State) -> None:
    head, said = view.horizontalHeader(), _mapping(state, "said")
    widths, order = _mapping(state, "widths"), state.get("order")
    with QSignalBlocker(head):
        for place, key in enumerate(key for key in (order if isinstance(order, list) else []) if key in KEYS):
            head.moveSection(head.visualIndex(KEYS.index(key)), place)
    for key, width in widths.items():
        if key in KEYS and type(width) is int and 0 < width < 10_000:
            view.setColumnWidth(KEYS.index(key), width)
    view.say_columns({key: shown for key, shown in said.items() if key in KEYS and type(shown) is bool})


def _select(workspace: Workspace, state: State) -> None:
    document = workspace.document
    names = [name for name in state.get("selection", ()) if name in document.store.index]
    if (current := state.get("current")) in names:
        names = [*(name for name in names if name != current), str(current)]
    if names:
        document.select(names)


def _mapping(state: State, key: str) -> Mapping[str, Any]:
    found = state.get(key)
    return found if isinstance(found, dict) else {}


def _text(state: State, key: str) -> str:
    found = state.get(key)
    return found if isinstance(found, str) else ""
