"""Draft: what of a folder is to be written otherwise than it is."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.core.findings.claims import Claim, claims_of
from studio.core.findings.finding import Examination, Observation
from studio.core.findings.folder import Folder
from studio.core.model import Model
from studio.core.planning.plan import Choice
from studio.core.sources.declared import BESIDE, KEYS, sections

Pieces = Callable[[], Iterator[bytes | bytearray]]
"""The bytes of a tensor or a file, piece by piece, in order."""

TORCH = ("compressed-tensors", "modelopt")
"""Layouts with an exclusion list."""


@dataclass(eq=False)
class Draft:
    """A copy of `folder` to be, and what was found of it; repairs edit what is below.

    config, beside: content of config.json and hf_quant_config.json. tensors: new bytes, as many as the old ones, by
    name. metadata: that of a file's header, by file. anew: documents that are written from what is there: "index",
    "sums". added: files that come from the source. choices: layers of the source that are quantized again. without:
    what is left out.
    """

    folder: Folder
    found: Examination
    source: Model | None = None
    config: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Pieces] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)
    added: dict[str, Path] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
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
