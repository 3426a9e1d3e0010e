"""Repairs that need the weights of the source: layers quantized again, with all that runtimes join with them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized, recipe
from studio.core.containers.files import SourceFile
from studio.core.events import Event, LayerDone
from studio.core.exporting.contents import MANIFEST
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import chunks
from studio.core.exporting.shard_writer import agreed_scale
from studio.core.exporting.writing import StagedFile
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.modules import Module
from studio.core.findings.repairs.draft import Draft
from studio.core.findings.source import agrees
from studio.core.layouts import LAYOUTS
from studio.core.model import Layer, Matrix, Stored
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.pipeline import run
from studio.core.running.reading import Slab

METHOD = "search"
"""The best method that needs no statistics."""

_SCALED_COLUMNS = ".pre_quant_scale"
"""What AWQ and others multiply inputs with: their packed weights are not those of the source."""


def requantized(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Layers of a source that was shown to be the one, in the parts that are stored."""
    if draft.source is None or not _is_made_from(draft):
        return
    chosen: dict[str, Choice] = {choice.layer.name: choice for choice in draft.choices}
    owners = {item.tensor.name: name for name, module in draft.folder.modules.items() for item in _parts(module)}
    for one in seen:
        name = owners.get(one.where, one.where)
        names = draft.folder.joined.get(name, (name,)) if _is_torch(draft.folder, name) else (name,)
        found = [_choice(draft, member) for member in names if member in draft.folder.modules]
        if found and all(found):
            chosen |= {choice.layer.name: choice for choice in found if choice}
            yield one
    draft.choices = list(chosen.values())


def _is_torch(folder: Folder, name: str) -> bool:
    return name in folder.modules and folder.modules[name].layout != "mlx"


def _is_made_from(draft: Draft) -> bool:
    """True when layers decode to the weights of the source, none to others, and none is scaled in another way."""
    if draft.source is None or draft.shows("source-unlike", "differs-from-source"):
        return False
    if not agrees(draft.folder, draft.source):
        return False
    if any(name.endswith(_SCALED_COLUMNS) for name in draft.folder.stored):
        return False
    ours = (draft.folder.place / MANIFEST).is_file()
    return not ours or not any(entry.result.lift for entry in Manifest(draft.folder.place).entries())


def _choice(draft: Draft, name: str) -> Choice | None:
    module, layer = draft.folder.modules[name], draft.source and draft.source.by_name.get(name)
    if not layer or not _fits(module, layer) or not all(draft.is_whole(x.file.path.name) for x in _parts(module)):
        return None
    return Choice(layer, recipe("nvfp4-3t" if module.third else "nvfp4-2t", method=METHOD))


def _fits(module: Module, layer: Layer) -> bool:
    """True when the parts that are stored are those of the one matrix of a layer."""
    if not module.is_nvfp4 or module.scales is None or len(layer.matrices) != 1 or len(module.codes.tensor.shape) != 2:
        return False
    count = layer.matrices[0].rows * layer.matrices[0].columns
    sizes = (module.codes.tensor.nbytes, module.scales.tensor.nbytes, module.rows)
    third = (module.third.tensor.dtype, module.third.tensor.nbytes) if module.third else ("F32", 4)
    return sizes == (count // 2, count // 16, layer.matrices[0].rows) and third == ("F32", 4)


def _parts(module: Module) -> list[Stored]:
    return [part for part in (module.codes, module.scales, module.third) if part is not None]


class _Scratch(Sink):
    """Codes, block scales and tensor scales of modules, one after the other in a file."""

    def __init__(self, modules: Sequence[Module], file: StagedFile) -> None:
        self._modules = {module.name: module for module in modules}
        self._file = file
        self.starts = starts_of(modules)

    def agreed_scale(self, g: float) -> float:
        """See `Sink.agreed_scale`: modules of a folder have one layout."""
        return agreed_scale(LAYOUTS[next(iter(self._modules.values())).layout], g)

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """See `Sink.write_slab`."""
        module = self._modules[slab.layer.name]
        self._write(module.codes, slab.start * slab.matrix.columns // 2, quantized.codes)
        if module.scales:
            self._write(module.scales, slab.start * slab.matrix.columns // 16, quantized.scales)

    def write_scale(self, choice: Choice, matrix: Matrix, g: float) -> None:
        """See `Sink.write_scale`."""
        module = self._modules[choice.layer.name]
        if module.third:
            self._write(module.third, 0, np.array([LAYOUTS[module.layout].store_scale(g)], np.float32))

    def _write(self, part: Stored, offset: int, array: NDArray[np.generic]) -> None:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._file.write(raw.data, self.starts[part.tensor.name] + offset)


def starts_of(modules: Sequence[Module]) -> dict[str, int]:
    """Where the parts of modules begin when they are stored one after the other."""
    starts, position = {}, 0
    for module in modules:
        for part in _parts(module):
            starts[part.tensor.name] = position
            position += part.tensor.nbytes
    return starts


def nbytes_of(draft: Draft) -> int:
    """Bytes of what is quantized again."""
    modules = [draft.folder.modules[choice.layer.name] for choice in draft.choices]
    return sum(part.tensor.nbytes for module in modules for part in _parts(module))


def quantize_again(engine: Engine, draft: Draft, scratch: Path) -> Iterator[Event]:
    """Quantize the chosen layers into a new file; after it the draft takes the bytes of their tensors from there."""
    modules = [draft.folder.modules[choice.layer.name] for choice in draft.choices]
    with StagedFile(scratch, nbytes_of(draft)) as file:
        sink = _Scratch(modules, file)
        yield from (event for event in run(engine, draft.choices, sink) if not isinstance(event, LayerDone))
    written = SourceFile(scratch)
    for part in (part for module in modules for part in _parts(module)):
        draft.tensors[part.tensor.name] = partial(_read, written, sink.starts[part.tensor.name], part.tensor.nbytes)


def _read(file: SourceFile, start: int, nbytes: int) -> Iterator[bytearray]:
    for offset, count in chunks(nbytes):
        yield file.read(start + offset, count)
