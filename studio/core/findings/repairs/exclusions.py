"""Repairs of exclusion lists: they name what is plain, and nothing that is packed."""

from collections.abc import Iterator, Sequence

from studio.core.findings.claims import Claim, Matcher, vllm_module
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.packing import is_excluded, is_plain_linear
from studio.core.findings.repairs.draft import TORCH, Draft
from studio.core.model import Layer


def exclusions(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Every list, corrected; none where patterns can not be tried."""
    idle = {one.where for one in draft.seen("exclusions-idle")}
    corrected: dict[str, tuple[str, list[str]]] = {}
    for claim in draft.claims():
        if claim.layout not in TORCH or claim.excluded is None:
            continue
        found = _corrected(draft.folder, claim, drop=f"{claim.place}.{claim.key}" in idle)
        if found is None:
            return
        corrected[claim.place] = claim.key, found
    for place, section in draft.sections():
        if place in corrected:
            key, found = corrected[place]
            section[key] = found
    yield from seen


def _corrected(folder: Folder, claim: Claim, *, drop: bool) -> list[str] | None:
    """The entries that match nothing packed, and one for every plain matrix besides; None where it can not be told."""
    entries = () if drop else claim.excluded or ()
    before = Matcher(claim.layout, entries)
    if before.unjudged:
        return None
    packed = {*folder.modules, *(vllm_module(name, folder.joined.get(name, ())) for name in folder.modules)}
    idle = {*before.idle(packed)} - {*before.malformed}
    kept = [entry for entry in entries if entry in idle]
    matcher = Matcher(claim.layout, kept)
    missing = [x for x in folder.layers if is_plain_linear(x, folder) and not is_excluded(x, matcher, folder.joined)]
    stacks = {matrix.stack for name in packed if name in folder.by_name for matrix in folder.by_name[name].matrices}
    kept += dict.fromkeys(name for layer in missing for name in _entries(layer, stacks))
    after = Matcher(claim.layout, kept)
    return kept if len(after.idle(packed)) == len(set(kept)) else None


def _entries(layer: Layer, packed: set[str]) -> list[str]:
    """The layer, and the module that holds all experts where none of them is packed."""
    stacks = {matrix.stack for matrix in layer.matrices if matrix.stack} - packed
    return [layer.name, *(f"{stack}.experts" for stack in sorted(stacks))]
