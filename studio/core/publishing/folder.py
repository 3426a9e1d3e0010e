"""The files of an export that a repository gets: those that its own list names, whole, and with their digests."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from studio.core.containers.files import SourceFile, read_small
from studio.core.errors import CheckpointError, ExportError, PlanError
from studio.core.exporting.contents import JOURNAL, MANIFEST, SUMS, contents, read_journal, sums
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import chunks
from studio.core.exporting.staging import SUFFIX
from studio.core.exporting.verification import expected_digests, strangers
from studio.core.names import printable
from studio.core.opening.checkpoint import open_model
from studio.core.opening.exports import exported
from studio.core.planning.described import formats_of, methods_of
from studio.core.publishing.card import check_base_model, hub_card
from studio.core.quality.results import Quality

CARD, CONFIG = "README.md", "config.json"
_LARGEST_CARD = 16 << 20
_OF_GIT = (".git", ".cache")
_AGAIN = "publish a folder that `verify` finds whole"


@dataclass(frozen=True)
class Upload:
    """A file as a repository gets it: its name, size and SHA-256; it lies at `path`, or is `content`."""

    name: str
    nbytes: int
    sha256: str
    path: Path | None = None
    content: bytes = b""

    @cached_property
    def blob(self) -> str:
        """The name that git gives these bytes. Raises CheckpointError when the file can not be read."""
        digest = hashlib.sha1(b"blob %d\0" % self.nbytes, usedforsecurity=False)
        for piece in self._pieces():
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self) -> Iterator[bytes | bytearray]:
        if self.path is None:
            yield self.content
            return
        with SourceFile(self.path) as file:
            yield from (file.read(*piece) for piece in chunks(file.size))


def uploads(folder: Path, base_model: str = "", quality: Quality | None = None) -> tuple[list[Upload], list[str]]:
    """The files of an export, weights first and config.json last, and a sentence for each that stays behind.

    The model card and the list of digests are those of the repository. Raises CheckpointError for what is not, or not
    any more, a finished export, and PlanError for a base model or an evaluation that does not belong to it.
    """
    check_base_model(base_model)
    try:
        digests = _checked(folder)
        left = strangers(folder, digests)
    except CheckpointError as error:
        error.hint = error.hint or _AGAIN
        raise
    card = _card(folder, base_model, quality)
    made = {CARD: card, SUMS: sums({**digests, CARD: hashlib.sha256(card).hexdigest()})}
    found = [_upload(folder, name, digest) for name, digest in digests.items() if name not in made]
    found += [Upload(name, len(data), hashlib.sha256(data).hexdigest(), content=data) for name, data in made.items()]
    return sorted(found, key=_turn), left


def _turn(upload: Upload) -> tuple[int, str]:
    last = {SUMS: 2, MANIFEST: 2, CONFIG: 3}.get(upload.name, 1)
    return 0 if upload.name.endswith(".safetensors") else last, upload.name


def _checked(folder: Path) -> Mapping[str, str]:
    """The digests of all files of a finished export, which are there, in the size that its lists say."""
    if not folder.is_dir():
        raise CheckpointError("no folder of an export", file=folder, hint=_AGAIN)
    if folder.name.endswith(SUFFIX) and read_journal(folder / JOURNAL) is not None:
        raise CheckpointError("an export that is not finished", file=folder, hint="run its command again, to the end")
    if not (folder / MANIFEST).exists():
        what = f"holds no {MANIFEST}: it was not exported by NVFP4 Studio, or the export is not complete"
        raise CheckpointError(what, file=folder, hint="publish what `quantize` or `convert` wrote")
    digests = expected_digests(folder)
    whole = set(contents(folder).files)
    for name in sorted(digests):
        _check_inside(folder, name)
        if name not in whole:
            there = "was changed since it was exported" if (folder / name).exists() else "missing"
            raise CheckpointError(there, file=folder / name, hint=_AGAIN)
    return digests


def _check_inside(folder: Path, name: str) -> None:
    """Raise CheckpointError for a link, wherever it leads: what is published lies in the folder itself."""
    path = folder
    for part in name.split("/"):
        path /= part
        if part in _OF_GIT:
            raise CheckpointError("a name that no repository takes", file=path, hint=_AGAIN)
        if path.is_symlink():
            raise CheckpointError("a link, which is not followed", file=path, hint="put the file itself there")


def _upload(folder: Path, name: str, digest: str) -> Upload:
    path = folder / name
    with SourceFile(path) as file:
        return Upload(name, file.size, digest, path)


def _card(folder: Path, base_model: str, quality: Quality | None) -> bytes:
    try:
        card = read_small(folder / CARD, _LARGEST_CARD).decode()
    except UnicodeDecodeError:
        raise CheckpointError("is not UTF-8", file=folder / CARD, hint=_AGAIN) from None
    manifest = Manifest(folder)
    formats = (entry.result.format for entry in manifest.entries() if entry.result.quantized)
    kept = _of_this(folder, quality) if quality else None
    try:
        return hub_card(card, manifest.layout, set(formats), base_model, kept)
    except (StopIteration, ValueError, IndexError):
        raise CheckpointError("is no model card of NVFP4 Studio", file=folder / CARD, hint=_AGAIN) from None


def _of_this(folder: Path, quality: Quality) -> Quality:
    """The rows of an evaluation that are of the formats and methods of this export."""
    with open_model(folder) as model:
        found = exported(model)
    own = (formats_of(found.choices), methods_of(found.choices)) if found else ("", "")
    rows = tuple(row for row in quality.models if (row.format, row.method) == own)
    if not rows:
        what = f"the evaluation has no row for {own[0]} by {own[1]}"
        raise PlanError(what, hint="evaluate this export, with --against SRC and --out")
    return Quality(rows, quality.source, quality.text, quality.runtime, quality.version, quality.seconds)


def check_digest(upload: Upload, digest: str) -> None:
    """Raise ExportError when the bytes that were read are not those that were exported."""
    if digest != upload.sha256:
        what = f"damaged: its SHA-256 is not the one in {SUMS}"
        raise ExportError(what, file=upload.path or printable(upload.name), hint=_AGAIN)
