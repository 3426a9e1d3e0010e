"""What holds for all tests."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is `sampled(n)`, every n-th case runs in `make test`; the others are proofs."""
    seen = Counter[str]()
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker is None:
            continue
        name = item.nodeid.partition("[")[0]
        if seen[name] % marker.args[0]:
            item.add_marker("proof")
        seen[name] += 1


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Power does not fail here, so nothing is flushed; tests count and break the call all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield
