"""Contents: the files of a folder that an export of ours wrote, by its own lists; nothing else is ever removed."""

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.containers.files import SourceFile, read_small
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.exporting.layer_lines import LayerLines
from studio.core.exporting.readback import sha256
from studio.core.exporting.records import RECORD, read_record
from studio.core.names import is_plain_path, printable
from studio.core.stores.store_path import StorePath

PROGRAM = "nvfp4-studio"
MANIFEST = "nvfp4_studio.json"
SUMS = "SHA256SUMS"
JOURNAL = "journal.json"
LOCK = "writer.json"
"""Who writes an export on a store."""
_PROOFS = (JOURNAL, SUMS, MANIFEST)
"""What shows that a folder is ours and what it holds, in the order in which it goes."""
LARGEST_SUMS = 64 << 20
_LARGEST_HASHED = 256 << 20
"""Bytes of a file beside the shards that is still read to see whether it was changed."""
_OF_THE_DESKTOP = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers leave in any folder that they show, which nobody misses."""
_SUM_LINE = re.compile(r"([0-9a-f]{64})  ([^\0\n]+)")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder of ours holds: files as it lists them, their bytes, and what it does not list, or not so."""

    files: tuple[str, ...]
    nbytes: int
    strangers: tuple[str, ...]

    @property
    def files_text(self) -> str:
        """How many files there are, in words."""
        return counted(len(self.files), "file")


def contents(folder: Path) -> Contents:
    """What an export of ours in `folder` holds; links are not followed.

    What its owner changed since is a stranger, too: a shard of another size, another file with another digest.
    Raises CheckpointError when no manifest says that this program wrote it, and OSError.
    """
    listed = _listed(folder)
    folders = {parent.as_posix() for name in listed for parent in Path(name).parents[:-1]}
    files, strangers, nbytes = [], [], 0
    for name, entry in _entries(folder, "", folders):
        if entry.name in _OF_THE_DESKTOP or (name in listed and listed[name].fits(entry)):
            files.append(name)
            nbytes += entry.stat(follow_symlinks=False).st_size
        else:
            strangers.append(name)
    return Contents(tuple(files), nbytes, tuple(strangers))


def check_finished(place: Path) -> None:
    """Raise CheckpointError for a folder on a store in which an export was begun: it is one from its manifest on."""
    names = place.folder.files if isinstance(place, StorePath) and not place.key else ()
    if JOURNAL in names and MANIFEST not in names:
        hint = "the command that writes it goes on where it stopped; before its end there is no export"
        raise CheckpointError("unfinished export", file=place, hint=hint)


@dataclass(frozen=True, slots=True)
class _Written:
    """What is known of a file that an export wrote; None for what is not."""

    nbytes: int | None = None
    sha256: str | None = None

    def fits(self, entry: os.DirEntry[str]) -> bool:
        """True when it may be that file; a link goes without what it leads to."""
        if entry.is_symlink():
            return True
        if not entry.is_file(follow_symlinks=False):
            return False
        size = entry.stat(follow_symlinks=False).st_size
        if self.nbytes is not None:
            return size == self.nbytes
        if self.sha256 is None or size > _LARGEST_HASHED:
            return True
        with SourceFile(Path(entry.path)) as file:
            return sha256(file) == self.sha256


def _listed(folder: Path) -> dict[str, _Written]:
    """The names that the lists in `folder` give to files of the export."""
    path = folder / MANIFEST
    manifest = LayerLines(path).head
    program, shards = manifest.get("program"), manifest.get("shards", manifest.get("tensors"))
    if not isinstance(program, dict) or program.get("name") != PROGRAM:
        raise CheckpointError("was not written by this program", file=path)
    listed = dict.fromkeys([SUMS, MANIFEST, *left_over(folder)], _Written())
    with contextlib.suppress(CheckpointError):  # without it fewer files are ours
        digests = read_sums(folder / SUMS, read_small(folder / SUMS, LARGEST_SUMS))
        listed |= {name: _Written(sha256=digest) for name, digest in digests.items()}
    if isinstance(shards, dict):
        listed |= {name: _shard(told) for name, told in shards.items() if is_plain_path(name)}
    return listed


def _shard(told: Any) -> _Written:
    nbytes = told.get("nbytes") if isinstance(told, dict) else None  # schema 1 has the digests of its tensors here
    return _Written(nbytes=nbytes if isinstance(nbytes, int) else None)


def left_over(folder: Path) -> set[str]:
    """Names of what a run needs while it writes, and that a kill kept from going when it was done."""
    records = filter(None, map(read_record, folder.glob("*" + RECORD)))
    ours = {JOURNAL} if read_journal(folder / JOURNAL) is not None else set()
    return {record.path.name for record in records} | ours


def _entries(folder: Path, below: str, folders: set[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What lies in `folder / below`, and in those folders there that hold files of ours."""
    with os.scandir(folder / below) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = below + entry.name
        if name in folders and entry.is_dir(follow_symlinks=False):
            yield from _entries(folder, f"{name}/", folders)
        else:
            yield name, entry


def remove(folder: Path) -> bool:
    """Remove the files that an export of ours wrote, its proofs last; False when something else stays.

    Raises CheckpointError when it is none of ours, and OSError.
    """
    names = contents(folder).files
    for name in names:
        if name not in _PROOFS:
            (folder / name).unlink()
    below = {folder / parent for name in names for parent in Path(name).parents[:-1]}
    _remove_empty(sorted(below, key=lambda path: len(path.parts), reverse=True))
    for name in _PROOFS:
        if name in names:
            (folder / name).unlink()
    _remove_empty([folder])
    return not folder.exists()


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders that hold nothing."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def read_journal(path: Path) -> dict[str, Any] | None:
    """The identity of the run in the journal of an export, None when there is none or it is damaged.

    Raises OSError when it can not be read.
    """
    return journal_of(path.read_bytes()) if path.is_file() else None


def journal_of(data: bytes) -> dict[str, Any] | None:
    """The identity of the run in the bytes of a journal, None when they are damaged."""
    try:
        journal = json.loads(data)
    except (ValueError, RecursionError):
        return None
    identity = journal.get("identity") if isinstance(journal, dict) else None
    return identity if isinstance(identity, dict) else None


def sums(digests: Mapping[str, str]) -> bytes:
    """SHA256SUMS for `sha256sum --check`: digest by file name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def read_sums(path: Path, text: bytes) -> dict[str, str]:
    """Digest by file name from the bytes of SHA256SUMS; raises CheckpointError when a line is damaged."""
    lines = text.decode("utf-8", "replace").split("\n")
    found = [_SUM_LINE.fullmatch(line) for line in lines[:-1]]
    if lines[-1] or not found or not all(found):
        raise CheckpointError("damaged: every line must be a digest and a file name", file=path)
    names = Counter(match[2] for match in found if match)
    if unsafe := [name for name in names if not is_plain_path(name)]:
        raise CheckpointError(f"damaged: an unsafe name, {printable(unsafe[0])}", file=path)
    if twice := [name for name, count in names.items() if count > 1]:
        raise CheckpointError(f"damaged: lists {printable(twice[0])} twice", file=path)
    return {match[2]: match[1] for match in found if match}
