"""Terabytes: what opening, planning and a dry run of a checkpoint of 1.5 TB take, in processes of their own.

Usage: python -m tests.benchmarks.terabytes [FOLDER]. The checkpoint has the headers of a large mixture of experts
in the names of DeepSeek V3: 60 blocks, 256 experts in all but the first three, in shards of 9 GB whose weights are
holes. It takes some megabytes of a disk that has sparse files.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.core.containers.safetensors import place
from tests.benchmarks.scale import MEMORY, Cost, show
from tests.benchmarks.scale import run as run_command

SHARD_NBYTES = 9 * 10**9
BOUNDS = {"inspect": 15, "plan": 15, "plan --layout modelopt": 15, "quantize --dry-run": 30}
"""Seconds of processor time."""

LARGE_DISK = (
    "import shutil, sys; from collections import namedtuple; usage = namedtuple('usage', 'total used free'); "
    "shutil.disk_usage = lambda _: usage(1 << 50, 0, 1 << 50); from studio.__main__ import main; "
    "sys.argv[0] = 'nvfp4-studio'; sys.exit(main())"
)
"""The program on a machine whose disk has room for the export."""


@dataclass(frozen=True)
class Mixture:
    """Sizes of a mixture of experts with latent attention."""

    blocks: int = 60
    dense: int = 3
    experts: int = 256
    hidden: int = 7168
    inner: int = 2304
    wide: int = 18432
    heads: int = 128
    vocabulary: int = 129280

    @property
    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "num_hidden_layers": self.blocks,
            "first_k_dense_replace": self.dense,
            "n_routed_experts": self.experts,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "hidden_size": self.hidden,
            "moe_intermediate_size": self.inner,
            "intermediate_size": self.wide,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the order in which they are stored."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for block in range(self.blocks):
            prefix = f"model.layers.{block}"
            yield from ((f"{prefix}.{name}", shape) for name, shape in self._block(block >= self.dense))
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    def _block(self, sparse: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from (("input_layernorm.weight", (self.hidden,)), ("post_attention_layernorm.weight", (self.hidden,)))
        yield "self_attn.q_a_proj.weight", (1536, self.hidden)
        yield "self_attn.q_a_layernorm.weight", (1536,)
        yield "self_attn.q_b_proj.weight", (self.heads * 192, 1536)
        yield "self_attn.kv_a_proj_with_mqa.weight", (576, self.hidden)
        yield "self_attn.kv_a_layernorm.weight", (512,)
        yield "self_attn.kv_b_proj.weight", (self.heads * 256, 512)
        yield "self_attn.o_proj.weight", (self.hidden, self.heads * 128)
        if not sparse:
            yield from _gated("mlp", self.hidden, self.wide)
            return
        yield "mlp.gate.weight", (self.experts, self.hidden)
        yield "mlp.gate.e_score_correction_bias", (self.experts,)
        for expert in range(self.experts):
            yield from _gated(f"mlp.experts.{expert}", self.hidden, self.inner)
        yield from _gated("mlp.shared_experts", self.hidden, self.inner)


def _gated(prefix: str, hidden: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
        yield f"{prefix}.{name}_proj.weight", shape


def write(folder: Path, mixture: Mixture, shard_nbytes: int = SHARD_NBYTES) -> int:
    """Write the checkpoint, its weights as holes; gives the bytes of all weights."""
    folder.mkdir(parents=True)
    shards = list(_shards(mixture, shard_nbytes))
    weights: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        head, header = place([(tensor, "BF16", shape) for tensor, shape in tensors], {"format": "pt"})
        nbytes = sum(tensor.nbytes for tensor in header.tensors.values())
        with (folder / name).open("wb") as file:
            file.write(head)
            file.truncate(len(head) + nbytes)
        weights |= {tensor: name for tensor, _ in tensors}
        total += nbytes
    index = {"metadata": {"total_size": total}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(mixture.config), encoding="utf-8")
    return total


def _shards(mixture: Mixture, shard_nbytes: int) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    held = 0
    for name, shape in mixture.tensors():
        nbytes = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if shard and held + nbytes > shard_nbytes:
            yield shard
            shard, held = [], 0
        shard.append((name, shape))
        held += nbytes
    yield shard


def measured(source: Path, command: str) -> Cost:
    """What a command takes on a machine with a large disk."""
    verb, *more = command.split()
    target = [source.parent / "export"] if verb == "quantize" else []
    return run_command(verb, source, *target, *more, start=["-c", LARGE_DISK])


def main() -> int:
    """Print the figures; 1 when a bound is not kept."""
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    good = True
    with tempfile.TemporaryDirectory(dir=parent) as place_:
        source = Path(place_) / "mixture"
        mixture = Mixture()
        total = write(source, mixture)
        on_disk = sum(path.stat().st_blocks * 512 for path in source.iterdir())
        shards = len(list(source.glob("*.safetensors")))
        count = sum(1 for _ in mixture.tensors())
        print(f"{total / 1e12:.3f} TB in {count:,} tensors and {shards} shards, {on_disk / 1e6:.0f} MB on the disk")
        for command, bound in BOUNDS.items():
            cost = measured(source, command)
            show(f"1.5 TB: {command}", cost, bound)
            good = good and cost.cpu <= bound and cost.memory <= MEMORY
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
