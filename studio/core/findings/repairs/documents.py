"""Repairs of documents: index, digests, config, tokenizer."""

from collections.abc import Iterator, Sequence

from studio.core.findings.documents import TOKENIZERS, places, stored_dtypes
from studio.core.findings.finding import Observation
from studio.core.findings.repairs.draft import TORCH, Draft
from studio.core.layouts.completion import complete_rope
from studio.core.sources.declared import BESIDE

_BESIDE_TOKENIZERS = ("merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def index(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The index, anew from what the files hold; not where that would hide that something is missing."""
    if not draft.shows("tensor-missing", "tensor-twice", "shard-missing", "shard-unreadable"):
        draft.anew.add("index")
        yield from seen


def sums(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """SHA256SUMS, anew over all files."""
    draft.anew.add("sums")
    yield from seen


def rope(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """What transformers 5 nests, also where older readers look."""
    for _, section in places(draft.config):
        complete_rope(section)
    yield from seen


def dtype(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The dtype that plain weights have, where they have one."""
    stored = stored_dtypes(draft.folder)
    if len(stored) == 1:
        draft.config["dtype" if "dtype" in draft.config else "torch_dtype"] = stored.pop()
        yield from seen


def metadata(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The framework of weights stated in their headers."""
    mlx = any(module.layout == "mlx" for module in draft.folder.modules.values())
    for one in seen:
        if draft.is_whole(one.where):
            header = draft.folder.headers[one.where]
            draft.metadata[one.where] = {**header.metadata, "format": "mlx" if mlx else "pt"}
            yield one


def tokenizer(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The tokenizer of a source with as many tokens."""
    source, size = draft.source, draft.config.get("vocab_size")
    if source is None or size is None or source.config.get("vocab_size") != size:
        return
    wanted = (*TOKENIZERS, *_BESIDE_TOKENIZERS)
    found = {path.name: path for path in source.side_files if path.parent == source.folder and path.name in wanted}
    if any(name in found for name in TOKENIZERS):
        draft.added |= {name: path for name, path in found.items() if not (draft.folder.place / name).exists()}
        yield from seen


def inputs(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Weights alone as what is quantized, where no matrix has an input scale."""
    if any(module.inputs is not None for module in draft.folder.modules.values()):
        return
    asking = {claim.place for claim in draft.claims() if claim.activations}
    algorithms = [section.get("quant_algo", "NVFP4") for place, section in draft.sections() if place in asking]
    if not all(algorithm == "NVFP4" for algorithm in algorithms):
        return  # other algorithms do more to inputs than to round them
    for place, section in draft.sections():
        if place in asking and "quant_algo" in section:
            section["quant_algo"] = "W4A16_NVFP4"
        for group in _groups(section):
            if "input_activations" in group:
                group["input_activations"] = None
    yield from seen


def targets(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The head as a target of the one group of compressed-tensors."""
    for claim in draft.claims():
        groups = [group for place, section in draft.sections() if place == claim.place for group in _groups(section)]
        if claim.layout == TORCH[0] and len(groups) == 1:
            groups[0]["targets"] = [*claim.targets, "re:.*lm_head$"]
            yield from seen


def linear(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """All linear layers as a target of the one group of compressed-tensors."""
    for claim in draft.claims():
        groups = [group for place, section in draft.sections() if place == claim.place for group in _groups(section)]
        if claim.layout == TORCH[0] and len(groups) == 1:
            groups[0]["targets"] = ["Linear", *(text for text in claim.targets if text.startswith("re:.*lm_head"))]
            yield from seen


def beside(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Documents of the source in the place of those that are missing or can not be read."""
    source = draft.source
    if source is None:
        return
    there = {path.name: path for path in source.side_files if path.parent == source.folder}
    size = source.config.get("vocab_size") == draft.config.get("vocab_size")
    for one in seen:
        if one.where in there and (size or one.where not in TOKENIZERS):
            draft.added[one.where] = there[one.where]
            yield one


def overrides(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """Overrides of MLX that say what the tensors are; `told` of an observation is whether it is packed."""
    for one in seen:
        found = [section for place, section in draft.sections() if place != BESIDE and one.where in section]
        module = draft.folder.modules.get(one.where)
        if one.told == "plain":
            for section in found:
                section[one.where] = False
            yield one
        elif module and module.is_nvfp4 and all(_is_nvfp4(section) for section in found):
            for section in found:
                section.pop(one.where, None)
            yield one


def _is_nvfp4(section: dict[str, object]) -> bool:
    return (section.get("mode"), section.get("bits"), section.get("group_size")) == ("nvfp4", 4, 16)


def _groups(section: dict[str, object]) -> list[dict[str, object]]:
    groups = section.get("config_groups")
    return [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
