"""Crew: the worker processes of a run, checked to be alike, and the coordinator's side of what they do."""

import asyncio
import concurrent.futures
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from studio.core.cluster import work
from studio.core.cluster.order import Order
from studio.core.cluster.standing import Standing
from studio.core.counting import counted
from studio.core.errors import BackendError
from studio.core.events import Phase, Progress, Warned, Working
from studio.core.names import printable
from studio.core.running.spread import Part, PartDone

WAIT = 30
"""Seconds in which a scheduler must answer and the first worker must be there."""

SILENCE = 900.0
"""Seconds without a word from a worker at work after which it is ended: it hangs."""

LOOK = 5.0
"""Seconds between two looks at the workers."""

TELL = 1.0
"""Seconds between two reports of what each worker does."""

_TURN = 0.2


class Crew:
    """Workers behind a client of Dask; `size` is how many there are when it is asked.

    `processes`: what keeps them alive where they are processes of this program on this machine.
    """

    def __init__(self, client: Any, processes: Any = None) -> None:
        self._client, self._processes = client, processes

    @property
    def addresses(self) -> set[str]:
        """Where the workers are now. Raises BackendError when the scheduler is gone."""
        with _reaching():
            return set(self._client.scheduler_info(n_workers=-1)["workers"])

    @property
    def size(self) -> int:
        """Number of workers now."""
        return len(self.addresses)

    def check(self, order: Order, known: Any) -> None:
        """Raise BackendError, naming the worker, unless all are of this program, compute right and see the order so."""
        here = work.examine(order, known, tested=self._processes is not None)
        with _reaching():
            answers = self._client.run(work.examine, order, tested=self._processes is not None, on_error="return")
        for address, seen in sorted(answers.items()):
            if isinstance(seen, OSError):
                continue  # it is gone already
            where = printable(address) + (f" on {printable(seen.host)}" if isinstance(seen, work.Seen) else "")
            if trouble := _difference(here, seen):
                raise BackendError(f"worker {where} {trouble}", hint=_HINT)

    def spread(self, order: Order, known: Any = None) -> "Ordered":
        """What has parts done of what `order` opens; `known`: that, where this process has opened it already.

        Raises BackendError for workers that can not, and StudioError for what can not be opened.
        """
        self.check(order, order.open() if known is None else known)
        return Ordered(self, order)

    def submit(self, order: Order, part: Part, index: int, topic: str) -> Any:
        """Have a part done, the largest first: what is begun last should be short."""
        key = f"{_KEY}{index}-{uuid4().hex}"
        return self._client.submit(work.do, order, part.task, index, topic, key=key, pure=False, priority=part.work)

    def run(
        self, order: Order, phase: Phase, parts: Sequence[Part]
    ) -> Generator[Progress | Warned | Working | PartDone, None, None]:
        """See `Spread.run`; the first event comes when all parts are handed over."""
        topic, told = f"nvfp4-studio-{uuid4().hex}", SimpleQueue[Any]()
        with _reaching():
            self._client.subscribe_topic(topic, lambda event: told.put(event[1]))
        ordered = sorted(range(len(parts)), key=lambda index: -parts[index].work)
        futures = {index: self.submit(order, parts[index], index, topic) for index in ordered}
        for index, future in futures.items():
            future.add_done_callback(lambda _, index=index: told.put(index))
        standing = Standing(parts)
        watch = _Watch(self, standing)
        try:
            yield Progress(phase, 0, "")
            while futures:
                message, layer = _next(told), ""
                if isinstance(message, dict):
                    yield from standing.take(message)
                    layer = message.get("layer", "")
                elif message is not None:
                    found = _result(futures.pop(message), parts[message])
                    standing.finish(message)
                    yield PartDone(message, found)
                yield from watch.look()
                yield Progress(phase, standing.done, layer)
        finally:
            with suppress(BackendError), _reaching():
                self._client.cancel(list(futures.values()))
                self._client.unsubscribe_topic(topic)

    def busy(self) -> set[str]:
        """The workers that were given a part. Raises BackendError when the scheduler is gone."""
        with _reaching():
            given = self._client.processing()
        return {address for address, keys in given.items() if any(map(_is_ours, keys))}

    def end(self, address: str) -> None:
        """End a worker that hangs, without waiting for it; what keeps it alive starts another in its place."""
        if self._processes is not None:
            for nanny in list(self._processes.workers.values()):
                if nanny.worker_address == address and nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)
            return
        how = {"wait_for_workers": False, "on_error": "return", "timeout": WAIT, "stimulus_id": f"hangs-{uuid4().hex}"}
        self._client.loop.add_callback(partial(self._client.scheduler.restart_workers, workers=[address], **how))


