"""The safetensors files of a folder that are its model, by index, by number or alone, and the tensors in them."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from studio.core.containers.files import SourceFile, is_there
from studio.core.containers.links import check_link, repositories
from studio.core.containers.safetensors import read_header
from studio.core.containers.strict_json import read_object
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.model import Stored
from studio.core.names import is_plain_name, printable, some_of

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_NUMBERED = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,9})\.safetensors")
_HEAD = 64 << 10
"""Bytes at the start of a shard that hold most headers."""
_AGAIN = "download them again, the index too: they are of different versions"


class Opened(NamedTuple):
    """Files by name, tensors by name, and the names of tensors that more than one file holds."""

    files: dict[str, SourceFile]
    stored: dict[str, Stored]
    twice: list[str]


def open_folder(folder: Path, names: Collection[str], warnings: list[str]) -> Opened:
    """The model in `folder`, which holds `names`; adds to `warnings` what is left out. Raises CheckpointError."""
    present = sorted(name for name in names if name.endswith(".safetensors"))
    index = _index(folder, names, warnings)
    if index is None:
        opened = _open_shards(folder, _shards_without_index(folder, present))
    else:
        opened = _open_indexed(folder, index, present, warnings)
    if stray := [name for name in present if name not in opened.files]:
        warnings.append(f"{some_of(stray)}: no part of the model, left out")
    return opened


def open_file(path: Path, warnings: list[str]) -> Opened:
    """One file as a checkpoint of its own; adds to `warnings` that it is one of several."""
    match = _NUMBERED.fullmatch(path.name)
    if match and int(match[3]) > 1:
        number, count = int(match[2]), int(match[3])
        warnings.append(f"shard {number} of {count} alone: the folder that holds them all is the whole model")
    return _open_shards(path.parent, [path.name])


def _open_shards(folder: Path, names: Sequence[str], owner: Mapping[str, str] | None = None) -> Opened:
    """Open these files; of a tensor that several hold, `owner` (tensor -> file) names the one that counts."""
    files = {name: _shard(folder, name, ahead=len(names) > 1) for name in names}
    stored: dict[str, Stored] = {}
    twice = []
    for name in names:
        for tensor in read_header(files[name]).tensors.values():
            if tensor.name in stored:
                twice.append(tensor.name)
                if owner is None:
                    raise _stored_twice(stored[tensor.name], files[name])
                if owner.get(tensor.name) != name:
                    continue
            stored[tensor.name] = Stored(files[name], tensor)
    return Opened(files, stored, twice)


def _shard(folder: Path, name: str, *, ahead: bool) -> SourceFile:
    """A shard; `ahead`: its header is on its way while those of others are read."""
    path = folder / name
    check_link(path, folder)
    file = SourceFile(path)
    if ahead:
        file.read_ahead(0, min(file.size, _HEAD))
    return file


def _stored_twice(first: Stored, second: SourceFile) -> CheckpointError:
    what = f"stored twice: in {printable(first.file.path.name)} and in {printable(second.path.name)}"
    hint = f"download {INDEX} too: it says which copy counts"
    return CheckpointError(what, file=second.path.parent, tensor=first.tensor.name, hint=hint)


def _open_indexed(folder: Path, index: Path, present: Sequence[str], warnings: list[str]) -> Opened:
    owner = _weight_map(index)
    names = sorted(set(owner.values()))
    _check_all_there(folder, index, names, present)
    files, stored, twice = _open_shards(folder, names, owner)
    _compare_with_index(folder, owner, stored, index, present)
    if twice:
        count = counted(len(twice), "tensor is", "tensors are")
        warnings.append(f"{count} stored more than once, the index says which copy counts: {some_of(twice)}")
    if unlisted := [name for name in stored if name not in owner]:
        kind = "tensors" if len(unlisted) != 1 else "tensor"
        warnings.append(f"{kind} {some_of(unlisted)}: not in the index, left out")
    return Opened(files, {name: item for name, item in stored.items() if name in owner}, twice)


def _index(folder: Path, names: Collection[str], warnings: list[str]) -> Path | None:
    indexes = sorted(name for name in names if name.endswith(".safetensors.index.json"))
    if not indexes:
        return None
    if INDEX not in indexes and len(indexes) > 1:
        what = f"holds more than one index: {', '.join(map(printable, indexes))}"
        raise CheckpointError(what, file=folder)
    chosen = INDEX if INDEX in indexes else indexes[0]
    warnings += [f"{printable(name)}: a second index, left out" for name in indexes if name != chosen]
    check_link(folder / chosen, folder)
    return folder / chosen


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_object(index, constants=True).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError("malformed index: weight_map must map tensor names to file names", file=index)
    for shard in set(weight_map.values()):
        if not is_plain_name(shard):
            raise CheckpointError(f"unsafe path in the index: '{printable(shard)}'", file=index)
    return weight_map


def _check_all_there(folder: Path, index: Path, names: Sequence[str], present: Sequence[str]) -> None:
    missing = [name for name in names if not is_there(folder / name)]
    if not missing:
        return
    if missing == names and _complete(present):
        several = f"none of the {counted(len(names), 'shard')} that it names is here"
        named = several if len(names) > 1 else "the shard that it names is not here"
        what = f"{named}, and {some_of(list(present))} is a whole model"
        raise CheckpointError(what, file=index, hint="delete the index when it is left from another download")
    what = "shard missing: an incomplete download"
    if len(missing) > 1:
        what = f"{len(missing)} of {counted(len(names), 'shard')} missing, {some_of(missing)}: an incomplete download"
    raise CheckpointError(what, file=folder / missing[0], hint=f"finish the download: {some_of(missing)}")


def _complete(present: Sequence[str]) -> bool:
    """True when these files are a whole model without an index."""
    with suppress(CheckpointError):
        return bool(present) and bool(_shards_without_index(Path(), present))
    return False


def _compare_with_index(
    folder: Path, weight_map: Mapping[str, str], stored: Mapping[str, Stored], index: Path, present: Sequence[str]
) -> None:
    missing = [name for name in weight_map if name not in stored]
    if missing:
        shard = weight_map[missing[0]]
        others = f", as are {len(missing) - 1:,} more" if len(missing) > 1 else ""
        what = f"listed in the index, but not in {printable(shard)}{others}"
        hint = f"download {printable(shard)} and the index again: they are of different versions"
        if elsewhere := _holding(folder, missing[0], [name for name in present if name not in weight_map.values()]):
            hint = f"{printable(elsewhere)} holds it, which the index does not name: {_without_index(present)}"
        raise CheckpointError(what, file=index, tensor=missing[0], hint=hint)
    for name, shard in weight_map.items():
        actual = stored[name].file.path.name
        if actual != shard:
            what = f"the index says {printable(shard)}, but it is in {printable(actual)}"
            raise CheckpointError(what, file=index, tensor=name, hint=_without_index(present))


def _without_index(present: Sequence[str]) -> str:
    if _complete(present):
        return "download the index again, or delete it: the files say themselves where every tensor is"
    return _AGAIN


def _holding(folder: Path, tensor: str, names: Sequence[str]) -> str:
    """The file that holds a tensor, among files that may be anything."""
    for name in names:
        with suppress(CheckpointError):
            check_link(folder / name, folder)
            if tensor in read_header(SourceFile(folder / name)).tensors:
                return name
    return ""


def _shards_without_index(folder: Path, present: Sequence[str]) -> list[str]:
    """The file or the one set of numbered shards that is the model; files of unknown relation are never merged."""
    if _SINGLE in present:
        return [_SINGLE]
    if not present:
        raise _nothing_here(folder)
    sets = {(match[1], match[3]) for name in present if (match := _NUMBERED.fullmatch(name))}
    if len(sets) == 1:
        ((stem, count),) = sets
        shards = [name for name in present if (match := _NUMBERED.fullmatch(name)) and match[1] == stem]
        if len(shards) != int(count):
            here = f"{len(shards)} of {counted(int(count), 'shard')}"
            what = f"missing: {here} are here and no index, an incomplete download"
            raise CheckpointError(what, file=folder / shards[0], hint="finish the download")
        return shards
    if len(present) > 1:
        names = ", ".join(printable(name) for name in present[:3])
        what = f"holds {len(present)} safetensors files and no index: {names}"
        raise CheckpointError(what, file=folder, hint="give the path of one of the files")
    return list(present)


def _nothing_here(folder: Path) -> CheckpointError:
    names = sorted(entry.name for entry in folder.iterdir())
    if any(name.endswith(".incomplete") for name in names):
        return CheckpointError("missing: an incomplete download", file=folder, hint="finish the download")
    if inside := repositories(folder) or _folders_with_weights(folder):
        what = "missing: holds no .safetensors file, but folders that do"
        return CheckpointError(what, file=folder, hint=f"give the path of one of them: {some_of(inside, 5)}")
    other = next((name for name in names if name.endswith((".bin", ".pt", ".pth"))), None)
    if other:
        what = f"holds no safetensors file; {printable(other)} is not read, since loading it could run code"
        return CheckpointError(what, file=folder, hint="convert it to safetensors first")
    return CheckpointError("missing: holds no .safetensors file", file=folder)


def _folders_with_weights(folder: Path) -> list[str]:
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    return [entry.name for entry in inside if next(entry.glob("*.safetensors"), None)]
