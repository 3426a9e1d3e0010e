"""Lockstep: several calls that advance block by block together, one of them at a time.

Each call runs in a thread of its own and stops at every `pause`; when all have stopped there, a step is done. So the
weights of a block are read once for all batches, whatever a model does between its blocks.
"""

import threading
from collections.abc import Callable, Iterator, Sequence


class AbandonedError(BaseException):
    """Ends a call that nobody waits for any more; no handler of a model's code takes it for a fault."""


class Lockstep:
    """Runs calls side by side; `pause` is for use in them."""

    def __init__(self) -> None:
        self._back = threading.Semaphore(0)
        self._here = threading.local()

    def pause(self) -> None:
        """Wait until the other calls have come to the same place."""
        worker: _Worker = self._here.worker
        self._back.release()
        worker.turn.acquire()
        if worker.abandoned:
            raise AbandonedError

    def run(self, calls: Sequence[Callable[[], object]]) -> Iterator[int]:
        """Run the calls to their ends; yields the number of each step that all have done. Raises what a call raises."""
        workers = [_Worker(self, call) for call in calls]
        step = 0
        try:
            while any(worker.is_running for worker in workers):
                for worker in workers:
                    self._advance(worker)
                yield step
                step += 1
        finally:
            for worker in workers:
                self._abandon(worker)

    def _advance(self, worker: "_Worker") -> None:
        if not worker.is_running:
            return
        worker.turn.release()
        self._back.acquire()
        if worker.fault is not None:
            raise worker.fault

    def _abandon(self, worker: "_Worker") -> None:
        if worker.is_running:
            worker.abandoned = True
            worker.turn.release()
            self._back.acquire()
        worker.thread.join()

    def work(self, worker: "_Worker", call: Callable[[], object]) -> None:
        """The life of a thread."""
        self._here.worker = worker
        worker.turn.acquire()
        try:
            if not worker.abandoned:
                call()
        except AbandonedError:
            pass
        except BaseException as error:
            worker.fault = error
        finally:
            worker.is_running = False
            self._back.release()


class _Worker:
    """A call, its thread, and whose turn it is."""

    def __init__(self, lockstep: Lockstep, call: Callable[[], object]) -> None:
        self.turn = threading.Semaphore(0)
        self.is_running, self.abandoned = True, False
        self.fault: BaseException | None = None
        self.thread = threading.Thread(target=lockstep.work, args=(self, call), daemon=True)
        self.thread.start()
