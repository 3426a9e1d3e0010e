"""Everything to run on the first Mac, in one file to send back: `python -m tests.metal.first_mac [file]`.

Runs the kernel tests on the real device, `validate`, and the benchmarks. Needs an Apple GPU, the extras gpu and test,
and a few minutes; nothing is sent anywhere.
"""

import platform
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

TESTS = ("tests/metal", "tests/kernels/test_ops.py", "tests/kernels/test_nn.py")


def _run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    return f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"


def machine() -> str:
    """Which Mac, macOS, Python and mlx."""
    facts = (platform.platform(), platform.machine(), platform.python_version(), mx.__version__, mx.device_info())
    return "\n".join(map(str, facts))


def tests() -> str:
    """The kernel tests; with Metal here they run on the device."""
    return _run("-m", "pytest", *TESTS, "-ra", "--durations=10")


def validate() -> str:
    """The validation harness as text and as JSON."""
    from kernels import validation

    report = validation.run("metal")
    return f"{report.text()}\n\n{report.to_json()}"


def benchmarks() -> str:
    """Speed of every kernel on 8192 x 8192 weights, a copy beside it."""
    return _run("-m", "tests.benchmarks.kernels_gpu", "8192")


STEPS: tuple[Callable[[], str], ...] = (machine, tests, validate, benchmarks)


def main(argv: list[str] | None = None) -> int:
    """Run the steps, write the file; 1 when a step broke off."""
    given = sys.argv[1:] if argv is None else argv
    target = Path(given[0] if given else "mac-proof.txt")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not mx.metal.is_available():
        sys.stderr.write("There is no Apple GPU here: the kernel tests run on the harness, nothing can be measured.\n")
        return int(not tests().startswith("exit 0"))
    parts, broken = [], False
    for step in STEPS:
        sys.stderr.write(f"{step.__name__} ...\n")
        try:
            text = step()
        except Exception:  # whatever breaks belongs into the file
            text, broken = traceback.format_exc(), True
        parts.append(f"== {step.__name__}\n{text}")
        target.write_text("\n\n".join(parts) + "\n")
    sys.stderr.write(f"wrote {target}: please send it back\n")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
