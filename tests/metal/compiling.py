"""Turns the text of a Metal kernel into a shared library of this machine, by way of tests/metal/shim."""

import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).parent / "shim"
_SHARED = re.compile(r"(^|[;{}\n]\s*)threadgroup\s+(\w+)\s+(\w+)\s*((?:\[[^\]]*\])*)\s*;")
_INSTANTIATION = re.compile(r"\ntemplate \[\[host_name\(.*?\)\]\] \[\[kernel\]\] decltype\([^;]*;\n", re.S)
_COMMON = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-strict-aliasing", "-ffp-contract=off"]
_GCC = ["-fsingle-precision-constant", "-fexcess-precision=fast", "-fpermissive"]
_CLANG = ["-Xclang", "-cl-single-precision-constant", "-Xclang", "-ffloat16-excess-precision=none", "-fno-sanitize=all"]


class HarnessError(RuntimeError):
    """A kernel that does not compile as Metal, or broke a rule of the machine while it ran."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: a buffer with its index, or an attribute by name."""

    buffer: int | None
    attribute: str | None


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler; `spaces` tells whether it checks address spaces."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    spaces: bool


def gcc() -> Compiler | None:
    """g++, when it is here."""
    path = shutil.which("g++")
    return Compiler((path,), (*_COMMON, *_GCC), spaces=False) if path else None


def clang() -> Compiler | None:
    """clang++, or the one inside the ziglang package, when one is here."""
    if path := shutil.which("clang++"):
        return Compiler((path,), (*_COMMON, *_CLANG), spaces=True)
    if importlib.util.find_spec("ziglang"):
        return Compiler((sys.executable, "-m", "ziglang", "c++"), (*_COMMON, *_CLANG), spaces=True)
    return None


def kernel_parameters(text: str, name: str) -> list[Parameter]:
    """The parameters of kernel `name` in the order of its signature."""
    start = re.search(r"\[\[kernel\]\]\s+void\s+" + re.escape(name) + r"\s*\(", text)
    if not start:
        raise HarnessError(f"no kernel {name} in the text")
    signature = text[start.end() : text.index(") {", start.end())]
    found = re.findall(r"\[\[\s*(\w+)\s*(?:\(\s*(\d+)\s*\))?\s*\]\]", signature)
    return [Parameter(int(n), None) if a == "buffer" else Parameter(None, a) for a, n in found]


def _launcher(name: str, arguments: str, parameters: list[Parameter]) -> str:
    get = [
        f"shim::buffer<typename shim::parameter<{i}, F>::type>::get(b[{p.buffer}])"
        if p.buffer is not None
        else f"shim::get_{p.attribute}<typename shim::parameter<{i}, F>::type::type>()"
        for i, p in enumerate(parameters)
    ]
    call = f"{name}{arguments}({', '.join(get)});"
    return f"""
extern "C" int shim_run(
    void** b, const uint32_t* grid, const uint32_t* group, const shim::Options* o, char* e, size_t n) {{
  using F = decltype({name}{arguments});
  return shim::dispatch(grid, group, *o, e, n, [&] {{ {call} }});
}}
"""


@dataclass(frozen=True)
class Program:
    """A compiled kernel."""

    library: ctypes.CDLL
    parameters: list[Parameter]


def compile_kernel(text: str, name: str, arguments: str, compiler: Compiler) -> Program:
    """Compile kernel `name` of a Metal text with template `arguments` ("<2, 1>" or ""). Raises HarnessError."""
    parameters = kernel_parameters(text, name)
    library = ctypes.CDLL(str(_built(_source(text, name, arguments), compiler)))
    library.shim_allocate.restype = ctypes.c_void_p
    library.shim_allocate.argtypes = [ctypes.c_size_t, ctypes.c_int]
    library.shim_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return Program(library, parameters)


def _source(text: str, name: str, arguments: str) -> str:
    shared = _SHARED.sub(r"\1SHIM_SHARED(\2, \3, \4);", _INSTANTIATION.sub("\n", text))
    return f'#include "host.h"\n#line 1 "kernel"\n{shared}\n{_launcher(name, arguments, kernel_parameters(text, name))}'


def check_spaces(text: str, name: str, arguments: str, compiler: Compiler) -> None:
    """Compile kernel `name` with a compiler that knows address spaces, and drop the result. Raises HarnessError."""
    flags = [flag for flag in compiler.flags if flag != "-shared"]
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "kernel.cpp"
        written.write_text(_source(text, name, arguments))
        _compile([*compiler.command, *flags, "-c", "-I", str(SHIM)], written, written.with_suffix(".o"))


def _compile(command: list[str], source: Path, output: Path) -> None:
    done = subprocess.run([*command, str(source), "-o", str(output)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"does not compile: {done.stderr[:3000]}")


@functools.cache
def _shim_text() -> str:
    return "".join(path.read_text() for path in sorted(SHIM.glob("*.h")))


def _built(source: str, compiler: Compiler) -> Path:
    command = [*compiler.command, *compiler.flags, "-I", str(SHIM)]
    key = hashlib.sha256("\0".join([*command, source, _shim_text()]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"nvfp4-studio-harness-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{key}.so"
    if not built.exists():
        unfinished, written = (folder / f"{key}-{os.getpid()}{suffix}" for suffix in (".so", ".cpp"))
        written.write_text(source)
        _compile(command, written, unfinished)
        written.unlink()
        unfinished.replace(built)
    return built
