"""Runs of the program that may be killed."""

import subprocess
import sys


def came_to_its_end(*words: object, seconds: float | None = None) -> bool:
    """Run a command, killed after so many seconds; True when it ended before. Raises RuntimeError when it failed."""
    process = subprocess.Popen([sys.executable, "-m", "studio", *map(str, words), "--quiet"], stdout=subprocess.DEVNULL)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if code:
        raise RuntimeError(f"{words[0]} failed with {code}")
    return True
