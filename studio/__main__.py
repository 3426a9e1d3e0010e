"""Start the program: the window without arguments or for a path, otherwise the command line."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = ("inspect", "plan", "measure", "quantize", "verify", "validate", "demo")
WINDOW_OPTIONS = ("--smoke", "--new", "--screenshot")
NO_WINDOW = """\
nvfp4-studio: the window needs PySide6, which is not installed
  hint: pip install 'nvfp4-studio[gui]'; nvfp4-studio --help lists what works without it
"""


def main() -> int:
    """Run the window or the command line; returns the exit code."""
    arguments = sys.argv[1:]
    if wants_window(arguments):
        return _window(arguments)
    from studio.cli import main as run

    return run(arguments)


def wants_window(arguments: Sequence[str]) -> bool:
    """True without arguments, for options of the window, and for a path that is no command."""
    if not arguments:
        return True
    first = arguments[0]
    return first in WINDOW_OPTIONS or (first not in COMMANDS and not first.startswith("-") and Path(first).exists())


def _window(arguments: Sequence[str]) -> int:
    missing = [name for name in ("PySide6", "pyqtgraph") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(NO_WINDOW)
        return 2
    from studio.gui.app import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
