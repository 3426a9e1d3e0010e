"""The kernels as data: which text, which arrays, which launch; one text for Metal and CUDA with a prelude each."""

from dataclasses import dataclass
from importlib import resources
from typing import Literal

Device = Literal["metal", "cuda"]

SEGMENT = 512
"""Blocks of one row whose error one simdgroup sums; longer rows are cut."""

SUMS = 6
"""Sums per segment: squares, squared error, largest error, vanished, fourth powers, largest weight."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: its text is `<name>.h` under the headers; `groups` caps the threadgroups of `threads` threads.

    A header of whose name "{device}" is a part has one text for each device.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    headers: tuple[str, ...]
    groups: int = 8192
    threads: int = 256


_NVFP4 = ("numbers", "errors_{device}", "blocks", "choice", "guided", "nvfp4")
_MX = ("numbers", "blocks", "mx")
_AFFINE = ("numbers", "blocks", "affine")

KERNELS: dict[str, Kernel] = {
    row.name: row
    for row in (
        Kernel("nvfp4_encode", ("w", "g", "known"), ("codes", "scales"), _NVFP4, groups=32768),
        Kernel("nvfp4_measure", ("w", "g", "known"), ("codes", "scales", "sums", "block_error"), _NVFP4, 16384, 128),
        Kernel("nvfp4_decode", ("codes", "scales", "g"), ("out",), _NVFP4, groups=16384),
        Kernel("nvfp4_round_trip", ("x", "g"), ("out",), _NVFP4),
        Kernel("nvfp4_product", ("x", "codes", "scales", "g"), ("y",), _NVFP4, threads=128),
        Kernel("mx_encode", ("w",), ("codes", "scales"), _MX),
        Kernel("mx_decode", ("codes", "scales"), ("out",), _MX),
        Kernel("affine_encode", ("w",), ("codes", "scales", "biases"), _AFFINE),
        Kernel("affine_decode", ("codes", "scales", "biases"), ("out",), _AFFINE),
        Kernel("compare", ("w", "decoded"), ("sums", "block_error"), ("numbers", "blocks")),
    )
}


def _text(name: str) -> str:
    return (resources.files("kernels.gpu") / "text" / f"{name}.h").read_text("utf-8")


def header(kernel: Kernel, device: Device) -> str:
    """What stands before the kernel: the prelude of the device, then the functions that the body uses."""
    return "\n".join(_text(name.format(device=device)) for name in ("prelude_{device}", *kernel.headers))


def body(kernel: Kernel) -> str:
    """The statements of the kernel."""
    return _text(kernel.name)
