"""Checks of the method that a config names against the forms in which packages of that method store weights."""

from collections.abc import Callable, Iterator, Mapping

from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.sources.declared import Section
from studio.core.sources.fp8 import FP8

_Test = Callable[[Folder, str, str, str], bool]
"""Whether the codes of this name, in this module and of this dtype, are those of a method."""


def _leaf(*leaves: str) -> _Test:
    return lambda _folder, name, _module, _dtype: name.endswith(leaves)


def _beside(*leaves: str, dtypes: tuple[str, ...] = ()) -> _Test:
    """Codes under the name of the weight, beside which there is one of these parts."""

    def test(folder: Folder, name: str, module: str, dtype: str) -> bool:
        there = any(f"{path}{leaf}" in folder.stored for path in (name, module) for leaf in leaves)
        return there and (dtype in dtypes or not dtypes)

    return test


def _fp8(_folder: Folder, _name: str, _module: str, dtype: str) -> bool:
    return dtype == FP8


def _any(*tests: _Test) -> _Test:
    return lambda *where: any(test(*where) for test in tests)


def _without(test: _Test, leaf: str) -> _Test:
    """Codes of a test beside which there is no such part, and which are not called so."""

    def apart(folder: Folder, name: str, module: str, dtype: str) -> bool:
        there = f"{module}{leaf}" in folder.stored
        return not there and test(folder, name, module, dtype)

    return apart


_GPTQ = _leaf(".qweight")
_SCALED = _without(_beside(".weight_scale", "_scale", dtypes=(FP8, "I8", "U8", "I32")), ".weight_packed")
_OF_FP8 = _any(_fp8, _beside(".scale", dtypes=("I8",)))

_STORED: Mapping[str, _Test] = {
    "gptq": _GPTQ,
    "awq": _without(_GPTQ, ".g_idx"),
    "bitsandbytes": _beside(".absmax", ".SCB"),
    "mxfp4": _leaf("_blocks"),
    "hqq": _leaf(".W_q"),
    "fp8": _OF_FP8,
    "fbgemm_fp8": _OF_FP8,
    "mxfp8": _OF_FP8,
    "compressed-tensors": _any(_leaf(".weight_packed"), _SCALED),
    "modelopt": _any(_SCALED, _beside("_scale")),
    "quark": _SCALED,
}
"""What the codes of a method are stored as; others are not judged."""


_KEYS: Mapping[str, tuple[str, ...]] = {
    "gptq": ("bits",),
    "awq": ("bits", "w_bit"),
    "compressed-tensors": ("config_groups", "sparsity_config"),
    "modelopt": ("quant_algo", "quantization"),
    "quark": ("global_quant_config",),
}
"""Keys of which a section of a method has one: its readers look for it."""

_ONLY = {"config_groups": ("compressed-tensors", "modelopt"), "quant_algo": ("modelopt",)}
"""Keys that sections of these methods alone have, of those above and FP8."""


def methods(folder: Folder) -> Iterator[Observation]:
    """Sections of a method of which no codes are here, though there are others, or that say what others say."""
    sources = folder.recognized.sources
    codes = {name: source.stored.tensor.dtype for name, source in sources.items()}
    codes |= {name: folder.stored[name].tensor.dtype for name in folder.recognized.unread if name in folder.stored}
    for section in folder.sections if codes else ():
        test = _STORED.get(str(section.content.get("quant_method")).lower())
        if test and not any(test(folder, name, name.rpartition(".")[0], dtype) for name, dtype in codes.items()):
            first = next(iter(codes))
            yield Observation("section-contradicts", section.place, f"it is of {section.method}, {first} is not")
        elif told := _unlike(section):
            yield Observation("section-contradicts", section.place, f"it is of {section.method}, and {told}")


def _unlike(section: Section) -> str:
    """What makes a section one of another method than it names."""
    method, content = str(section.content.get("quant_method")).lower(), section.content
    if (keys := _KEYS.get(method)) and not any(key in content for key in keys):
        return f"says no {keys[0]}"
    other = next((key for key, owners in _ONLY.items() if key in content and method not in owners), "")
    return f"says {other}, as those of {' and '.join(_ONLY[other])} do" if other and method in _STORED else ""
