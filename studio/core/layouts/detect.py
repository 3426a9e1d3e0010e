"""Which quantization a checkpoint has that is not read here, told by names, dtypes and shapes of its tensors."""

from collections.abc import Mapping, Sequence

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.declared import Section
from studio.core.sources.recognition import Recognized
from studio.core.sources.scale_names import scale_names

_BY_SUFFIX = (
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_2", "ModelOpt NVFP4"),
    (".qweight", "GPTQ or AWQ"),
    (".weight.absmax", "bitsandbytes"),
    (".SCB", "bitsandbytes LLM.int8"),
    (".weight.bitmask", "compressed-tensors, sparse"),
    ("._weight_qdata", "torchao"),
    (".weight._data", "quanto"),
    (".weight._data._data", "quanto"),
    (".W_q", "HQQ"),
    (".q_weight", "EXL2"),
    (".trellis", "EXL3"),
    (".codebooks", "AQLM"),
    (".Qidxs", "QuIP#"),
)
_SUFFIXES = tuple(suffix for suffix, _ in _BY_SUFFIX)
_OF_CODES = (".weight_packed", ".qweight", ".q_weight", ".trellis", ".Qidxs")
"""Suffixes of codes; floats of such names are vectors of a model, as in PLaMo 2."""

_INTEGERS = ("I8", "U8", "I32", "U32")
_OTHER_INTEGERS = ("I16", "U16", "I64", "U64")
_BUFFERS = ("bias", "mask", "position_ids")
"""Integers of these names are no weights."""

_CODES = ("F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")
"""Dtypes that only codes and their scales have."""


def quantization_method(stored: Mapping[str, Stored], sections: Sequence[Section], found: Recognized) -> str:
    """The method that quantized a checkpoint, or "" for plain weights and for codes that are read."""
    unknown = {name: item for name, item in stored.items() if name not in found.sources and name not in found.scales}
    if found.claimed:
        return found.refusal
    declared = next((section.method for section in sections if section.method), "")
    if method := next(filter(None, (_by_name(name, item, unknown) for name, item in unknown.items())), ""):
        return declared or method
    codes = next((item.tensor for name, item in stored.items() if _is_code(name, item, stored, found)), None)
    if codes is None and found.refusal:
        return found.refusal
    if codes is None and sections and not found.sources:
        codes = next((item.tensor for item in stored.values() if _may_be_code(item)), None)
    evidence = f"{printable(codes.name)} is {codes.dtype}" if codes else ""
    return f"{declared}: {evidence}" if declared and codes else evidence


def leftovers(sections: Sequence[Section], found: Recognized, method: str) -> list[str]:
    """A sentence that names the sections of the config which speak of a quantization that no tensor has."""
    if method or found.sources or not sections:
        return []
    places = ", ".join(printable(section.place) for section in sections)
    methods = ", ".join(dict.fromkeys(section.method for section in sections if section.method))
    return [f"left over from an earlier quantization, left out: {places}{f' ({methods})' if methods else ''}"]


def _by_name(name: str, item: Stored, stored: Mapping[str, Stored]) -> str:
    if name.endswith(_SUFFIXES):
        is_float = item.tensor.dtype in WEIGHT_DTYPES
        for suffix, method in _BY_SUFFIX:
            if name.endswith(suffix) and not (is_float and suffix in _OF_CODES):
                return method
    blocks = item.tensor.dtype == "U8" and name.endswith("_blocks")
    scales = stored.get(f"{name.removesuffix('_blocks')}_scales") if blocks else None
    return "MXFP4" if scales is not None and scales.tensor.dtype == "U8" else ""


def _is_code(name: str, item: Stored, stored: Mapping[str, Stored], found: Recognized) -> bool:
    """True for integers that stand for weights, and for dtypes that nothing else has, unless they are read."""
    dtype, known = item.tensor.dtype, name in found.sources or name in found.scales
    if known or dtype not in (*_INTEGERS, *_OTHER_INTEGERS, *_CODES):
        return False
    matrix = dtype in _INTEGERS and name.rpartition(".")[2] == "weight" and len(item.tensor.shape) > 1
    return dtype in _CODES or matrix or any(other in stored for other in scale_names(name))


def _may_be_code(item: Stored) -> bool:
    """True for matrices of integers: beside a section of a quantization they tell that it is none of the past."""
    tensor = item.tensor
    matrix = len(tensor.shape) > 1 and tensor.dtype in (*_INTEGERS, "I16", "U16")
    return matrix and tensor.name.rpartition(".")[2] not in _BUFFERS
