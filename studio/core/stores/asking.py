"""Asking: requests of asyncio that threads wait for, and that another thread can break off."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from math import inf
from threading import Lock
from typing import Any

from studio.core.stores.store import TryAgainError


class Asking:
    """Runs coroutines on a loop of another thread, none after `hang_up`, each for `longest` seconds at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop, longest: float = inf) -> None:
        self._loop, self._longest = loop, longest
        self._under_way: set[Future[Any]] = set()
        self._lock = Lock()
        self._over = False

    def ask(self, request: Coroutine[Any, Any, Any], seconds: float) -> Any:
        """What a request gives. Raises TryAgainError when it is broken off, or takes longer than so many seconds."""
        future = self._begun(request)
        try:
            return future.result(min(seconds, self._longest))
        except CancelledError:
            raise TryAgainError("the request was broken off") from None
        except TimeoutError:
            raise TryAgainError("no answer in time") from None
        finally:
            future.cancel()
            with self._lock:
                self._under_way.discard(future)

    def _begun(self, request: Coroutine[Any, Any, Any]) -> "Future[Any]":
        future = asyncio.run_coroutine_threadsafe(request, self._loop)
        with self._lock:
            self._under_way.add(future)
            if self._over:
                future.cancel()
        return future

    def hang_up(self) -> None:
        """Break off requests that are under way, and those that are made later."""
        with self._lock:
            self._over = True
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
