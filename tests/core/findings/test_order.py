"""The order of the two codes of a byte is told without a source where neurons tell it, and only there."""

from pathlib import Path

import numpy as np
import pytest

from studio.core.findings.order import scores
from tests.core.findings.building import HIDDEN, INNER, Draft, draft, packed, weights
from tests.core.findings.defects import PACKED, set_part, swap_nibbles
from tests.core.findings.examining import examined, kinds

BLOCKS = 3


def trained(layout: str, *, along: float = 1.0, across: float = 1.0) -> Draft:
    """A folder whose neurons have sizes: of rows of up_proj to the power `across`, of columns of down_proj `along`."""
    made = draft(layout)
    for block in range(BLOCKS):
        sizes = np.exp(0.3 * np.random.default_rng(block).standard_normal(INNER))
        up = weights(block, INNER, HIDDEN) * (sizes**across)[:, None]
        down = np.random.default_rng(9 + block).standard_normal((HIDDEN, INNER)) * 0.02 * sizes**along
        for name, weight in (("up", up), ("down", down)):
            matrix = f"model.layers.{block}.mlp.{name}_proj"
            weight = weight.astype(np.float32)
            parts = packed(layout, weight, float(np.abs(weight).max()) / 2688)
            if f"{matrix}.weight_scale_2" in made.tensors or f"{matrix}.weight_global_scale" in made.tensors:
                group = f"model.layers.{block}.mlp.gate_proj"
                third = next(leaf for leaf in parts if leaf in ("weight_scale_2", "weight_global_scale"))
                made.tensors[f"{group}.{third}"] = parts[third] if name == "up" else made.tensors[f"{group}.{third}"]
            made.tensors |= {f"{matrix}.{leaf}": array for leaf, array in parts.items()}
    return made


def down(block: int) -> str:
    """The name of a matrix."""
    return f"model.layers.{block}.mlp.down_proj"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("layout", PACKED)
@pytest.mark.parametrize("across", [1.0, -1.0], ids=["alike", "contrarily, as AWQ leaves it"])
def test_swapped_codes_are_found_without_a_source(tmp_path: Path, layout: str, across: float) -> None:
    made = trained(layout, across=across)
    found = examined(made.write(tmp_path / "good"))
    assert not kinds(found, "error", "warning"), found.findings
    set_part("codes", swap_nibbles, down(1))(made)
    found = examined(made.write(tmp_path / "m"))
    assert kinds(found, "error") == {"nibbles-swapped"}
    assert [one.where for one in found.findings if one.kind == "nibbles-swapped"] == [(down(1),)]


def test_where_nothing_tells_nothing_is_said(tmp_path: Path) -> None:
    made = trained("modelopt", along=0.0)
    set_part("codes", swap_nibbles, down(1))(made)
    assert not kinds(examined(made.write(tmp_path / "m")), "error", "warning")


def test_scores_of_sizes_that_have_nothing_in_common_are_normal_numbers() -> None:
    random = np.random.default_rng(0)
    found = np.array([scores(*np.exp(random.standard_normal((2, 512)))) for _ in range(2000)])
    assert np.abs(found.mean(axis=0)).max() < 0.1
    assert np.abs(found.std(axis=0) - 1).max() < 0.1
    assert np.abs(found).max() < 4.5


def test_swapping_turns_the_one_score_and_leaves_the_other() -> None:
    rows = np.exp(np.random.default_rng(1).standard_normal(256))
    inside, between = scores(rows, rows)
    swapped = rows.reshape(-1, 2)[:, ::-1].reshape(-1)
    assert scores(rows, swapped) == pytest.approx((-inside, between))
