"""A screen of its own: Xvfb with a window manager, and pictures of what it shows."""

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QRect
from PySide6.QtGui import QImage

NEEDED = ("Xvfb", "openbox", "xdotool")
SIZE = (1400, 900)
START_SECONDS, END_SECONDS = 240, 60
HEADER = struct.Struct(">25I")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True}


def missing() -> list[str]:
    """What is needed and not installed."""
    return [program for program in NEEDED if shutil.which(program) is None]


@dataclass(frozen=True)
class Screen:
    """An X display; `folder` holds the file in which Xvfb keeps its pixels."""

    folder: Path
    display: str

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to be shown on this screen, and nowhere else."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAYLAND", "QT_"))}
        return kept | {"DISPLAY": self.display, "QT_QPA_PLATFORM": "xcb"}

    def picture(self, part: QRect | None = None) -> QImage:
        """What is on the screen now, or on a part of it."""
        content = (self.folder / "Xvfb_screen0").read_bytes()
        header = HEADER.unpack_from(content)
        size, width, height, stride, colors = header[0], header[4], header[5], header[12], header[19]
        pixels = content[size + 12 * colors :]
        whole = QImage(pixels, width, height, stride, QImage.Format.Format_RGB32)
        return whole.copy(part) if part is not None else whole.copy()


@contextmanager
def own_screen(folder: Path) -> Iterator[Screen]:
    """A screen that is there until this is left."""
    with ExitStack() as running:
        screen = Screen(folder, _start_server(folder, running))
        manager = subprocess.Popen(("openbox", "--sm-disable"), env=screen.environment, **QUIET)
        running.callback(end, manager)
        _wait_for_manager(screen)
        yield screen


def _start_server(folder: Path, running: ExitStack) -> str:
    """Start Xvfb, which looks for a free display itself; returns the display."""
    width, height = SIZE
    reading, writing = os.pipe()
    options = ("-nocursor", "-nolisten", "tcp", "-dpi", "96", "-screen", "0", f"{width}x{height}x24")
    command = ("Xvfb", *options, "-fbdir", str(folder), "-displayfd", str(writing))
    running.callback(end, subprocess.Popen(command, pass_fds=(writing,), **QUIET))
    os.close(writing)
    with os.fdopen(reading) as told:
        number = told.readline().strip()
    assert number, "Xvfb does not start"
    return f":{number}"


def _wait_for_manager(screen: Screen) -> None:
    """A window that is shown before there is a window manager gets no keys."""
    limit = time.monotonic() + START_SECONDS
    while subprocess.run(("xdotool", "get_num_desktops"), env=screen.environment, check=False, **QUIET).returncode:
        assert time.monotonic() < limit, "openbox does not start"
        time.sleep(0.05)


def end(process: "subprocess.Popen[str]") -> None:
    """End a process that was started here."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
