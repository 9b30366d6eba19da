"""Dose-response curves against R, scipy, brute force and known curves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alignkit.errors import AnalysisError
from alignkit.stats.curves.dose import dose_at_loss, dose_response, orthogonal_polynomials

ORACLES = Path(__file__).parents[2] / "oracles"
R = json.loads((ORACLES / "dose.json").read_text())


def curves(rows: Sequence[Sequence[float]], doses: Sequence[float] = (0, 30, 60, 90)) -> pd.DataFrame:
    return pd.DataFrame(
        [(seed, dose, value) for seed, row in enumerate(rows) for dose, value in zip(doses, row, strict=True)],
        columns=["seed", "dose", "value"],
    )


def noisy(seeds: int, *, slope: float = 0.0, noise: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(noise)
    doses = np.array([0, 30, 60, 90])
    return curves(90 + slope * doses + generator.normal(0, 1, (seeds, 1)) + generator.normal(0, 1, (seeds, 4)))


@pytest.mark.parametrize("scale", ["linear", "log2"])
def test_polynomial_contrasts_are_those_of_r(scale: str) -> None:
    result = dose_response(pd.read_csv(ORACLES / "dose.csv"), dose="dose", scale=scale)
    for ours, theirs in zip(result.polynomial, R[scale], strict=True):
        assert (ours.estimate, *ours.interval) == pytest.approx(
            (theirs["estimate"], theirs["low"], theirs["high"]), rel=1e-8
        )
        assert ours.df == theirs["df"]
    assert (result.estimate, result.interval) == (result.polynomial[0].estimate, result.polynomial[0].interval)


def test_orthogonal_polynomials_are_the_tabled_ones_and_span_what_polyfit_fits() -> None:
    found = orthogonal_polynomials([1, 2, 3, 4, 5], degree=3) / [[1], [1], [1.2]]
    np.testing.assert_allclose(found, [[-2, -1, 0, 1, 2], [2, -1, -2, -1, 2], [-1, 2, 0, -2, 1]], atol=1e-12)
    x, y = np.array([0.0, 15, 30, 45, 60, 70, 80, 85, 90]), np.random.default_rng(0).normal(size=9)
    for degree, polynomial in enumerate(orthogonal_polynomials(x, degree=3), start=1):
        assert polynomial @ y / (polynomial @ polynomial) == pytest.approx(np.polyfit(x, y, degree)[0])


def test_shares_of_all_degrees_make_up_the_whole_curve() -> None:
    result = dose_response(noisy(7, slope=-0.02), dose="dose")
    assert [c.degree for c in result.polynomial] == [1, 2, 3]
    assert sum(c.share for c in result.polynomial) == pytest.approx(1)
    line = dose_response(curves([[5 + s, 4 + s, 3 + s, 2 + s] for s in range(6)]), dose="dose")
    assert line.estimate == pytest.approx(-1 / 30) and line.polynomial[0].share == pytest.approx(1)
    flat = dose_response(curves([[5.0] * 4] * 6), dose="dose")
    assert np.isnan(flat.polynomial[0].share) and flat.p == 1.0 and flat.p_page == 1.0


def test_page_s_p_is_two_sided_over_all_rankings() -> None:
    generator = np.random.default_rng(4)
    rankings = [np.array(r) for r in itertools.permutations((1, 2, 3))]
    null = [sum(r @ [1, 2, 3] for r in rows) for rows in itertools.product(rankings, repeat=3)]
    for _ in range(5):
        values = generator.normal(size=(3, 3)) - [0.0, 0.5, 1.0]
        result = dose_response(curves(values, (0, 45, 90)), dose="dose")
        page = sum(stats.rankdata(row) @ [1, 2, 3] for row in values)
        assert result.page_l == page
        assert result.p_page == pytest.approx(min(1.0, 2 * min(np.mean(null >= page), np.mean(null <= page))))


def test_page_s_p_keeps_ties() -> None:
    values = [[3.0, 2.0, 2.0], [5.0, 5.0, 1.0], [4.0, 3.0, 2.0]]
    result = dose_response(curves(values, (0, 45, 90)), dose="dose")
    orders = [list(itertools.permutations(stats.rankdata(row))) for row in values]
    null = np.array([sum(np.dot(row, [1, 2, 3]) for row in rows) for rows in itertools.product(*orders)])
    assert result.page_l == 10.5 + 10.5 + 10
    assert result.p_page == pytest.approx(np.mean(np.abs(null - 36) >= 5)) and not result.warnings


def test_a_rise_and_a_fall_mirror_each_other() -> None:
    table = noisy(8, slope=-0.03)
    fall, rise = (dose_response(t, dose="dose") for t in (table, table.assign(value=-table["value"])))
    assert rise.estimate == -fall.estimate and rise.p == fall.p and rise.p_page == pytest.approx(fall.p_page)
    assert fall.p_page < 0.001 and fall.p == 2 / 2**8


def test_means_and_differences_have_t_intervals_over_seeds() -> None:
    table = noisy(9)
    frame = dose_response(table, dose="dose", level=0.9).to_frame().set_index("dose")
    wide = table.pivot(index="seed", columns="dose", values="value")
    oracle = stats.ttest_1samp(wide[60], 0).confidence_interval(0.9)
    assert tuple(frame.loc[60, ["mean", "low", "high"]]) == pytest.approx((wide[60].mean(), oracle.low, oracle.high))
    paired = stats.ttest_rel(wide[60], wide[0]).confidence_interval(0.9)
    assert tuple(frame.loc[60, ["difference_low", "difference_high"]]) == pytest.approx((paired.low, paired.high))
    assert frame.loc[0, "difference"] == 0


def test_the_dose_at_a_loss_is_where_a_known_curve_crosses() -> None:
    falls = [[96, 96, 94, 90], [95, 95, 95, 91], [97, 96, 93, 93], [96, 95, 94, 93], [96, 96, 95, 90], [97, 97, 95, 90]]
    found = dose_at_loss(dose_response(curves(falls), dose="dose"), loss=1.0)
    assert found.per_seed.tolist() == pytest.approx([45, 67.5, 30, 30, 60, 45])
    assert found.estimate == pytest.approx(45) and found.interval == pytest.approx((30, 67.5)) and found.n_censored == 0
    log = dose_at_loss(dose_response(curves([[9, 8, 6, 5]] * 3, (8, 16, 32, 64)), dose="dose", scale="log2"), loss=2.0)
    assert log.per_seed.tolist() == pytest.approx([16 * 2**0.5] * 3)


def test_noise_above_the_start_is_pooled_and_not_a_crossing() -> None:
    # 96, 95, 97, 90 falls by one point at 30 and recovers: the isotonic fit holds the three at 96
    found = dose_at_loss(dose_response(curves([[96, 95, 97, 90]]), dose="dose"), loss=1.0)
    assert found.per_seed.tolist() == pytest.approx([65.0])


def test_seeds_that_never_lose_are_censored_and_counted() -> None:
    rows = [[96, 96, 96, 95.5]] * 4 + [[96, 95, 94, 93]] * 6
    found = dose_at_loss(dose_response(curves(rows), dose="dose"), loss=1.0)
    assert found.n_censored == 4 and found.estimate == 30 and found.interval == (30, np.inf)
    assert "4 of 10 seeds never lose 1: their dose is beyond 90" in found.warnings
    none = dose_at_loss(dose_response(curves([[96, 96, 96, 96]] * 6), dose="dose"), loss=1.0)
    assert none.estimate == np.inf and none.interval == (np.inf, np.inf) and none.n_censored == 6
    assert none.to_frame().loc[0, "n_censored"] == 6


@pytest.mark.parametrize("seeds", [6, 9, 10, 17])
def test_the_interval_of_a_median_is_scipy_s(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    crossings = generator.uniform(1, 89, seeds)
    rows = [[96, 96 - 1.0, 96 - 1.0 - (90 - c) / 100] for c in crossings]
    tables = [curves([row], (0, c, 90)).assign(seed=s) for s, (row, c) in enumerate(zip(rows, crossings, strict=True))]
    # each seed crosses at its own dose, so the curves are put on the union of doses by interpolation
    doses = np.unique(np.concatenate([[0, 90], crossings]))
    table = curves([np.interp(doses, t["dose"], t["value"]) for t in tables], doses)
    found = dose_at_loss(dose_response(table, dose="dose"), loss=1.0)
    assert found.per_seed.to_numpy() == pytest.approx(crossings)
    oracle = stats.quantile_test(crossings, q=0, p=0.5).confidence_interval(0.95)
    assert found.interval == pytest.approx((oracle.low, oracle.high)) and found.coverage >= 0.95


def test_too_few_seeds_have_no_interval() -> None:
    found = dose_at_loss(dose_response(noisy(5, slope=-0.1), dose="dose"), loss=1.0)
    assert np.isnan(found.interval).all() and "5 seeds are too few for a 95% interval" in found.warnings[-1]
    one = dose_response(noisy(1), dose="dose")
    assert np.isnan(one.interval).all() and np.isnan(one.p_page) and any("two seeds" in w for w in one.warnings)


def test_incomplete_seeds_are_left_out_and_counted() -> None:
    table = noisy(8, slope=-0.02)
    lost = table.assign(value=table["value"].mask((table["seed"] == 2) & (table["dose"] == 90)))
    lost = pd.concat([lost[~((lost["seed"] == 5) & (lost["dose"] == 60))], table.head(1).assign(dose=np.nan)])
    result = dose_response(lost, dose="dose")
    kept = dose_response(table[~table["seed"].isin([2, 5])], dose="dose")
    assert result.n_seeds == 6 and result.estimate == kept.estimate
    assert result.warnings[:2] == ("1 rows without a dose left out", "2 of 8 seeds left out: no value at dose = 60, 90")


def test_doses_may_be_text_and_rows_in_any_order() -> None:
    table = noisy(6, slope=-0.02)
    text = table.sample(frac=1, random_state=0).assign(dose=lambda t: t["dose"].map(str))
    pd.testing.assert_frame_equal(
        dose_response(text, dose="dose").to_frame(), dose_response(table, dose="dose").to_frame()
    )


def test_what_is_no_dose_response_is_refused() -> None:
    table = noisy(6)
    arms = table["dose"].map({0: "a", 30: "b", 60: "c", 90: "d"})
    extended = table.assign(arm=arms, two=(table["dose"] > 30).astype(int))
    for dose, scale, message in [
        ("doze", "linear", 'expected a column "doze"; did you mean "dose"'),
        ("arm", "linear", 'dose "arm": expected numbers; its levels: a, b, c, d'),
        ("two", "linear", r'dose "two": a curve needs ≥ 3 doses; got 2 \(0, 1\)\. Compare two levels'),
        ("dose", "log2", 'dose "dose": log2 needs doses above 0; got 0'),
        ("dose", "log", 'scale: expected "linear" or "log2"; got \'log\''),
    ]:
        with pytest.raises(AnalysisError, match=message):
            dose_response(extended, dose=dose, scale=scale)
    with pytest.raises(
        AnalysisError, match=r"one row per seed and dose; seed 0 has several at dose = 0\. Choose one rule"
    ):
        dose_response(pd.concat([table, table.head(1)]), dose="dose")
    with pytest.raises(AnalysisError, match="expected seeds with a value at all 4 doses; got none of 6"):
        dose_response(table.assign(value=table["value"].mask(table["dose"] == 90)), dose="dose")
    with pytest.raises(AnalysisError, match="expected a loss above 0"):
        dose_at_loss(dose_response(table, dose="dose"), loss=-1)
