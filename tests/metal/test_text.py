"""Rules for the kernels' text that a host compiler can not see."""

import re

import pytest

from kernels.gpu import source
from tests.metal.peer import HEADERS

TEXTS = sorted(
    {
        name.format(device="metal")
        for kernel in source.KERNELS.values()
        for name in (kernel.name, "prelude_{device}", *kernel.headers)
    }
)
FUNCTION = re.compile(r"^(?:template <[^>]*> )?(?:__device__ )?inline [\w<>: ?=&*()]+? (\w+)\(", re.M)


def plain(name: str) -> str:
    return re.sub(r"//.*", "", source._text(name))


@pytest.mark.parametrize("name", TEXTS)
def test_literals_are_single_precision(name: str) -> None:
    assert not re.findall(r"(?<![\w.])(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])", plain(name))
    assert not re.findall(r"0x[\da-f.]+p[-+]?\d+(?!f)\b", plain(name))


@pytest.mark.parametrize("name", TEXTS)
def test_there_is_nothing_that_metal_does_not_have(name: str) -> None:
    assert not re.findall(r"\b(?:double|new|delete|throw|try|virtual|std|goto|thread_local)\b", plain(name))


@pytest.mark.parametrize("name", TEXTS)
def test_the_position_in_the_grid_is_no_lane(name: str) -> None:
    assert not re.search(r"thread_position_in_grid\.x\s*(?:%|&|<\s*(?:16|32))", plain(name))


@pytest.mark.parametrize("name", list(source.KERNELS))
def test_attributes_are_named_in_the_body(name: str) -> None:
    """mlx looks for them by substring in the body only, and a name that contains one adds it."""
    kernel = source.KERNELS[name]
    headers = "".join(plain(part.format(device="metal")) for part in kernel.headers)
    assert not re.search(r"thread_\w+_in_|threads_per_|threadgroups?_\w+_grid", headers)
    words = set(
        re.findall(r"\b\w*(?:_in_grid|_per_grid|_in_threadgroup|_in_simdgroup|_per_threadgroup)\w*", plain(name))
    )
    known = {"thread_position_in_grid", "threads_per_grid", "threadgroup_position_in_grid", "threadgroups_per_grid"}
    known |= {"thread_index_in_simdgroup", "simdgroup_index_in_threadgroup", "simdgroups_per_threadgroup"}
    known |= {"thread_index_in_threadgroup", "threads_per_threadgroup"}
    assert words <= known


def test_both_preludes_offer_the_same_functions() -> None:
    metal, cuda = (set(FUNCTION.findall(plain(f"prelude_{device}"))) for device in ("metal", "cuda"))
    assert metal <= cuda
    assert cuda - metal == {"as_type", "simd_sum", "simd_max", "simd_shuffle_xor"}  # these are Metal's own


def test_both_devices_know_errors_in_the_same_functions() -> None:
    metal, cuda = (set(FUNCTION.findall(plain(f"errors_{device}"))) for device in ("metal", "cuda"))
    assert cuda - metal == {"least_halves", "most_halves"}
    assert metal - cuda == {"error_of"}


def test_no_function_has_a_name_that_mlx_uses() -> None:
    ours = {n for name in TEXTS for n in FUNCTION.findall(plain(name))}
    assert len(ours) > 40
    taken = "\n".join((HEADERS / name).read_text() for name in ("utils.h", "bf16.h", "complex.h", "bf16_math.h"))
    assert not {name for name in ours if re.search(rf"\b{name}\s*\(", taken)}
