"""Knapsack: one option of every group, such that the weights stay within a limit and the values add up to least.

The linear relaxation is solved by the lower convex hulls of the groups, whose steps are sorted once; what is between it
and the best whole solution is found by dynamic programming over the options that the relaxation does not rule out
(Pisinger, A minimal algorithm for the multiple-choice knapsack problem, 1995).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_STATES = 100_000
"""Partial solutions that are looked at together; beyond, the most promising ones, and `Solution.gap` may not be 0."""

_QUICK_WORK = 400_000
_FEWEST_STATES = 50


def quick_states(groups: int) -> int:
    """So few partial solutions that 10,000 groups take a hundredth of a second; gaps are millionths, of few none."""
    return min(max(_QUICK_WORK // max(groups, 1), _FEWEST_STATES), MOST_STATES)


_GROUPS_PER_STATE = 4
"""Groups that are looked at for each partial solution that is kept."""

_GREEDY_STEPS = 512
_ROUNDING = 1e-9
_NEAR = 1e-6
"""Share of a unit by which rounding may miss a whole number of them."""

_LARGEST_WHOLE = 2.0**53


@dataclass(frozen=True, eq=False)
class Solution:
    """One option per group.

    picks: int64 [groups]. value, weight: their sums. gap: what a better solution could save at most; 0 where this is
    proved to be the best.
    """

    picks: Integers
    value: float
    weight: float
    gap: float = 0.0


class Knapsack:
    """Groups of options, prepared for one limit after another."""

    def __init__(self, values: Floats, weights: Floats) -> None:
        """`values` and `weights`, both not negative, are float64 [groups, options]; Inf in both where there is none.

        Raises ValueError for a group without an option.
        """
        self._values, self._weights = values, weights
        if not np.isfinite(weights).any(axis=1).all():
            raise ValueError("[Knapsack] every group must have an option, one has none")
        self._rows = np.arange(len(values))
        self._lightest = _first(weights, values)
        self._steps = _hull_steps(values, weights, self._lightest)

    @cached_property
    def least_weight(self) -> float:
        """The smallest limit that can be kept."""
        return float(self._weights[self._rows, self._lightest].sum())

    @cached_property
    def hull(self) -> tuple[Floats, Floats]:
        """(weights, values) of all solutions on the convex hull of what is best, by rising weight."""
        steps = self._steps
        value = self._values[self._rows, self._lightest].sum()
        return (
            self.least_weight + np.concatenate([[0.0], steps.reached]),
            np.maximum(value - np.concatenate([[0.0], np.cumsum(steps.value)]), 0.0),
        )

    def on_hull(self, steps: int) -> Integers:
        """The picks of the solution that is `steps` steps from the lightest on the hull."""
        return self._steps.after(steps, self._lightest)

    def solve(self, limit: float, most_states: int = MOST_STATES) -> Solution | None:
        """The picks of least value whose weights add up to at most `limit`; None where no picks do."""
        room = limit - self.least_weight
        if room < 0:
            return None
        steps = self._steps
        taken = int(np.searchsorted(steps.reached, room, side="right"))
        picks = steps.after(taken, self._lightest)
        if taken == len(steps.group):
            return self._solution(picks, 0.0)
        return self._finish(picks, taken, limit, most_states)

    def _solution(self, picks: Integers, gap: float) -> Solution:
        value, weight = self._values[self._rows, picks].sum(), self._weights[self._rows, picks].sum()
        return Solution(picks, float(value), float(weight), gap)

    def _finish(self, picks: Integers, taken: int, limit: float, most_states: int) -> Solution:
        """The best solution near the `picks` of the relaxation."""
        slope = self._steps.slope[taken]
        slack = limit - float(self._weights[self._rows, picks].sum())
        greedy = self._greedy(picks, taken, slack)
        core = _Core(self._values, self._weights, picks, slope, slack, most_states)
        gain = float(self._values[self._rows, picks].sum() - self._values[self._rows, greedy].sum())
        better, gap = core.improve(slope * slack - gain, self._least_excess(slope * slack))
        return self._solution(greedy if better is None else better, gap)

    def _least_excess(self, bound: float) -> float:
        """What every solution is above the relaxation, as values move in whole units; `bound` is what this one is."""
        excess = bound % self._unit if self._unit else 0.0
        return excess if self._unit - excess > _NEAR * self._unit else 0.0  # a whole number but for rounding

    @cached_property
    def _unit(self) -> int:
        """What values of a group differ by whole multiples of; 0 where they differ by less than whole numbers."""
        apart = self._values - self._values[self._rows, self._lightest][:, None]
        apart = np.abs(apart[np.isfinite(apart)])
        if apart.max(initial=0) >= _LARGEST_WHOLE or (apart != np.floor(apart)).any():
            return 0
        return int(np.gcd.reduce(apart.astype(np.int64)))

    def _greedy(self, picks: Integers, taken: int, slack: float) -> Integers:
        """The picks with whatever later steps there is room for, the best first."""
        found, steps, closed = picks.copy(), self._steps, set[int]()
        for index in range(taken, min(taken + _GREEDY_STEPS, len(steps.group))):
            group = int(steps.group[index])
            if group not in closed and steps.weight[index] <= slack:
                found[group] = steps.option[index]
                slack -= steps.weight[index]
            else:
                closed.add(group)
        return found


@dataclass(frozen=True, eq=False)
class _Steps:
    """Steps from one option to a heavier and better one, the steepest first; a group's in their order."""

    group: Integers
    option: Integers
    weight: Floats
    value: Floats

    @cached_property
    def slope(self) -> Floats:
        return self.value / self.weight

    @cached_property
    def reached(self) -> Floats:
        """The weight of each step and all before it."""
        found: Floats = np.cumsum(self.weight)
        return found

    def after(self, count: int, start: Integers) -> Integers:
        """The options once `count` steps are taken."""
        found = start.copy()
        found[self.group[:count]] = self.option[:count]
        return found


