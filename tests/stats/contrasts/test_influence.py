"""Leaving one seed out: by hand, and against statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.influence import leave_one_seed_out
from alignkit.stats.contrasts.paired import paired_test

DIFFERENCES = pd.Series([2.0, 2.4, 1.7, 2.2, -3.0, 2.1, 1.9, 2.3], index=[11, 12, 13, 14, 15, 16, 17, 18])


def test_every_row_is_the_paired_test_of_the_others() -> None:
    result = leave_one_seed_out(DIFFERENCES)
    for seed, row in zip(DIFFERENCES.index, result.to_frame().itertuples(), strict=True):
        others = paired_test(DIFFERENCES.drop(seed))
        assert (row.seed, row.estimate, row.p) == (seed, others.estimate, others.p)
        assert (row.low, row.high) == others.interval
    assert result.most_influential == 15 and result.n_seeds == 8
    assert result.jackknife_sd == pytest.approx(DIFFERENCES.sem())


def test_cook_s_distance_is_that_of_statsmodels() -> None:
    fit = sm.OLS(DIFFERENCES.to_numpy(), np.ones(8)).fit()
    np.testing.assert_allclose(leave_one_seed_out(DIFFERENCES).frame["cook"], fit.get_influence().cooks_distance[0])


def test_one_seed_that_carries_or_hides_a_verdict_makes_it_unstable() -> None:
    hidden = leave_one_seed_out(DIFFERENCES)
    assert hidden.verdict == "undecided" and not hidden.stable
    assert hidden.frame.set_index("seed").loc[15, "verdict"] == "increases"
    sound = leave_one_seed_out(DIFFERENCES.abs() * -1)
    assert sound.verdict == "decreases" and sound.stable
    small = leave_one_seed_out(DIFFERENCES.drop(15) - 2.0, margin=1.0)
    assert small.verdict == "equivalent" and small.stable


def test_too_few_seeds_for_random_signs_fall_back_on_t_for_all_alike() -> None:
    six = DIFFERENCES.drop([14, 15])
    result = leave_one_seed_out(six)
    assert "5 seeds cannot reach p < 0.05" in result.warnings[0] and result.stable
    assert result.frame["p"].iloc[0] == paired_test(six.iloc[1:]).p_t
    family = leave_one_seed_out(DIFFERENCES, family_size=10)
    assert "7 seeds cannot reach p < 0.005" in family.warnings[0]


def test_missing_differences_are_counted_and_few_or_equal_ones_said() -> None:
    result = leave_one_seed_out([1.0, np.nan, 2.0, 1.5])
    assert result.n_seeds == 3 and "1 of 4 differences missing" in result.warnings[0]
    assert list(result.frame["seed"]) == [0, 2, 3]
    with pytest.raises(AnalysisError, match="three seeds or more"):
        leave_one_seed_out([1.0, 2.0])
    same = leave_one_seed_out([1.0] * 8)
    assert same.frame["cook"].isna().all() and same.verdict == "increases" and same.jackknife_sd == 0
