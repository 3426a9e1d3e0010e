"""What the installed compressed-tensors decompresses to is what is read here; skipped where it is not installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import core
from tests.core.checkpoints import CONFIG, FP8, checkpoint

torch = pytest.importorskip("torch", reason="needs the extra runtimes")
quantization = pytest.importorskip("compressed_tensors.quantization", reason="needs the extra runtimes")
compressors = pytest.importorskip("compressed_tensors.compressors", reason="needs the extra runtimes")

LAYER = "model.layers.0.mlp.up_proj"
DIVISOR = 4096.0
"""A power of two: the package rounds to bfloat16, where every weight then is exact."""

NVFP4: dict[str, Any] = {
    "num_bits": 4,
    "type": "float",
    "strategy": "tensor_group",
    "group_size": 16,
    "scale_dtype": torch.float8_e4m3fn,
}


def test_nvfp4_is_what_the_package_decompresses(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    codes = chance.integers(0, 256, (48, 64), np.uint8)
    scales = chance.integers(0x08, 0x7F, (48, 8), np.uint8)
    parts = {
        "weight_packed": codes,
        "weight_scale": scales.view(FP8),
        "weight_global_scale": np.full(1, DIVISOR, np.float32),
    }
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=quantization.QuantizationArgs(**NVFP4))
    stored = {
        "weight_packed": torch.from_numpy(codes),
        "weight_scale": torch.from_numpy(scales).view(torch.float8_e4m3fn),
        "weight_global_scale": torch.tensor([DIVISOR]),
    }
    wanted = compressors.NVFP4PackedCompressor.decompress(stored, scheme)["weight"].float().numpy()
    tensors = {f"{LAYER}.{leaf}": array for leaf, array in parts.items()}
    with core.open_model(checkpoint(tmp_path / "m", tensors, CONFIG)) as model:
        layer = model.by_name[LAYER]
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 48), wanted)


INTEGERS = [
    (name, bits, columns, group, symmetric)
    for name, widths in (("pack-quantized", range(1, 9)), ("int-quantized", (8,)))
    for bits in widths
    for columns, group in ((96, 32), (96, None), (200, None))
    for symmetric in (False, True)
]


@pytest.mark.parametrize(("name", "bits", "columns", "group", "symmetric"), INTEGERS)
def test_integers_are_what_the_package_decompresses(
    tmp_path: Path, name: str, bits: int, columns: int, group: int | None, symmetric: bool
) -> None:
    said = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group" if group else "channel"}
    said["group_size"] = group
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=quantization.QuantizationArgs(**said))
    torch.manual_seed(bits)
    count, half = columns // (group or columns), 1 << (bits - 1)
    weight, scale = torch.randn(45, columns), torch.rand(45, count) / half + 1e-3
    state = {"weight": weight, "weight_scale": scale}
    if not symmetric:
        state["weight_zero_point"] = torch.randint(-half, half, (45, count)).to(torch.int8)
    kind = "PackedQuantizationCompressor" if name == "pack-quantized" else "IntQuantizationCompressor"
    compressor = getattr(compressors, kind)
    stored = compressor.compress(state, scheme)
    tensors = {f"{LAYER}.{leaf}": value.numpy().copy() for leaf, value in stored.items()}
    wanted = compressor.decompress(stored, scheme)["weight"].float().numpy()
    section = {"quant_method": "compressed-tensors", "format": name, "config_groups": {"group_0": {"weights": said}}}
    with core.open_model(checkpoint(tmp_path / "m", tensors, {**CONFIG, "quantization_config": section})) as model:
        layer = model.by_name[LAYER]
        assert layer.source.bits == bits
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, 45), wanted)
