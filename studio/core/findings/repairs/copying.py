"""Copying: a folder is written with what its draft changes, file by file, in little memory."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from studio.core.containers.files import SourceFile, read_small
from studio.core.containers.links import leads_out
from studio.core.containers.safetensors import Header, place
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import JOURNAL, MANIFEST, SUMS, read_sums, sums
from studio.core.exporting.readback import chunks
from studio.core.exporting.staging import Staging
from studio.core.findings.folder import CONFIG
from studio.core.findings.repairs.draft import Draft, Form
from studio.core.layouts.documents import json_document
from studio.core.names import is_plain_path, printable
from studio.core.sources.declared import BESIDE

_INDEX = "model.safetensors.index.json"
_LARGEST_SUMS = 64 << 20
_PASSING = re.compile(r"\..*|.*~|.*\.(tmp|partial|incomplete|lock|bak|swp)")
"""Names of hidden and temporary files and folders."""

Chunks = Iterable[bytes | bytearray]


@dataclass(frozen=True, slots=True)
class Written:
    """A file of the copy: its name, its size where that is known, its bytes, and whether they differ from the old."""

    name: str
    nbytes: int
    chunks: Callable[[], Chunks]
    changed: bool


@dataclass(slots=True)
class Copying:
    """The files of the copy of a draft, and what of the folder stays behind, with the reason."""

    draft: Draft
    left_out: list[str] = field(default_factory=list)

    def files(self) -> list[Written]:
        """All but SHA256SUMS; config.json, without which no runtime loads a folder, is the last."""
        written = [self._copied(name) for name in self._names()]
        written += [self._shard(name) for name in self.draft.folder.files]
        written += [Written(name, path.stat().st_size, _of(path), True) for name, path in self.draft.added.items()]
        return [*written, *self._documents()]

    @property
    def _index(self) -> str:
        return self.draft.folder.index.name if self.draft.folder.index else _INDEX

    @property
    def _renews_index(self) -> bool:
        """True where it would not be right any more, too; beside a single file there may be none."""
        draft = self.draft
        return "index" in draft.anew or bool(draft.folder.index and (draft.forms or draft.more or draft.gone))

    def _names(self) -> list[str]:
        """What is copied as it is."""
        folder = self.draft.folder
        own = {
            *folder.files,
            *self.draft.without,
            CONFIG,
            BESIDE,
            SUMS,
            JOURNAL,
            *self.draft.added,
            self._index if self._renews_index else "",
        }
        if (self.draft.tensors or self.draft.forms or self.draft.gone or self.draft.metadata) and (
            folder.place / MANIFEST
        ).is_file():
            own.add(MANIFEST)
            self.left_out.append(f"{MANIFEST}: it tells of other bytes")
        return [name for name in self._walk(folder.place, "") if name not in own]

    def _walk(self, place: Path, below: str) -> Iterator[str]:
        for path in sorted(place.iterdir()):
            name = below + path.name
            if why := self._obstacle(path, name):
                self.left_out.append(f"{printable(name)}: {why}")
            elif path.is_dir():
                yield from self._walk(path, f"{name}/")
            else:
                yield name

    def _obstacle(self, path: Path, name: str) -> str:
        if _PASSING.fullmatch(path.name):
            return "hidden or temporary"
        if not is_plain_path(name) or not name.isprintable():
            return "a name that not every system can store"
        try:
            if leads_out(path, self.draft.folder.place):
                return "a link that leads out of the folder"
            if path.is_dir():
                return "a link to a folder" if path.is_symlink() else ""
            SourceFile(path).close()
        except CheckpointError as error:
            return error.what
        return ""

    def _copied(self, name: str) -> Written:
        path = self.draft.folder.place / name
        return Written(name, path.stat().st_size, _of(path), False)

    def _shard(self, name: str) -> Written:
        draft, file = self.draft, self.draft.folder.files[name]
        header, forms = draft.folder.headers[name], draft.contents(name)
        before = [(tensor.name, tensor.dtype, tensor.shape) for tensor in header.tensors.values()]
        after = [(form.name, form.dtype, form.shape) for form in forms]
        is_same = after == before and name not in draft.metadata
        if is_same and not any(form.name in draft.tensors for form in forms):
            return Written(name, file.size, _of(file.path), False)
        start = min((tensor.start for tensor in header.tensors.values()), default=file.size)
        head = bytes(file.read(0, start)) if is_same else place(after, draft.metadata.get(name, header.metadata))[0]
        nbytes = len(head) + sum(form.nbytes for form in forms)
        return Written(name, nbytes, lambda: self._pieces(file, header, head, forms), True)

    def _pieces(
        self, file: SourceFile, header: Header, head: bytes, forms: Sequence[Form]
    ) -> Iterator[bytes | bytearray]:
        """A header, and the tensors in their order."""
        yield head
        for form in forms:
            if new := self.draft.tensors.get(form.name):
                yield from new()
            else:
                tensor = header.tensors[form.name]
                yield from (file.read(tensor.start + offset, count) for offset, count in chunks(tensor.nbytes))

    def _documents(self) -> Iterator[Written]:
        draft, folder = self.draft, self.draft.folder
        if self._renews_index:
            yield _whole(self._index, json_document(_weight_map(draft)))
        for name, content, before in ((BESIDE, draft.beside, folder.beside), (CONFIG, draft.config, folder.config)):
            if content != before and content:
                yield _whole(name, json_document(content))
            elif content == before and (folder.place / name).is_file():
                yield self._copied(name)


def _whole(name: str, content: bytes) -> Written:
    return Written(name, len(content), lambda: [content], True)


def _of(path: Path) -> Callable[[], Iterator[bytearray]]:
    def pieces() -> Iterator[bytearray]:
        with SourceFile(path) as file:
            yield from (file.read(*piece) for piece in chunks(file.size))

    return pieces


def _weight_map(draft: Draft) -> dict[str, object]:
    contents = {file: draft.contents(file) for file in draft.folder.headers}
    tensors = {form.name: file for file, forms in contents.items() for form in forms}
    total = sum(form.nbytes for forms in contents.values() for form in forms)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(tensors.items()))}


def write(draft: Draft, files: Iterable[Written], staging: Staging) -> Iterator[tuple[str, int]]:
    """Write the files and, where there was one, a list of digests; yields (file, bytes of a piece of it)."""
    digests: dict[str, str] = {}
    names = []
    for file in files:
        digest = sha256()
        pieces = staging.write_pieces(file.name, _hashed(file.chunks(), digest.update))
        yield from ((file.name, count) for count in pieces)
        names.append(file.name)
        if file.changed or "sums" in draft.anew:
            digests[file.name] = digest.hexdigest()
    before = _sums(draft)
    if before is not None:
        known = {name: value for name, value in before.items() if name in names}
        missing = {name: value for name, value in before.items() if not (draft.folder.place / name).exists()}
        staging.write_file(SUMS, [sums({**missing, **known, **digests})])


def _hashed(pieces: Chunks, update: Callable[[bytes | bytearray], None]) -> Iterator[bytes | bytearray]:
    for piece in pieces:
        update(piece)
        yield piece


def _sums(draft: Draft) -> dict[str, str] | None:
    """The digests that the folder lists: of files that stay as they are they stay, too, right or wrong."""
    path = draft.folder.place / SUMS
    if "sums" in draft.anew:
        return {}
    return read_sums(path, read_small(path, _LARGEST_SUMS)) if path.is_file() else None
