"""Start the program: the window without arguments or for a path, otherwise the command line."""

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

COMMANDS = (
    *(
        "inspect",
        "plan",
        "measure",
        "quantize",
        "estimate",
        "convert",
        "gguf",
        "verify",
        "compare",
        "doctor",
        "publish",
    ),
    *("calibrate", "evaluate", "generate", "validate", "demo"),
)
WINDOW_OPTIONS = ("--smoke", "--new", "--screenshot")
NOT_INSTALLED = """the window needs PySide6, which is not installed
  hint: pip install 'nvfp4-studio[gui]'; nvfp4-studio --help lists what works without it"""
NO_DISPLAY = """there is no display for the window
  hint: nvfp4-studio --help lists what works without one; nvfp4-studio demo shows it all in the terminal"""
SYSTEM_LIBRARIES = "on Debian: apt-get install libgl1 libegl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libxcb-cursor0"


def main() -> int:
    """Run the window or the command line; returns the exit code."""
    arguments = sys.argv[1:]
    if wants_window(arguments):
        return _window(arguments)
    with _importing():
        from studio.cli.app import main as run
    return run(arguments)


@contextmanager
def _importing() -> Iterator[None]:
    """Import a program without looking for garbage: there is none, and that takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def wants_window(arguments: Sequence[str]) -> bool:
    """True without arguments, for options of the window, for an address, and for a path that is no command."""
    if not arguments:
        return True
    first = arguments[0]
    place = not first.startswith("-") and ("://" in first or Path(first).exists())
    return first in WINDOW_OPTIONS or (first not in COMMANDS and place)


def _window(arguments: Sequence[str]) -> int:
    if problem := _obstacle(arguments):
        sys.stderr.write(f"nvfp4-studio: {problem}\n")
        return 2
    try:
        with _importing():
            from studio.gui.app import run
    except ImportError as error:
        sys.stderr.write(f"nvfp4-studio: the window can not start: {error}\n  hint: {SYSTEM_LIBRARIES}\n")
        return 2
    return run(arguments)


def _obstacle(arguments: Sequence[str]) -> str:
    """Why there can be no window here; empty when there can."""
    if any(importlib.util.find_spec(name) is None for name in ("PySide6", "pyqtgraph")):
        return NOT_INSTALLED
    wanted = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not wanted and "--smoke" not in arguments:
        return NO_DISPLAY
    return ""


if __name__ == "__main__":
    sys.exit(main())
