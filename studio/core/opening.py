"""open_model: from a path to a Model. Reads headers, index and config, believes none of them, and says what is odd."""

import os
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Header, read_header
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.grouping import layers_of
from studio.core.layouts.detect import quantization_method
from studio.core.model import Model, Stored
from studio.core.names import printable

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

LARGEST_SIDE_FILE = 1 << 30


def open_model(path: str | os.PathLike[str]) -> Model:
    """Open a Hugging Face folder or one safetensors file, reading headers only.

    Raises CheckpointError for anything missing, malformed or unsafe, before a single weight is read.
    """
    place = Path(path)
    if not place.exists():
        raise CheckpointError("there is no such file or folder", file=place)
    warnings: list[str] = []
    with ExitStack() as stack:
        if place.is_dir():
            config = _config(place)
            files, stored = _open_folder(place, warnings, stack)
            side_files = _side_files(place, warnings)
        elif place.suffix == ".safetensors":
            config, side_files = {}, ()
            files, stored = _open_shards(place.parent, [place.name], stack)
        else:
            what = "neither a folder nor a .safetensors file"
            raise CheckpointError(what, file=place, hint="give the folder that holds config.json")
        layers = layers_of(stored, config, warnings)
        method = quantization_method(stored, config)
        stack.pop_all()
    return Model(place, tuple(files.values()), layers, config, side_files, tuple(warnings), method)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        return {}
    _check_link(path, folder)
    return read_object(path)


def _open_folder(
    folder: Path, warnings: list[str], stack: ExitStack
) -> tuple[dict[str, SourceFile], dict[str, Stored]]:
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if len(indexes) > 1:
        names = ", ".join(printable(index.name) for index in indexes)
        raise CheckpointError(f"holds more than one index: {names}", file=folder)
    present = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".safetensors"))
    if indexes:
        _check_link(indexes[0], folder)
        weight_map = _weight_map(indexes[0])
        shards = sorted(set(weight_map.values()))
        files, stored = _open_shards(folder, shards, stack)
        _compare_with_index(weight_map, stored, indexes[0], warnings)
        warnings += [f"{printable(name)}: not in the index, left out" for name in present if name not in files]
        return files, {name: item for name, item in stored.items() if name in weight_map}
    if not present:
        raise _nothing_here(folder)
    return _open_shards(folder, ["model.safetensors"] if "model.safetensors" in present else present, stack)


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
            raise CheckpointError(f"unsafe path in the index: {printable(shard)!r}", file=index)
    return weight_map


def _is_plain_name(name: str) -> bool:
    return 0 < len(name) <= 255 and name not in (".", "..") and not any(bad in name for bad in "/\\\0:")


def _open_shards(folder: Path, names: list[str], stack: ExitStack) -> tuple[dict[str, SourceFile], dict[str, Stored]]:
    files: dict[str, SourceFile] = {}
    stored: dict[str, Stored] = {}
    for name in names:
        path = folder / name
        if not os.path.lexists(path):
            partial = any(path.parent.glob("*.incomplete")) or any((folder / ".cache").glob("**/*.incomplete"))
            hint = "an incomplete download: finish it" if partial else "download the checkpoint again"
            raise CheckpointError("shard missing" + (": incomplete download" if partial else ""), file=path, hint=hint)
        _check_link(path, folder)
        files[name] = stack.enter_context(SourceFile(path))
        for tensor in _header(files[name]).tensors.values():
            if tensor.name in stored:
                other = stored[tensor.name].file.path.name
                what = f"stored twice: in {printable(other)} and in {printable(name)}"
                raise CheckpointError(what, file=folder, tensor=tensor.name)
            stored[tensor.name] = Stored(files[name], tensor)
    return files, stored


def _header(file: SourceFile) -> Header:
    return read_header(file)


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
    """Links may stay in the folder or lead to the blobs of a Hugging Face cache, nowhere else."""
    if not path.is_symlink():
        return
    try:
        target, home = path.resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError):
        raise CheckpointError("a broken or circular link, not a regular file", file=path) from None
    blobs = home.parent.parent / "blobs"
    if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
        what = f"a link that leads out of the folder, to {printable(target)}"
        raise CheckpointError(what, file=path, hint="put the file itself into the folder")


def _side_files(folder: Path, warnings: list[str]) -> tuple[Path, ...]:
    found = []
    for name in SIDE_FILES:
        path = folder / name
        if not os.path.lexists(path):
            continue
        try:
            _check_link(path, folder)
            with SourceFile(path) as file:
                size = file.size
        except CheckpointError as error:
            warnings.append(f"{error}: left out")
            continue
        if size > LARGEST_SIDE_FILE:
            warnings.append(f"{name}: {size:,} bytes, too large for a side file, left out")
        else:
            found.append(path)
    return tuple(found)


def case_collisions(names: list[str]) -> list[str]:
    """Names that differ only by case from another one, which a file system may not tell apart."""
    seen: dict[str, list[str]] = defaultdict(list)
    for name in names:
        seen[name.casefold()].append(name)
    return [name for group in seen.values() if len(group) > 1 for name in group]
