"""vLLM on an NVIDIA GPU: exports and the checkpoints of their decoded weights, prepared here, run there.

`python -m tests.consumers.vllm_gpu prepare FOLDER` builds small models, exports them for vLLM and writes beside each
export the weights that its bytes hold, in bfloat16. `python tests/consumers/vllm_gpu.py run FOLDER`, on a machine with
vLLM, compares the mean loss of the same tokens (those of FOLDER/tokens.json, where there is one) and prints a line per
export; it needs nothing of this project.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOKENS = [(137 * place + 11) % 360 for place in range(200)]
TOLERANCE = 3e-3
_MODELS = (
    "llama",
    "qwen2",
    "gemma3_text",
    "gemma3",
    "qwen2_5_vl",
    "qwen3_vl",
    "phi3",
    "gpt_neox",
    "qwen3_moe",
    "mixtral",
    "olmoe",
    "glm4_moe",
    "granitemoe",
    "gpt_oss",
    "qwen3_next",
    "llama4",
)
_EXPORTS = {
    "modelopt-3t": ["--layout", "modelopt"],
    "ct-3t": ["--layout", "compressed-tensors", "--for", "vllm"],
    "ct-default": ["--layout", "compressed-tensors"],
}
_SPECIAL = {
    ("llama", "modelopt-partial"): ["--layout", "modelopt", "--exclude", "*.0.self_attn.k_proj"],
    ("llama-untied-3.1", "ct-head"): ["--layout", "compressed-tensors", "--include", "lm_head=nvfp4-3t"],
    ("qwen3_moe", "modelopt-partial"): ["--layout", "modelopt", "--exclude", "*experts.3.*"],
    ("llama", "ct-partial"): ["--layout", "compressed-tensors", "--exclude", "*.0.self_attn.k_proj"],
    ("qwen3_moe", "ct-partial"): ["--layout", "compressed-tensors", "--for", "vllm", "--exclude", "*0.mlp.experts.3.*"],
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 50000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
}
_OTHERWISE = {"gpt_oss": {"rope_parameters": _YARN}}
_WIDTHS = {96: 128}
"""Experts as wide as the kernels there ask for."""


def prepare(folder: Path) -> None:
    """Build, export and decode those that are not there yet; what is refused is noted."""
    wanted = [(name, kind, how) for name in _MODELS for kind, how in _EXPORTS.items()]
    for name, kind, how in [*wanted, *((name, kind, how) for (name, kind), how in _SPECIAL.items())]:
        if (folder / f"{name}.{kind}.decoded").exists():
            continue
        source = _source(folder, name)
        export = folder / f"{name}.{kind}"
        command = [sys.executable, "-m", "studio", "quantize", str(source), str(export), "--overwrite", *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{export.name}: exit {done.returncode} {done.stderr.strip().splitlines()[-1:]}", flush=True)
        if done.returncode == 0:
            _write_decoded(source, export, folder / f"{name}.{kind}.decoded")


def _source(folder: Path, name: str) -> Path:
    from tests.architectures import building
    from tests.architectures.rows import ROWS

    place = folder / "sources" / name
    if not place.exists():
        ROWS[name] = {key: _wide(value) for key, value in ROWS[name].items()} | _OTHERWISE.get(name, {})
        place.mkdir(parents=True)
        building.build(name, str(place))
    return place / "hub"


def _wide(value: object) -> object:
    return _WIDTHS.get(value, value) if isinstance(value, int) else value


def _write_decoded(source: Path, export: Path, folder: Path) -> None:
    import ml_dtypes
    from safetensors.numpy import save_file

    from tests.architectures.decoding import decoded_source

    tensors, _ = decoded_source(source, export)
    folder.mkdir(exist_ok=True)
    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def run(folder: Path) -> int:
    """Run every export and its decoded weights, four at a time; 1 when a loss differs or only the export fails."""
    exports = sorted(path for path in folder.iterdir() if (path / "nvfp4_studio.json").exists())
    places = [place for export in exports for place in (export, export.with_name(f"{export.name}.decoded"))]
    with ThreadPoolExecutor(int(os.environ.get("AT_ONCE", "6"))) as pool:
        found = dict(zip(places, pool.map(_loss_of, places), strict=True))
    wrong = 0
    for export in exports:
        there, wanted = found[export], found[export.with_name(f"{export.name}.decoded")]
        if isinstance(there, float) and isinstance(wanted, float):
            right = abs(there - wanted) <= TOLERANCE
            print(f"{export.name}: {there:.4f}, decoded {wanted:.4f}, {'right' if right else 'WRONG'}")
        else:
            right = isinstance(wanted, str)
            print(f"{export.name}: {there}; decoded {wanted}, {'vLLM can not run the model' if right else 'FAILS'}")
        wrong += not right
    return min(wrong, 1)


def _loss_of(place: Path) -> float | str:
    """The mean loss in a process of its own, or the last error."""
    command = [sys.executable, __file__, "loss", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    except subprocess.TimeoutExpired:
        return "no answer within 400 s"
    lines = done.stdout.splitlines()
    told = [line.removeprefix("LOSS ") for line in lines if line.startswith("LOSS ")]
    errors = [line for line in [*lines, *done.stderr.splitlines()] if "Error" in line]
    return float(told[0]) if told else (errors or ["no output"])[-1][:300]


def loss(place: Path) -> None:
    """Print the mean loss of the tokens."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    from vllm import LLM, SamplingParams

    model = LLM(
        model=str(place),
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=512,
        gpu_memory_utilization=0.1,
        kv_cache_memory_bytes=1 << 28,
        dtype="bfloat16",
        max_num_seqs=8,
        limit_mm_per_prompt={"image": 0, "video": 0},
    )
    how = SamplingParams(prompt_logprobs=0, max_tokens=1, temperature=0, detokenize=False)
    told = place.parent / "tokens.json"
    tokens = json.loads(told.read_text()) if told.exists() else TOKENS
    (answer,) = model.generate([{"prompt_token_ids": tokens}], how)
    scores = [row[token].logprob for token, row in zip(tokens[1:], answer.prompt_logprobs[1:], strict=True)]
    print("LOSS", -sum(scores) / len(scores), flush=True)


if __name__ == "__main__":
    sys.exit({"prepare": prepare, "run": run, "loss": loss}[sys.argv[1]](Path(sys.argv[2])))
