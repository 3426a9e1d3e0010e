"""A screen of its own: Xvfb with a window manager, and pictures of what it shows."""

import os
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from PySide6.QtCore import QRect
from PySide6.QtGui import QImage

NEEDED = ("Xvfb", "openbox", "xdotool")
SIZE = (1400, 900)
START_SECONDS, END_SECONDS = 60, 20
HEADER = struct.Struct(">25I")


def missing() -> list[str]:
    """What is needed and not installed."""
    return [program for program in NEEDED if shutil.which(program) is None]


class Screen:
    """Xvfb and openbox while it is entered; `folder` holds the contents of the screen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []
        self.display = ""

    def __enter__(self) -> Self:
        width, height = SIZE
        options = ("-nocursor", "-nolisten", "tcp", "-dpi", "96", "-screen", "0", f"{width}x{height}x24")
        reading, writing = os.pipe()
        self._start("Xvfb", *options, "-fbdir", str(self._folder), "-displayfd", str(writing), keep=(writing,))
        os.close(writing)
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number, "Xvfb does not start"
        self.display = f":{number}"
        self._start("openbox", "--sm-disable")
        self._wait_for_window_manager()
        return self

    def _wait_for_window_manager(self) -> None:
        """A window that is shown before it is there gets no keys."""
        asked = ["xdotool", "get_num_desktops"]
        end_of_patience = time.monotonic() + START_SECONDS
        while subprocess.run(asked, env=self.environment, capture_output=True, check=False).returncode:
            assert time.monotonic() < end_of_patience, "openbox does not start"
            time.sleep(0.05)

    def _start(self, *command: str, keep: tuple[int, ...] = ()) -> None:
        quiet = subprocess.DEVNULL
        self._running.append(
            subprocess.Popen(command, env=self.environment, pass_fds=keep, stdout=quiet, stderr=quiet, text=True)
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to be shown on this screen, and nowhere else."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DISPLAY", "WAYLAND", "QT_"))}
        return kept | ({"DISPLAY": self.display, "QT_QPA_PLATFORM": "xcb"} if self.display else {})

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            end(process)

    def picture(self, part: QRect | None = None) -> QImage:
        """What is on the screen now, or on a part of it."""
        content = (self._folder / "Xvfb_screen0").read_bytes()
        header = HEADER.unpack_from(content)
        size, width, height, stride, colors = header[0], header[4], header[5], header[12], header[19]
        pixels = content[size + 12 * colors :]
        whole = QImage(pixels, width, height, stride, QImage.Format.Format_RGB32)
        return whole.copy(part) if part is not None else whole.copy()


def end(process: "subprocess.Popen[str]") -> None:
    """End a process that was started here."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
