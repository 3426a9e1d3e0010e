"""Kinds of findings: a row each, what it means, which runtimes it breaks, and what helps."""

from dataclasses import dataclass

from studio.core.findings.finding import SEVERITIES, Examination, Finding, Observation, Severity, shown
from studio.core.names import printable

_TORCH = ("vllm", "transformers")
_ALL = ("vllm", "transformers", "mlx-lm")
_ORIGINAL = "quantize it again from its original"
_THIRD = "quantize it again with a tensor scale"
_AGAIN = "download the file again"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all findings of a kind have in common, see `Finding`; `studio.core.findings.repairs` makes the repairs."""

    name: str
    severity: Severity
    what: str
    fails: tuple[str, ...] = ()
    fix: str = ""
    repair: str = ""
    wants_source: bool = False


_ROWS = (
    Kind("refused", "error", "it can not be opened as a model", _ALL, "mend what the other findings name"),
    Kind("told-on-opening", "note", "opening it says", fix="nothing, unless it surprises you"),
    Kind("shard-unreadable", "error", "a file of weights is cut off, damaged or something else", _ALL, _AGAIN),
    Kind("shard-missing", "error", "files of weights are missing", _ALL, "finish the download"),
    Kind(
        "index-unreadable",
        "error",
        "the index can not be read",
        _ALL,
        "write it anew from the files",
        repair="an index written anew",
    ),
    Kind(
        "index-size",
        "warning",
        "the index states another size",
        (),
        "write it anew from the files",
        repair="an index written anew",
    ),
    Kind("tensor-missing", "error", "the index lists tensors that no file holds", _ALL, _AGAIN),
    Kind(
        "tensor-moved",
        "error",
        "the index names another file for tensors",
        _ALL,
        "write it anew",
        repair="an index written anew",
    ),
    Kind(
        "tensor-unlisted",
        "warning",
        "files hold tensors that the index does not list",
        _ALL,
        "write it anew",
        repair="an index written anew",
    ),
    Kind(
        "tensor-twice",
        "warning",
        "more than one file holds a tensor",
        (),
        "delete the file of another export",
        repair="each tensor once",
    ),
    Kind(
        "shard-unlisted",
        "warning",
        "files of weights that do not belong to the others, and that mlx-lm, or transformers, reads by their names",
        ("mlx-lm", "transformers"),
        "move them away",
    ),
    Kind("shard-foreign", "warning", "files of weights that different programs wrote", (), _AGAIN),
    Kind(
        "metadata-format",
        "warning",
        "headers of weights do not say for which framework they are",
        ("transformers 4",),
        "state it",
        repair="the format stated",
    ),
    Kind("digest", "error", "files are not those of their SHA-256, in SHA256SUMS or stated in them", (), _AGAIN),
    Kind("digest-missing", "error", "files that SHA256SUMS lists are not here", (), _AGAIN),
    Kind(
        "digests-unreadable",
        "warning",
        "SHA256SUMS can not be read",
        (),
        "write it anew",
        repair="SHA256SUMS written anew",
    ),
    Kind("manifest", "error", "the manifest of the export does not fit its tensors", (), _ORIGINAL),
    Kind("config-missing", "error", "there is no config.json", _ALL, "copy it from the original"),
    Kind("config-unreadable", "error", "config.json can not be read", _ALL, "copy it from the original"),
    Kind(
        "document-unreadable",
        "warning",
        "a document can not be read",
        (),
        "copy it from the original",
        repair="that of the source",
        wants_source=True,
    ),
    Kind(
        "tokenizer-unreadable",
        "error",
        "a file of the tokenizer can not be read",
        _ALL,
        "copy it from the original",
        repair="that of the source",
        wants_source=True,
    ),
    Kind(
        "beside-missing",
        "warning",
        "files of the source that runtimes read, and that are not here",
        (),
        "copy them from the original",
        repair="those of the source",
        wants_source=True,
    ),
    Kind("blocks-missing", "error", "blocks of the model are missing", _ALL, _AGAIN),
    Kind("weight-missing", "error", "a weight is missing that the model needs", _ALL, _AGAIN),
    Kind(
        "weight-shape",
        "warning",
        "a weight of another shape than in all other blocks, or than those beside it",
        _ALL,
        _ORIGINAL,
    ),
    Kind("config-sizes", "error", "config.json states sizes that no weight has", _ALL, "copy it from the original"),
    Kind(
        "tokenizer-missing",
        "warning",
        "no file of a tokenizer",
        _ALL,
        "copy it from the original",
        repair="the tokenizer of the source",
        wants_source=True,
    ),
    Kind(
        "rope-nested",
        "note",
        "config.json has rope_theta inside rope_parameters alone, where only transformers 5 looks",
        ("mlx-lm", "mlx-vlm", "transformers 4"),
        "state it at the top of config.json, too",
        repair="rope_theta stated at the top, too",
    ),
    Kind(
        "config-dtype",
        "warning",
        "config.json names another dtype than plain weights have",
        (),
        "state theirs",
        repair="the dtype of the plain weights stated",
    ),
    Kind(
        "section-leftover",
        "error",
        "config.json describes a quantization that no tensor has",
        _TORCH,
        "take the section out",
        repair="no section",
    ),
    Kind(
        "section-missing",
        "error",
        "codes, and no document says so",
        _ALL,
        "add the section of its layout",
        repair="the section of its layout",
    ),
    Kind(
        "section-contradicts",
        "error",
        "the config names another layout than the tensors have",
        _ALL,
        _ORIGINAL,
        repair="the section of the layout that the tensors have",
    ),
    Kind(
        "codes-without-scales",
        "error",
        "codes without scales, or other parts that they need",
        _ALL,
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "scale-shape",
        "error",
        "scales or other parts that do not fit the codes",
        _ALL,
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "scale-dtype",
        "error",
        "block scales stored in another dtype than readers take",
        _ALL,
        "state the dtype that their bytes have, or write them in it",
        repair="the dtype that readers take",
    ),
    Kind("scales-without-codes", "error", "scales beside which no codes are stored", _ALL, _AGAIN),
    Kind("codes-unread", "note", "codes that this program does not read"),
    Kind(
        "claims-other-format",
        "error",
        "the config describes another format than the codes have",
        _ALL,
        "describe what is stored",
        repair="the section of what is stored",
    ),
    Kind(
        "not-targeted",
        "error",
        "packed weights that no target of the config names",
        _TORCH,
        "add Linear to the targets",
        repair="Linear among the targets",
    ),
    Kind(
        "sections-disagree",
        "warning",
        "two documents describe the quantization differently: readers take the one or the other",
        _ALL,
        "say the same in both",
        repair="the section of what is stored",
    ),
    Kind(
        "claims-other-bits",
        "error",
        "stored in other bits than the config claims",
        _ALL,
        _ORIGINAL,
        repair="the section of what is stored, or with a source weights quantized again",
    ),
    Kind(
        "tensor-scale-missing",
        "error",
        "NVFP4 of this layout without its tensor scale",
        _TORCH,
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "tensor-scale-form",
        "error",
        "tensor scales of another dtype than float32, or not one for a matrix",
        _TORCH,
        "write them as float32, one for a matrix",
        repair="tensor scales as readers take them",
    ),
    Kind(
        "tensor-scale-odd",
        "warning",
        "tensor scales that make weights of a size that hardly any have",
        (),
        "compare it with its original: --source",
    ),
    Kind(
        "tensor-scale-unusable",
        "error",
        "tensor scales that are no positive number",
        _ALL,
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "tensor-scale-meaning",
        "error",
        "tensor scales stored in the convention of another layout",
        _ALL,
        "convert them",
        repair="tensor scales converted",
    ),
    Kind(
        "fused-scales",
        "error",
        "matrices that runtimes join have different tensor scales",
        ("vllm", "tensorrt-llm"),
        "quantize the group together from its original",
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "fused-partly",
        "error",
        "matrices that runtimes join are not all packed, or not all in the same form",
        ("vllm",),
        _ORIGINAL,
    ),
    Kind(
        "head-untargeted",
        "error",
        "the head is packed and no target of the config names it",
        ("vllm",),
        "add re:.*lm_head$ to the targets",
        repair="a target for the head",
    ),
    Kind("head-tied-packed", "error", "a packed head that config.json ties to the embedding", _ALL, "keep it plain"),
    Kind("head-missing", "error", "config.json asks for a head of its own and none is stored", _ALL, _AGAIN),
    Kind("embedding-packed", "error", "packed embeddings, which this layout has no reader for", _TORCH, _ORIGINAL),
    Kind(
        "not-excluded",
        "error",
        "plain weights that the exclusion list does not name",
        _TORCH,
        "list them",
        repair="the list corrected",
    ),
    Kind(
        "excluded-packed",
        "error",
        "packed weights that the exclusion list names",
        _TORCH,
        "take them out of the list",
        repair="the list corrected",
    ),
    Kind(
        "exclusions-idle",
        "warning",
        "an exclusion list of which nothing matches",
        _TORCH,
        "correct it",
        repair="the list corrected",
    ),
    Kind(
        "exclusion-malformed",
        "warning",
        "entries of an exclusion list are no pattern",
        _TORCH,
        "correct them",
        repair="the list corrected",
    ),
    Kind("exclusion-idle", "note", "entries of an exclusion list that match nothing here"),
    Kind("exclusion-unjudged", "note", "patterns of an exclusion list are too involved to be tried on names"),
    Kind(
        "inputs-unusable",
        "error",
        "input scales that are no positive number",
        ("vllm", "tensorrt-llm"),
        "calibrate again",
    ),
    Kind(
        "inputs-missing",
        "error",
        "the config asks for quantized inputs and there are no scales for them: vLLM takes what is in memory",
        ("vllm",),
        "declare it as weight-only, or calibrate it",
        repair="weights alone declared as quantized",
    ),
    Kind(
        "inputs-implausible",
        "error",
        "input scales for inputs of a size that layers do not have",
        ("vllm", "tensorrt-llm"),
        "calibrate again",
        repair="input scales the other way round",
    ),
    Kind(
        "inputs-undeclared",
        "warning",
        "input scales that the config does not ask for",
        ("vllm",),
        "declare them, or leave them out",
    ),
    Kind(
        "fused-inputs",
        "warning",
        "matrices that runtimes join have different input scales: one counts for all",
        (),
        "calibrate them together",
        repair="the one for the largest inputs",
    ),
    Kind(
        "experts-unrouted", "error", "experts without input scales, beside others", ("vllm",), "calibrate on more text"
    ),
    Kind(
        "mlx-tensor-scale",
        "error",
        "tensor scales that stock mlx-lm has no place for",
        ("mlx-lm",),
        "use two tiers, or a model file",
    ),
    Kind("mlx-model-file", "error", "the model file that config.json names is not here", ("mlx-lm",), "copy it"),
    Kind(
        "mlx-must-be-plain",
        "error",
        "mlx-lm takes these apart, which it can do with plain ones",
        ("mlx-lm",),
        _ORIGINAL,
    ),
    Kind("mlx-refused", "error", "mlx-lm can not run this architecture packed", ("mlx-lm",), "use another layout"),
    Kind(
        "mlx-override",
        "error",
        "overrides of the config do not fit the tensors",
        ("mlx-lm",),
        "correct them",
        repair="overrides corrected",
    ),
    Kind(
        "weights-zero",
        "warning",
        "matrices of which all weights are zero, or all codes one",
        (),
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind("weights-nan", "error", "weights that are no number", _ALL, _ORIGINAL),
    Kind(
        "float16-overflow",
        "warning",
        "weights beyond the largest number of float16",
        (),
        "run it in bfloat16 or float32",
    ),
    Kind(
        "float16-inputs",
        "warning",
        "inputs of layers beyond the largest number of float16, by the statistics",
        (),
        "run it in bfloat16 or float32",
    ),
    Kind(
        "float16-inputs-near",
        "note",
        "inputs of layers that come near the largest number of float16, by the statistics",
        (),
        "run it in bfloat16 or float32, unless its text was all that it will read",
    ),
    Kind(
        "coarse-weights",
        "warning",
        "plain weights on a grid of fewer bits: they were quantized before, and another quantization adds to that",
        (),
        "start from the original, or convert the quantized one",
    ),
    Kind("coverage", "note", "what is quantized"),
    Kind("mostly-plain", "warning", "most weights of a quantized folder are plain", (), _ORIGINAL),
    Kind(
        "head-duplicate",
        "note",
        "the head is the embedding once more",
        (),
        "leave it out and say so with tie_word_embeddings, where readers know that",
    ),
    Kind(
        "head-differs",
        "warning",
        "config.json ties the head to the embedding, and another one is stored",
        _ALL,
        "say false where it is meant to be used",
    ),
    Kind(
        "scales-nan",
        "error",
        "block scales that are no number",
        _ALL,
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "scales-negative",
        "error",
        "negative block scales over live codes",
        ("vllm", "llama.cpp"),
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "scales-zero",
        "warning",
        "scales of zero, or as good as, over live codes: whole blocks are lost",
        (),
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "scales-coarse",
        "warning",
        "block scales so small that E4M3 has hardly a number for them",
        (),
        _THIRD,
    ),
    Kind("scales-subnormal", "note", "block scales below the normal numbers of E4M3, which lose bits", (), _THIRD),
    Kind(
        "scales-saturated",
        "warning",
        "block scales at the largest number: weights were cut off",
        (),
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind(
        "nibbles-swapped",
        "error",
        "the two codes of every byte are swapped",
        _ALL,
        _ORIGINAL,
        repair="codes swapped back",
        wants_source=True,
    ),
    Kind(
        "differs-from-source",
        "error",
        "decoded weights are not those of the source",
        (),
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
    Kind("source-unlike", "warning", "nothing could be compared with the source", (), "give the one it was made from"),
    Kind(
        "lane-bug",
        "error",
        "scales of NVFP4 over 32 weights, as MLX 0.32.0 and older wrote them",
        (),
        _ORIGINAL,
        repair="weights quantized again from the source",
        wants_source=True,
    ),
)

KINDS = {row.name: row for row in _ROWS}


class Observed:
    """Observations as they come, gathered by kind."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Observation]] = {}
        self._fails: dict[str, dict[str, None]] = {}
        self._known: set[Observation] = set()

    def add(self, seen: Observation) -> Finding | None:
        """Take one; what it makes known when it is the first of its kind. A place counts once, however it was seen."""
        place = Observation(seen.kind, seen.where, "" if seen.where else seen.evidence)
        if place in self._known:
            return None
        self._known.add(place)
        is_first = seen.kind not in self._seen
        self._seen.setdefault(seen.kind, []).append(seen)
        self._fails.setdefault(seen.kind, dict.fromkeys(KINDS[seen.kind].fails)).update(dict.fromkeys(seen.fails))
        return self._finding(seen.kind) if is_first else None

    def examination(self) -> Examination:
        """All of it: a finding per kind, worst first."""
        findings = sorted(map(self._finding, self._seen), key=lambda found: SEVERITIES.index(found.severity))
        return Examination(tuple(findings), {kind: tuple(seen) for kind, seen in self._seen.items()})

    def _finding(self, name: str) -> Finding:
        row, seen = KINDS[name], self._seen[name]
        named = [one.where for one in seen if one.where]
        return Finding(
            name,
            row.severity,
            row.what,
            shown(named),
            len(named),
            printable(seen[0].evidence, 400),
            tuple(self._fails[name]),
            row.fix,
            row.repair,
            row.wants_source,
        )
