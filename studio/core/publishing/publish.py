"""publish: send what a repository does not have, let it appear in one commit, and check what lies there then."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from studio.core.counting import counted
from studio.core.errors import CheckpointError, ExportError
from studio.core.events import Event, Progress, Published, Started, Warned
from studio.core.names import some_of
from studio.core.publishing.folder import Upload, uploads
from studio.core.publishing.repository import Repository, StoppedError, There
from studio.core.quality.results import Quality
from studio.core.running.aside import Tell, aside
from studio.core.running.ending import Ending
from studio.core.stores.patience import Patience

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

T = TypeVar("T")
Fate = Literal["send", "there", "replace", "remove"]

NAME = "nvfp4-studio-publish"
AT_ONCE = 4
"""Files that are sent at the same time."""

MOST = 100
"""Files of a commit: hubs take no more in reasonable time. The weights come first, config.json last."""

STEP = 4 << 20
"""Bytes between two words on how far it is."""

SILENCE = 900.0
"""Seconds without any progress after which it is given up: a connection hangs."""

LEAVE = 1.0
"""Seconds that a thread that is to end is waited for; one that hears nothing of a network ends by itself."""

_LOADED = ("config.json", ".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class Publication:
    """An export that may be published: its files, what stays behind, and whereto.

    public: others may see the repository. overwrite: files of it that are other ones are replaced, and those removed
    that a runtime would load and that are not of the export.
    """

    url: str
    uploads: tuple[Upload, ...]
    left: tuple[str, ...]
    public: bool = False
    overwrite: bool = False
    patience: Patience = field(default_factory=Patience)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(upload.nbytes for upload in self.uploads)


@dataclass(frozen=True, slots=True)
class Row:
    """What would be done with a file."""

    name: str
    nbytes: int
    fate: Fate


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done with each file, and what forbids it."""

    rows: tuple[Row, ...]
    objection: ExportError | None


def publication(
    folder: Path,
    url: str,
    *,
    public: bool = False,
    overwrite: bool = False,
    base_model: str = "",
    quality: Quality | None = None,
) -> Publication:
    """Check an export; nothing is asked of the hub yet.

    base_model: ORG/NAME of what was quantized, for the model card, as is `quality`, what an evaluation found. Raises
    CheckpointError for what is no whole, finished export, and PlanError for what does not belong to it.
    """
    Repository(url)  # its name is one
    found, left = uploads(folder, base_model, quality)
    return Publication(url, tuple(found), tuple(left), public, overwrite)


def compared(job: Publication, there: There | None) -> list[Row]:
    """What would be done with every file of the export, and with those of the repository that must go."""
    files = there.files if there else {}
    rows = [Row(upload.name, upload.nbytes, _fate(upload, there)) for upload in job.uploads]
    own = {upload.name for upload in job.uploads}
    odd = sorted(name for name in files if name not in own and name.endswith(_LOADED) and "/" not in name)
    return rows + [Row(name, files[name].nbytes, "remove") for name in odd]


def _fate(upload: Upload, there: There | None) -> Fate:
    stored = there.files.get(upload.name) if there else None
    if stored is None:
        return "send"
    return "there" if stored.holds(upload) else "replace"


def objection(job: Publication, there: There | None, rows: Sequence[Row]) -> ExportError | None:
    """What forbids it, None when nothing does."""
    if there and not there.private and not job.public:
        what = "is public, so that everybody would see what is published"
        return ExportError(what, file=job.url, hint="--public says that this is meant; or choose another name")
    lost = [row.name for row in rows if row.fate in ("replace", "remove")]
    if lost and not job.overwrite:
        what = f"holds files that are not those of this export: {some_of(lost)}"
        hint = "with --overwrite they are replaced, and other weights removed; the history there keeps what was"
        return ExportError(what, file=job.url, hint=hint)
    return None


def preview(job: Publication) -> Iterator[Preview | None]:
    """What would be done, as the last that is yielded; None now and then while the hub does not answer.

    Raises CheckpointError when it can not be asked.
    """

    def work(tell: Tell[Preview], left: Ending) -> None:
        there = _Run(job, tell, left).look()
        rows = compared(job, there)
        tell(Preview(tuple(rows), objection(job, there, rows)))

    yield from aside(work, NAME)


def publish(job: Publication) -> Iterator[Event]:
    """Publish an export; closing the generator stops it, and the same run goes on where that was.

    The last event is `Published`. Raises CheckpointError for what was changed, ExportError for what can not be written,
    or is not there in the end as it is here.
    """
    last, heard = Progress("publish", 0, ""), time.monotonic()
    for event in aside(lambda tell, left: _Run(job, tell, left).run(), NAME):
        if event is not None:
            heard = time.monotonic()
        elif time.monotonic() - heard > SILENCE:
            what = f"nothing was heard of the hub for {SILENCE:g} s"
            raise ExportError(what, file=job.url, hint="run it again: what was sent is not sent again")
        last = event if isinstance(event, Progress) else last
        yield event or last


