"""Layers with a tensor scale, and exports that mlx-lm runs with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed: the layers are not tested")

import mlx.nn as nn  # noqa: E402

from kernels import nn as quantized_nn  # noqa: E402
from kernels import ops, stock_mlx  # noqa: E402
from kernels.gpu.transfer import to_numpy  # noqa: E402

DEMO = Path(__file__).parents[2] / "resources" / "demo" / "demo-llama"


def exact(x: Any, layer: Any) -> Any:
    """x W^T + b of a dense layer in float64: a GPU's own dense product may be TF32."""
    wide, weight = (to_numpy(part.astype(mx.float32)).astype(np.float64) for part in (x, layer.weight))
    bias = to_numpy(layer.bias) if "bias" in layer else 0
    return mx.array((wide @ weight.T + bias).astype(np.float32))


def error(got: Any, want: Any) -> float:
    return float((mx.linalg.norm((got - want).astype(mx.float32)) / mx.linalg.norm(want.astype(mx.float32))).item())


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t", "mxfp4", "mxfp8", "int4-g32", "int8-g64"])
def test_a_linear_layer_stands_for_its_decoded_weight(name: str) -> None:
    mx.random.seed(0)
    layer, x = nn.Linear(128, 48), mx.random.normal((3, 128))
    made = quantized_nn.QuantizedLinear.from_linear(layer, name)
    assert error(made(x), exact(x, made.to_dequantized(mx.float32))) < 1e-5
    assert error(made(x), exact(x, layer)) < 0.2
    assert ("global_scale" in made.parameters()) == (name == "nvfp4-3t")


def test_a_model_is_quantized_by_a_method() -> None:
    mx.random.seed(4)
    kinds = [nn.Linear(64, 32), nn.Embedding(10, 64)]
    wanted = [ops.quantize(layer.weight, method="search").scales for layer in kinds]
    model = nn.Sequential(*kinds)
    quantized_nn.quantize(model, method="search")
    for layer, scales in zip(model.layers, wanted, strict=True):
        np.testing.assert_array_equal(to_numpy(layer.packed().scales), to_numpy(scales))
        assert (to_numpy(scales) != to_numpy(ops.quantize(layer.to_dequantized().weight).scales)).any()


def test_the_state_is_mlxs_convention() -> None:
    layer = nn.Linear(128, 48, bias=False)
    made = quantized_nn.QuantizedLinear.from_linear(layer)
    assert made.global_scale.item() == pytest.approx(mx.max(mx.abs(layer.weight)).item(), rel=1e-6)
    assert made.weight.dtype == mx.uint32
    assert made.scales.dtype == mx.uint8


def test_an_embedding_looks_up_and_multiplies() -> None:
    mx.random.seed(1)
    layer = nn.Embedding(512, 256)
    layer.weight = mx.random.normal((512, 256)) * 0.02
    made = quantized_nn.QuantizedEmbedding.from_embedding(layer)
    dense = made.to_dequantized(mx.float32)
    indices = mx.array([[3, 500], [0, 3]])
    assert made(indices).shape == (2, 2, 256)
    assert error(made(indices), layer(indices)) == pytest.approx(0.097, abs=0.01)
    x = mx.random.normal((5, 256))
    assert error(made.as_linear(x), exact(x, dense)) < 1e-5


@pytest.mark.parametrize("rows", [1, 9])
def test_w4a4_costs_twice_the_noise(rows: int) -> None:
    mx.random.seed(2)
    layer, x = nn.Linear(1024, 256, bias=False), mx.random.normal((rows, 1024))
    layer.weight = mx.random.normal((256, 1024)) * 0.02
    made = quantized_nn.QQLinear.from_linear(layer)
    assert error(made(x), layer(x)) == pytest.approx(0.136, abs=0.015)


def test_experts_are_gathered_with_their_own_scales() -> None:
    switch = pytest.importorskip("mlx_lm.models.switch_layers", reason="mlx-lm is not installed")
    mx.random.seed(3)
    layer = switch.SwitchLinear(64, 32, 4)
    made = quantized_nn.QuantizedSwitchLinear.from_switch_linear(layer)
    x, chosen = mx.random.normal((6, 1, 1, 64)), mx.random.randint(0, 4, (6, 2))
    assert made.global_scale.shape == (4,)
    assert (made.num_experts, made.output_dims, made.input_dims) == (4, 32, 64)
    dense = made.to_dequantized(mx.float32)
    for expert in range(4):
        alone = nn.Linear(64, 32)
        alone.weight, alone.bias = dense.weight[expert], dense.bias[expert]
        at = mx.full((6, 1), expert)
        assert error(made(x, at).reshape(6, 32), exact(x.reshape(6, 64), alone)) < 1e-5
    assert error(made(x, chosen), layer(x, chosen)) < 0.15


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.RMSNorm(width), nn.MultiHeadAttention(width, 4)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def __call__(self, x: Any) -> Any:
        h = self.norm(x)
        x = x + self.attention(h, h, h)
        return x + self.down(nn.silu(self.up(self.norm(x))))