def _first(main: Floats, then: Floats) -> Integers:
    """For each group the option where `main` is least, of those the one where `then` is."""
    ties = np.where(main == main.min(axis=1, keepdims=True), then, np.inf)
    first: Integers = ties.argmin(axis=1)
    return first


def _hull_steps(values: Floats, weights: Floats, start: Integers) -> _Steps:
    rows, here, parts = np.arange(len(values)), start, list[Sequence[NDArray[np.generic]]]()
    while len(rows):
        following, gained, heavier = _next_on_hull(values[rows], weights[rows], here)
        on = gained > 0
        rows, here = rows[on], following[on]
        parts.append((rows, here, heavier[on], gained[on], np.full(len(rows), len(parts))))
    group, option, weight, value, order = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    sequence = np.lexsort((group, order, -_falling(group, order, value / weight)))
    return _Steps(group[sequence], option[sequence], weight[sequence], value[sequence])


def _falling(group: Integers, order: Integers, slope: Floats) -> Floats:
    """The slopes, none steeper than the one before it in its group, as rounding could make it."""
    found = slope.copy()
    last = np.full(group.max(initial=0) + 1, np.inf)
    for number in range(int(order.max(initial=-1)) + 1):
        mine = np.flatnonzero(order == number)
        found[mine] = np.minimum(found[mine], last[group[mine]])
        last[group[mine]] = found[mine]
    return found


def _next_on_hull(values: Floats, weights: Floats, here: Integers) -> tuple[Integers, Floats, Floats]:
    """For each group the option that gains most per weight from `here` on, its gain (0: none) and its weight more."""
    rows = np.arange(len(values))
    with np.errstate(invalid="ignore", divide="ignore"):  # options that are not there
        gained = values[rows, here][:, None] - values
        heavier = weights - weights[rows, here][:, None]
        slope = np.where((gained > 0) & (heavier > 0) & np.isfinite(weights), gained / heavier, 0.0)
    best = np.where(slope == slope.max(axis=1, keepdims=True), gained, -np.inf).argmax(axis=1)
    return best, np.where(slope[rows, best] > 0, gained[rows, best], 0.0), heavier[rows, best]


