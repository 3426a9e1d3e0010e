"""Availability: which actions work now, and of the others, why they do not."""

from studio import core
from studio.gui.jobs.opening import Opening
from studio.gui.jobs.runs import Runs
from studio.gui.layers.choices import CODES
from studio.gui.layers.document import Document
from studio.gui.layers.store import FAILED, PENDING, STALE
from studio.gui.pages.details import Details
from studio.gui.shell.actions import NOTHING_OPEN, Actions

NOTHING_RUNS = "nothing runs"
AWAY = "a model is run from this machine: download it, and open its folder"
EVERY_LAYER_KEPT = "every layer is kept: choose a format first"
AS_MADE = "an export is shown as it was made; open what it was made from to choose otherwise"


class Availability:
    """Answers for each condition of an action (`Spec.when`)."""

    def __init__(self, actions: Actions, document: Document, runs: Runs, opening: Opening, details: Details) -> None:
        self._actions = actions
        self._document, self._runs, self._opening, self._details = document, runs, opening, details

    def reasons(self) -> dict[str, str]:
        """For each condition why it does not hold, "" when it does."""
        model = self._document.model
        found = dict.fromkeys(self._actions.conditions, self._opening.reason or NOTHING_OPEN)
        return {**found, **self._of_work(), **(self._of_checkpoint(model) if model is not None else {})}

    def _busy(self) -> str:
        return self._opening.reason or ("work is running" if self._runs.active else "")

    def _of_work(self) -> dict[str, str]:
        ends = self._runs.active or self._details.active or bool(self._opening.reason)
        return {
            "idle": self._busy(),
            "pausable": self._unpausable(),
            "stoppable": "" if ends else NOTHING_RUNS,
        }

    def _unpausable(self) -> str:
        if not self._runs.active:
            return NOTHING_RUNS
        return "" if self._runs.pausable else "a model that runs in a process of its own can not wait"

    def _of_checkpoint(self, model: core.Model) -> dict[str, str]:
        document, store, opening = self._document, self._document.store, self._opening.reason
        sealed = f"already quantized: {core.printable(model.quantized_by)}" if model.quantized_by else ""
        stopped = self._busy() or sealed
        convertible = self._busy() or ("" if document.exported else sealed)
        fixed = opening or (AS_MADE if document.exported else "")
        away = AWAY if core.is_remote(model.path) else ""
        left = bool(((store.state == PENDING) | (store.state == STALE) | (store.state == FAILED)).any())
        chosen = bool((store.codes != CODES[core.KEEP]).any())
        selection = "" if len(document.selected_indices) else "select layers first"
        return {
            "open": "",
            "editable": fixed,
            "guidable": stopped or fixed,
            "runnable": stopped or fixed or away,
            "evaluable": convertible or away,
            "statistics": stopped or fixed or ("" if document.statistics else "no statistics are in use"),
            "selection": selection,
            "choice": fixed or selection,
            "pending": stopped or ("" if left else "everything is done" if chosen else "every layer is kept"),
            "selection_pending": stopped or selection,
            "failed": stopped or ("" if (store.state == FAILED).any() else "nothing failed"),
            "results": "" if store.figures().done else "quantize first",
            "export": convertible if document.exported else stopped or ("" if chosen else EVERY_LAYER_KEPT),
            "convertible": convertible,
            "undo": fixed or ("" if document.undo.canUndo() else "nothing to undo"),
            "redo": fixed or ("" if document.undo.canRedo() else "nothing to redo"),
        }
