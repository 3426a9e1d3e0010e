"""The command line, with workers that begin parts in any order: `python -m tests.faults.shuffled quantize ...`.

They begin before the first part, or while this process works, by chance: not only where they pay.
"""

import random
import sys
from dataclasses import replace
from typing import Any

from studio import core
from studio.cli.app import main
from studio.core.cluster import joining
from studio.core.cluster.crew import Crew, crew
from studio.core.cluster.order import Order
from studio.core.running.spread import Part

_submit = Crew.submit
BEFORE = 0.75
"""The share of runs in which workers do all."""


def submit(crew: Crew, order: Order, part: Part, index: int, topic: str) -> Any:
    """Like `Crew.submit`, which begins the largest first, with another size for each."""
    return _submit(crew, order, replace(part, work=random.randrange(1 << 30)), index, topic)


if __name__ == "__main__":
    Crew.submit = submit  # type: ignore[method-assign]
    joining.PAYS = joining.TRIAL = 0.0
    if random.random() < BEFORE:
        core.workforce = crew  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