class _Core:
    """Options that may be part of a solution better than the one that is known, group after group.

    With the slope of the relaxation, an option costs value + slope x weight; its penalty is what that is above the cost
    of what its group has. A solution is above the relaxation's bound by its penalties and slope x its unused weight.
    """

    def __init__(
        self, values: Floats, weights: Floats, picks: Integers, slope: float, slack: float, most_states: int
    ) -> None:
        rows = np.arange(len(values))
        costs = values + slope * weights
        self._penalties = np.maximum(costs - costs[rows, picks][:, None], 0.0)
        self._penalties[rows, picks] = np.inf
        self._heavier = weights - weights[rows, picks][:, None]
        self._picks, self._slope, self._slack, self._most = picks, slope, slack, most_states

    def improve(self, known: float, least: float) -> tuple[Integers | None, float]:
        """Picks that are less than `known` above the bound, None where there are none, and what is not ruled out.

        Nothing is less than `least` above it.
        """
        nearest = self._penalties.min(axis=1)
        order = np.argsort(nearest, kind="stable")
        states = _States(np.array([self._slack]), np.zeros(1))
        best, changes, left_out = known, None, np.inf
        for number, (group, following) in enumerate(zip(order, np.append(nearest[order[1:]], np.inf), strict=True)):
            if not states.count or nearest[group] >= _below(best) or _below(best) <= least:
                break
            if number >= _GROUPS_PER_STATE * self._most:
                left_out = min(left_out, float(nearest[group]))
                break
            options = np.flatnonzero(self._penalties[group] < _below(best))
            states = states.with_group(group, options, self._heavier[group, options], self._penalties[group, options])
            excess, state = states.best(self._slope)
            if excess < _below(best):
                best, changes = excess, states.changes(state)
            left_out = min(left_out, states.narrow(self._slope, _below(best) - following, self._most))
        gap = max(best - max(left_out, least), 0.0) if left_out < best else 0.0
        return (None if changes is None else self._changed(changes)), gap

    def _changed(self, changes: Sequence[tuple[int, int]]) -> Integers:
        picks = self._picks.copy()
        for group, option in changes:
            picks[group] = option
        return picks


def _below(best: float) -> float:
    """What a solution must stay under to be better by more than rounding."""
    return best - _ROUNDING * abs(best)


class _States:
    """Partial solutions: unused weight and penalties of each, and how each came about."""

    def __init__(self, slack: Floats, penalty: Floats) -> None:
        self._slack, self._penalty = slack, penalty
        self._history: list[tuple[int, Integers, Integers]] = []

    @property
    def count(self) -> int:
        return len(self._slack)

    def with_group(self, group: int, options: Integers, heavier: Floats, penalty: Floats) -> "_States":
        """All of them, and all with one of the `options` for a group."""
        found = _States(
            np.concatenate([self._slack, (self._slack[:, None] - heavier).reshape(-1)]),
            np.concatenate([self._penalty, (self._penalty[:, None] + penalty).reshape(-1)]),
        )
        here = np.arange(self.count)
        parents = np.concatenate([here, np.repeat(here, len(options))])
        chosen = np.concatenate([np.full(self.count, -1), np.tile(options, self.count)])
        found._history = [*self._history, (int(group), parents, chosen)]
        return found

    def best(self, slope: float) -> tuple[float, int]:
        """How far the best one that keeps the limit is above the bound, and which it is; Inf where none does."""
        excess = np.where(self._slack >= 0, self._penalty + slope * self._slack, np.inf)
        state = int(excess.argmin())
        return float(excess[state]), state

    def changes(self, state: int) -> list[tuple[int, int]]:
        """(group, option) of what one of them changed."""
        found = []
        for group, parents, chosen in reversed(self._history):
            if chosen[state] >= 0:
                found.append((group, int(chosen[state])))
            state = int(parents[state])
        return found

    def narrow(self, slope: float, penalty: float, most: int) -> float:
        """Drop those with penalties from `penalty` on, and those that another beats in weight and in value.

        `most` are left. Returns the smallest penalty of what was dropped as too many, Inf where that was nothing.
        """
        alive = np.flatnonzero(self._penalty < penalty)
        value = self._penalty[alive] + slope * self._slack[alive]
        alive = alive[np.lexsort((value, -self._slack[alive]))]
        value = self._penalty[alive] + slope * self._slack[alive]
        least = np.minimum.accumulate(np.append(np.inf, value[:-1]))
        alive = alive[value < least]
        dropped = np.inf
        if len(alive) > most:
            alive = alive[np.argsort(self._penalty[alive], kind="stable")]
            dropped = float(self._penalty[alive[most]])
            alive = alive[:most]
        self._slack, self._penalty = self._slack[alive], self._penalty[alive]
        group, parents, chosen = self._history[-1]
        self._history[-1] = group, parents[alive], chosen[alive]
        return dropped
