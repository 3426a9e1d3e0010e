"""Settings: every option of the window once, with type, default and help, kept in an INI file of the user."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QByteArray, QObject, QSettings, QStandardPaths, Signal

from studio.gui.shell.specs import keys_of

FILE_VARIABLE = "NVFP4_STUDIO_SETTINGS"
DATA_VARIABLE = "NVFP4_STUDIO_DATA"
RECENTS = 8


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `choices` for texts, `least` and `most` for numbers; `unit` is shown behind a number.

    nought: what is shown instead of 0, where that stands for something else than a number.
    """

    key: str
    title: str
    default: bool | int | float | str
    help: str
    choices: tuple[str, ...] = ()
    least: float = 0.0
    most: float = 0.0
    unit: str = ""
    page: str = "General"
    nought: str = ""

    def check(self, value: Any) -> bool | int | float | str:
        """`value` as stored in a file, in this option's type; raises ValueError when it makes no sense."""
        if isinstance(self.default, bool):
            return _as_bool(value)
        if isinstance(self.default, str):
            return self._as_text(value)
        number = int(value) if isinstance(self.default, int) else float(value)
        if not self.least <= number <= self.most:
            raise ValueError(f"must be between {self.least:g} and {self.most:g}")
        return number

    def _as_text(self, value: Any) -> str:
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return value


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return bool(value == "true")


_TEXT_KEYS = f"{keys_of('larger')} and {keys_of('smaller')}"
BACKENDS = ("auto", "cpu", "numpy", "metal", "cuda")
OPTIONS: dict[str, Option] = {
    option.key: option
    for option in (
        Option("theme", "Theme", "system", "Follow the system, or always light or dark.", ("system", "light", "dark")),
        Option("text_size", "Text size", 13, f"Height of text. {_TEXT_KEYS} change it too.", (), 10, 24, "px"),
        Option("compact", "Compact rows", False, "Lower rows, so that more layers fit on the screen."),
        Option("restore", "Open the last checkpoint again", True, "Start where the last session ended."),
        Option(
            "remember",
            "Remember work on each checkpoint",
            True,
            "Plan, undo, results and view; beyond 1 GB the oldest go.",
        ),
        Option("recents", "Remember recent checkpoints", True, "Listed on the welcome page and in the File menu."),
        Option(
            "confirm_quit",
            "Ask before work is lost",
            True,
            "A plan that is neither saved nor kept, or what still runs.",
        ),
        Option(
            "notices",
            "Say when long work ends",
            True,
            "A run of over a minute that ends while the window is not in front.",
        ),
        Option("warning_line", "Warning line", 0.12, "Layers above this relative error are marked.", (), 0.0, 1.0),
        Option("backend", "Computes on", "auto", "auto takes the fastest that works here.", BACKENDS, page="Machine"),
        Option("threads", "Threads", 0, "At most so many at once.", (), 0, 1024, "", "Machine", "one per processor"),
        Option("memory_limit", "Memory limit", 0, "Refuse to need more.", (), 0, 1 << 20, "MB", "Machine", "none"),
        Option(
            "workers",
            "Workers",
            0,
            "Processes for Quantize and Export.",
            (),
            0,
            64,
            page="Machine",
            nought="this program",
        ),
        Option(
            "cluster",
            "Cluster",
            "",
            "Or the workers of a scheduler: tls://HOST:8786.",
            page="Machine",
        ),
    )
}


class Settings(QObject):
    """The user's settings. What is unknown or broken in the file falls back to the default, and `faults` says so.

    `data` is the folder for what is larger.

    Signals:
        changed(str): an option has another value; the key says which.
    """

    changed = Signal(str)

    def __init__(self, path: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._file = QSettings(str(path or _location()), QSettings.Format.IniFormat)
        self.data = _data_location(path)
        self.faults: list[str] = []
        self._values = {key: self._read(option) for key, option in OPTIONS.items()}

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._file.fileName())

    def _read(self, option: Option) -> bool | int | float | str:
        stored = self._file.value(f"options/{option.key}")
        if stored is None:
            return option.default
        try:
            return option.check(stored)
        except (TypeError, ValueError) as error:
            self.faults.append(f"setting {option.key}: {error}; its default {option.default} is used")
            return option.default

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        checked = OPTIONS[key].check(value)
        if checked != self._values[key]:
            self._values[key] = checked
            self._file.setValue(f"options/{key}", checked)
            self.changed.emit(key)

    def reset(self) -> None:
        """Give every option its default."""
        for key, option in OPTIONS.items():
            self[key] = option.default

    def state(self, name: str) -> QByteArray | None:
        """Stored geometry or layout of a part of the window."""
        found = self._file.value(f"state/{name}")
        return found if isinstance(found, QByteArray) else None

    def keep_state(self, name: str, value: QByteArray) -> None:
        """Store geometry or layout of a part of the window."""
        self._file.setValue(f"state/{name}", value)

    def texts(self, name: str) -> list[str]:
        """A stored list of texts; empty when there is none or it is broken."""
        found: Any = self._file.value(f"lists/{name}")
        found = [found] if isinstance(found, str) else found
        return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []

    def keep_texts(self, name: str, values: list[str]) -> None:
        """Store a list of texts."""
        self._file.setValue(f"lists/{name}", values)

    def sync(self) -> None:
        """Write what is not written yet."""
        self._file.sync()


def _location() -> Path:
    if chosen := os.environ.get(FILE_VARIABLE):
        return Path(chosen)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "nvfp4-studio" / "window.ini"


def _data_location(settings: Path | None) -> Path:
    """Beside a settings file that was chosen; else where the system keeps data of programs."""
    if chosen := os.environ.get(DATA_VARIABLE):
        return Path(chosen)
    if settings is not None or os.environ.get(FILE_VARIABLE):
        return (settings or _location()).absolute().parent / "data"
    return Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.AppDataLocation))
