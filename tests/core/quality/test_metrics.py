"""Metrics against numbers worked out by hand, and their noise."""

import math

import numpy as np
import pytest

from studio.core.quality.metrics import Tally, log_probabilities, tally
from studio.core.quality.noise import agreement, divergence, estimate, increase, perplexity

HALF, QUARTER = math.log(0.5), math.log(0.25)


def logs(*rows: list[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, np.float32))


def test_logits_become_log_probabilities() -> None:
    found = log_probabilities(np.array([[1000.0, 1000.0], [0.0, math.log(3)]], np.float32))
    np.testing.assert_allclose(found, [[HALF, HALF], [QUARTER, math.log(0.75)]], rtol=1e-6)


def test_loss_is_that_of_the_words_that_follow() -> None:
    found = tally(logs([0.5, 0.5], [0.75, 0.25]), np.array([0, 1]))
    assert found.tokens == 2
    assert found.loss == pytest.approx(-HALF - QUARTER)
    assert found.divergence is None
    assert found.agreed is None


def test_divergence_is_from_the_source_to_the_model_and_agreement_counts_words() -> None:
    source, model = logs([0.5, 0.5, 0.0], [0.1, 0.2, 0.7]), logs([0.25, 0.5, 0.25], [0.1, 0.2, 0.7])
    found = tally(model, np.array([1, 2]), source)
    assert found.divergence == pytest.approx(0.5 * math.log(2), rel=1e-6)
    assert found.agreed == 1


def test_words_that_both_exclude_add_nothing_and_one_that_only_the_model_excludes_is_infinite() -> None:
    certain, torn = logs([1.0, 0.0]), logs([0.5, 0.5])
    assert tally(certain, np.array([0]), certain).divergence == 0
    assert tally(certain, np.array([0]), torn).divergence == math.inf


def test_many_positions_are_summed_as_few_are() -> None:
    draw = np.random.default_rng(0)
    p, q = (log_probabilities(draw.standard_normal((200, 7)).astype(np.float32)) for _ in range(2))
    whole = tally(q, draw.integers(0, 7, 200), p)
    wide = p.astype(np.float64)
    assert whole.divergence == pytest.approx(float((np.exp(wide) * (wide - q)).sum()), rel=1e-6)


def test_predictions_over_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        tally(logs([0.5, 0.5]), np.array([0]), logs([0.5, 0.25, 0.25]))


WINDOWS = [Tally(4, 4 * loss, 4 * kl, agreed) for loss, kl, agreed in [(1.0, 0.1, 4), (2.0, 0.3, 2), (3.0, 0.2, 3)]]
SOURCE = [Tally(4, 4 * loss) for loss in (0.9, 1.9, 2.9)]


def test_estimates_are_means_over_tokens() -> None:
    assert perplexity(WINDOWS).value == pytest.approx(math.exp(2.0))
    assert divergence(WINDOWS).value == pytest.approx(0.2)
    assert agreement(WINDOWS).value == pytest.approx(0.75)
    assert divergence(WINDOWS, WINDOWS).value == 0


def test_the_increase_is_paired_so_that_equal_differences_have_no_noise() -> None:
    found = increase(WINDOWS, SOURCE)
    assert found.value == pytest.approx(math.expm1(0.1))
    assert found.noise == pytest.approx(0, abs=1e-12)
    assert perplexity(WINDOWS).noise > 1


def test_noise_is_the_same_each_time_and_near_the_standard_error() -> None:
    draw = np.random.default_rng(1).standard_normal(400)
    windows = [Tally(1, 0.0, 5 + value) for value in draw]
    found = divergence(windows)
    assert found == divergence(windows)
    assert found.noise == pytest.approx(draw.std() / math.sqrt(400), rel=0.1)


def test_one_window_tells_no_noise() -> None:
    assert estimate(np.array([[3.0, 2.0]]), lambda sums: sums[:, 0] / sums[:, 1]).noise is None


def test_windows_of_other_lengths_count_by_their_tokens() -> None:
    assert divergence([Tally(1, 0.0, 1.0), Tally(3, 0.0, 0.0)]).value == pytest.approx(0.25)
