"""Arrays of studies give what one study at a time gives, and what scipy gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import matched_differences, moments, sign_flip_p_values, t_interval, t_p, tost_p
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import paired_test, sign_flip_p


def studies(n: int = 9) -> np.ndarray:
    """Studies [8, n]: some differences missing, one study with one left, one with none, one without variance."""
    generator = np.random.default_rng(n)
    values = generator.normal(0.4, 1.0, (8, n))
    values[generator.uniform(size=values.shape) < 0.2] = np.nan
    values[4, 1:] = values[5] = np.nan
    values[6] = 0.3
    values[4, 0] = 1.5
    return values


def test_t_tests_are_those_of_scipy() -> None:
    values = studies()
    of = moments(values)
    low, high = t_interval(of, level=0.9)
    for row in (0, 1, 2, 3, 7):
        present = values[row][np.isfinite(values[row])]
        oracle = scipy_stats.ttest_1samp(present, 0.0)
        assert of.n[row] == len(present) and of.sd[row] == pytest.approx(present.std(ddof=1))
        assert t_p(of)[row] == pytest.approx(oracle.pvalue)
        assert (low[row], high[row]) == pytest.approx(tuple(oracle.confidence_interval(0.9)))
        sides = [
            scipy_stats.ttest_1samp(present, bound, alternative=side).pvalue
            for bound, side in ((-0.7, "greater"), (0.7, "less"))
        ]
        assert tost_p(of, margin=0.7)[row] == pytest.approx(max(sides))


def test_what_cannot_be_said_is_missing() -> None:
    of = moments(studies())
    assert of.n[4] == 1 and of.mean[4] == 1.5 and np.isnan(of.sd[4])
    assert of.n[5] == 0 and np.isnan(of.mean[5])
    assert of.sd[6] == 0 and of.mean[6] == pytest.approx(0.3)
    for values in (*t_interval(of), t_p(of), tost_p(of, margin=1.0)):
        assert np.isnan(values[4:7]).all() and np.isfinite(values[[0, 1, 2, 3, 7]]).all()


def test_many_studies_at_once_give_what_each_gives_alone() -> None:
    values = studies(20)
    of, p = moments(values), sign_flip_p_values(values)
    low, high = t_interval(of)
    for row in (0, 1, 2, 3, 4, 6, 7):
        alone = paired_test(values[row])
        assert alone.n_seeds == of.n[row]
        one = [alone.estimate, *alone.interval, alone.sd, alone.p_t]
        of_many = [of.mean[row], low[row], high[row], of.sd[row], t_p(of)[row]]
        np.testing.assert_allclose(one, of_many, rtol=1e-12)  # sums round by where the missing ones stand
        assert alone.p == p[row]
        assert equivalence_test(values[row], margin=0.5).p == pytest.approx(tost_p(of, margin=0.5)[row], nan_ok=True)
    assert np.isnan(p[5])


@pytest.mark.parametrize("n", [3, 11, 16])
def test_sign_flips_are_those_of_adding_signs_one_difference_at_a_time(n: int) -> None:
    values = np.random.default_rng(n).normal(0.5, 1, (3, n))
    values[2] = np.arange(n) - 1.0  # ties
    for row, p in zip(values, sign_flip_p_values(values), strict=True):
        sums = row[:1]
        for value in row[1:]:
            sums = np.concatenate([sums + value, sums - value])
        assert p == np.mean(np.abs(sums) >= abs(row.sum()) - 1e-9)


def test_drawn_signs_depend_on_the_seed_alone() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (40, 18))
    p = sign_flip_p_values(values, seed=1, draws=999)
    np.testing.assert_array_equal(p[[7]], sign_flip_p_values(values[[7]], seed=1, draws=999))
    assert (p != sign_flip_p_values(values, seed=2, draws=999)).any()
    assert sign_flip_p_values(values.reshape(5, 8, 18), seed=1, draws=999).shape == (5, 8)


def test_a_missing_run_takes_its_counterpart_along() -> None:
    before, after = (
        np.array([[1.0, 10.0], [np.nan, 2.0], [1.0, np.nan]]),
        np.array([[2.0, np.nan], [5.0, 5.0], [np.nan, 1.0]]),
    )
    np.testing.assert_array_equal(matched_differences(before, after), [1.0, 3.0, np.nan])


def test_sign_flips_of_nothing_are_missing() -> None:
    assert np.isnan(sign_flip_p([]))
    assert np.isnan(sign_flip_p_values(np.empty((2, 0)))).all() and sign_flip_p_values(np.empty((0, 5))).shape == (0,)


def test_sign_flips_of_missing_differences_are_refused() -> None:
    with pytest.raises(AnalysisError, match="got 1 missing of 3"):
        sign_flip_p([1.0, np.nan, 2.0])
