"""Links and the Hugging Face cache: which files of a checkpoint may lie elsewhere, and where a repository keeps them.

A cache holds `models--ORG--NAME/{blobs,snapshots,refs}`: files are blobs named by their digest, a snapshot is a folder
of links to them, and `refs/main` names the snapshot in use.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from studio.core.containers.files import read_small
from studio.core.errors import CheckpointError
from studio.core.names import is_plain_name, printable
from studio.core.stores.store_path import StorePath

_CACHED = "models--"
_REPOSITORY = re.compile(rf"{_CACHED}(?:.+--)?(?P<name>.+)")
_LONGEST_REVISION = 200
_MOST_LISTED = 5


def check_link(path: Path, folder: Path) -> None:
    """Raise CheckpointError when `path` leads out of `folder` to anything but a blob of a cache."""
    if leads := leads_out(path, folder):
        what = f"a link that leads out of the folder, to {printable(leads)}"
        raise CheckpointError(what, file=path, hint="put the file itself into the folder")


def leads_out(path: Path, folder: Path) -> Path | None:
    """Where `path` really lies, unless that is inside `folder` or among the blobs of a Hugging Face cache.

    Raises CheckpointError for a broken or circular link.
    """
    if path.parent == folder and path.name != ".." and _is_no_link(path):
        return None  # following links step by step takes ten times as long
    try:
        target, home = path.resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError):
        raise CheckpointError("a broken or circular link, not a regular file", file=path) from None
    return None if target.is_relative_to(home) or is_blob(target) else target


def _is_no_link(path: Path) -> bool:
    """True for what is there itself."""
    if isinstance(path, StorePath):
        return not path.is_symlink() and path.exists()
    try:
        return not stat.S_ISLNK(path.lstat().st_mode)
    except OSError:
        return False


def is_blob(path: Path) -> bool:
    """True for `.../models--ORG--NAME/blobs/DIGEST`, the form in which the cache keeps every file."""
    return path.parent.name == "blobs" and _is_repository(path.parent.parent)


def _is_repository(folder: Path) -> bool:
    return bool(_REPOSITORY.fullmatch(folder.name))


def checkpoint_name(path: Path) -> str:
    """What people call the checkpoint at `path`: its repository where a cache keeps it, otherwise the file's name."""
    there = path.resolve()
    places = zip(there.parents, there.parts[::-1], strict=False)
    found = (_REPOSITORY.fullmatch(home.name) for home, inside in places if inside in ("snapshots", "blobs"))
    name = next((match["name"] for match in found if match), "")
    return name or there.name.removesuffix(".safetensors").removesuffix(".gguf")


def in_snapshot(path: Path) -> Path:
    """`path`; for a repository in a cache its snapshot in use, for a blob the link in a snapshot that names it.

    Raises CheckpointError when a repository has several snapshots and none is in use.
    """
    if not isinstance(path, StorePath) and _CACHED not in os.path.realpath(path):
        return path
    there = path.resolve()
    if is_blob(there) and there.is_file() and path.suffix != ".safetensors":
        snapshots = there.parent.parent / "snapshots"
        return next((link for link in _links(snapshots) if link.resolve() == there), path)
    if _is_repository(there) and (there / "snapshots").is_dir():
        return _snapshot(path, there)
    return path


def _links(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (link for name in sorted(names) if (link := Path(parent, name)).is_symlink())


def _snapshot(path: Path, repository: Path) -> Path:
    there = {entry.name for entry in (repository / "snapshots").iterdir() if entry.is_dir()}
    used = _revision(repository / "refs" / "main")
    if used in there:
        return path / "snapshots" / used
    if len(there) == 1:
        return path / "snapshots" / there.pop()
    if not there:
        raise CheckpointError("missing: an incomplete download", file=path, hint="finish the download")
    names = ", ".join(printable(name) for name in sorted(there)[:_MOST_LISTED])
    what = f"holds {len(there)} snapshots, and refs/main names none of them: {names}"
    raise CheckpointError(what, file=path, hint="give the path of one: snapshots/REVISION")


def _revision(reference: Path) -> str:
    if not reference.is_file():
        return ""
    name = read_small(reference, _LONGEST_REVISION).decode("utf-8", "replace").strip()
    return name if is_plain_name(name) else ""


def repositories(folder: Path) -> list[str]:
    """The repositories in a cache, for somebody who gave the cache itself."""
    return sorted(entry.name for entry in folder.iterdir() if _is_repository(entry) and (entry / "snapshots").is_dir())
