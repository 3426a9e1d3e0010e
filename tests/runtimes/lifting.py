"""Powers of two for everything that may be lifted, whether that helps or not."""

from studio import core
from studio.core.planning.lift_groups import lift_groups
from studio.core.planning.lifting import balanced


def powers_of(model: core.Model) -> dict[str, int]:
    """Layer name -> exponent, for every layer of every group."""
    found: dict[str, int] = {}
    for number, group in enumerate(lift_groups(model)[0]):
        inner = {product.reader.name: place % 5 - 3 for place, product in enumerate(group.products, number)}
        found |= balanced(group, {group.norm[0].name: number % 4 - 6, **inner})
    return {name: exponent for name, exponent in found.items() if exponent}
