"""What this program reads of a checkpoint, against what the package that made it decodes."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from studio import core
from studio.core.errors import StudioError
from studio.core.findings.documents import TOKENIZERS

EQUAL, ROUNDED, DIFFERS, REFUSED, NOT_MADE, NOT_INSTALLED = (
    "equal",
    "equal once rounded",
    "DIFFERS",
    "refused",
    "not made",
    "not installed",
)
ZERO = "weights-zero"
"""The finding of matrices that packages decode to zeros, as some do of one bit."""

_DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table.

    stored: what the program says of the weights, with how many tensors are so. tensors: those that were compared. what:
    one of the words above; EQUAL and ROUNDED are to the bit. alarms: findings of the doctor that it gives no
    cause for. is_right: it is what was to be, and there are none.
    """

    package: str
    version: str
    case: str
    what: str
    reason: str = ""
    stored: str = ""
    tensors: int = 0
    loader: str = ""
    alarms: str = ""
    is_right: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def judged(folder: Path, decoded: Mapping[str, np.ndarray], dtype: str, refusal: str) -> dict[str, Any]:
    """The fields of a result that follow from a checkpoint and what was decoded of it, rounded to `dtype`."""
    try:
        with core.open_model(folder) as model:
            if refusal:
                return {"what": REFUSED, "reason": model.quantized_by, "is_right": refusal in model.quantized_by}
            return _compared(model, decoded, dtype)
    except StudioError as error:
        return {"what": REFUSED, "reason": str(error), "is_right": False}


def alarms(folder: Path, tokenizer: Path, wanted: Iterable[str]) -> str:
    """What the doctor finds in a checkpoint beside the `wanted` kinds, or does not find of them; "" for nothing.

    Notes do not count. The checkpoint gets a tokenizer, where it has none.
    """
    if not any((folder / name).exists() for name in TOKENIZERS):
        shutil.copy(tokenizer, folder)
    *_, ended = core.doctor(folder)
    assert isinstance(ended, core.Examined)
    found = {one.kind: one for one in ended.examination.findings if one.severity != "note"}
    odd = [f"{one.kind} of {one.places} ({one.evidence})" for kind, one in found.items() if kind not in wanted]
    return "; ".join([*odd, *(f"no {kind}" for kind in wanted if kind not in found)])


def _compared(model: core.Model, decoded: Mapping[str, np.ndarray], dtype: str) -> dict[str, Any]:
    open_, found, faults = dict(decoded), Counter[str](), []
    for layer in model.layers:
        name = next((name for name in (layer.weight_name, layer.tensor.name) if name in open_), "")
        what, reason = difference(_weights(layer), open_.pop(name), dtype) if name else (DIFFERS, "of no weight")
        found[what] += 1
        faults += [f"{name or layer.name}: {reason}; {layer.obstacle}".rstrip("; ")] if reason else []
    faults += [f"{name}: not there" for name in open_]
    what = DIFFERS if faults else ROUNDED if found[ROUNDED] else EQUAL
    kinds = Counter(layer.source.meaning for layer in model.layers if _is_stored_in_codes(layer))
    stored = "; ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    reason = f"{len(faults)} of them, first {faults[0]}" if faults else f"to {dtype}" if found[ROUNDED] else ""
    told = {
        "tensors": found.total(),
        "stored": stored,
        "is_right": not faults and bool(kinds or model.container == "gguf"),
    }
    return {"what": what, "reason": reason, **told}


def _is_stored_in_codes(layer: core.Layer) -> bool:
    return layer.tensor.dtype not in _DTYPES


def _weights(layer: core.Layer) -> np.ndarray:
    whole = layer.whole
    return layer.source.rows(whole, 0, whole.rows).astype(np.float32).reshape(layer.shape)


def difference(found: np.ndarray, wanted: np.ndarray, dtype: str) -> tuple[str, str]:
    """(EQUAL, ROUNDED or DIFFERS, how); minus zero is zero."""
    if found.shape != wanted.shape:
        return DIFFERS, f"of shape {list(found.shape)}, not {list(wanted.shape)}"
    if np.array_equal(found, wanted):
        return EQUAL, ""
    if np.array_equal(found.astype(_DTYPES[dtype]).astype(np.float32), wanted):
        return ROUNDED, ""
    off = found != wanted
    far = np.abs(found - wanted).max() / np.abs(wanted).max()
    return DIFFERS, f"{off.mean():.2%} of the weights, by {far:.1e} of the largest at most"
