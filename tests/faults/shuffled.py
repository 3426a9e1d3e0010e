"""The command line, with workers that begin parts in any order: `python -m tests.faults.shuffled quantize ...`."""

import random
import sys
from dataclasses import replace
from typing import Any

from studio.cli.app import main
from studio.core.cluster.crew import Crew
from studio.core.cluster.order import Order
from studio.core.running.spread import Part

_submit = Crew.submit


def submit(crew: Crew, order: Order, part: Part, index: int, topic: str) -> Any:
    """Like `Crew.submit`, which begins the largest first, with another size for each."""
    return _submit(crew, order, replace(part, work=random.randrange(1 << 30)), index, topic)


if __name__ == "__main__":
    Crew.submit = submit  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