_KEY = "nvfp4-studio-"


def _is_ours(key: object) -> bool:
    return str(key).startswith(_KEY)


@dataclass(frozen=True, slots=True)
class Ordered:
    """A crew that has opened an order."""

    crew: Crew
    order: Order

    @property
    def size(self) -> int:
        """See `Spread.size`."""
        return self.crew.size

    def run(self, phase: Phase, parts: Sequence[Part]) -> Generator[Progress | Warned | Working | PartDone, None, None]:
        """See `Spread.run`."""
        return self.crew.run(self.order, phase, parts)


class _Watch:
    """Looks now and then what workers there are, what they do, and whether any was silent for so long that it hangs."""

    def __init__(self, crew: Crew, standing: Standing) -> None:
        self._crew, self._standing = crew, standing
        self._looked = self._told = time.monotonic()
        self._there = crew.addresses
        self._busy: dict[str, float] = {}
        self._alone = False

    def look(self) -> Iterator[Warned | Working]:
        """What each worker does; what hangs is begun on another one, which is said, and that no worker is left."""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            yield from self._look(now)
        if now - self._told >= TELL:
            self._told = now
            yield self._standing.working(self._there)

    def _look(self, now: float) -> Iterator[Warned]:
        self._there = self._crew.addresses
        if not self._there and not self._alone:
            yield Warned("no worker is left; it goes on when there is one")
        self._alone = not self._there
        self._busy = {address: self._busy.get(address, now) for address in self._crew.busy() & self._there}
        for address, since in self._busy.items():
            if now - max(since, self._standing.heard(address)) > SILENCE:
                yield Warned(
                    f"nothing was heard of worker {self._standing.name(address)} for {SILENCE:g} s; it is ended"
                )
                self._busy[address] = now
                self._crew.end(address)


def _next(told: "SimpleQueue[Any]") -> Any:
    try:
        return told.get(timeout=_TURN)
    except Empty:
        return None


def _result(future: Any, part: Part) -> Any:
    """What a part gives; raises what kept it from that."""
    from distributed import KilledWorker

    try:
        return future.result()
    except _CANCELLED:
        raise _gone() from None
    except KilledWorker as error:
        died = counted(error.allowed_failures + 1, "worker")
        hint = "look at their logs; if memory ran out, --max-memory bounds each"
        raise BackendError(
            f"{printable(part.name)} was given up: {died} died of it, one after the other", hint=hint
        ) from None


_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""What Dask raises for what was asked of a scheduler that is gone."""


@contextmanager
def _reaching() -> Iterator[None]:
    """Raise BackendError when the scheduler is not there any more."""
    try:
        yield
    except (OSError, *_CANCELLED):
        raise _gone() from None


def _gone() -> BackendError:
    hint = "start it and its workers again, and run the same command: what is finished is kept"
    return BackendError("the scheduler of the workers is gone", hint=hint)


def _difference(here: work.Seen, seen: Any) -> str:
    """In what a worker, or what it raised, is not as this process, "" when it is."""
    if not isinstance(seen, work.Seen):
        return f"does not run this program: {type(seen).__name__} {printable(seen, 200)}"
    if seen.version != here.version:
        return f"is of version {printable(seen.version)}, this is {here.version}"
    if seen.program != here.program:
        return "is of this version, but of another state of the program"
    if seen.self_test:
        return f"computes wrong: {printable(seen.self_test, 300)}"
    if seen.trouble:
        return f"can not begin: {printable(seen.trouble, 400)}"
    if seen.identity != here.identity:
        return "sees another source, or one that another program wrote to"
    return ""


_HINT = "every worker needs the same program, and the same source and target under the same path"


@contextmanager
def crew(address: str = "", workers: int = 0) -> Iterator[Crew]:
    """The workers of a running scheduler at `address`, or so many processes on this machine, gone afterwards.

    Raises BackendError.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise not_installed(error.name) from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it says is said here, in words
    with ExitStack() as stack:
        processes = None
        if not address:
            stack.enter_context(dask.config.set(_LIGHT))
            how = {"processes": True, "threads_per_worker": 1, "memory_limit": 0, "preload": [work.__name__]}
            quiet = {"silence_logs": logging.CRITICAL, "security": True, "dashboard_address": "127.0.0.1:0"}
            try:
                with _deaf():
                    _warm_up()
                    processes = stack.enter_context(LocalCluster(n_workers=workers, **how, **quiet))
            except (OSError, RuntimeError, TimeoutError) as error:  # one was killed as it began, say
                what = f"workers can not be started here: {printable(error, 200)}"
                raise BackendError(what, hint="leave --workers out") from None
        yield Crew(_joined(stack, Client, processes or address), processes)


