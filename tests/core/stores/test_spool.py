"""The spool: bytes are fetched once by any number of threads, little is kept, and what fails is fetched again."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from studio.core.stores import spool
from studio.core.stores.spool import Spool, Write

DATA = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()


class Source:
    """DATA as a file to fetch; counts the bytes."""

    def __init__(self) -> None:
        self.fetched = 0
        self.failures = 0
        self._lock = threading.Lock()

    def fetch(self, start: int, stop: int, write: Write) -> None:
        with self._lock:
            self.fetched += stop - start
            if self.failures:
                self.failures -= 1
                raise ConnectionError
        for first in range(start, stop, 777):
            write(DATA[first : min(first + 777, stop)], first)


def read(kept: Spool, source: Source, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    kept.read_into("a", len(DATA), memoryview(buffer), start, source.fetch)
    return bytes(buffer)


def test_any_range_is_that_of_the_file() -> None:
    kept, source, random = Spool(1 << 20, 8192, 512), Source(), np.random.default_rng(1)
    for _ in range(200):
        start, stop = sorted(random.integers(0, len(DATA) + 1, 2).tolist())
        assert read(kept, source, start, stop) == DATA[start:stop]
    assert read(kept, source, 0, len(DATA)) == DATA
    assert source.fetched == len(DATA)
    kept.close()


def test_many_threads_fetch_each_byte_once() -> None:
    kept, source = Spool(1 << 20, 8192, 512), Source()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: read(kept, source, 0, len(DATA)), range(16)))
    assert set(answers) == {DATA}
    assert source.fetched == len(DATA)
    kept.close()


def test_what_is_beyond_the_limit_is_fetched_again() -> None:
    kept, source = Spool(3 * 8192, 8192, 512), Source()
    for _ in range(2):
        assert read(kept, source, 0, len(DATA)) == DATA
        assert kept.nbytes <= 3 * 8192
    assert source.fetched == 2 * len(DATA)
    kept.close()


def test_what_was_read_last_is_kept() -> None:
    kept, source = Spool(2 * 8192, 8192, 512), Source()
    for start in (0, 8192, 0, 16384, 0):
        read(kept, source, start, start + 8192)
    assert source.fetched == 3 * 8192
    kept.close()


def test_what_is_forgotten_is_fetched_again_and_what_is_read_meanwhile_is_not_lost() -> None:
    kept, source = Spool(1 << 20, 8192, 512), Source()
    with kept._using("a", 0):
        assert read(kept, source, 0, 16384) == DATA[:16384]
        kept.forget()
        assert kept.nbytes == 8192
        assert read(kept, source, 0, 16384) == DATA[:16384]
    assert source.fetched == 3 * 8192
    kept.forget()
    assert kept.nbytes == 0
    kept.close()


def test_many_read_while_one_forgets() -> None:
    kept, source = Spool(1 << 20, 8192, 512), Source()
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(read, kept, source, 0, len(DATA)) for _ in range(32)]
        while not all(job.done() for job in jobs):
            kept.forget()
    assert {job.result() for job in jobs} == {DATA}
    kept.close()


def test_a_failure_is_told_to_one_and_the_others_fetch() -> None:
    kept, source = Spool(1 << 20, 8192, 512), Source()
    source.failures = 3
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(read, kept, source, 0, 4096) for _ in range(8)]
    failed = [job for job in jobs if job.exception()]
    assert len(failed) == 3
    assert {job.result() for job in jobs if job not in failed} == {DATA[:4096]}
    kept.close()


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    kept, source = Spool(1 << 20, 8192, 512), Source()
    monkeypatch.setattr(spool.os, "pwrite", full)
    with pytest.raises(Exception, match="no disk space left for what is fetched") as caught:
        read(kept, source, 0, 4096)
    assert "TMPDIR" in caught.value.hint
    kept.close()
