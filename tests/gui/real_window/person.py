"""A person before the window: sees what assistive technology sees, and has a keyboard and a mouse."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Self

from PySide6.QtCore import QRect
from PySide6.QtGui import QImage

from tests.gui.real_window.screen import Screen, end

PATIENCE_SECONDS = 240
LOOK_SECONDS, STILL_SECONDS = 0.03, 0.15
SOURCES = Path(__file__).parents[3]
PROGRAM = (sys.executable, "-m", "tests.gui.real_window.observed")
SETTINGS = Path(".config") / "nvfp4-studio" / "window.ini"


class Item(NamedTuple):
    """Something on the screen: its role and name, place in pixels, and states such as focused."""

    role: str
    name: str
    place: tuple[int, int, int, int]
    states: list[str]

    @property
    def rectangle(self) -> QRect:
        return QRect(*self.place)


class Person:
    """Starts the program at `home` on a screen, and uses it until it is quit; what it kept there is found again."""

    def __init__(self, screen: Screen, home: Path, options: Mapping[str, str], paths: Sequence[Path] = ()) -> None:
        self._screen, self._faults = screen, home / "stderr.txt"
        self._environment = screen.environment | _places(home)
        if not (home / SETTINGS).exists():
            _write_settings(home / SETTINGS, options)
        with self._faults.open("w") as faults:
            self.program = subprocess.Popen(
                (*PROGRAM, *paths),
                cwd=SOURCES,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=faults,
                text=True,
            )

    @property
    def faults(self) -> str:
        """What the program wrote to standard error."""
        return self._faults.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.program:
            end(self.program)

    # seeing

    def look(self) -> list[Item]:
        """Everything that is visible."""
        assert (code := self.program.poll()) is None, f"the program ended with {code}: {self.faults}"
        assert self.program.stdin
        assert self.program.stdout
        self.program.stdin.write("\n")
        self.program.stdin.flush()
        assert select.select([self.program.stdout], [], [], PATIENCE_SECONDS)[0], "the window does not respond"
        line = self.program.stdout.readline()
        assert line, f"the program ended: {self.faults}"
        return [Item(**item) for item in json.loads(line)]

    def sees(self, name: str, role: str = "*", state: str = "") -> list[Item]:
        """What is visible under a name (with * for any characters), in a role and a state."""
        found = [item for item in self.look() if fnmatchcase(item.name, name) and fnmatchcase(item.role, role)]
        return [item for item in found if not state or state in item.states]

    def wait_to_see(self, name: str, role: str = "*", state: str = "", patience: float = PATIENCE_SECONDS) -> Item:
        """The first such thing, once there is one that is not disabled."""
        found: list[Item] = []

        def seen() -> bool:
            found[:] = [item for item in self.sees(name, role, state) if "disabled" not in item.states]
            return bool(found)

        self.wait_until(seen, f"{role} {name!r} {state}", patience)
        return found[0]

    def wait_for_window(self, title: str) -> None:
        """Wait until the window that gets the keys is called `title`, for the window manager and for the program."""
        self.wait_until(lambda: self.title == title, f"a window {title!r}")
        self.wait_until(lambda: any("active" in item.states for item in self.look()), "an active window")

    @property
    def title(self) -> str:
        """The title of the window that gets the keys."""
        return self._xdotool("getactivewindow", "getwindowname", check=False).stdout.strip()

    def wait_until(self, done: Callable[[], bool], what: str, patience: float = PATIENCE_SECONDS) -> None:
        """Wait until a condition holds; fails with all that is visible."""
        end = time.monotonic() + patience
        while not done():
            if time.monotonic() > end:
                seen = "\n".join(f"{item.role} {item.name!r} {item.states}" for item in self.look())
                raise AssertionError(f"waited for {what}, and saw {self.title!r}\n{seen}\n{self.faults}")
            time.sleep(LOOK_SECONDS)

    def picture(self, part: QRect | None = None, unlike: QImage | None = None) -> QImage:
        """What is on the screen, once it no longer changes, and differs from `unlike`."""
        before = self._screen.picture(part)

        def still() -> bool:
            nonlocal before
            time.sleep(STILL_SECONDS)
            last, before = before, self._screen.picture(part)
            return last == before != unlike

        self.wait_until(still, "another picture that stands still")
        return before

    # doing

    def press(self, *keys: str) -> None:
        """Press keys after one another, such as "ctrl+f"."""
        self._xdotool("key", "--clearmodifiers", *keys)

    def type(self, text: str) -> None:
        """Type a text."""
        self._xdotool("type", "--delay", "4", text)

    def click(self, item: Item) -> None:
        """Click on the middle of something, where it is by now."""
        middle = self._again(item).rectangle.center()
        self._xdotool("mousemove", str(middle.x()), str(middle.y()), "click", "1")

    def _again(self, item: Item) -> Item:
        """The same thing, once it stands still: it may have moved since it was seen, as in a dialog that grows."""
        last = item

        def still() -> bool:
            nonlocal last
            found = [seen for seen in self.look() if (seen.role, seen.name) == (item.role, item.name)]
            if not found:
                return False
            before, last = last, min(found, key=lambda seen: _distance(seen, last))
            return last.place == before.place

        self.wait_until(still, f"{item.role} {item.name!r} standing still")
        return last

    def rest(self) -> None:
        """Put the pointer on the status bar, where nothing lights up under it."""
        window = self.wait_to_see("*", "Window").rectangle
        self._xdotool("mousemove", str(window.center().x()), str(window.bottom() - 6))

    def is_called(self, window_class: str) -> bool:
        """Whether a window of the program has this class, by which a desktop finds its icon."""
        return bool(self._xdotool("search", "--onlyvisible", "--class", f"^{window_class}$", check=False).stdout)

    def wait_for_end(self) -> int:
        """The exit code of the program."""
        return self.program.wait(PATIENCE_SECONDS)

    def crash(self) -> None:
        """End the program as a crash does."""
        self.program.kill()
        self.program.wait(PATIENCE_SECONDS)

    def _xdotool(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["xdotool", *arguments], env=self._environment, capture_output=True, text=True, check=check
        )


def _distance(one: Item, other: Item) -> int:
    return (one.rectangle.center() - other.rectangle.center()).manhattanLength()


def _write_settings(path: Path, options: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["[options]", *(f"{key}={value}" for key, value in options.items())]))


def _places(home: Path) -> dict[str, str]:
    """Variables that keep the program inside `home`."""
    for name in ("runtime", "tmp"):
        (home / f".{name}").mkdir(mode=0o700, exist_ok=True)
    unset = dict.fromkeys((name for name in os.environ if name.startswith(("XDG_", "NVFP4_STUDIO_"))), "")
    own = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / ".runtime"), "TMPDIR": str(home / ".tmp")}
    return unset | own | {"LC_ALL": "C.UTF-8"}
