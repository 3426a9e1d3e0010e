"""Repairs of tensors that need no other weights: scales in their own convention, codes in order."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.findings.finding import Observation
from studio.core.findings.folder import pieces_of
from studio.core.findings.modules import Module
from studio.core.findings.repairs.draft import Draft, Form
from studio.core.findings.scales import VALUES, numbers_of
from studio.core.layouts import LAYOUTS
from studio.core.model import Stored
from studio.core.sources.in_format import Convention, multiplier_of

_MOST_EXPONENTS = 16
"""Scales of a matrix in E8M0 differ by a factor of 2**16 at most, as a rule; those in E4M3 are some 60 numbers."""

_NOT_A_NUMBER = 0x7F


def converted(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Tensor scales in the convention of their layout; `told` is the one that they are in, "" where two may be."""
    modules = {module.third.tensor.name: module for module in draft.folder.modules.values() if module.third}
    for one in seen:
        module = modules.get(one.where)
        meaning = next((known for known in get_args(Convention) if known == one.told), None)
        if module and module.third and meaning and draft.is_whole(module.third.file.path.name):
            draft.tensors[one.where] = partial(_in_layout, module, module.third, meaning)
            yield one


def _in_layout(module: Module, third: Stored, meaning: Convention) -> Iterator[bytes]:
    stored = np.frombuffer(third.file.read(third.tensor.start, third.tensor.nbytes), np.float32)
    store = LAYOUTS[module.layout].store_scale
    yield np.array([store(multiplier_of(float(value), meaning)) for value in stored], np.float32).tobytes()


def formed(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Tensor scales in float32, one for a matrix; not where several for one matrix are not the same."""
    modules = {module.third.tensor.name: module for module in draft.folder.modules.values() if module.third}
    for one in seen:
        module = modules.get(one.where)
        if module is None or module.third is None or not draft.is_whole(module.third.file.path.name):
            continue
        tensor, numbers = module.third.tensor, numbers_of(module.third)
        shape = tensor.shape
        if one.told != "F32":
            if module.stack or not tensor.nbytes or (numbers != numbers[0]).any():
                continue
            numbers, shape = numbers[:1], (1,) if module.layout == "compressed-tensors" else ()
        raw = numbers.astype(np.float32).tobytes()
        draft.put(Form(tensor.name, "F32", shape), partial(_only, raw), tensor.name)
        yield one


def _only(raw: bytes) -> Iterator[bytes]:
    yield raw


def relabelled(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Block scales as bytes of E4M3 under the dtype that readers take, where they are that, or exactly such numbers."""
    for one in seen:
        stored = draft.folder.stored.get(one.where)
        if stored is None or not draft.is_whole(stored.file.path.name):
            continue
        form = Form(one.where, one.told, stored.tensor.shape)
        if stored.tensor.dtype in WEIGHT_DTYPES:
            if all(bytes_of_e4m3(piece, stored.tensor.dtype) is not None for piece in pieces_of(stored)):
                draft.put(form, partial(_narrowed, stored), one.where)
                yield one
        elif stored.tensor.nbytes == form.nbytes and _is_e4m3(stored):
            draft.put(form, partial(pieces_of, stored), one.where)
            yield one


def _is_e4m3(stored: Stored) -> bool:
    """False for bytes that may well be exponents alone: of these there are few that differ."""
    labelled = stored.tensor.dtype != "F8_E8M0"
    return labelled or np.unique(np.frombuffer(next(pieces_of(stored), b""), np.uint8)).size > _MOST_EXPONENTS


def bytes_of_e4m3(piece: bytes | bytearray, dtype: str) -> NDArray[np.uint8] | None:
    """The bytes of E4M3 that stand for these numbers; None where some have none."""
    numbers = np.frombuffer(piece, WEIGHT_DTYPES[dtype]).astype(np.float32)
    places = np.searchsorted(VALUES[:_NOT_A_NUMBER], numbers).clip(0, _NOT_A_NUMBER - 1)
    return places.astype(np.uint8) if np.array_equal(VALUES[places], numbers) else None


def _narrowed(stored: Stored) -> Iterator[bytes]:
    for piece in pieces_of(stored):
        found = bytes_of_e4m3(piece, stored.tensor.dtype)
        yield b"" if found is None else found.tobytes()


def once(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Of tensors that several files hold the one that the index names, or, where all are the same, the first."""
    for one in seen:
        kept = draft.folder.stored[one.where]
        files = [name for name, header in draft.folder.headers.items() if one.where in header.tensors]
        copies = [Stored(draft.folder.files[name], draft.folder.headers[name].tensors[one.where]) for name in files]
        named = (draft.folder.weight_map or {}).get(one.where) in files
        if all(map(draft.is_whole, files)) and (named or all(_is_same(kept, other) for other in copies)):
            draft.gone |= {(name, one.where) for name in files if name != kept.file.path.name}
            yield one


def _is_same(a: Stored, b: Stored) -> bool:
    if (a.tensor.dtype, a.tensor.shape) != (b.tensor.dtype, b.tensor.shape):
        return False
    return all(mine == theirs for mine, theirs in zip(pieces_of(a), pieces_of(b), strict=True))


def reciprocal(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Input scales the other way round, where that makes sense of them."""
    for one in seen:
        stored = draft.folder.stored[one.where]
        if one.told == "reciprocal" and draft.is_whole(stored.file.path.name):
            draft.tensors[one.where] = partial(_only, (1 / numbers_of(stored)).astype(np.float32).tobytes())
            yield one


def agreed(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Of what runtimes join the input scale for the largest inputs."""
    for one in seen:
        modules = [draft.folder.modules[name] for name in draft.folder.joined[one.where]]
        stored = [module.inputs for module in modules if module.inputs is not None]
        if len(stored) < len(modules) or not all(draft.is_whole(part.file.path.name) for part in stored):
            continue
        numbers = [float(numbers_of(part)[0]) for part in stored]
        wanted = min(numbers) if modules[0].meaning == "divisor" else max(numbers)
        for part in stored:
            raw = np.full(part.tensor.nbytes // 4, wanted, np.float32).tobytes()
            draft.tensors[part.tensor.name] = partial(_only, raw)
        yield one


def swapped(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The two codes of every byte the other way round; a source has told that this is right."""
    for one in seen if draft.source else ():
        module = draft.folder.modules.get(one.where)
        if module and module.is_nvfp4 and draft.is_whole(module.codes.file.path.name):
            draft.tensors[module.codes.tensor.name] = partial(_swapped, module.codes)
            yield one


def _swapped(codes: Stored) -> Iterator[bytes]:
    for piece in pieces_of(codes):
        pairs = np.frombuffer(piece, np.uint8)
        yield (pairs << 4 | pairs >> 4).tobytes()
