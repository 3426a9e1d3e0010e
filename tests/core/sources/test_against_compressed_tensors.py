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
