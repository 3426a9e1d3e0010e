"""The command line, with workers that begin before the first part: `python -m tests.faults.at_once quantize ...`."""

import sys

if __name__ == "__main__":  # workers import this module
    from studio import core
    from studio.cli.app import main

    core.workforce = core.crew  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
