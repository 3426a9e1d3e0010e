"""Target: where an export may appear, checked before any work and again before the folder takes its place."""

import errno
import os
import shutil
from pathlib import Path

from studio.core.counting import amount_text
from studio.core.errors import CheckpointError, ExportError
from studio.core.exporting.contents import MANIFEST, Contents, contents
from studio.core.exporting.staging import staging_path
from studio.core.exporting.stored_target import check_stored_target
from studio.core.exporting.writing import writing
from studio.core.names import printable, some_of
from studio.core.stores.store_path import StorePath

_BESIDE = len(".replaced999")
"""Bytes by which the longest name of a folder beside the target is longer than its own."""
_LONGEST_NAME = 255
_ELSEWHERE = "choose another folder, or move away or remove this one yourself"


def wrong_name(name: str) -> str:
    """Why no export can have this name, "" when one can."""
    if not name:
        return "No name is given"
    if "/" in name or "\0" in name or name in (".", ".."):
        return 'A name holds no "/" and is not "." or ".."'
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME - _BESIDE:
        return f"The name is too long: at most {_LONGEST_NAME - _BESIDE} bytes"
    return ""


def check_target(target: Path, source: Path, *, overwrite: bool) -> tuple[Path, Contents | None]:
    """`target` as an absolute path, and what of an earlier export there will go.

    Raises ExportError when it can not become the export of `source`.
    """
    if isinstance(target, StorePath):
        check_stored_target(target, source, overwrite=overwrite)
        return target, None
    with writing(target):
        if os.path.lexists(target) and not target.is_dir():
            raise ExportError("exists and is not a folder", file=target, hint=_ELSEWHERE)
        there = target.resolve()
        _check_apart(target, there, source.resolve())
        if target.is_symlink():
            raise ExportError("is a link; an export replaces folders, not links", file=target)
        if there.is_mount():
            what = "is a mount point, which can not appear by a rename"
            raise ExportError(what, file=target, hint="choose a folder inside it")
        _check_parent(there)
        if not target.is_dir() or not any(target.iterdir()):
            return there, None
        replaced = _replaced(target)
        if not overwrite:
            raise ExportError("exists and is not empty", file=target, hint="choose another target, or --overwrite")
    return there, replaced


def _replaced(target: Path) -> Contents:
    """What would go; raises ExportError unless this program wrote every file of the folder."""
    kept = "exists and is not empty; only an earlier export is ever replaced, and"
    try:
        found = contents(target)
    except CheckpointError:
        what = f"{kept} this folder has no {MANIFEST} of this program"
        raise ExportError(what, file=target, hint=_ELSEWHERE) from None
    if found.strangers:
        what = f"{kept} this one holds what is not part of it, or was changed since: {some_of(list(found.strangers))}"
        raise ExportError(what, file=target, hint="move that away, or choose another folder")
    if not os.access(target, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "")
    return found


def _check_parent(target: Path) -> None:
    """The folder that the target appears in, or the first that there is, takes new entries."""
    parent = next(folder for folder in target.parents if folder.exists())
    fault = "is read-only" if parent.is_dir() else "is not a folder"
    if fault == "is not a folder" or not os.access(parent, os.W_OK | os.X_OK):
        what = f"can not be written: {printable(parent, 400)} {fault}"
        raise ExportError(what, file=target, hint="choose another target")


def _check_apart(target: Path, there: Path, source: Path) -> None:
    """Neither the target nor its staging folder may be the source, lie in it or hold it."""
    folder = source if source.is_dir() else source.parent
    for place in (there, staging_path(there)) if there.name else (there,):
        inside = source.is_dir() and place.is_relative_to(folder)
        if place == folder or inside or source.is_relative_to(place):
            what = "the same folder as the source, inside it, or one that holds it"
            raise ExportError(what, file=target, hint="choose another target")


def check_space(target: Path, nbytes: int) -> None:
    """Raise ExportError when `nbytes` do not fit on the disk of `target` beside what a stopped run already wrote.

    On a store there is room.
    """
    if isinstance(target, StorePath):
        return
    with writing(target):
        parent = next(folder for folder in target.absolute().parents if folder.exists())
        free = shutil.disk_usage(parent).free
    needed = nbytes - _staged(staging_path(target))
    if free < needed:
        what = f"not enough disk space: {amount_text(needed)} are needed, {amount_text(free)} are free"
        raise ExportError(what, file=target, hint="free some space or choose another disk")


def _staged(folder: Path) -> int:
    """Bytes that the disk really holds for the files of a staging folder."""
    try:
        return sum(entry.lstat().st_blocks * 512 for entry in folder.iterdir())
    except OSError:
        return 0
