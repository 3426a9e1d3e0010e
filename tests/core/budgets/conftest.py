"""A small llama, a small mixture of experts, and what planning knows of them."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from studio import core
from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import Decisions
from studio.core.budgets.pricing import price
from studio.core.budgets.records import Records
from tests.core.checkpoints import CONFIG, checkpoint, gaussian, llama

LINEAR = core.preset("linear")


def ended(events: Generator[Any, None, Any]) -> Any:
    """What a job returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def mixture(blocks: int = 2, experts: int = 3) -> dict[str, Any]:
    """The tensors of a qwen3_moe: attention as the llama has it, tiny experts."""
    tensors = {name: data for name, data in llama(blocks).items() if ".mlp." not in name}
    for block in range(blocks):
        prefix = f"model.layers.{block}.mlp"
        tensors[f"{prefix}.gate.weight"] = gaussian(experts, 64)
        for expert in range(experts):
            for number, (name, shape) in enumerate({"gate": (128, 64), "up": (128, 64), "down": (64, 128)}.items()):
                seed = 100 * block + 10 * expert + number
                tensors[f"{prefix}.experts.{expert}.{name}_proj.weight"] = gaussian(*shape, seed=seed)
    return tensors


@pytest.fixture
def dense(tmp_path: Path) -> Iterator[core.Model]:
    with core.open_model(
        checkpoint(tmp_path / "dense", llama(3, hidden=128), config={**CONFIG, "num_hidden_layers": 3})
    ) as model:
        yield model


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[core.Model]:
    config = {**CONFIG, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 3}
    with core.open_model(checkpoint(tmp_path / "sparse", mixture(), config=config)) as model:
        yield model


@pytest.fixture
def engine() -> Iterator[core.Engine]:
    with ExitStack() as stack:
        yield stack.enter_context(core.start(core.Machine("cpu", threads=2)))


def priced(engine: core.Engine, decisions: Decisions, folder: Path) -> Costs:
    return ended(price(engine, decisions, Records({}, folder)))
