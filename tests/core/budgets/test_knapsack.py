"""Knapsack: optimal against trying everything, monotone, the same each time, and little work."""

import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from studio.core.budgets import knapsack as knapsack_module
from studio.core.budgets.knapsack import Knapsack, quick_states

Floats = NDArray[np.float64]


def groups(number: int, options: int, seed: int, *, sizes: int = 0) -> tuple[Floats, Floats]:
    """Values that mostly fall where weights rise; some options are missing. `sizes`: how many kinds of groups."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 60, (number, options)).astype(np.float64)
    if sizes:
        weights = weights[rng.integers(0, min(sizes, number), number)]
    values = rng.random((number, options)) * 50 / weights
    missing = rng.random((number, options)) < 0.2
    missing[:, 0] = False
    values[missing] = weights[missing] = np.inf
    return values, weights


def best_value(values: Floats, weights: Floats, limit: float) -> float | None:
    """The least value of all picks within the limit, by trying all of them."""
    rows = np.arange(len(values))
    tried = (np.array(picks) for picks in itertools.product(range(values.shape[1]), repeat=len(values)))
    found = [values[rows, picks].sum() for picks in tried if weights[rows, picks].sum() <= limit]
    return min(found, default=None)


@pytest.mark.parametrize("seed", range(12))
def test_is_as_good_as_trying_everything(seed: int) -> None:
    values, weights = groups(5, 4, seed, sizes=2 if seed % 3 == 0 else 0)
    knapsack = Knapsack(values, weights)
    for limit in range(int(knapsack.least_weight) - 2, int(knapsack.least_weight) + 140, 7):
        found, best = knapsack.solve(limit), best_value(values, weights, limit)
        if found is None:
            assert best is None
            continue
        assert found.value == pytest.approx(best, rel=1e-8)
        assert found.weight <= limit
        assert found.gap == 0


def test_less_than_the_least_weight_can_not_be_kept() -> None:
    knapsack = Knapsack(*groups(20, 5, 1))
    assert knapsack.solve(knapsack.least_weight - 1) is None
    lightest = knapsack.solve(knapsack.least_weight)
    assert lightest is not None
    assert lightest.weight == knapsack.least_weight


def test_more_room_is_never_worse() -> None:
    knapsack = Knapsack(*groups(200, 6, 2))
    sizes, values = knapsack.hull
    assert (np.diff(sizes) > 0).all()
    assert (np.diff(values) <= 0).all()
    found = [knapsack.solve(limit) for limit in np.linspace(sizes[0], sizes[-1] + 5, 60)]
    assert (np.diff([one.value for one in found]) <= 1e-12).all()
    lower = np.interp([one.weight for one in found], sizes, values)
    assert ([one.value for one in found] >= lower - 1e-9).all()


def test_the_points_of_the_hull_are_found_again() -> None:
    knapsack = Knapsack(*groups(50, 6, 3))
    for size, value in zip(*knapsack.hull, strict=True):
        assert knapsack.solve(size).value == pytest.approx(value)


def test_gives_the_same_picks_each_time() -> None:
    first, second = (Knapsack(*groups(300, 6, 4)).solve(4000) for _ in range(2))
    assert (first.picks == second.picks).all()


def test_a_group_without_an_option_is_refused() -> None:
    with pytest.raises(ValueError, match="must have an option"):
        Knapsack(np.array([[1.0], [np.inf]]), np.array([[1.0], [np.inf]]))


@pytest.mark.parametrize(("number", "seconds"), [(10_000, 0.5), (60_000, 6.0)])
def test_many_groups_take_little_time(number: int, seconds: float) -> None:
    values, weights = groups(number, 9, 5)
    knapsack = Knapsack(values, weights)
    begun = time.process_time()
    for share in (0.1, 0.35, 0.6):
        sizes = knapsack.hull[0]
        found = knapsack.solve(float(np.floor(sizes[0] + share * (sizes[-1] - sizes[0]))))
        assert found is not None
        assert found.gap == 0
    assert time.process_time() - begun < seconds


def test_a_quick_answer_is_within_its_gap() -> None:
    for seed in range(5):
        knapsack = Knapsack(*groups(400, 6, 6 + seed))
        limit = float(np.floor(knapsack.hull[0].mean()))
        quick, exact = knapsack.solve(limit, 2), knapsack.solve(limit)
        assert exact.gap == 0
        assert quick.value - quick.gap <= exact.value + 1e-9 <= quick.value + 2e-9


def test_a_dragged_budget_looks_at_few_groups_and_comes_near_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 groups, 200 took 12 ms."""
    knapsack, looked = Knapsack(*groups(10_000, 9, 7)), list[int]()
    with_group = knapsack_module._States.with_group
    monkeypatch.setattr(
        knapsack_module._States, "with_group", lambda self, *told: looked.append(self.count) or with_group(self, *told)
    )
    sizes = knapsack.hull[0]
    for limit in np.linspace(sizes[0], sizes[-1], 20):
        looked.clear()
        assert knapsack.solve(float(np.floor(limit)), quick_states(10_000)).gap < 1e-4
        assert len(looked) <= 200
        assert max(looked, default=0) <= quick_states(10_000) == 50
