"""open_model: from a path to a Model. Reads headers, index and config, believes none of them, and says what is odd."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studio.core.containers.files import SourceFile, unreadable
from studio.core.containers.safetensors import read_header
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.grouping import layers_of, stored_input_first
from studio.core.layouts.detect import leftovers, quantization_method
from studio.core.model import Model, Stored
from studio.core.names import printable
from studio.core.sources.declared import BESIDE, Section, sections
from studio.core.sources.recognition import recognize

SIDE_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
)
"""Files that an export takes along byte for byte; nothing else of a stranger's folder is."""

INDEX = "model.safetensors.index.json"
LARGEST_SIDE_FILE = 1 << 30
LARGEST_CONFIG = 16 << 20
_NUMBERED = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,9})\.safetensors")


def open_model(path: str | os.PathLike[str]) -> Model:
    """Open a Hugging Face folder or one safetensors file, reading headers only.

    Raises CheckpointError for anything missing, malformed or unsafe, before a single weight is read.
    """
    place = Path(path)
    try:
        return _open(place)
    except (OSError, RuntimeError) as error:
        raise unreadable(error, place) from None


def _open(place: Path) -> Model:
    if not place.exists():
        raise CheckpointError("there is no such file or folder", file=place, hint="check the spelling of the path")
    warnings: list[str] = []
    config: dict[str, Any] = {}
    side_files: tuple[Path, ...] = ()
    if place.is_dir():
        config = _config(place)
        files, stored = _open_folder(place, warnings)
        side_files = _side_files(place, warnings)
    elif place.suffix == ".safetensors":
        files, stored = _open_shards(place.parent, [place.name])
    else:
        what = "neither a folder nor a .safetensors file"
        raise CheckpointError(what, file=place, hint="give the folder that holds config.json")
    declared = _declared(place, config, warnings)
    found = recognize(stored, declared, partial(stored_input_first, config))
    layers = layers_of(stored, config, found, warnings)
    method = quantization_method(stored, declared, found)
    warnings += leftovers(declared, found, method)
    return Model(place, tuple(files.values()), layers, config, side_files, tuple(warnings), method)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        return {}
    _check_link(path, folder)
    return read_object(path, LARGEST_CONFIG)


def _declared(place: Path, config: dict[str, Any], warnings: list[str]) -> tuple[Section, ...]:
    """What the config and the file beside it say of a quantization; tensors decide, so a broken file is left out."""
    path, beside = place / BESIDE, {}
    if place.is_dir() and os.path.lexists(path):
        try:
            _check_link(path, place)
            beside = read_object(path, LARGEST_CONFIG)
        except CheckpointError as error:
            warnings.append(f"{BESIDE}: {error.what}, left out")
    return sections(config, beside)


def _open_folder(folder: Path, warnings: list[str]) -> tuple[dict[str, SourceFile], dict[str, Stored]]:
    present = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".safetensors"))
    index = _index(folder, warnings)
    if index is None:
        files, stored = _open_shards(folder, _shards_without_index(folder, present))
    else:
        weight_map = _weight_map(index)
        files, stored = _open_shards(folder, sorted(set(weight_map.values())))
        _compare_with_index(weight_map, stored, index, warnings)
        stored = {name: item for name, item in stored.items() if name in weight_map}
    warnings += [f"{printable(name)}: no part of the model, left out" for name in present if name not in files]
    return files, stored


def _index(folder: Path, warnings: list[str]) -> Path | None:
    indexes = sorted(folder.glob("*.safetensors.index.json"), key=lambda path: (path.name != INDEX, path.name))
    for other in indexes[1:]:
        if indexes[0].name != INDEX:
            names = ", ".join(printable(index.name) for index in indexes)
            raise CheckpointError(f"holds more than one index: {names}", file=folder)
        warnings.append(f"{printable(other.name)}: a second index, left out")
    for index in indexes[:1]:
        _check_link(index, folder)
    return indexes[0] if indexes else None


