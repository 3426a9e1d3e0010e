"""Which repair mends which kinds of findings, in the order in which they are made."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from studio.core.findings.finding import Observation, Repair, shown
from studio.core.findings.kinds import KINDS
from studio.core.findings.repairs import documents, requantizing, sections, tensors
from studio.core.findings.repairs.draft import Draft
from studio.core.findings.repairs.exclusions import exclusions

Mend = Callable[[Draft, Sequence[Observation]], Iterator[Observation]]
"""Edits a draft; gives those of the observations that it mends."""

REPAIRS: Mapping[Mend, tuple[str, ...]] = {
    sections.leftover: ("section-leftover",),
    sections.described: (
        "section-missing",
        "section-contradicts",
        "claims-other-format",
        "sections-disagree",
    ),
    sections.eight_bits: ("claims-other-bits",),
    documents.inputs: ("inputs-missing",),
    documents.overrides: ("mlx-override",),
    documents.linear: ("not-targeted",),
    documents.targets: ("head-untargeted",),
    exclusions: ("not-excluded", "excluded-packed", "exclusions-idle", "exclusion-malformed"),
    documents.rope: ("rope-nested",),
    documents.dtype: ("config-dtype",),
    documents.metadata: ("metadata-format",),
    documents.tokenizer: ("tokenizer-missing",),
    documents.beside: ("document-unreadable", "tokenizer-unreadable", "beside-missing"),
    documents.index: ("index-unreadable", "index-size", "tensor-moved", "tensor-unlisted"),
    documents.sums: ("digests-unreadable",),
    tensors.once: ("tensor-twice",),
    tensors.relabelled: ("scale-dtype",),
    tensors.formed: ("tensor-scale-form",),
    tensors.reciprocal: ("inputs-implausible",),
    tensors.agreed: ("fused-inputs",),
    tensors.converted: ("tensor-scale-meaning",),
    tensors.swapped: ("nibbles-swapped",),
    requantizing.requantized: (
        "lane-bug",
        "codes-without-scales",
        "scale-shape",
        "claims-other-bits",
        "tensor-scale-missing",
        "differs-from-source",
        "weights-zero",
        "scales-nan",
        "scales-negative",
        "scales-zero",
        "scales-saturated",
        "tensor-scale-unusable",
        "fused-scales",
    ),
}
"""Repair -> the kinds that it mends. One fills `Kind.repair` for each of them."""

Mended = Mapping[str, tuple[Observation, ...]]


def mend(draft: Draft) -> Mended:
    """Make every repair that the findings ask for and that is certain; what was mended, by kind."""
    mended: dict[str, list[Observation]] = {}
    for repair, kinds in REPAIRS.items():
        seen = [one for kind in kinds for one in draft.seen(kind) if one not in mended.get(kind, ())]
        for one in repair(draft, seen) if seen else ():
            mended.setdefault(one.kind, []).append(one)
    return {kind: tuple(observations) for kind, observations in mended.items()}


def told(mended: Mended) -> tuple[Repair, ...]:
    """The same for people."""
    return tuple(
        Repair(kind, KINDS[kind].repair, shown(named), len(named))
        for kind, observations in mended.items()
        for named in [[one.where for one in observations if one.where]]
    )
