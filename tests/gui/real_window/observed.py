"""The program with an observer inside: for each line on standard input it writes what assistive technology sees.

One JSON list per line: role, name, place on the screen and state of everything that is visible.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from PySide6.QtCore import QSocketNotifier
from PySide6.QtGui import QAccessible, QAccessibleInterface
from PySide6.QtWidgets import QApplication

from studio.gui.app import make_application, run

ROWS = (QAccessible.Role.Table, QAccessible.Role.Tree)
STATES = ("active", "checked", "disabled", "focused", "selected")


def main() -> int:
    """Run the window as it is, and answer."""
    application = make_application()
    QAccessible.setActive(True)
    asked = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read)
    asked.activated.connect(lambda *_: _answer(application, asked))
    return run(sys.argv[1:])


def _answer(application: QApplication, asked: QSocketNotifier) -> None:
    if not sys.stdin.readline():
        asked.setEnabled(False)
        return
    windows = [window for window in application.topLevelWidgets() if window.isVisible()]
    found = [item for window in windows for item in _all(QAccessible.queryAccessibleInterface(window))]
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _all(one: QAccessibleInterface | None) -> Iterator[dict[str, Any]]:
    if one is None or not one.isValid() or one.state().invisible:
        return
    yield _described(one)
    bottom = one.rect().bottom()
    for number in range(one.childCount()):
        child = one.child(number)
        if one.role() in ROWS and child is not None and child.rect().top() > bottom:
            return  # rows that are scrolled out, thousands of them
        yield from _all(child)


def _described(one: QAccessibleInterface) -> dict[str, Any]:
    place, state = one.rect(), one.state()
    return {
        "role": one.role().name,
        "name": one.text(QAccessible.Text.Name),
        "place": (place.x(), place.y(), place.width(), place.height()),
        "states": [name for name in STATES if getattr(state, name)],
    }


if __name__ == "__main__":
    sys.exit(main())
