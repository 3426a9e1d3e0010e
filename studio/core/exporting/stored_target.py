"""A folder on a store as the target of an export: what may be there, and what is not ours."""

from pathlib import Path

from studio.core.errors import ExportError
from studio.core.exporting.contents import JOURNAL, LOCK, MANIFEST
from studio.core.exporting.stored_folder import of_a_shard, outside_of_others
from studio.core.names import printable
from studio.core.stores.s3_target import S3Target
from studio.core.stores.store_path import StorePath
from studio.core.stores.target_folder import TargetFolder

_ELSEWHERE = "choose another folder, or remove this one yourself"


def target_folder(target: StorePath) -> TargetFolder:
    """The folder behind a URL, to write. Raises ExportError for a store that can only be read."""
    store = target.folder.store
    if not isinstance(store, S3Target):
        raise ExportError("can not be written", file=target, hint="give a folder, or s3://BUCKET/FOLDER")
    return TargetFolder(store, target.folder.patience)


def check_stored_target(target: StorePath, source: Path, *, overwrite: bool) -> None:
    """Raise ExportError unless an export of `source` can begin there, or go on: nothing is ever replaced on a store."""
    if overwrite:
        hint = "choose another folder, or remove the export yourself; --restart discards a stopped one"
        raise ExportError("nothing is overwritten on a store, where nothing can be renamed", file=target, hint=hint)
    folder = target_folder(target)
    if target.key:
        raise ExportError("is the name of a file", file=target, hint="give a folder of the bucket")
    _check_apart(target, source)
    names = set(folder.listed()) - {LOCK}
    if MANIFEST in names:
        raise ExportError("holds an export already", file=target, hint=_ELSEWHERE)
    if names and JOURNAL not in names:
        what = f"is not empty and was not made by this program: it holds {printable(min(names))}"
        raise ExportError(what, file=target, hint=_ELSEWHERE)
    own = outside_of_others(names)
    for name in sorted(names):
        if not of_a_shard(name) and (found := folder.find(name)) and not (found.digest and name in own):
            what = f"holds what is not part of the stopped export there: {printable(name)}"
            raise ExportError(what, file=target, hint=_ELSEWHERE)


def _check_apart(target: StorePath, source: Path) -> None:
    if source.is_relative_to(target) or target.is_relative_to(source if source.is_dir() else source.parent):
        what = "the same folder as the source, inside it, or one that holds it"
        raise ExportError(what, file=target, hint="choose another target")