@pytest.mark.parametrize("quantize_input", [False, True])
def test_a_transformer_of_four_layers_stays_close(quantize_input: bool) -> None:
    mx.random.seed(4)
    model = nn.Sequential(*[Layer(64) for _ in range(4)])
    x = mx.random.normal((2, 10, 64))
    want = model(x)
    quantized_nn.quantize(model, quantize_input=quantize_input)
    got = model(x)
    assert isinstance(model.layers[0].up, quantized_nn.QQLinear if quantize_input else quantized_nn.QuantizedLinear)
    assert mx.all(mx.isfinite(got)).item()
    assert 0.005 < error(got, want) < 0.25


def test_a_predicate_keeps_layers_and_chooses_formats() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Embedding(8, 64))
    formats = {"layers.0": "mxfp8", "layers.1": False, "layers.2": True}
    quantized_nn.quantize(model, class_predicate=lambda path, _: formats[path])
    assert model.layers[0]._format.name == "mxfp8"
    assert type(model.layers[1]) is nn.Linear
    assert isinstance(model.layers[2], quantized_nn.QuantizedEmbedding)
    with pytest.raises(TypeError, match="got Sequential"):
        quantized_nn.quantized_layer(nn.Sequential(nn.Linear(64, 64)))


def export(folder: Path, config: dict[str, Any], weights: dict[str, Any], formats: dict[str, str | None]) -> None:
    """Write an MLX export: `formats` names one per path, None keeps the layer."""
    stored, overrides = dict(weights), {}
    for path, name in formats.items():
        if name is None:
            overrides[path] = False
            continue
        packed = ops.quantize(stored.pop(f"{path}.weight"), name)
        stored |= {f"{path}.weight": packed.codes, f"{path}.scales": packed.scales}
        overrides[path] = stock_mlx.mode_of(packed.format)
        if packed.biases is not None:
            stored[f"{path}.biases"] = packed.biases
        if packed.tensor_scale is not None:
            amax = packed.tensor_scale * 2688
            stored[f"{path}.global_scale"] = amax.reshape(()) if path.endswith("q_proj") else amax
            overrides[path] = {**overrides[path], "global_scale": True}
    config["quantization"] = {"group_size": 16, "bits": 4, "mode": "nvfp4", **overrides}
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata={"format": "mlx"})


def copy_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "generation_config.json"):
        (folder / name).write_bytes((DEMO / name).read_bytes())


def perplexity_loss(model: Any, tokens: Any) -> float:
    logits = model(tokens[None, :-1]).astype(mx.float32)
    return float(nn.losses.cross_entropy(logits[0], tokens[1:], reduction="mean").item())


@pytest.fixture(scope="module")
def lm() -> Any:
    return pytest.importorskip("mlx_lm", reason="mlx-lm is not installed: exports are not run")


@pytest.mark.filterwarnings("ignore")
def test_a_three_tier_export_of_the_demo_generates_text(tmp_path: Path, lm: Any) -> None:
    config = json.loads((DEMO / "config.json").read_text()) | {"model_file": "never_run.py"}
    weights = mx.load(str(DEMO / "model.safetensors"))
    names = [n.removesuffix(".weight") for n, w in weights.items() if w.ndim == 2]
    formats: dict[str, str | None] = dict.fromkeys(names, "nvfp4-3t")
    formats |= {"model.layers.1.self_attn.o_proj": None, "model.layers.2.mlp.down_proj": "int8-g64"}
    export(tmp_path, config, weights, formats)
    copy_tokenizer(tmp_path)
    model, tokenizer = quantized_nn.load(tmp_path)
    assert isinstance(model.model.embed_tokens, quantized_nn.QuantizedEmbedding)
    assert model.model.layers[0].mlp.up_proj._format.name == "nvfp4-3t"
    assert isinstance(model.model.layers[1].self_attn.o_proj, nn.Linear)
    text = lm.generate(model, tokenizer, prompt="The", max_tokens=12)
    assert text.strip()
    dense, _ = lm.utils.load_model(DEMO)
    tokens = mx.array(tokenizer.encode("Once upon a time there was a small house by the river."))
    assert abs(perplexity_loss(model, tokens) - perplexity_loss(dense, tokens)) < 0.5


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_of_experts_generates_text(tmp_path: Path, lm: Any) -> None:
    from mlx.utils import tree_flatten
    from mlx_lm.models import qwen3_moe

    base = json.loads((DEMO / "config.json").read_text())
    config = base | {
        "model_type": "qwen3_moe", "num_hidden_layers": 2, "moe_intermediate_size": 96, "num_experts": 4,
        "num_local_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "norm_topk_prob": True, "rope_theta": 10000.0,
    }  # fmt: skip
    mx.random.seed(5)
    dense = qwen3_moe.Model(qwen3_moe.ModelArgs.from_dict(config))
    weights = {name: value.astype(mx.bfloat16) for name, value in tree_flatten(dense.parameters())}
    layers = [
        n.removesuffix(".weight") for n, w in weights.items() if w.ndim >= 2 and not n.endswith("mlp.gate.weight")
    ]
    export(tmp_path, config, weights, dict.fromkeys(layers, "nvfp4-3t"))
    copy_tokenizer(tmp_path)
    model, tokenizer = quantized_nn.load(tmp_path)
    switch = model.model.layers[0].mlp.switch_mlp.up_proj
    assert isinstance(switch, quantized_nn.QuantizedSwitchLinear)
    assert switch.global_scale.shape == (4,)
    tokens = mx.array([[5, 9, 100, 7]])
    assert error(model(tokens), dense(tokens)) < 0.5
    assert lm.generate(model, tokenizer, prompt="The", max_tokens=5) is not None
