"""Failing runs as an outcome: rates and pairs by hand, and McNemar's oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import sign_flip_p
from alignkit.stats.sensitivity.failures import FailureContrast, failure_contrast


def grid(seeds: int = 8) -> pd.DataFrame:
    cells = itertools.product(range(seeds), ("none", "batch"), (8, 64), (2, 3))
    return pd.DataFrame(cells, columns=["seed", "norm", "width", "depth"]).assign(diverged=False)


def failures_of(table: pd.DataFrame) -> FailureContrast:
    return failure_contrast(table, factor="norm", levels=("none", "batch"), within=["width", "depth"])


def lose(table: pd.DataFrame, runs: list[tuple[int, str, int, int]]) -> pd.DataFrame:
    keys = table[["seed", "norm", "width", "depth"]].itertuples(index=False, name=None)
    return table.assign(diverged=[key in runs for key in keys])


LOST = [(0, "batch", 8, 2), (0, "batch", 8, 3), (3, "batch", 64, 2), (5, "none", 8, 2), (5, "batch", 8, 2)]


def test_failures_are_counted_by_seed_and_by_pair() -> None:
    result = failures_of(lose(grid(), LOST))
    assert result.pairs == {"neither": 28, "first alone": 0, "second alone": 3, "both": 1}
    assert result.rates == (1 / 32, 4 / 32) and result.runs == (32, 32)
    np.testing.assert_allclose(result.differences, [0.5, 0, 0, 0.25, 0, 0, 0, 0])
    assert result.p == sign_flip_p(result.differences) == 0.5
    oracle = mcnemar([[28, 0], [3, 1]], exact=True)
    assert result.p_mcnemar == pytest.approx(oracle.pvalue) and result.to_frame().loc[0, "pairs_second_alone"] == 3


def test_mcnemar_is_fooled_by_fragile_seeds_and_their_own_test_is_not() -> None:
    runs = [(2, "batch", width, depth) for width, depth in itertools.product((8, 64), (2, 3))]
    runs += [(4, "batch", width, depth) for width, depth in itertools.product((8, 64), (2, 3))]
    result = failures_of(lose(grid(), runs))
    assert result.p_mcnemar < 0.01 and result.p == 0.5


def test_no_failure_at_all_bounds_its_chance() -> None:
    result = failures_of(grid())
    assert result.estimate == 0 and result.p == 1.0 and result.p_mcnemar == 1.0
    # With 31% of seeds failing, eight sound ones have a chance of 5%.
    assert "below 31%" in result.warnings[0] and abs(0.69**8 - 0.05) < 0.002
    few = failures_of(grid(seeds=5))
    assert any("5 seeds cannot reach p < .05" in warning for warning in few.warnings)


def test_failures_in_a_fraction_have_no_pairs() -> None:
    table = pd.DataFrame(
        {"seed": seed, "a": a, "b": b, "c": (a + b) % 2, "diverged": bool(a and seed < 3)}
        for seed, a, b in itertools.product(range(6), (0, 1), (0, 1))
    )
    result = failure_contrast(table, factor="a", levels=(0, 1), within=["b", "c"])
    assert np.isnan(result.p_mcnemar) and sum(result.pairs.values()) == 0
    np.testing.assert_allclose(result.differences, [1, 1, 1, 0, 0, 0])


def test_unclear_failures_are_refused() -> None:
    with pytest.raises(AnalysisError, match='"diverge"; did you mean "diverged"'):
        failure_contrast(grid(), factor="norm", levels=("none", "batch"), failed="diverge")
    with pytest.raises(AnalysisError, match='true or false in "diverged"; got 1 other'):
        table = grid().assign(diverged=lambda t: t["diverged"].astype(object))
        table.loc[0, "diverged"] = None
        failures_of(table)
