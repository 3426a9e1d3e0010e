"""The views of the window: each shows results or the detail of a layer, and tells what the user did by signals.

Importing this package imports neither pyqtgraph nor numpy; taking a view from it does (import it once on a background
thread, then build views on the GUI thread). Every view is a `QWidget` made without arguments, except for a parent:

    set_theme(theme)          colours and text size; call it again whenever the theme changes
    show_results(results)     list[core.LayerResult] in file order, as often as ten times a second; kept layers may be
                              in it; unchanged results cost almost nothing, so pass the same objects again
    show_detail(detail)       core.LayerDetail | None; ignored when it is not about the layer shown
    set_selection(names)      never emits
    selection                 the names last given or chosen
    busy(text)                InspectorView and CompareView: what goes on, or why it ended; "" when it is done

    layers_selected(list)     names that the user picked in the plot; the shell answers with set_selection on all views
    layer_activated(str)      double click or Enter on a layer: open the inspector
    detail_wanted(str)        this view could show more of that layer: core.layer_steps, answer with show_detail

    save_failed(str)          a sentence about a file that could not be written

    save(path)                write the picture or the numbers, by the suffix .png .svg .csv
    copy_image(), fit()       picture to the clipboard; zoom out to all of the data
    set_table_shown(bool)     the same numbers as a table; `table_action` is the checkable action in `menu`

    subject                   set it to a function that returns the names of the model and of the plan, for pictures

A hidden view keeps what it is given and draws once it is shown, so it costs nothing; its plots are made when there is
something to show in them.

ErrorView also has set_warning_line(value) and the signal warning_changed(float), sent while the line is let go; and
set_marks("auto" | "dots" | "bars" | "boxes" | "experts").
InspectorView also has block_wanted(str, int, int, int): layer name, index of its matrix, row, block of the format of
A; answer with show_block(core.BlockDetail | None). other_wanted(str, str): layer name and format for side B ("" for
none); answer with show_detail.
CompareView: set_sides([(key, title), ...]) fills both pickers, sides_wanted(str, str) asks for the keys of A and B;
answer with show_comparison(core.Comparison | None) from core.compare. apply_wanted(dict): layer name -> format.
QualityView: evaluate_wanted(), report_wanted() and command_wanted(); show_evaluated(source, rows, about, waiting) with
core.Evaluated, show_nothing(why).
BudgetView: price_wanted(), probe_wanted(), mix_wanted(core.Mix), mix_shown(core.Mix), dragged(), places_picked(list);
show_planner(planner, before, pins), show_measured(plans), show_nothing(why), set_reasons(reason, help).

On the compute thread, with an engine from core.start:

    core.layer_steps(engine, choice, other=None, result=None) -> Steps[LayerDetail]   reads it twice; other: Choice
    core.block_steps(engine, choice, matrix, row, block, result=None) -> Steps[BlockDetail]   one block of `choice`
    core.compare(title_a, results_a, title_b, results_b) -> Comparison             arithmetic only
    core.exported_results(folder) -> list[LayerResult]                             reads the manifest of an export
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.gui.views.budget import BudgetView
    from studio.gui.views.compare import CompareView
    from studio.gui.views.error import ErrorView
    from studio.gui.views.histogram import HistogramView
    from studio.gui.views.inspector import InspectorView
    from studio.gui.views.quality import QualityView
    from studio.gui.views.regime import RegimeView
    from studio.gui.views.scatter import ScatterView
    from studio.gui.views.tail import TailView

__all__ = [
    "BudgetView",
    "CompareView",
    "ErrorView",
    "HistogramView",
    "InspectorView",
    "QualityView",
    "RegimeView",
    "ScatterView",
    "TailView",
]

Views = Mapping[str, Any]
"""The views of the window by the names of their classes."""

MODULES = {name: f"{__name__}.{name.removesuffix('View').lower()}" for name in __all__}
"""Where each view is; they take a while to import."""


def __getattr__(name: str) -> Any:
    """A view, imported when it is first asked for."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)
