"""Mistakes planted in the headers of the C++ library, and a driver compiled with them: a proof that tests look."""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernels.cpu.build import SOURCES, arguments, host_target


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old` becomes `new` in a header, none where that is ""; the codec that meets it."""

    header: str
    old: str
    new: str
    codec: str = "Nvfp4"


RIGHT = Mutant("", "", "")


def compiled(mutants: Sequence[Mutant], driver: str, variant: str, folders: pytest.TempPathFactory) -> list[Path]:
    """The driver as libraries: of the headers as they are, then of those with each mistake."""
    pytest.importorskip("ziglang", reason="the compiler, ziglang, is not installed")
    source = Path(__file__).with_name(driver)
    folders.getbasetemp()  # before threads ask for it
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda m: _compiled(folders.mktemp("mutant"), m, source, variant), (RIGHT, *mutants)))


def _compiled(folder: Path, mutant: Mutant, driver: Path, variant: str) -> Path:
    for source in SOURCES.glob("*.h"):
        text = source.read_text()
        if source.name == mutant.header:
            assert text.count(mutant.old) == 1, f"{mutant} is not in {source.name} once"
            text = text.replace(mutant.old, mutant.new)
        (folder / source.name).write_text(text)
    built = folder / "mutant.so"
    told = [*arguments(host_target(), variant), "-O1", "-w", f"-I{folder}", "-shared", f"-DCODEC={mutant.codec}"]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *told, driver, "-o", built], check=True)
    return built
