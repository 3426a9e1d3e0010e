"""Repairs that need the weights of the source: layers quantized again, with all that runtimes join with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized, Recipe, recipe
from studio.core.containers.dtypes import BITS
from studio.core.containers.files import SourceFile
from studio.core.events import Event, LayerDone
from studio.core.exporting.contents import MANIFEST
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import chunks
from studio.core.exporting.shard_writer import agreed_scale
from studio.core.exporting.writing import StagedFile
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.modules import CONVENTIONS, Module
from studio.core.findings.repairs.draft import TORCH, Draft, Form, Target
from studio.core.findings.schemes import EIGHT_BITS
from studio.core.findings.source import Owned, agrees, owners
from studio.core.layouts import LAYOUTS
from studio.core.model import Layer, Matrix, Stored
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.pipeline import run
from studio.core.running.reading import Slab

METHOD = "search"
"""The best method that needs no statistics."""

_DTYPES = {"modelopt": ("U8", "F8_E4M3"), "compressed-tensors": ("U8", "F8_E4M3"), "mlx": ("U32", "U8")}
"""Of codes and of block scales."""

_FOUR = 4
"""Bits that a config claims that asks for NVFP4."""

_SCALED_COLUMNS = ".pre_quant_scale"
"""What AWQ and others multiply inputs with: their packed weights are not those of the source."""


def requantized(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Layers of a source that was shown to be the one, in the parts that are stored."""
    if draft.source is None or not _is_made_from(draft):
        return
    theirs = owners(draft.source)
    modules = {item.tensor.name: name for name, module in draft.folder.modules.items() for item in _parts(module)}
    for one in seen:
        name = modules.get(one.where, one.where)
        names = draft.folder.joined.get(name, (name,)) if _is_torch(draft.folder, name) else (name,)
        found = [_chosen(draft, member, theirs) for member in names if member in draft.folder.modules]
        if found and all(found):
            for choices, targets in filter(None, found):
                draft.choices |= {choice.layer.name: choice for choice in choices}
                draft.targets |= targets
                draft.gone |= set(_left(targets))
            yield one


def _left(targets: Mapping[str, Target]) -> Iterator[tuple[str, str]]:
    """(file, tensor) of what is stored of modules and has no place in their new forms."""
    for target in targets.values():
        named = {part.name for part in target.parts}
        for part in _parts(target.module):
            if part.tensor.name not in named:
                yield part.file.path.name, part.tensor.name


def _is_torch(folder: Folder, name: str) -> bool:
    return name in folder.modules and folder.modules[name].layout != "mlx"


def _is_made_from(draft: Draft) -> bool:
    """True when layers decode to the weights of the source, none to others, and none is scaled in another way."""
    if draft.source is None or draft.shows("source-unlike") or _differ_mostly(draft):
        return False
    if not agrees(draft.folder, draft.source):
        return False
    if any(name.endswith(_SCALED_COLUMNS) for name in draft.folder.stored):
        return False
    ours = (draft.folder.place / MANIFEST).is_file()
    return not ours or not any(entry.result.lift for entry in Manifest(draft.folder.place).entries())


def _differ_mostly(draft: Draft) -> bool:
    """True where it is not some layers that are not those of the source."""
    return 2 * len(draft.seen("differs-from-source")) > len(draft.folder.packed)


