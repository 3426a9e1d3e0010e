"""Causes: a card about what is wrong goes when that is no longer so; the log keeps what it said."""

from collections.abc import Callable

from PySide6.QtCore import QObject

from studio.gui.jobs.runs import Runs
from studio.gui.keeping.keeping import Keeping
from studio.gui.keeping.words import NOT_KEPT
from studio.gui.layers.document import Document
from studio.gui.layers.store import FAILED
from studio.gui.shell.cards import Cards, Message


class Causes(QObject):
    """Closes cards about layers, runs and keeping when their cause is gone; `Checkpoints` those about a checkpoint."""

    def __init__(self, cards: Cards, document: Document, runs: Runs, keeping: Keeping, parent: QObject) -> None:
        super().__init__(parent)
        self._cards, self._document, self._keeping = cards, document, keeping
        for signal in (document.chosen, document.measured):
            signal.connect(lambda _: self._drop(self._is_mended))
        runs.began.connect(lambda kind: self._drop(lambda message: message.run == kind))
        keeping.changed.connect(lambda: self._drop(self._is_kept))

    def _drop(self, gone: Callable[[Message], bool]) -> None:
        self._cards.clear([card for card in self._cards.shown if gone(card.message)])

    def _is_mended(self, message: Message) -> bool:
        """The layer that a message is about is kept, queued again or done."""
        place = self._document.store.index.get(message.layer)
        return place is not None and self._document.store.state[place] != FAILED

    def _is_kept(self, message: Message) -> bool:
        return message.title == NOT_KEPT and (self._keeping.keeps or self._document.model is None)
