"""Choosing a level: closed forms, ties, calibration against simulated truth; and what held-out seeds say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.choice import _drawn_means, choose, confirm


def level_means(*centres: float, seeds: int = 8, noise: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(noise)
    block = generator.normal(0, 5, (seeds, 1))  # seeds differ far more than levels do
    values = np.array(centres) + block + generator.normal(0, 0.5, (seeds, len(centres)))
    return pd.DataFrame(values, columns=[f"level{index}" for index in range(len(centres))])


def test_two_levels_have_the_probabilities_of_the_paired_t() -> None:
    means = level_means(60.0, 60.3)
    result = choose(means, better="lower", margin=0.4, draws=100_000)
    difference = means["level1"] - means["level0"]
    t = scipy_stats.t(len(means) - 1, loc=difference.mean(), scale=difference.sem())
    p_best = result.levels.set_index("level")["p_best"]
    assert p_best["level0"] == pytest.approx(t.sf(0), abs=0.01)
    effect = result.effects.iloc[0]
    assert effect["p_lower"] == pytest.approx(t.cdf(-0.4), abs=0.01)
    assert effect["p_equivalent"] == pytest.approx(t.cdf(0.4) - t.cdf(-0.4), abs=0.01)
    assert effect["p_higher"] == pytest.approx(t.sf(0.4), abs=0.01)
    # Regret of level 0 is E max(0, -difference).
    grid = np.linspace(*t.interval(1 - 1e-7), 100_001)
    regret = np.trapezoid(np.maximum(-grid, 0) * t.pdf(grid), grid)
    assert result.levels["expected_regret"].iloc[0] == pytest.approx(regret, abs=0.005)


def test_the_bootstrap_draws_whole_seeds() -> None:
    """By hand, over all 3^3 equally likely resamples of three seeds."""
    means = pd.DataFrame({"a": [1.0, 2.0, 6.0], "b": [2.0, 2.5, 3.0]})
    index = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(-1, 3)
    resampled = means.to_numpy()[index].mean(axis=1)
    difference = resampled[:, 0] - resampled[:, 1]
    expected = np.mean((difference < -1e-12) + 0.5 * (np.abs(difference) <= 1e-12))
    result = choose(means, better="lower", margin=1.0, method="bootstrap", draws=200_000)
    assert result.levels["p_best"].iloc[0] == pytest.approx(expected, abs=0.005)
    assert "bootstrap over seeds" in result.method


def test_direction_and_units() -> None:
    means = level_means(60.0, 63.0, 66.0)
    lower, higher = (choose(means, better=better, margin=1.0) for better in ("lower", "higher"))
    assert (lower.best, higher.best) == ("level0", "level2") and lower.verdict == higher.verdict == "clear"
    mirrored = choose(-means, better="higher", margin=1.0)
    np.testing.assert_allclose(mirrored.levels["p_best"], lower.levels["p_best"], atol=0.01)
    scaled = choose(10 * means, better="lower", margin=10.0)
    np.testing.assert_allclose(scaled.levels["expected_regret"], 10 * lower.levels["expected_regret"])
    np.testing.assert_allclose(scaled.levels["p_best"], lower.levels["p_best"])
    # What all levels of a seed share is no matter.
    shifted = choose(means.add(np.arange(len(means)) * 100.0, axis="index"), better="lower", margin=1.0)
    np.testing.assert_allclose(shifted.levels["expected_regret"], lower.levels["expected_regret"], atol=1e-9)
    assert lower.levels["p_best"].sum() == pytest.approx(1.0)
    assert list(lower.effects["verdict"]) == ["higher", "higher"]
    assert list(choose(means, better="lower", margin=1.0, base="level2").effects["verdict"]) == ["lower", "lower"]


def test_equal_levels_share_the_first_place() -> None:
    means = level_means(60.0, 65.0).assign(twin=lambda t: t["level0"])
    result = choose(means, better="lower", margin=1.0)
    assert list(result.levels["p_best"].round(6)) == [0.5, 0.0, 0.5]
    assert result.verdict == "safe" and result.effects.iloc[1]["verdict"] == "equivalent"
    constant = choose(pd.DataFrame({"a": [1.0] * 4, "b": [2.0] * 4}), better="lower", margin=0.5)
    assert constant.best == "a" and constant.p_best == 1.0 and constant.expected_regret == 0.0


def test_more_levels_than_seeds_are_no_obstacle_and_draws_repeat() -> None:
    means = level_means(*np.linspace(60, 61, 9), seeds=5)
    first, again, other = (choose(means, better="lower", margin=0.5, draws=500, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())
    assert not first.levels.equals(other.levels)
    assert first.to_frame()["chosen"].sum() == 1 and len(first.to_frame()) == 9
    assert first.levels["p_best"].sum() == pytest.approx(1.0)


def test_probabilities_are_calibrated_and_the_bootstrap_s_are_worse() -> None:
    """Six seeds, four levels, effects from a wide prior: a claimed probability is right as often as it says."""
    generator = np.random.default_rng(2)
    studies = 4000
    gap: dict[str, list[float]] = {"student": [], "bootstrap": []}
    for study in range(studies):
        truth = generator.normal(0, 1.5, 4)
        values = truth + generator.normal(0, 1.0, (6, 4))
        for method, gaps in gap.items():
            drawn = _drawn_means(values, method=method, draws=200, seed=study)
            p = np.bincount(drawn.argmin(axis=1), minlength=4) / 200
            gaps.append(p.max() - (p.argmax() == truth.argmin()))
    error = {method: np.std(gaps) / np.sqrt(studies) for method, gaps in gap.items()}
    assert abs(np.mean(gap["student"])) < 3 * error["student"]
    assert np.mean(gap["bootstrap"]) > 3 * error["bootstrap"]


def test_seeds_without_a_level_are_counted_and_too_few_refused() -> None:
    means = level_means(60.0, 62.0)
    means.iloc[2, 1] = np.nan
    result = choose(means, better="lower", margin=1.0)
    assert result.n_seeds == 7 and "1 of 8 seeds left out" in result.warnings[0]
    with pytest.raises(AnalysisError, match=r"got 0 of 8; no seed has a value at level1"):
        choose(means.assign(level1=np.nan), better="lower", margin=1.0)
    with pytest.raises(AnalysisError, match="three seeds or more"):
        choose(means.iloc[:2], better="lower", margin=1.0)
    with pytest.raises(AnalysisError, match="two levels or more; got level0"):
        choose(means[["level0"]], better="lower", margin=1.0)
    with pytest.raises(AnalysisError, match="base among the levels; got levle1"):
        choose(means, better="lower", margin=1.0, base="levle1")
    with pytest.raises(AnalysisError, match="margin above 0"):
        choose(means, better="lower", margin=0.0)
    with pytest.raises(AnalysisError, match="which direction is better"):
        choose(means, better="smaller", margin=1.0)  # type: ignore[arg-type]


def test_levels_that_are_numbers_are_read_as_text() -> None:
    means = level_means(60.0, 62.0).set_axis([8.0, 64], axis="columns")
    result = choose(means, better="lower", margin=1.0, base="64")
    assert result.best == "8" and result.base == "64" and list(result.effects["level"]) == ["8"]


@pytest.mark.parametrize(
    ("differences", "status"),
    [([-2.0, -2.2, -1.8, -2.1], "confirmed"), ([2.0, 2.2, 1.8, 2.1], "contradicted"), ([-2, 1, 2, -1.5], "not confirmed")],
)  # fmt: skip
def test_a_difference_is_held_against_the_held_out_interval(differences: list[float], status: str) -> None:
    result = confirm(-4.0, differences, margin=1.0, verdict="supported")
    mirrored = confirm(4.0, [-value for value in differences], margin=1.0, verdict="refuted")
    assert result.status == mirrored.status == status
    oracle = scipy_stats.ttest_1samp(differences, 0.0).confidence_interval()
    assert result.interval == pytest.approx((oracle.low, oracle.high))
    assert result.shrinkage == pytest.approx(np.mean(differences) / -4.0)


@pytest.mark.parametrize(
    ("centre", "status"), [(0.0, "confirmed"), (0.95, "not confirmed"), (3.0, "contradicted"), (-3.0, "contradicted")]
)
def test_equivalence_is_held_against_the_margin(centre: float, status: str) -> None:
    result = confirm(0.2, centre + np.array([-0.2, 0.1, 0.2, -0.1]), margin=1.0, verdict="equivalent")
    assert result.status == status and np.isnan(result.shrinkage)
    assert (result.to_frame().loc[0, "p_equivalence"] < 0.05) == (status == "confirmed")


def test_the_winner_s_curse_shows_as_shrinkage() -> None:
    """The largest of ten estimated effects is mostly luck: on fresh seeds it shrinks."""
    generator = np.random.default_rng(3)
    ratios = []
    for _ in range(200):
        truth = generator.normal(0, 0.3, 10)
        found = truth + generator.normal(0, 1 / np.sqrt(8), 10)
        best = np.abs(found).argmax()
        fresh = confirm(found[best], truth[best] + generator.normal(0, 1, 8), margin=0.5, verdict="supported")
        ratios.append(fresh.shrinkage)
    assert 0.2 < np.median(ratios) < 0.8


def test_what_cannot_be_confirmed_is_refused() -> None:
    with pytest.raises(AnalysisError, match="nothing to confirm"):
        confirm(1.0, [1.0, 2.0], margin=1.0, verdict="undecided")  # type: ignore[arg-type]
    with pytest.raises(AnalysisError, match=r"two held-out seeds or more.*got 1"):
        confirm(1.0, [1.0, np.nan], margin=1.0, verdict="supported")
    with pytest.raises(AnalysisError, match="finite and other than 0"):
        confirm(0.0, [1.0, 2.0], margin=1.0, verdict="supported")
