"""The GGUF files that are a model: one, or a numbered set of which the first holds what all have in common."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.containers.files import SourceFile, is_there, names_in
from studio.core.containers.gguf import MAGIC, Gguf, GgufTensor, read_gguf
from studio.core.containers.links import check_link
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.names import printable, some_of

SUFFIX = ".gguf"
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_COUNT, _NUMBER, _TENSORS = "split.count", "split.no", "split.tensors.count"
_PROJECTOR = re.compile(r"mmproj.*\.gguf")
_MOST_FILES = 1000


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The files of a model by name, what the first says, and all tensors, each with its file."""

    files: Mapping[str, SourceFile]
    pairs: Mapping[str, Any]
    tensors: Mapping[str, tuple[SourceFile, GgufTensor]]

    @property
    def first(self) -> Path:
        """The file whose pairs count."""
        return next(iter(self.files.values())).path


def is_gguf(path: Path) -> bool:
    """True for a file that is named or starts like GGUF. Raises CheckpointError for one that can not be read."""
    if path.suffix == SUFFIX:
        return True
    with SourceFile(path) as file:
        return file.size >= len(MAGIC) and bytes(file.read(0, len(MAGIC))) == MAGIC


def holds_gguf_only(names: Collection[str]) -> bool:
    """True for a folder with files of these names when some are GGUF and none is safetensors."""
    return any(name.endswith(SUFFIX) for name in names) and not any(name.endswith(".safetensors") for name in names)


def open_gguf_folder(folder: Path, warnings: list[str]) -> GgufModel:
    """The one model of GGUF files in a folder; adds to `warnings` what is left out. Raises CheckpointError."""
    names = sorted(name for name in names_in(folder) if name.endswith(SUFFIX))
    models = [name for name in names if not _PROJECTOR.fullmatch(name)]
    sets = {match.group(1, 3) if (match := _NUMBERED.fullmatch(name)) else (name, "") for name in models}
    if len(sets) != 1:
        what = f"holds {len(sets)} models in GGUF files: {some_of(models)}" if sets else "holds no model in GGUF files"
        raise CheckpointError(what, file=folder, hint="give the path of one of the files")
    if left := [name for name in names if name not in models]:
        warnings.append(f"{some_of(left)}: a projector of pictures, left out")
    return open_gguf(folder / models[0])


def open_gguf(path: Path) -> GgufModel:
    """The model of a file, with all other files of its set. Raises CheckpointError."""
    file, header = _read(path)
    count = header.pairs.get(_COUNT, 1)
    if type(count) is not int or not 0 <= count <= _MOST_FILES:
        raise CheckpointError(f"malformed: {_COUNT} is {printable(count, 40)}", file=path)
    if count < 2:
        return GgufModel({path.name: file}, header.pairs, {t.name: (file, t) for t in header.tensors.values()})
    match = _NUMBERED.fullmatch(path.name)
    if not match or int(match[3]) != count:
        what = f"one of {counted(count, 'file')} of a model, which are found by the names that llama.cpp gives them"
        hint = f"name them NAME-00001-of-{count:05d}.gguf and so on"
        raise CheckpointError(what, file=path, hint=hint)
    return _joined([path.with_name(f"{match[1]}-{number:05d}-of-{match[3]}.gguf") for number in range(1, count + 1)])


def _read(path: Path) -> tuple[SourceFile, Gguf]:
    if not is_there(path):
        raise CheckpointError("missing: an incomplete download", file=path, hint="finish the download")
    check_link(path, path.parent)
    file = SourceFile(path)
    return file, read_gguf(file)


def _joined(paths: Sequence[Path]) -> GgufModel:
    files: dict[str, SourceFile] = {}
    tensors: dict[str, tuple[SourceFile, GgufTensor]] = {}
    pairs: Mapping[str, Any] = {}
    for number, path in enumerate(paths):
        file, header = _read(path)
        if (header.pairs.get(_NUMBER), header.pairs.get(_COUNT)) != (number, len(paths)):
            what = f"says that it is file {printable(header.pairs.get(_NUMBER), 40)} of its set, its name says {number}"
            raise CheckpointError(f"{what} (counted from 0)", file=path, hint="download the set again")
        pairs, files[path.name] = pairs or header.pairs, file
        for tensor in header.tensors.values():
            if tensor.name in tensors:
                what = f"stored twice: in {printable(tensors[tensor.name][0].path.name)} too"
                raise CheckpointError(what, file=path, tensor=tensor.name)
            tensors[tensor.name] = file, tensor
    total = pairs.get(_TENSORS, len(tensors))
    if total != len(tensors):
        what = f"its set holds {counted(len(tensors), 'tensor')}, and says {printable(total, 40)}"
        raise CheckpointError(what, file=paths[0], hint="download the set again")
    return GgufModel(files, pairs, tensors)
