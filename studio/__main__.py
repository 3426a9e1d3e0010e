"""Start the program."""

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    from studio.cli import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
