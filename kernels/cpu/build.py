"""Build the C++ library with the compiler in PyPI's `ziglang`: for this machine, or for any other.

Stands alone (standard library only), so that `setup.py` can load it by path; also `python -m kernels.cpu.build`.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
TARGETS = {
    ("Linux", "x86_64"): "x86_64-linux-gnu.2.17",
    ("Linux", "aarch64"): "aarch64-linux-gnu.2.17",
    ("Darwin", "arm64"): "aarch64-macos.12.0",
    ("Darwin", "x86_64"): "x86_64-macos.12.0",
    ("Windows", "AMD64"): "x86_64-windows-gnu",
    ("Windows", "ARM64"): "aarch64-windows-gnu",
}
VARIANTS: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "avx512": ["-mcpu=x86_64_v4", "-mprefer-vector-width=512"],
        "avx2": ["-mcpu=x86_64_v3"],
        "sse": ["-mcpu=x86_64_v2"],
    },
    "aarch64": {"neon": []},
}
# No contraction: the bytes must not depend on where a compiler sees a fused multiply-add.
FLAGS = [
    *("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-sanitize=all"),
    *("-g0", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"),
]


class BuildError(Exception):
    """The compiler is missing or refused; the message says which command failed and what it wrote."""


def host_target() -> str:
    """The compiler's name for this machine; raises BuildError when it has none."""
    machine = (platform.system(), platform.machine())
    if machine not in TARGETS:
        raise BuildError(f"no target known for {machine[0]} on {machine[1]}; known: {sorted(TARGETS.values())}")
    musl = machine[0] == "Linux" and platform.libc_ver()[0] != "glibc"
    return TARGETS[machine].replace("gnu.2.17", "musl") if musl else TARGETS[machine]


def library_name(target: str) -> str:
    """The file name of the library on the machine called `target`."""
    if "windows" in target:
        return "nvfp4.dll"
    return "libnvfp4.dylib" if "macos" in target else "libnvfp4.so"


def arguments(target: str, variant: str | None = None) -> list[str]:
    """What the compiler is told for one variant of `target`; for none of them, code that must run on any."""
    told = ["-target", target, *FLAGS, *([] if "windows" in target else ["-fPIC"])]
    return told if variant is None else [*told, *VARIANTS[target.split("-")[0]][variant], f"-DVARIANT={variant}"]


def build(target: str, output: Path, *, compiler: str = sys.executable) -> Path:
    """Compile every variant of `target` at once and link them into the shared library `output`.

    Raises BuildError with what the compiler said.
    """
    # `cc` and not `c++`: the sources use no C++ library, which would be compiled on first use.
    command = [compiler, "-m", "ziglang", "cc"]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = {
            str(Path(scratch) / f"{name}.o"): [*arguments(target, name), str(SOURCES / "variant.cpp")]
            for name in VARIANTS[target.split("-")[0]]
        }
        jobs[str(Path(scratch) / "dispatch.o")] = [*arguments(target), str(SOURCES / "dispatch.cpp")]
        environment = os.environ | {"ZIG_LOCAL_CACHE_DIR": scratch}
        _run([[*command, "-c", *told, "-o", name] for name, told in jobs.items()], environment)
        output.parent.mkdir(parents=True, exist_ok=True)
        linked = Path(scratch) / output.name
        _run([[*command, "-target", target, "-shared", "-s", "-o", str(linked), *jobs]], environment)
        # Another process may have the old file mapped: replace the name, never the contents.
        staged = output.with_name(output.name + ".new")
        staged.write_bytes(linked.read_bytes())
        staged.replace(output)
    return output


def _run(commands: list[list[str]], environment: dict[str, str]) -> None:
    """Run commands side by side and wait for all of them."""
    running = [  # our own compiler: nothing here comes from outside
        (command, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment))  # noqa: S603
        for command in commands
    ]
    outputs = [(command, process.communicate()[0], process.returncode) for command, process in running]
    for command, said, code in outputs:
        if code:
            raise BuildError(f"{' '.join(command)}\nexited with {code}:\n{said.decode(errors='replace')}")


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default=None, help="as the compiler names it, for example aarch64-linux-gnu.2.17")
    parser.add_argument("--output", type=Path, default=None, help="file to write; the default is beside the sources")
    options = parser.parse_args()
    target = options.target or host_target()
    build(target, options.output or SOURCES / library_name(target))


if __name__ == "__main__":
    main()
