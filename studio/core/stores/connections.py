"""Connections: HTTP sessions whose requests can be broken off by another thread, and whose answers do not trickle."""

import socket
from contextlib import suppress
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from studio.core.stores.pace import Pace

if TYPE_CHECKING:
    from requests import Session


class Connections:
    """The sockets of a session that are open."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = Lock()
        self._over = False

    def session(self, parallel: int) -> "Session":
        """A session that makes so many requests at a time."""
        from requests import Session
        from requests.adapters import HTTPAdapter

        noted = self._noted

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *arguments: Any, **how: Any) -> None:
                super().init_poolmanager(*arguments, **how)
                noted(self.poolmanager)

            def proxy_manager_for(self, proxy: str, **how: Any) -> Any:
                return noted(super().proxy_manager_for(proxy, **how))

        session = Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, Adapter(pool_connections=parallel, pool_maxsize=2 * parallel))
        return session

    def _noted(self, manager: Any) -> Any:
        """A manager of pools whose connections are noted."""
        kinds = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: self._noting(kind) for scheme, kind in kinds.items()}
        return manager

    def _noting(self, pool: Any) -> Any:
        add = self._add
        if getattr(pool, "notes", False):
            return pool

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            response_class = _Answer

            def connect(self) -> None:
                super().connect()
                add(self.sock)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection, "notes": True})

    def _add(self, connected: Any) -> None:
        with self._lock:
            self._sockets.add(connected)
            if self._over:
                _shut(connected)

    def hang_up(self) -> None:
        """Break off requests that are under way, and those that are made later; a name is looked up to the end."""
        with self._lock:
            self._over = True
            for one in list(self._sockets):
                _shut(one)

    def close(self) -> None:
        """Close what is open: pools alone would keep idle connections until they are collected."""
        self.hang_up()
        with self._lock:
            for one in list(self._sockets):
                one.close()
                if one.fileno() != -1:  # an answer that nobody read to its end holds it
                    socket.close(one.detach())


class _Answer(HTTPResponse):
    """An answer that keeps to a pace, below whatever it is cut into."""

    def __init__(self, sock: socket.socket, *arguments: Any, **how: Any) -> None:
        super().__init__(sock, *arguments, **how)
        self._paced = _Paced(self.fp.detach())
        self.fp = BufferedReader(self._paced)

    def begin(self) -> None:
        """Read the headers."""
        super().begin()
        self._paced.begin_body()


class _Paced(RawIOBase):
    """What comes from a socket: headers, then a body."""

    def __init__(self, raw: Any) -> None:
        self._raw, self._pace, self._is_body = raw, Pace(), False

    def begin_body(self) -> None:
        """All headers are there."""
        self._pace, self._is_body = Pace(), True

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> Any:
        """See `RawIOBase.readinto`. Raises TryAgainError for what comes too slowly."""
        if not self._is_body:
            self._pace.wait_for_head()
        count = self._raw.readinto(buffer)
        if self._is_body and count:
            self._pace.take(count)
        return count

    def close(self) -> None:
        """Close what is below."""
        super().close()
        self._raw.close()


def _shut(connected: Any) -> None:
    if isinstance(connected, socket.socket):
        with suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # below TLS, which another thread may be reading
