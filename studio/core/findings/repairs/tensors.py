"""Repairs of tensors that need no other weights: scales in their own convention, codes in order."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import get_args

import numpy as np

from studio.core.findings.finding import Observation
from studio.core.findings.folder import pieces_of
from studio.core.findings.modules import Module
from studio.core.findings.repairs.draft import Draft
from studio.core.layouts import LAYOUTS
from studio.core.model import Stored
from studio.core.sources.in_format import Convention, multiplier_of


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
