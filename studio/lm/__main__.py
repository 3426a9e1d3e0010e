"""`python -m studio.lm COMMAND ...`: run a model on behalf of the program and tell it on stdout, a JSON line each."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from studio.lm.protocol import Channel, failing

COMMANDS = {
    "calibrate": "studio.lm.calibrating",
    "evaluate": "studio.lm.evaluating",
    "generate": "studio.lm.generating",
    "moments": "studio.lm.moments",
}
"""The module of each command: it has `NAME_arguments(parser)` and `NAME(options, channel)`."""


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code. Everything but the protocol goes to stderr."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name not in COMMANDS:
        sys.stderr.write(f"usage: python -m studio.lm {{{','.join(COMMANDS)}}} ...\n")
        return 2
    channel = Channel.of_process()
    with failing(channel) as fault:
        module = importlib.import_module(COMMANDS[name])
        parser = argparse.ArgumentParser(prog=f"python -m studio.lm {name}")
        getattr(module, f"{name}_arguments")(parser)
        getattr(module, name)(parser.parse_args(rest), channel)
    return fault.exit_code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # runtimes leave threads behind that end no process well