def _shards_without_index(folder: Path, present: Sequence[str]) -> list[str]:
    """The file or the one set of numbered shards that is the model; files of unknown relation are never merged."""
    if "model.safetensors" in present:
        return ["model.safetensors"]
    if not present:
        raise _nothing_here(folder)
    sets = {(match[1], match[3]) for name in present if (match := _NUMBERED.fullmatch(name))}
    if len(sets) == 1:
        ((stem, count),) = sets
        shards = [name for name in present if (match := _NUMBERED.fullmatch(name)) and match[1] == stem]
        if len(shards) != int(count):
            what = f"missing: {len(shards)} of {int(count)} shards are here and no index, an incomplete download"
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
    other = next((name for name in names if name.endswith((".bin", ".pt", ".pth", ".gguf"))), None)
    if other:
        what = f"holds no safetensors file; {printable(other)} is not read, since loading it could run code"
        return CheckpointError(what, file=folder, hint="convert it to safetensors first")
    return CheckpointError("missing: holds no .safetensors file", file=folder)


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError("malformed index: weight_map must map tensor names to file names", file=index)
    for shard in set(weight_map.values()):
        if not _is_plain_name(shard):
            raise CheckpointError(f"unsafe path in the index: '{printable(shard)}'", file=index)
    return weight_map


def _is_plain_name(name: str) -> bool:
    return 0 < len(name) <= 255 and name not in (".", "..") and not any(bad in name for bad in "/\\\0:")


def _open_shards(folder: Path, names: Sequence[str]) -> tuple[dict[str, SourceFile], dict[str, Stored]]:
    files: dict[str, SourceFile] = {}
    stored: dict[str, Stored] = {}
    for name in names:
        path = folder / name
        if not os.path.lexists(path):
            raise CheckpointError("shard missing: an incomplete download", file=path, hint="finish the download")
        _check_link(path, folder)
        files[name] = SourceFile(path)
        for tensor in read_header(files[name]).tensors.values():
            if tensor.name in stored:
                other = stored[tensor.name].file.path.name
                what = f"stored twice: in {printable(other)} and in {printable(name)}"
                raise CheckpointError(what, file=folder, tensor=tensor.name)
            stored[tensor.name] = Stored(files[name], tensor)
    return files, stored


def _compare_with_index(
    weight_map: dict[str, str], stored: dict[str, Stored], index: Path, warnings: list[str]
) -> None:
    for name, shard in weight_map.items():
        if name not in stored:
            raise CheckpointError(f"listed in the index, but not in {printable(shard)}", file=index, tensor=name)
        actual = stored[name].file.path.name
        if actual != shard:
            what = f"the index says {printable(shard)}, but it is in {printable(actual)}"
            raise CheckpointError(what, file=index, tensor=name)
    warnings += [f"tensor {printable(name)}: not in the index, left out" for name in stored if name not in weight_map]


def _check_link(path: Path, folder: Path) -> None:
    if leads := _leads_out(path, folder):
        what = f"a link that leads out of the folder, to {printable(leads)}"
        raise CheckpointError(what, file=path, hint="put the file itself into the folder")


def _leads_out(path: Path, folder: Path) -> Path | None:
    """Where a link leads, unless it stays in the folder or leads to the blobs of a Hugging Face cache."""
    if not path.is_symlink():
        return None
    try:
        target, home = path.resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError):
        raise CheckpointError("a broken or circular link, not a regular file", file=path) from None
    blobs = home.parent.parent / "blobs"
    return None if target.is_relative_to(home) or target.is_relative_to(blobs) else target


def _side_files(folder: Path, warnings: list[str]) -> tuple[Path, ...]:
    found = []
    for name in SIDE_FILES:
        path = folder / name
        if not os.path.lexists(path):
            continue
        if leads := _leads_out(path, folder):
            warnings.append(f"{name}: a link that leads out of the folder, to {printable(leads)}, left out")
        elif (size := SourceFile(path).size) > LARGEST_SIDE_FILE:
            warnings.append(f"{name}: {size:,} bytes, too large for a side file, left out")
        else:
            found.append(path)
    return tuple(found)
