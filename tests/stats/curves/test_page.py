"""Page's trend test: against scipy without ties, every order with them, and its level under censoring."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from alignkit.stats.curves.page import page_trend


@pytest.mark.parametrize(("n", "k"), [(4, 3), (6, 4), (10, 5)])
def test_page_is_that_of_scipy_without_ties(n: int, k: int) -> None:
    table = np.random.default_rng(n).normal(0, 1, (n, k)) + 0.3 * np.arange(k)
    statistic, p = page_trend(table)
    upper, lower = (scipy_stats.page_trend_test(side, method="exact") for side in (table, -table))
    assert statistic == upper.statistic
    assert p == pytest.approx(min(1.0, 2 * min(upper.pvalue, lower.pvalue)))


def test_page_with_ties_is_brute_force_over_all_orders() -> None:
    table = np.array([[1.0, 5.0, 5.0], [2.0, 3.0, 9.0], [4.0, 4.0, 4.0], [1.0, 1.0, 2.0]])
    ranks = scipy_stats.rankdata(table, axis=1)
    position = np.arange(1, 4)
    totals = [
        sum(float(np.array(row) @ position) for row in rows)
        for rows in itertools.product(*(list(itertools.permutations(row)) for row in ranks))
    ]
    statistic, p = page_trend(table)
    assert statistic == (ranks @ position).sum()
    assert p == pytest.approx(np.mean([abs(total - 48) >= abs(statistic - 48) - 1e-9 for total in totals]))
    assert page_trend(np.ones((5, 3)))[1] == 1.0


def test_page_beyond_eight_columns_is_close_to_drawing_orders() -> None:
    generator = np.random.default_rng(5)
    table = generator.normal(0, 1, (6, 9)) + 0.08 * np.arange(9)
    statistic, p = page_trend(table)
    position = np.arange(1, 10)
    drawn = (generator.permuted(np.tile(position, (40_000, 6, 1)), axis=2) @ position).sum(axis=1)
    assert p == pytest.approx(np.mean(np.abs(drawn - 6 * 9 * 25) >= abs(statistic - 6 * 9 * 25)), abs=0.01)


def test_page_rejects_at_its_level_when_censoring_makes_ties() -> None:
    generator = np.random.default_rng(6)
    replicates = 1000
    times = np.minimum(generator.exponential(1.0, (replicates, 8, 3)), 1.2)  # some 30% are censored
    rejected = np.mean([page_trend(table)[1] < 0.05 for table in times])
    assert 0.03 < rejected < 0.05 + 3.3 * np.sqrt(0.05 * 0.95 / replicates)


def test_many_ties_beyond_eight_columns_are_close_to_drawing_orders() -> None:
    generator = np.random.default_rng(7)
    table = np.minimum(generator.exponential(1.0, (7, 10)) + 0.05 * np.arange(10), 0.8)  # half are tied
    statistic, p = page_trend(table)
    ranks, position = scipy_stats.rankdata(table, axis=1), np.arange(1, 11)
    drawn = (generator.permuted(np.tile(ranks, (40_000, 1, 1)), axis=2) @ position).sum(axis=1)
    centre = 7 * 10 * 121 / 4
    assert p == pytest.approx(np.mean(np.abs(drawn - centre) >= abs(statistic - centre) - 1e-9), abs=0.01)


def test_one_seed_is_no_test() -> None:
    assert np.isnan(page_trend(np.array([[1.0, 2.0, 3.0]]))).all()
