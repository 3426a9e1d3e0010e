"""Folder: what can be known of a checkpoint without its weights, also when parts of it are missing or broken."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from studio.core.architectures import Family, base_name, family_of
from studio.core.architectures.generic import GENERIC
from studio.core.containers.files import SourceFile
from studio.core.containers.links import check_link, in_snapshot
from studio.core.containers.safetensors import Header, read_header
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.findings.finding import Observation
from studio.core.findings.modules import Module, modules_of
from studio.core.model import Layer, Model, Stored
from studio.core.names import is_plain_name
from studio.core.opening.checkpoint import open_model
from studio.core.opening.configs import LARGEST_CONFIG
from studio.core.opening.grouping import layers_of, shapes_of
from studio.core.opening.matrices import stored_input_first
from studio.core.sources.declared import BESIDE, FILES, Section, sections
from studio.core.sources.recognition import Recognized, recognize

CONFIG = "config.json"
_PIECE = 1 << 20
_PLAIN_BITS = 16
_SUFFIX, _INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"


@dataclass(eq=False)
class Folder:
    """A folder, or one file of it, as far as it can be read.

    files, headers: of the weights, by name. weight_map: tensor -> file by the index, None without a usable one. seen:
    what was wrong while this was read. told: what opening it as a model tells. config and beside: the content of
    config.json and hf_quant_config.json. older: that of the files in which older programs say how they quantized, by
    name. model: a GGUF model, opened, whose metadata tell the config.
    """

    path: Path
    place: Path
    config: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    older: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, SourceFile] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    index: Path | None = None
    weight_map: dict[str, str] | None = None
    total_size: int | None = None
    missing: tuple[str, ...] = ()
    seen: list[Observation] = field(default_factory=list)
    told: tuple[Observation, ...] = ()
    model: Model | None = None

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """Every tensor, in the file that counts for it."""
        found: dict[str, Stored] = {}
        for name, header in self.headers.items():
            file = self.files[name]
            for tensor in header.tensors.values():
                if tensor.name not in found or (self.weight_map or {}).get(tensor.name) == name:
                    found[tensor.name] = Stored(file, tensor)
        return found

    @cached_property
    def family(self) -> Family:
        """The row of the table of architectures."""
        return family_of(self.config) if self.config else GENERIC

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """What its documents say of a quantization."""
        return sections(self.config, {BESIDE: self.beside, **self.older})

    @cached_property
    def recognized(self) -> Recognized:
        """Which tensors are codes, and how they are read."""
        turned = partial(stored_input_first, self.family, self.config, shapes_of(self.stored))
        return recognize(self.stored, self.sections, turned)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All weights with their roles; none where two can not be told apart."""
        if self.model:
            return self.model.layers
        try:
            return layers_of(self.stored, self.config, self.family, self.recognized, [])
        except CheckpointError:
            return ()

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def joined(self) -> dict[str, tuple[str, ...]]:
        """Layer -> the layers that runtimes join with it, itself included, in file order."""
        groups: dict[str, list[str]] = defaultdict(list)
        for layer in self.layers:
            if layer.group:
                groups[layer.group].append(layer.name)
        return {name: tuple(names) for names in groups.values() for name in names}

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Modules with codes, by name, whether or not their parts fit."""
        return modules_of(self.stored)

    @cached_property
    def packed(self) -> frozenset[str]:
        """Names of the layers that are stored as codes."""
        if self.model:
            return frozenset(layer.name for layer in self.layers if layer.source.bits < _PLAIN_BITS)
        names = (
            self.recognized.weights.get(name, name) for name in (*self.recognized.sources, *self.recognized.unread)
        )
        return frozenset([*map(base_name, names), *self.modules])

    @cached_property
    def parts(self) -> frozenset[str]:
        """Names of the tensors that codes are made of, and of their scales."""
        own = (module.parts for module in self.modules.values())
        return frozenset((*self.recognized.sources, *self.recognized.scales, *chain.from_iterable(own)))

    @property
    def is_gguf(self) -> bool:
        """True for GGUF, which says in itself what config and tokenizer say elsewhere."""
        if not self.path.is_dir():
            return self.path.suffix == ".gguf"
        return not self.files and not self.seen and next(self.path.glob("*.gguf"), None) is not None

    @cached_property
    def is_cut(self) -> bool:
        """True where files or tensors are known to be missing: what they held is missed elsewhere, too."""
        unread = any(one.kind == "shard-unreadable" for one in self.seen)
        return bool(self.missing) or unread or any(name not in self.stored for name in self.weight_map or ())

    def close(self) -> None:
        """Close all files, and let go of all that is known of tensors: there may be many."""
        for file in self.files.values():
            file.close()
        if self.model:
            self.model.close()
        self.headers.clear()
        for name in [name for name in self.__dict__ if isinstance(getattr(Folder, name, None), cached_property)]:
            del self.__dict__[name]


def pieces_of(stored: Stored) -> Iterator[bytearray]:
    """The bytes of a tensor, piece by piece."""
    for offset in range(0, stored.tensor.nbytes, _PIECE):
        yield stored.file.read(stored.tensor.start + offset, min(_PIECE, stored.tensor.nbytes - offset))


def open_broken(path: Path) -> Folder:
    """What there is at `path`. Raises CheckpointError only when there is nothing that could be a checkpoint."""
    if not path.exists():
        raise CheckpointError("there is no such file or folder", file=path, hint="check the spelling of the path")
    there = in_snapshot(path)
    told = tuple(refusal_of(there))  # before anything else is known: a model of many tensors is large, too
    folder = Folder(there, there if there.is_dir() else there.parent, told=told)
    folder.config = _document(folder, CONFIG)
    folder.beside = _document(folder, BESIDE)
    folder.older = {name: _document(folder, name) for name in FILES if name != BESIDE}
    if there.is_dir():
        _read_index(folder)
    for name in _names(folder):
        _read_shard(folder, name)
    folder.missing = tuple(name for name in _wanted(folder) if name not in folder.files)
    if folder.is_gguf and not any(one.kind == "refused" for one in told):
        folder.model = open_model(there)
        folder.config = folder.model.config
    return folder


def refusal_of(path: Path) -> Iterator[Observation]:
    """Why it can not be opened as a model, or what opening it tells."""
    try:
        with open_model(path) as model:
            yield from (Observation("told-on-opening", evidence=text) for text in model.warnings)
    except CheckpointError as error:
        yield Observation("refused", error.tensor or "", f"{error}; {error.hint}" if error.hint else str(error))


def _document(folder: Folder, name: str) -> dict[str, Any]:
    path = folder.place / name
    try:
        if not path.exists() and not path.is_symlink():
            return {}
        check_link(path, folder.place)
        return read_object(path, LARGEST_CONFIG, constants=True)
    except (CheckpointError, OSError) as error:
        kind = "config-unreadable" if name == CONFIG else "document-unreadable"
        folder.seen.append(Observation(kind, name, str(error)))
        return {}


def _read_index(folder: Folder) -> None:
    indexes = sorted(
        folder.place.glob(f"*{_INDEX_SUFFIX}"), key=lambda path: (path.name != f"model{_INDEX_SUFFIX}", path)
    )
    if not indexes:
        return
    folder.index = indexes[0]
    try:
        check_link(indexes[0], folder.place)
        content = read_object(indexes[0], constants=True)
    except CheckpointError as error:
        folder.seen.append(Observation("index-unreadable", indexes[0].name, str(error)))
        return
    found, about = content.get("weight_map"), content.get("metadata")
    if not isinstance(found, dict) or not all(isinstance(name, str) and is_plain_name(name) for name in found.values()):
        what = "weight_map does not map tensors to file names"
        folder.seen.append(Observation("index-unreadable", indexes[0].name, what))
        return
    folder.weight_map = found
    size = about.get("total_size") if isinstance(about, dict) else None
    folder.total_size = size if isinstance(size, int) else None


def _names(folder: Folder) -> list[str]:
    """The files of weights that are here and belong together as far as that can be told."""
    if not folder.path.is_dir():
        return [] if folder.is_gguf else [folder.path.name]
    there = sorted(entry.name for entry in folder.place.iterdir() if entry.name.endswith(_SUFFIX))
    if folder.weight_map is not None:
        return sorted(set(folder.weight_map.values()) & set(there))
    return ["model.safetensors"] if "model.safetensors" in there else there


def _wanted(folder: Folder) -> list[str]:
    """The files that the index, or the numbers in names, ask for."""
    if folder.weight_map is not None:
        here = {observation.where for observation in folder.seen}
        return sorted(set(folder.weight_map.values()) - here)
    first = next(iter(folder.files), "")
    stem, _, count = first.removesuffix(_SUFFIX).rpartition("-of-")
    if not (count.isdecimal() and len(count) < 7):
        return []
    prefix = stem.rpartition("-")[0]
    broken = {observation.where for observation in folder.seen}
    numbers = range(1, min(int(count), 100_000) + 1)
    names = (f"{prefix}-{number:0{len(count)}d}-of-{count}{_SUFFIX}" for number in numbers)
    return [name for name in names if name not in broken]


def _read_shard(folder: Folder, name: str) -> None:
    path = folder.place / name
    try:
        check_link(path, folder.place)
        file = SourceFile(path)
        folder.headers[name] = read_header(file)
        folder.files[name] = file
    except CheckpointError as error:
        place = f"tensor {error.tensor}: " if error.tensor else ""
        folder.seen.append(Observation("shard-unreadable", name, f"{place}{error.what}; {error.hint}".rstrip("; ")))
