"""Dividing by two fused multiply-adds decides every code as division does; checked for all divisors, in C++."""

import subprocess
import sys
from pathlib import Path

import pytest
from hard_weights import MIDPOINTS

from kernels.cpu import library
from kernels.cpu.build import arguments, host_target

FUSED = [name for name in library.variants() if name != "sse"]
pytestmark = pytest.mark.skipif(not FUSED, reason="this processor has no fused multiply-add")


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang", reason="the compiler, ziglang, is not installed")
    program = tmp_path_factory.mktemp("division") / "check"
    source = Path(__file__).with_name("division_check.cpp")
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        *arguments(host_target(), FUSED[0]),
        str(source),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    return program


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "midpoints",
    [
        [*MIDPOINTS, 6.0],
        [1 + odd / 16 for odd in range(1, 16, 2)],
        [code + 0.5 for code in range(255)],
    ],
    ids=["e2m1", "e4m3", "integers"],
)
def test_no_quotient_falls_on_the_other_side_of_a_midpoint(check: Path, midpoints: list[float]) -> None:
    said = subprocess.run([check, *map(str, midpoints)], check=True, stdout=subprocess.PIPE)
    assert int(said.stdout) == 0