def _chosen(draft: Draft, name: str, theirs: Mapping[str, Owned]) -> tuple[list[Choice], dict[str, Target]] | None:
    """The layers of the source that a module is made of, and where their matrices go; None where they do not fit."""
    module, layer = draft.folder.modules[name], draft.folder.by_name.get(name)
    if not all(draft.is_whole(x.file.path.name) for x in _parts(module)):
        return None
    if layer is None or not _fits(module, layer):
        return _rebuilt(draft, module, theirs)
    codes, scales, third = map(_form, _places(module))
    if codes is None or scales is None:
        return None
    targets = {
        m.name: Target(module, m.first // m.columns, place, codes, scales, third)
        for place, m in enumerate(layer.matrices)
    }
    sources = [theirs.get(matrix.name) for matrix in layer.matrices]
    sizes = [owned and (owned[1].rows, owned[1].columns) for owned in sources]
    layers = {owned[0].name: owned[0] for owned in sources if owned}
    whole = all(matrix.name in targets for one in layers.values() for matrix in one.matrices)
    if not whole or sizes != [(matrix.rows, matrix.columns) for matrix in layer.matrices]:
        return None
    return [Choice(one, _how(module)) for one in layers.values()], targets


def _form(part: Stored | None) -> Form | None:
    return Form(part.tensor.name, part.tensor.dtype, part.tensor.shape) if part else None


def _how(module: Module) -> Recipe:
    return recipe("nvfp4-3t" if module.third or module.layout != "mlx" else "nvfp4-2t", method=METHOD)


def _rebuilt(
    draft: Draft, stored: Module, theirs: Mapping[str, Owned]
) -> tuple[list[Choice], dict[str, Target]] | None:
    """A module of one matrix, all parts of which are written anew in the forms that they should have."""
    owned, module = theirs.get(stored.name), _claimed(draft, stored)
    row = next((row for row in CONVENTIONS if row.layout == module.layout and row.third), None)
    if owned is None or row is None or len(owned[0].matrices) != 1 or owned[1].columns % 16:
        return None
    (layer, matrix), dtypes = owned, _DTYPES.get(module.layout)
    if dtypes is None or (module.layout == "mlx" and module.third):
        return None
    if module is stored and module.codes.tensor.dtype != dtypes[0]:
        return None
    codes = Form(f"{module.name}.{row.codes}", dtypes[0], (matrix.rows, matrix.columns * 4 // BITS[dtypes[0]]))
    scales = Form(f"{module.name}.{row.scales[0]}", dtypes[1], (matrix.rows, matrix.columns // 16))
    shape = (1,) if module.layout == "compressed-tensors" else ()
    third = Form(f"{module.name}.{row.third}", "F32", shape) if module.layout != "mlx" else None
    return [Choice(layer, _how(module))], {matrix.name: Target(module, 0, 0, codes, scales, third)}


def _claimed(draft: Draft, module: Module) -> Module:
    """A module of eight bits as what the config says that it is, in the layout that it names; others as they are."""
    layouts = {claim.layout for claim in draft.claims() if claim.bits == _FOUR and claim.layout in TORCH}
    said = any(one.where == module.name for one in draft.seen("claims-other-bits"))
    if module.layout not in EIGHT_BITS or not said or len(layouts) != 1:
        return module
    return replace(module, layout=layouts.pop(), third=None)


def _fits(module: Module, layer: Layer) -> bool:
    """True when the parts that are stored are those of the matrices of a layer, one after the other."""
    if not module.is_nvfp4 or module.scales is None or not layer.matrices:
        return False
    rows, count = sum(matrix.rows for matrix in layer.matrices), layer.count
    whole = rows == module.rows and all(matrix.is_contiguous for matrix in layer.matrices)
    third = (module.third.tensor.dtype, module.third.tensor.nbytes) if module.third else None
    sizes = (module.codes.tensor.nbytes, module.scales.tensor.nbytes)
    return whole and sizes == (count // 2, count // 16) and third in (None, ("F32", 4 * len(layer.matrices)))


def _places(module: Module) -> tuple[Stored, Stored | None, Stored | None]:
    return module.codes, module.scales, module.third


def _parts(module: Module) -> list[Stored]:
    return [part for part in _places(module) if part is not None]


class _Scratch(Sink):
    """Codes, block scales and tensor scales of modules, one after the other in a file."""

    def __init__(self, targets: Mapping[str, Target], file: StagedFile) -> None:
        self._targets, self._file = targets, file
        self._layout = LAYOUTS[next(iter(targets.values())).module.layout]  # a folder has one
        self.starts = starts_of(targets)

    def agreed_scale(self, g: float) -> float:
        """See `Sink.agreed_scale`."""
        return agreed_scale(self._layout, g)

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """See `Sink.write_slab`."""
        target = self._targets[slab.matrix.name]
        first = (target.row + slab.start) * slab.matrix.columns
        self._write(target.codes, first // 2, quantized.codes)
        self._write(target.scales, first // 16, quantized.scales)

    def write_scale(self, choice: Choice, matrix: Matrix, g: float) -> None:
        """See `Sink.write_scale`."""
        target = self._targets[matrix.name]
        if target.third:
            stored = np.array([self._layout.store_scale(g)], np.float32)
            self._write(target.third, 4 * target.place, stored)

    def _write(self, part: Form, offset: int, array: NDArray[np.generic]) -> None:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._file.write(raw.data, self.starts[part.name] + offset)


def _stored(targets: Mapping[str, Target]) -> list[Form]:
    """The parts of the modules, each once."""
    modules = {target.module.name: target for target in targets.values()}
    return [part for target in modules.values() for part in target.parts]


def starts_of(targets: Mapping[str, Target]) -> dict[str, int]:
    """Where the parts of modules begin when they are stored one after the other."""
    starts, position = {}, 0
    for part in _stored(targets):
        starts[part.name] = position
        position += part.nbytes
    return starts


def nbytes_of(draft: Draft) -> int:
    """Bytes of what is quantized again."""
    return sum(part.nbytes for part in _stored(draft.targets))


def quantize_again(engine: Engine, draft: Draft, scratch: Path) -> Iterator[Event]:
    """Quantize the chosen layers into a new file; after it the draft takes the bytes of their tensors from there."""
    with StagedFile(scratch, nbytes_of(draft)) as file:
        sink = _Scratch(draft.targets, file)
        done = run(engine, list(draft.choices.values()), sink)
        yield from (event for event in done if not isinstance(event, LayerDone))
    written = SourceFile(scratch)
    for target in draft.targets.values():
        for part in target.parts:
            beside = target.module.codes.tensor.name
            draft.put(part, partial(_read, written, sink.starts[part.name], part.nbytes), beside)


def _read(file: SourceFile, start: int, nbytes: int) -> Iterator[bytearray]:
    for offset, count in chunks(nbytes):
        yield file.read(start + offset, count)
