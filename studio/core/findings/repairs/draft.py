"""Draft: what of a folder is to be written otherwise than it is."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.core.containers.dtypes import BITS
from studio.core.findings.claims import Claim, claims_of
from studio.core.findings.finding import Examination, Observation
from studio.core.findings.folder import Folder
from studio.core.findings.modules import Module
from studio.core.model import Model
from studio.core.planning.plan import Choice
from studio.core.sources.declared import BESIDE, KEYS, sections

Pieces = Callable[[], Iterator[bytes | bytearray]]
"""The bytes of a tensor or a file, piece by piece, in order."""

TORCH = ("compressed-tensors", "modelopt")
"""Layouts with an exclusion list."""


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor of the copy: its name, dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Target:
    """Where the parts of a matrix go in its module: from which row on, and which of its tensor scales it has.

    codes, scales, third: the forms that they have then, whatever is stored now.
    """

    module: Module
    row: int
    place: int
    codes: Form
    scales: Form
    third: Form | None

    @property
    def parts(self) -> list[Form]:
        """All of them."""
        return [part for part in (self.codes, self.scales, self.third) if part is not None]


@dataclass(eq=False)
class Draft:
    """A copy of `folder` to be, and what was found of it; repairs edit what is below.

    config, beside: content of config.json and hf_quant_config.json. tensors, forms: new bytes, and new dtypes and
    shapes, by name. more: tensors that files gain. gone: (file, tensor) that are left out. metadata: that of a file's
    header, by file. anew: documents that are written from what is there: "index", "sums". added: files that come from
    the source. choices: layers of the source that are quantized again, by name. targets: where their matrices go, by
    name. without: what is left out.
    """

    folder: Folder
    found: Examination
    source: Model | None = None
    config: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Pieces] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    more: dict[str, list[Form]] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)
    added: dict[str, Path] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.config = copy.deepcopy(self.folder.config)
        self.beside = copy.deepcopy(self.folder.beside)

    def shows(self, *kinds: str) -> bool:
        """True when a finding of one of these kinds was made."""
        return any(kind in self.found.observed for kind in kinds)

    def seen(self, kind: str) -> tuple[Observation, ...]:
        """The observations of a kind."""
        return self.found.observed.get(kind, ())

    def is_whole(self, file: str) -> bool:
        """False for a file whose bytes are not those that SHA256SUMS lists: what is wrong with it is not known."""
        return file not in {one.where for one in self.seen("digest")}

    def contents(self, file: str) -> list[Form]:
        """The tensors of a file of the copy, in order."""
        header = self.folder.headers[file]
        kept = [tensor for tensor in header.tensors.values() if (file, tensor.name) not in self.gone]
        found = [self.forms.get(tensor.name, Form(tensor.name, tensor.dtype, tensor.shape)) for tensor in kept]
        return [*found, *self.more.get(file, ())]

    def put(self, form: Form, pieces: Pieces, beside: str) -> None:
        """Store these bytes under a name; a new one in the file that holds `beside`."""
        stored = self.folder.stored.get(form.name)
        self.tensors[form.name] = pieces
        if stored is None:
            self.more.setdefault(self.folder.stored[beside].file.path.name, []).append(form)
        elif (form.dtype, form.shape) != (stored.tensor.dtype, stored.tensor.shape):
            self.forms[form.name] = form

    def sections(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What describes a quantization now, by place, to be edited; see `studio.core.sources.declared.sections`."""
        places = [("", self.config), *((f"{key}.", value) for key, value in self.config.items())]
        for place, content in places:
            for key in KEYS if isinstance(content, dict) else ():
                if isinstance(content.get(key), dict) and content[key]:
                    yield place + key, content[key]
        if isinstance(self.beside.get("quantization"), dict):
            yield BESIDE, self.beside["quantization"]

    def claims(self) -> tuple[Claim, ...]:
        """What the sections claim as they are now."""
        return claims_of(sections(self.config, {BESIDE: self.beside, **self.folder.older}))

    def drop_sections(self) -> None:
        """Take out all that describes a quantization."""
        for content in [self.config, *(value for value in self.config.values() if isinstance(value, dict))]:
            for key in KEYS:
                content.pop(key, None)
        self.beside = {}
        self.without |= self.folder.older.keys()