@dataclass
class _Run:
    """A run on a thread of its own. `left` is set when nobody waits for it any more."""

    job: Publication
    tell: Tell[Any]
    left: Ending
    done: dict[str, int] = field(default_factory=dict)
    told: int = 0
    lock: Any = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.repository = Repository(self.job.url)

    def look(self) -> There | None:
        return self.asked(self.repository.look, "can not be read")

    def run(self) -> None:
        """All of it."""
        job, there = self.job, self.look()
        rows = compared(job, there)
        if wrong := objection(job, there, rows):
            raise wrong
        for sentence in job.left:
            self.tell(Warned(sentence))
        if there and there.private and job.public:
            self.tell(Warned("the repository is private and stays so: its settings on the hub change that"))
        fates = {row.name: row.fate for row in rows}
        missing = [upload for upload in job.uploads if fates[upload.name] != "there"]
        removed = [row.name for row in rows if row.fate == "remove"]
        self.tell(Started("publish", sum(2 * upload.nbytes for upload in missing), 0))
        if there is None:
            self.asked(partial(self.repository.create, private=not job.public), "can not be made")
            there = self.look()
            if there is None:
                raise ExportError("was made, and is not there", file=job.url, hint="run it again")
        commit = self._sent(missing, removed, there.commit)
        self._prove(commit, removed)
        files = len(job.uploads)
        self.tell(
            Published(
                job.url, self.repository.page, commit, not job.public or there.private, files, len(missing), job.nbytes
            )
        )

    def _sent(self, missing: Sequence[Upload], removed: list[str], commit: str) -> str:
        """The name of the commit in which all is there."""
        groups = [missing[start : start + MOST] for start in range(0, max(len(missing), 1), MOST)]
        for number, group in enumerate(groups, 1):
            going = removed if number == len(groups) else []
            if group or going:
                commit = self._group(group, going, commit)
        return commit

    def _group(self, group: Sequence[Upload], going: Sequence[str], parent: str) -> str:
        with ExitStack() as stack:
            adding = _Sending(self, stack, group).all()
            return self.asked(lambda: self._commit(group, adding, going, parent), "can not be committed")

    def _commit(
        self, group: Sequence[Upload], adding: Sequence["CommitOperationAdd"], going: Sequence[str], parent: str
    ) -> str:
        try:
            return self.repository.commit(adding, going, parent)
        except CheckpointError:  # it may be ours, of which no answer came
            there = self.repository.look()
            if there and not set(going) & there.files.keys() and all(_holds(there, one) for one in group):
                return there.commit
            raise

    def _prove(self, commit: str, removed: Sequence[str]) -> None:
        """Raise ExportError unless every file is there with its bytes."""
        files = self.asked(lambda: self.repository.files_at(commit), "can not be read")
        there = There(commit, True, files)
        wrong = [upload.name for upload in self.job.uploads if not _holds(there, upload)]
        wrong += [name for name in removed if name in files]
        if wrong:
            what = f"{counted(len(wrong), 'file')} there is not as it is here: {some_of(wrong)}"
            raise ExportError(what, file=self.job.url, hint="publish it again, with --overwrite")

    def asked(self, question: Callable[[], T], fault: str) -> T:
        """What the hub answers at last, as long as somebody waits for it."""

        def attempt() -> T:
            self.check_wanted()
            return question()

        return replace(self.job.patience, sleep=self.left.wait).persist(self.job.url, attempt, fault)

    def check_wanted(self) -> None:
        """Raise StoppedError when nobody waits."""
        if self.left.is_set():
            raise StoppedError("nobody waits for it any more")

    def follow(self, upload: Upload, done: int) -> None:
        """So many bytes of a file are worked through, the two readings together."""
        self.check_wanted()
        with self.lock:
            self.done[upload.name] = max(self.done.get(upload.name, 0), done)
            now = sum(self.done.values())
            if now - self.told >= STEP or (now > self.told and done == 2 * upload.nbytes):
                self.told = now
                self.tell(Progress("publish", now, upload.name))


def _holds(there: There, upload: Upload) -> bool:
    stored = there.files.get(upload.name)
    return stored is not None and stored.holds(upload)


@dataclass
class _Sending:
    """Files sent several at a time, by threads that nobody has to wait for."""

    run: _Run
    stack: ExitStack
    group: Sequence[Upload]

    def all(self) -> list["CommitOperationAdd"]:
        """The operations of a commit, in order, once all large files are at the hub; raises what the first raised."""
        waiting, told = SimpleQueue[Upload](), SimpleQueue[tuple[str, Any]]()
        for upload in self.group:
            waiting.put(upload)
        threads = [Thread(target=self._work, args=(waiting, told), name=NAME, daemon=True) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        found: dict[str, Any] = {}
        while len(found) < len(self.group):
            name, outcome = told.get()
            if isinstance(outcome, BaseException):
                self._end(threads)
                raise outcome
            found[name] = outcome
        return [found[upload.name] for upload in self.group]

    def _end(self, threads: Sequence[Thread]) -> None:
        self.run.left.set()
        for thread in threads:
            thread.join(LEAVE)

    def _work(self, waiting: "SimpleQueue[Upload]", told: "SimpleQueue[tuple[str, Any]]") -> None:
        while True:
            try:
                upload = waiting.get_nowait()
            except Empty:
                return
            try:
                told.put((upload.name, self._send(upload)))
            except BaseException as error:
                told.put((upload.name, error))
                return

    def _send(self, upload: Upload) -> "CommitOperationAdd":
        run = self.run
        adding = self.stack.enter_context(run.repository.reading(upload, partial(run.follow, upload)))
        run.asked(partial(run.repository.send, adding), "can not be sent")
        run.follow(upload, 2 * upload.nbytes)
        return adding