def not_installed(name: str | None) -> BackendError:
    """A package that workers need is not here."""
    what = f"workers need the package {name}, which is not installed"
    return BackendError(what, hint="pip install 'nvfp4-studio[cluster]'")


_METHOD = "spawn" if sys.platform == "darwin" else "forkserver"
_LIGHT = {
    "distributed.worker.multiprocessing-method": _METHOD,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500 ms",
    "distributed.admin.system-monitor.interval": "5 s",
}
"""What makes processes of this machine cheap: they are forked from one that has imported all; nobody profiles them."""


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that begin in it hear nothing of Ctrl-C and of a terminal that goes: this process ends them."""
    theirs = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, theirs)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, theirs)  # the line above lets some through again
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _warm_up() -> None:
    """Begin to start the process that workers of this machine are forked from; it imports all that they need."""
    if _METHOD == "forkserver":
        multiprocessing.get_context(_METHOD).set_forkserver_preload(["distributed.nanny", work.__name__])
        forkserver.ensure_running()


def _joined(stack: ExitStack, client: Any, address: Any) -> Any:
    if isinstance(address, str):
        _check_address(address)
    try:
        joined = stack.enter_context(client(address, timeout=WAIT, set_as_default=False))
        joined.wait_for_workers(1, timeout=WAIT)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        what = f"no scheduler with workers answers at {printable(address, 200)}: {printable(error, 200)}"
        raise BackendError(what, hint="start them: dask scheduler, then dask worker ADDRESS on each machine") from None
    return joined


def _check_address(address: str) -> None:
    """Raise BackendError for what nothing can be reached by: a client of it would take a minute to go."""
    from distributed import Security
    from distributed.comm import get_address_host_port, parse_address

    shown = printable(address, 200)
    try:
        scheme, _ = parse_address(address)
        if scheme != _HERE:
            get_address_host_port(address)
        encrypts, settings = scheme in _ENCRYPTED, Security().get_connection_args("client")
    except ValueError as error:
        what = f"no address of a scheduler: {shown}: {printable(error, 200)}"
        raise BackendError(what, hint="write tcp://HOST:PORT or tls://HOST:PORT, as dask scheduler says it") from None
    except OSError as error:
        what = f"the certificates that Dask is told of can not be read: {printable(error, 200)}"
        raise BackendError(what, hint=_CERTIFICATES) from None
    if encrypts and settings["ssl_context"] is None:
        raise BackendError(f"{shown} wants a certificate, and Dask is told of none", hint=_CERTIFICATES)
    if settings["require_encryption"] and not encrypts and scheme != _HERE:
        what = f"Dask is told to encrypt all, and {shown} does not"
        raise BackendError(what, hint="begin the address with tls://, and the scheduler as well")


_ENCRYPTED, _HERE = ("tls", "wss"), "inproc"
"""Schemes of addresses: those of TLS, and that of a scheduler in this process."""
_CERTIFICATES = "name its files under distributed.comm.tls in ~/.config/dask/tls.yaml"
