"""Checks of the forms of the parts of codes, by headers: what is missing, and dtypes and shapes that do not fit."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.findings.claims import Claim, claims_of
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.modules import LONE_SCALES, Module
from studio.core.model import Stored
from studio.core.sources.declared import formats
from studio.core.sources.found import Fault
from studio.core.sources.scales import EXPONENTS

TORCH = ("compressed-tensors", "modelopt")
_OF_16, _OF_32, _OF_32_BYTES = 64, 128, 256
"""Bits of the codes that share a block scale: of NVFP4, of MXFP4 (and of NVFP4 in groups of 32), of MXFP8."""

_OF_MX = (_OF_32, 192, _OF_32_BYTES)
"""Bits of 32 codes of 4, 6 and 8 bits."""

_GROUPS_OF_32 = ("w4a8_nvfp4_fp8",)
"""Algorithms of ModelOpt whose NVFP4 has a scale for 32 weights."""

_AFFINE = {bits * group for bits in (2, 3, 4, 5, 6, 8) for group in (16, 32, 64, 128)}
_JOINED = ("qkv", "gate_up", "in_proj")
"""Parts of the names of modules that may have a tensor scale for each of what they join."""

_E5M3 = "e5m3"

_NUMBER = re.compile(r"\.\d+\.")
_FEWEST_OTHERS = 2
"""Numbers of blocks and experts in names, and how many others must have what one lacks."""

_FAULTS: Mapping[Fault, str] = {"missing": "codes-without-scales", "misfit": "scale-shape"}
_WHOLE, _CODES, _FEWEST = ("I8", "U8", "I32", "U32"), ("weight", "weight_packed", "qweight"), 1024
_QWEIGHT = ".qweight"
_OF_OTHERS = ("input", "output", "act")
"""Beginnings of the names of parts that say something of inputs and outputs, which weights do not need."""

_BLOCKS, _SCALES = "_blocks", "_scales"
"""Dtypes and names of codes, and bytes that a matrix of them has at least."""


def parts(folder: Folder) -> Iterator[Observation]:
    """Parts that are missing, or have a dtype or shape that readers of their layout do not take."""
    claimed, unread = claims_of(folder.sections), any(_E5M3 in name for name in formats(folder.sections))
    for module in folder.modules.values():
        others = module.scales is None and module.codes.tensor.name in folder.recognized.sources
        if others or unread:
            continue
        if module.layout in TORCH:
            yield from _of_torch(module, claimed, folder.stored)
        elif module.layout == "mlx":
            yield from _of_mlx(module, folder.stored)


def _of_torch(module: Module, claimed: tuple[Claim, ...], stored: Mapping[str, Stored]) -> Iterator[Observation]:
    codes = module.codes.tensor
    if module.scales is None:
        yield Observation("codes-without-scales", codes.name, f"{codes.dtype} {list(codes.shape)}")
        return
    scales = module.scales.tensor
    if codes.dtype == "I32" and f"{module.name}.weight_shape" not in stored:
        yield Observation("codes-without-scales", codes.name, "packed integers without weight_shape")
    if scales.dtype != "F8_E4M3":
        if codes.dtype == "U8" and module.bits_of_block == _OF_16:
            yield Observation("scale-dtype", scales.name, f"{scales.dtype}, NVFP4 has F8_E4M3", told="F8_E4M3")
        elif codes.dtype == "U8" and scales.dtype in EXPONENTS and module.bits_of_block not in _OF_MX:
            evidence = f"codes {list(codes.shape)} with exponents {list(scales.shape)}, which are for 32 weights each"
            yield Observation("scale-shape", scales.name, evidence)
        return
    wanted = (*codes.shape[:-1], codes.shape[-1] // 8)
    of_32 = any(claim.algorithm in _GROUPS_OF_32 or claim.group == 32 for claim in claimed)
    if codes.dtype == "U8" and scales.shape == (*codes.shape[:-1], codes.shape[-1] // 16):
        if not of_32:
            yield Observation("claims-other-bits", module.name, f"a byte for each of {codes.shape[-1]:,} columns")
    elif codes.dtype == "U8" and scales.shape != wanted:
        evidence = f"codes {list(codes.shape)} with scales {list(scales.shape)}, which should be {list(wanted)}"
        yield Observation("scale-shape", scales.name, evidence)
    if module.third is None:
        yield Observation("tensor-scale-missing", module.name, f"{module.layout} keeps one per matrix")
    else:
        yield from _third(module, module.third)


def _third(module: Module, third: Stored) -> Iterator[Observation]:
    """A tensor scale of another dtype than float32, or not one for a matrix."""
    tensor, matrices = third.tensor, math.prod(module.stack)
    count = math.prod(tensor.shape)
    joined = any(part in module.name.rpartition(".")[2] for part in _JOINED)
    fits = count == matrices or (joined and count in (2 * matrices, 3 * matrices)) or count == 1
    if not fits:
        yield Observation("tensor-scale-form", tensor.name, f"{count:,} for {counted(matrices, 'matrix', 'matrices')}")
    elif tensor.dtype != "F32":
        yield Observation("tensor-scale-form", tensor.name, f"{tensor.dtype}, readers take F32", told="F32")


def _of_mlx(module: Module, stored: Mapping[str, Stored]) -> Iterator[Observation]:
    codes, scales = module.codes.tensor, module.scales.tensor if module.scales else None
    if scales is None:
        yield Observation("codes-without-scales", codes.name, f"{codes.dtype} {list(codes.shape)}")
        return
    biases = stored.get(f"{module.name}.biases")
    if scales.dtype in WEIGHT_DTYPES:
        if biases is None:
            yield Observation("codes-without-scales", codes.name, f"no biases beside scales in {scales.dtype}")
        elif biases.tensor.shape != scales.shape:
            what = f"biases {list(biases.tensor.shape)} beside scales {list(scales.shape)}"
            yield Observation("scale-shape", biases.tensor.name, what)
        known = _AFFINE
    else:
        known = {_OF_16, _OF_32, _OF_32_BYTES}
        if scales.dtype != "U8":
            yield Observation("scale-dtype", scales.name, f"{scales.dtype}, MLX has U8", told="U8")
    if module.bits_of_block not in known:
        evidence = f"codes {list(codes.shape)} of 32 bits with scales {list(scales.shape)}"
        yield Observation("scale-shape", scales.name, evidence)


def lone(folder: Folder) -> Iterator[Observation]:
    """Scales beside which there are no codes and no weight."""
    for name in folder.stored if not folder.is_cut else ():
        path, _, leaf = name.rpartition(".")
        owners = (f"{path}.{other}".rstrip(".") for other in LONE_SCALES.get(leaf, ()))
        if leaf in LONE_SCALES and not any(owner in folder.stored for owner in owners):
            yield Observation("scales-without-codes", name)
        blocks = f"{name.removesuffix(_SCALES)}{_BLOCKS}"
        if name.endswith(_SCALES) and folder.stored[name].tensor.dtype == "U8" and blocks not in folder.stored:
            yield Observation("scales-without-codes", name)


def lacking(folder: Folder) -> Iterator[Observation]:
    """Codes without a part that those of the same name, in the same form, have in all other blocks."""
    found, leaves = folder.recognized, defaultdict[str, set[str]](set)
    for name in found.scales:
        path, _, leaf = name.rpartition(".")
        if not leaf.startswith(_OF_OTHERS):
            leaves[path].add(leaf)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, source in found.sources.items():
        form = source.stored.tensor.dtype, f"{source.bits}"
        alike[(_NUMBER.sub(".#.", name), *form)].append(name)
    for names in alike.values():
        counts = Counter(leaf for name in names for leaf in leaves[name.rpartition(".")[0]])
        common = {leaf for leaf, count in counts.items() if count == len(names) - 1 >= _FEWEST_OTHERS}
        for name in names if common else ():
            for leaf in sorted(common - leaves[name.rpartition(".")[0]]):
                evidence = f"no {leaf}, which {counted(len(names) - 1, 'other has', 'others have')}"
                yield Observation("codes-without-scales", name, evidence)
    ordered = any(section.content.get("desc_act") is True for section in folder.sections)
    for name in found.sources if ordered else ():
        if name.endswith(_QWEIGHT) and f"{name.removesuffix(_QWEIGHT)}.g_idx" not in folder.stored:
            yield Observation("codes-without-scales", name, "no g_idx, and desc_act says that columns are in an order")


def unread(folder: Folder) -> Iterator[Observation]:
    """Codes that nobody can read as they are stored, and those of forms that this program does not read."""
    told = {_module_of(folder, one.where) for one in parts(folder)}
    for name, reason in folder.recognized.unread.items():
        fault = folder.recognized.faults.get(name)
        if fault is None or folder.is_cut:
            yield Observation("codes-unread", name, reason)
        elif _module_of(folder, name) not in told:
            yield Observation(_FAULTS[fault], name, reason)
    for name in _bare(folder) if not folder.is_cut else ():
        if _module_of(folder, name) not in told:
            tensor = folder.stored[name].tensor
            yield Observation(
                "codes-without-scales", name, f"{tensor.dtype} {list(tensor.shape)} beside no scales for it"
            )


def _module_of(folder: Folder, name: str) -> str:
    return name if name in folder.modules else name.rpartition(".")[0]


def _bare(folder: Folder) -> Iterator[str]:
    """Whole numbers under the names of weights that nothing makes weights."""
    known = folder.recognized.sources.keys() | folder.recognized.unread.keys() | folder.recognized.scales
    for name, stored in folder.stored.items():
        tensor = stored.tensor
        is_codes = tensor.dtype in _WHOLE and len(tensor.shape) > 1 and tensor.nbytes >= _FEWEST
        leaf = name.rpartition(".")[2]
        if is_codes and (leaf in _CODES or leaf.endswith(_BLOCKS)) and name not in known:
            yield name
