"""Checkpoints, exports of them, and the runtimes that load the exports; each is made once and when it is asked for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio import core
from tests.runtimes.checkpoints import write_llama, write_qwen3_moe, write_stacked_qwen3_moe
from tests.runtimes.lifting import powers_of
from tests.runtimes.worker import Worker, missing

MLX = {"mlx": "", "mlx-lm": ""}
TRANSFORMERS = {"torch": "", "transformers": "", "compressed-tensors": ""}
GGUF = {"torch": "", "transformers": "", "gguf": ""}

Exporter = Callable[..., Path]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by name: the demo, a Llama with its own head, Qwen3-MoE with experts apart and stacked."""
    folder, demo = tmp_path_factory.mktemp("checkpoints"), core.demo_checkpoint()
    tokenizer = demo / "tokenizer.json"
    return {
        "demo": demo,
        "llama": write_llama(folder / "llama", tokenizer),
        "moe": write_qwen3_moe(folder / "moe", tokenizer),
        "stacked": write_stacked_qwen3_moe(folder / "stacked", tokenizer),
    }


@pytest.fixture(scope="session")
def export(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """export(checkpoint, layout, format, preset, rules, reader, lift): verified; rules are (pattern, format)."""
    folder = tmp_path_factory.mktemp("exports")
    made: dict[tuple[object, ...], Path] = {}

    def run(
        name: str,
        layout: str,
        row: str,
        preset: str = "linear",
        rules: tuple[tuple[str, str], ...] = (),
        reader: str = "",
        *,
        lift: bool = False,
    ) -> Path:
        key = (name, layout, row, preset, rules, reader, lift)
        if key not in made:
            target = folder / str(len(made))
            own = [core.Rule(names=(pattern,), format=chosen) for pattern, chosen in rules]
            plan = core.preset(preset).with_format(row).preceded_by(own)
            with core.open_model(checkpoints[name]) as model, core.start(core.Machine(threads=2), model) as engine:
                choices = core.resolve(plan, model)
                lifting = core.Lifting(powers_of(model)) if lift else None
                job = core.prepare(model, plan, choices, core.LAYOUTS[layout], target, reader=reader, lifting=lifting)
                for _ in core.export(engine, job):
                    pass
            made[key] = target
        return made[key]

    return run


@pytest.fixture(scope="session")
def mlx_lm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Stock mlx-lm in a process of its own."""
    yield from _worker("tests.runtimes.run_mlx", MLX, tmp_path_factory)


@pytest.fixture(scope="session")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """transformers with compressed-tensors in a process of its own."""
    yield from _worker("tests.runtimes.run_transformers", TRANSFORMERS, tmp_path_factory)


@pytest.fixture(scope="session")
def gguf_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """transformers with the package gguf in a process of its own."""
    yield from _worker("tests.runtimes.run_gguf", GGUF, tmp_path_factory)


@pytest.fixture(scope="session")
def accelerate() -> None:
    """What transformers needs to load a GGUF file itself."""
    if reason := missing({"accelerate": ""}):
        pytest.skip(f"{reason}; the extra `runtimes` brings it")


def _worker(module: str, packages: dict[str, str], paths: pytest.TempPathFactory) -> Iterator[Worker]:
    if reason := missing(packages):
        pytest.skip(f"{reason}; the extra `runtimes` brings it")
    worker = Worker(module, paths.mktemp("worker") / "log.txt")
    yield worker
    worker.close()
