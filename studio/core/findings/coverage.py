"""Coverage: how many weights and bytes have how many bits, by role."""

from collections import Counter
from collections.abc import Iterator

from studio.core.exporting.contents import MANIFEST
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder

_MATRICES = ("linear", "expert")


def coverage(folder: Folder) -> Iterator[Observation]:
    """What share of a quantized folder is in few bits, and whether that is little."""
    layers = [layer for layer in folder.layers if layer.count]
    packed = [layer for layer in layers if layer.name in folder.packed]
    if not packed:
        return
    weights, nbytes = sum(layer.count for layer in layers), sum(layer.nbytes for layer in layers)
    of = f"{sum(x.count for x in packed) / weights:.1%} of the weights, {sum(x.nbytes for x in packed) / nbytes:.1%}"
    totals, few = Counter[str](), Counter[str]()
    for layer in layers:
        totals[layer.role] += layer.count
        few[layer.role] += layer.count if layer.name in folder.packed else 0
    roles = ", ".join(f"{role} {few[role] / total:.0%}" for role, total in totals.most_common())
    bits = " and ".join(sorted({f"{layer.source.bits}" for layer in packed}))
    yield Observation("coverage", evidence=f"{of} of the bytes are codes of {bits} bits; {roles}")
    total = sum(totals[role] for role in _MATRICES)
    told = (folder.place / MANIFEST).is_file()  # an export of ours says why it keeps each
    if total and not told and sum(few[role] for role in _MATRICES) < total / 2:
        yield Observation("mostly-plain", evidence=f"{roles} are packed")
