"""One fixture for the GPU kernels: a real Metal device when there is one, the harness otherwise."""

from collections.abc import Iterator
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed: the GPU kernels are not tested")

from kernels.gpu.library import Library, library  # noqa: E402
from tests.metal.compiling import Compiler, clang, gcc  # noqa: E402
from tests.metal.harness import Machine, metal_on  # noqa: E402

BEHAVIOURS = {
    "in order": {},
    "reverse": {"order": 1, "sum_order": 1},
    "shuffled": {"order": 20261123, "sum_order": 2},
    "flushing subnormals": {"flush": True},
}


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """The C++ compiler of the harness: g++ when it is here, else clang."""
    found = gcc() or clang()
    if not found:
        pytest.skip("no C++ compiler: the Metal kernels are not tested here")
    return found


@pytest.fixture(scope="session")
def programs() -> dict[str, Any]:
    """Compiled kernels, shared by all machines of the session."""
    return {}


@pytest.fixture(params=BEHAVIOURS)
def metal(request: pytest.FixtureRequest, compiler: Compiler, programs: dict[str, Any]) -> Iterator[Library]:
    """The Metal kernels: on the GPU, or on a machine that behaves as the parameter says."""
    if mx.metal.is_available():
        if request.param != "in order":
            pytest.skip("a real device behaves in its own way")
        yield Library("metal")
        return
    library.cache_clear()
    with metal_on(Machine(compiler, programs=programs, **BEHAVIOURS[request.param])):
        yield Library("metal")
    library.cache_clear()
