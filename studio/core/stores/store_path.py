"""StorePath: a file or folder behind a URL in the place of a Path, for all that lists and reads checkpoints.

What only the operating system can do with a path is refused in words: a StorePath has no name on this machine.
"""

import sys
from collections.abc import Generator, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath, PurePath, PurePosixPath
from typing import Any

from studio.core.errors import CheckpointError
from studio.core.stores.remote_folder import RemoteFolder, StoredBytes

_SMALL = 64 << 20


class StorePath(PosixPath):
    """`key` names it below the URL of `folder`; "" is that folder itself."""

    folder: RemoteFolder
    key: str

    def __new__(cls, folder: RemoteFolder, key: str = "") -> "StorePath":
        """A path that is the text of the URL to pathlib."""
        made = super().__new__(cls, _text(folder, key))
        made.folder, made.key = folder, key
        return made

    def __init__(self, folder: RemoteFolder, key: str = "") -> None:
        if sys.version_info >= (3, 12):
            super().__init__(_text(folder, key))

    def with_segments(self, *segments: Any) -> PurePath:
        """What pathlib derives is a plain text: it has no store."""
        return PurePosixPath(*segments)

    def __str__(self) -> str:
        return _text(self.folder, self.key)

    def __fspath__(self) -> str:
        hint = "download the checkpoint and give the folder"
        raise CheckpointError("is behind a URL, and this needs it on this machine", file=str(self), hint=hint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: PurePath) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: Any) -> "StorePath":
        if str(name) == ".":
            return self
        return StorePath(self.folder, f"{self.key}/{name}" if self.key else str(name))

    @property
    def parent(self) -> "StorePath":
        """The folder that holds it; that of the URL is its own."""
        return StorePath(self.folder, self.key.rpartition("/")[0])

    def resolve(self, strict: bool = False) -> "StorePath":
        """It: stores have no links. Raises FileNotFoundError when it must be there and is not."""
        if strict and not self.exists():
            raise FileNotFoundError(str(self))
        return self

    def absolute(self) -> "StorePath":
        """It."""
        return self

    def is_relative_to(self, other: Any, *_: Any) -> bool:
        """True when it lies in `other`, a StorePath, or is it."""
        inside = isinstance(other, StorePath) and str(self).startswith(f"{other}/")
        return inside or self == other

    def relative_to(self, other: Any, *_: Any, **__: Any) -> Path:  # type: ignore[override]
        """The way from `other` to it. Raises ValueError when it does not lie there."""
        if not self.is_relative_to(other):
            raise ValueError(f"[relative_to] {self} is not in {other}")
        return Path(str(self).removeprefix(str(other)).lstrip("/"))

    def exists(self, **_: Any) -> bool:
        """True for a file or a folder."""
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        """False."""
        return False

    def is_file(self, **_: Any) -> bool:
        """True for a file. Raises CheckpointError when the store does not say."""
        return bool(self.key) and self.folder.find(self.key) is not None

    def is_dir(self, **_: Any) -> bool:
        """True for a folder with files in it. Raises CheckpointError when the store does not say."""
        return any(name.startswith(f"{self.key}/" if self.key else "") for name in self.folder.files)

    def iterdir(self) -> Generator["StorePath", None, None]:
        """What the store lists in it."""
        start = f"{self.key}/" if self.key else ""
        names = {name.removeprefix(start).partition("/")[0] for name in self.folder.files if name.startswith(start)}
        yield from (self / name for name in sorted(names))

    def glob(self, pattern: str, **_: Any) -> Iterator["StorePath"]:  # type: ignore[override]
        """What in it has a name that fits."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def read_bytes(self) -> bytes:
        """The whole of a small file. Raises CheckpointError when there is none, or it is not small."""
        source = self.byte_source()
        if source.fingerprint.size > _SMALL:
            raise CheckpointError(f"too large: {source.fingerprint.size:,} bytes", file=str(self))
        data = bytearray(source.fingerprint.size)
        source.read_into(memoryview(data), 0)
        return bytes(data)

    def byte_source(self) -> StoredBytes:
        """The file to read. Raises CheckpointError when there is none."""
        return self.folder.bytes_of(self.key)


def is_remote(path: Path) -> bool:
    """True for what is not on this machine."""
    return isinstance(path, StorePath)


def abandon(path: Path) -> None:
    """Try no more to fetch from where a path leads, for a program that ends; it is still to be closed."""
    if isinstance(path, StorePath):
        path.folder.abandon()


def close(path: Path) -> None:
    """Fetch nothing more of where a path leads; paths on this machine need no closing."""
    if isinstance(path, StorePath):
        path.folder.close()


def forget(path: Path) -> None:
    """Give back the disk of what was fetched from where a path leads, where that is a stream."""
    if isinstance(path, StorePath):
        path.folder.forget()


def _text(folder: RemoteFolder, key: str) -> str:
    return f"{folder.store.url}/{key}" if key else folder.store.url
