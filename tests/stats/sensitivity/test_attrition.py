"""Bounds on a contrast with missing values, against filling them in by brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import paired_test, sign_flip_p
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.sensitivity.attrition import AttritionBounds, worst_case_bounds


def grid(seeds: int = 8, *, effect: float = 4.0, noise: int = 0, sd: float = 1.0) -> pd.DataFrame:
    generator = np.random.default_rng(noise)
    rows = []
    for seed, norm, width, depth in itertools.product(range(seeds), ("none", "batch"), (8, 64), (2, 3)):
        value = 60 + seed + effect * (norm == "batch") + generator.normal(0, sd)
        rows.append({"seed": seed, "norm": norm, "width": width, "depth": depth, "value": value, "diverged": False})
    return pd.DataFrame(rows)


def bounds_of(table: pd.DataFrame, **options: Any) -> AttritionBounds:
    options = {"within": ["width", "depth"], "bounds": (0.0, 180.0), **options}
    return worst_case_bounds(table, factor="norm", levels=("none", "batch"), **options)


def lose(table: pd.DataFrame, runs: list[tuple[int, str, int, int]]) -> pd.DataFrame:
    table = table.copy()
    for seed, norm, width, depth in runs:
        keys = (table["seed"] == seed) & (table["norm"] == norm) & (table["width"] == width) & (table["depth"] == depth)
        table.loc[keys, "diverged"] = True
    return table.assign(value=table["value"].mask(table["diverged"]))


LOST = [(0, "batch", 8, 2), (0, "batch", 8, 3), (3, "batch", 64, 2), (5, "none", 8, 2), (5, "batch", 8, 2)]


def test_nothing_missing_changes_nothing() -> None:
    table = grid()
    result = bounds_of(table)
    plain = contrast(table, factor="norm", levels=("none", "batch"), within=["width", "depth"])
    assert result.lowest == pytest.approx(plain.estimate) == pytest.approx(result.highest)
    assert result.interval == pytest.approx(plain.interval) and result.p == plain.p
    assert result.verdict == result.verdict_observed == "increases" and result.survives and result.missing == (0, 0)
    assert result.p_t == pytest.approx(paired_test(plain.differences).p_t) and np.isnan(result.p_equivalence)
    near = bounds_of(table, margin=5.0).p_equivalence
    assert near == pytest.approx(equivalence_test(plain.differences, margin=5.0).p)
    assert bounds_of(lose(table, LOST), margin=5.0).p_equivalence == 1.0  # some filling-in reaches the margin


def test_bounds_are_those_of_filling_in_by_hand() -> None:
    table = lose(grid(), LOST)
    result = bounds_of(table)
    for end, (before, after) in {"lowest": (180.0, 0.0), "highest": (0.0, 180.0)}.items():
        fill = table["norm"].map({"none": before, "batch": after})
        filled = table.assign(value=table["value"].fillna(fill))
        by_hand = seed_contrasts(
            filled, factor="norm", levels=("none", "batch"), response="value", within=["width", "depth"]
        ).differences
        np.testing.assert_allclose(result.differences[end], by_hand)
        assert getattr(result, end) == pytest.approx(by_hand.mean())
    assert result.missing == (1, 4) and result.runs == 64
    without = paired_test(
        seed_contrasts(
            table, factor="norm", levels=("none", "batch"), response="value", within=["width", "depth"]
        ).differences
    )
    assert result.observed == without and result.verdict_observed == "increases" and not result.survives
    assert bounds_of(table, bounds=(55.0, 80.0)).lowest > result.lowest


def test_an_absent_row_is_a_missing_value() -> None:
    table = lose(grid(), LOST)
    pd.testing.assert_frame_equal(bounds_of(table).to_frame(), bounds_of(table[~table["diverged"]]).to_frame())


def test_no_filling_in_escapes_the_bounds() -> None:
    """Thousands of fillings, corners and between: p, both ends of the interval and equivalence all hold."""
    generator = np.random.default_rng(5)
    narrow = lose(grid(effect=2.0, sd=0.5), LOST)
    result = bounds_of(narrow, bounds=(55.0, 75.0), margin=8.0)
    assert result.verdict == "equivalent"
    least, most = result.differences["lowest"].to_numpy(), result.differences["highest"].to_numpy()
    worst_p, worst_t, worst_tost, ends = 0.0, 0.0, 0.0, [np.inf, -np.inf]
    for draw in range(1500):
        share = generator.integers(0, 2, 8) if draw % 2 else generator.uniform(0, 1, 8)
        filled = paired_test(least + share * (most - least))
        worst_p, ends = max(worst_p, filled.p), [min(ends[0], filled.interval[0]), max(ends[1], filled.interval[1])]
        worst_t = max(worst_t, filled.p_t)
        worst_tost = max(worst_tost, equivalence_test(least + share * (most - least), margin=8.0).p)
    assert result.p_equivalence == pytest.approx(worst_tost) and 0 < worst_tost < 0.05
    assert worst_t <= result.p_t  # 1 where a filling-in has an effect of nothing
    assert worst_p <= result.p and result.interval[0] <= ends[0] and ends[1] <= result.interval[1]
    # Three seeds are open: all their corners were among the fillings, so the envelope is attained.
    assert ends == pytest.approx(list(result.interval))


def test_the_worst_p_is_reached_at_the_lowest_filling_in() -> None:
    table = lose(grid(effect=8.0), [(1, "batch", 8, 2)])
    result = bounds_of(table, bounds=(40.0, 90.0))
    least, most = result.differences["lowest"].to_numpy(), result.differences["highest"].to_numpy()
    worst = max(sign_flip_p(least + share * (most - least)) for share in np.linspace(0, 1, 101))
    assert result.p == worst == sign_flip_p(least) and result.verdict == "increases" and result.survives
    assert result.p_t == pytest.approx(
        max(paired_test(least + share * (most - least)).p_t for share in np.linspace(0, 1, 101))
    )
    mirrored = bounds_of(table.assign(value=130 - table["value"]), bounds=(40.0, 90.0))
    assert mirrored.verdict == "decreases" and mirrored.p == result.p
    # Where some filling-in has an effect of nothing, no sign is sure.
    assert bounds_of(lose(grid(effect=0.0), LOST)).p == 1.0


def test_many_incomplete_seeds_are_bounded_on_the_safe_side() -> None:
    table = lose(grid(seeds=18), [(seed, "batch", 8, 2) for seed in range(18)])
    result = bounds_of(table, bounds=(50.0, 100.0), margin=25.0)
    least, most = (result.differences[end].to_numpy() for end in ("lowest", "highest"))
    generator = np.random.default_rng(1)
    for _ in range(200):
        low, high = scipy_stats.ttest_1samp(
            np.where(generator.integers(0, 2, 18), least, most), 0.0
        ).confidence_interval()
        assert result.interval[0] <= low and high <= result.interval[1]
        filled = np.where(generator.integers(0, 2, 18), least, most)
        assert equivalence_test(filled, margin=25.0).p <= result.p_equivalence < 1
        assert scipy_stats.ttest_1samp(filled, 0.0).pvalue <= result.p_t
    assert "largest possible spread" in result.warnings[-1]


def test_a_fraction_is_bounded_through_its_level_means() -> None:
    rows = []
    for seed, a, b, c in itertools.product(range(6), (0, 1), (0, 1), (0, 1)):
        rows.append({"seed": seed, "a": a, "b": b, "c": c, "d": (a + b + c) % 2, "value": 50.0 + seed + a + seed * a})
    table = pd.DataFrame(rows)
    table.loc[0, "value"] = np.nan  # seed 0, a = 0
    result = worst_case_bounds(table, factor="a", levels=(0, 1), within=["b", "c", "d"], bounds=(0, 180))
    np.testing.assert_allclose(result.differences["highest"] - result.differences["lowest"], [45, 0, 0, 0, 0, 0])


def test_bounds_that_cannot_be_are_refused() -> None:
    with pytest.raises(AnalysisError, match=r'every "value" within \[0, 1\]; got 5'):
        bounds_of(grid(), bounds=(0.0, 1.0))
    with pytest.raises(AnalysisError, match="finite bounds, the lower first"):
        bounds_of(grid(), bounds=(180.0, 0.0))
    with pytest.raises(AnalysisError, match="margin above 0"):
        bounds_of(grid(), margin=-1.0)
