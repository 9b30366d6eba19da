"""Thresholds: brute force over sign patterns, invariances, simulated bends, smooth curves and lines."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from alignkit.errors import AnalysisError
from alignkit.stats.curves.thresholds import threshold

WIDTHS = (8, 16, 32, 64, 128, 256)
X = np.log2(WIDTHS)
CURVES = {
    "bend at 32": -4 * np.minimum(X - 5, 0),
    "line": -2 * X,
    "quadratic": 0.6 * (X - 8) ** 2,
    "saturating": 30 * 2.0 ** (-0.7 * (X - 3)),
    "sigmoid": 12 / (1 + np.exp(1.5 * (X - 5))),
}


def vectors(curve: Any, seeds: int = 8, *, sd: float = 0.3, noise: int = 0) -> np.ndarray:
    """Seeds with levels and slopes of their own, and noise that is larger in narrow layers."""
    generator = np.random.default_rng(noise)
    x = np.linspace(0, 1, len(curve))
    own = generator.normal(0, 2, (seeds, 1)) + sd * generator.normal(0, 1, (seeds, 1)) * x
    return np.asarray(curve) + own + sd * generator.normal(0, 1, (seeds, len(curve))) * (1.5 - x)


def table_of(y: np.ndarray, widths: Any = WIDTHS) -> pd.DataFrame:
    rows = [
        {"seed": seed, "width": width, "value": value}
        for seed, row in enumerate(y)
        for width, value in zip(widths, row, strict=True)
    ]
    return pd.DataFrame(rows)


def sup_f_by_least_squares(y: np.ndarray, x: np.ndarray, knots: np.ndarray) -> tuple[float, float]:
    """The largest F of a common bend beside each seed's own line, and its knot, by ordinary regressions."""
    n, k = y.shape
    seeds = np.kron(np.eye(n), np.ones((k, 1)))
    lines = np.hstack([seeds, seeds * np.tile(x, n)[:, None]])
    found = []
    for knot in knots:
        fit = sm.OLS(y.ravel(), np.column_stack([lines, np.tile(np.maximum(x - knot, 0), n)])).fit()
        found.append(fit.tvalues[-1] ** 2)
    return max(found), knots[int(np.argmax(found))]


def test_sup_f_and_its_p_are_brute_force_over_all_sign_patterns() -> None:
    y = vectors([3, 1.4, 0.6, 0.3, 0.2], 6, sd=0.9, noise=2)
    widths = (8, 16, 32, 64, 128)
    x, knots = np.log2(widths), np.array([4, 4.5, 5, 5.5, 6])
    result = threshold(table_of(y, widths), factor="width", per_gap=2)
    statistic, knot = sup_f_by_least_squares(y, x, knots)
    assert result.sup_f == pytest.approx(statistic) and result.estimate == pytest.approx(2**knot)
    residual = np.array([row - np.polyval(np.polyfit(x, row, 1), x) for row in y])
    drawn = [
        sup_f_by_least_squares(np.array(signs)[:, None] * residual, x, knots)[0]
        for signs in itertools.product((1, -1), repeat=6)
        if signs[0] == 1
    ]
    assert result.p == pytest.approx(np.mean(np.array(drawn) >= statistic - 1e-9)) and 0.02 < result.p < 1
    assert result.df == (1, 6 * 3 - 1)


def test_the_size_is_exact_over_the_signs_of_the_residuals() -> None:
    """Under the null each sign pattern is as likely: the p-values over all of them are their own null law."""
    x, residual = X, np.random.default_rng(3).standard_t(2, (6, 6))
    residual = np.array([row - np.polyval(np.polyfit(x, row, 1), x) for row in residual])
    p = np.array(
        [
            threshold(table_of(5 - x + np.array([1, *signs])[:, None] * residual), factor="width", per_gap=1).p
            for signs in itertools.product((1, -1), repeat=5)
        ]
    )
    assert sorted(p) == pytest.approx(np.arange(1, 33) / 32)


def test_every_seed_may_have_a_line_of_its_own() -> None:
    y = vectors(CURVES["bend at 32"], noise=1)
    generator = np.random.default_rng(1)
    tilted = y + generator.normal(0, 20, (8, 1)) + generator.normal(0, 5, (8, 1)) * X
    plain, other = threshold(table_of(y), factor="width"), threshold(table_of(tilted), factor="width")
    for name in ("p", "sup_f", "estimate", "interval"):
        assert getattr(other, name) == pytest.approx(getattr(plain, name), nan_ok=True), name


def test_scale_and_row_order_do_not_matter() -> None:
    table = table_of(vectors(CURVES["bend at 32"], noise=1))
    plain = threshold(table, factor="width")
    scaled = table.assign(value=1000 * table["value"], width=table["width"].map(str)).sample(frac=1, random_state=1)
    other = threshold(scaled, factor="width")
    assert (other.p, other.estimate, *other.interval) == pytest.approx((plain.p, plain.estimate, *plain.interval))
    assert other.slopes == pytest.approx([1000 * slope for slope in plain.slopes])
    assert (other.verdict, other.levels) == (plain.verdict, tuple(map(float, WIDTHS)))


def test_a_sharp_bend_is_placed_and_called_a_threshold() -> None:
    found = [threshold(table_of(vectors(CURVES["bend at 32"], 12, sd=0.1, noise=n)), factor="width") for n in range(12)]
    verdicts = [result.verdict for result in found]
    # One in twenty intervals may miss the bend, and then no single bend fits.
    assert verdicts.count("threshold") >= 9 and verdicts.count("line") == 0
    for result in found:
        assert result.estimate == pytest.approx(32, rel=0.1) and result.slopes == pytest.approx((-4, 0), abs=0.2)
        if result.verdict == "threshold":
            assert result.interval[0] < 32 < result.interval[1] < 40
            assert all(model.improvement > 0 and model.p < 0.05 for model in result.held_out[:-1])


@pytest.mark.parametrize("name", ["quadratic", "saturating", "sigmoid"])
def test_a_smooth_curve_rejects_a_line_and_is_no_threshold(name: str) -> None:
    result = threshold(table_of(vectors(CURVES[name], 10, sd=0.3)), factor="width")
    assert result.p < 0.05 and result.verdict == "smooth curve", result.reason
    best = min(result.held_out, key=lambda model: model.rmse)
    assert best.model != "segmented"


def test_a_line_has_no_bend_to_place() -> None:
    result = threshold(table_of(vectors(CURVES["line"], noise=5)), factor="width")
    assert result.verdict == "line" and result.p > 0.05
    assert result.interval == (8, 256)


def test_a_bend_before_the_second_level_is_not_told_from_one_there() -> None:
    early = -4 * np.minimum(X - 3.5, 0) - X  # a bend between 8 and 16
    result = threshold(table_of(vectors(early, 10, sd=0.02)), factor="width")
    assert result.estimate == 16 and result.interval[0] == 8


def test_an_abrupt_jump_fits_no_single_bend() -> None:
    result = threshold(table_of(vectors(np.where(X < 5.5, 5.0, 0.0), 10, sd=0.1)), factor="width")
    assert np.isnan(result.interval).all() and result.verdict == "smooth curve" and "every single bend" in result.reason


def test_the_interval_covers_a_bend_that_lies_between_levels() -> None:
    curve = -2.5 * np.minimum(X - 4.7, 0)
    replicates, covered = 40, 0
    for replicate in range(replicates):
        y = vectors(curve, 7, sd=1.0, noise=100 + replicate)
        low, high = threshold(table_of(y), factor="width", per_gap=3).interval
        covered += low <= 2**4.7 <= high
    assert covered / replicates > 0.95 - 3.3 * np.sqrt(0.95 * 0.05 / replicates)


def test_held_out_error_of_the_line_is_that_of_refitting_it_without_each_seed() -> None:
    y = vectors(CURVES["saturating"], 7)
    centred = y - y.mean(axis=1, keepdims=True)
    errors = []
    for seed in range(7):
        rest = np.delete(centred, seed, axis=0)
        slope = np.polyfit(np.tile(X, 6), rest.ravel(), 1)
        errors.append(((centred[seed] - np.polyval(slope, X)) ** 2).mean())
    held_out = {model.model: model for model in threshold(table_of(y), factor="width").held_out}
    assert held_out["line"].rmse == pytest.approx(np.sqrt(np.mean(errors)))
    gain = held_out["line"].rmse ** 2 - held_out["segmented"].rmse ** 2
    assert held_out["line"].improvement == pytest.approx(gain)


def test_cells_are_averaged_and_incomplete_curves_are_counted() -> None:
    first, second = vectors(CURVES["bend at 32"]), vectors(CURVES["bend at 32"], noise=1)
    table = pd.concat([table_of(first).assign(norm="none"), table_of(second).assign(norm="batch")], ignore_index=True)
    both = threshold(table, factor="width", within=["norm", "width"])
    mean = threshold(table_of((first + second) / 2), factor="width")
    assert (both.p, both.estimate, both.means) == (mean.p, mean.estimate, pytest.approx(mean.means))
    assert both.n_cells == 2 and not both.warnings
    table.loc[0, "value"] = np.nan
    extra = table.iloc[[1]].assign(norm="layer")
    holed = threshold(pd.concat([table, extra]), factor="width", within=["norm"])
    assert "1 of 3 cells left aside" in holed.warnings[0] and "1 of 16 curves left out" in holed.warnings[1]
    assert holed.n_seeds == 8 and holed.n_cells == 2


def test_many_seeds_are_drawn_repeatably() -> None:
    table = table_of(vectors(0.2 * CURVES["saturating"], 17, sd=2.0))
    one, two = (threshold(table, factor="width", per_gap=1, draw_seed=seed) for seed in (0, 1))
    assert one == threshold(table, factor="width", per_gap=1) and "drawn" in one.method
    assert one.p == pytest.approx(two.p, abs=0.02) and one.p > 0


def test_four_levels_suffice_and_a_plain_axis_may_hold_zero() -> None:
    y = vectors([8, 4, 0, 0], 8, sd=0.05)
    result = threshold(table_of(y, (0, 1, 2, 3)), factor="width", log2=False)
    assert result.estimate == pytest.approx(2, abs=0.13) and result.slopes == pytest.approx((-4, 0), abs=0.3)
    frame = result.to_frame()
    assert len(frame) == 1 and {"verdict", "low", "high", "rmse_sigmoid", "reason"} <= set(frame)
    with pytest.raises(AnalysisError, match="levels above 0 for log2; got 0"):
        threshold(table_of(y, (0, 1, 2, 3)), factor="width")


def test_bad_input_says_what_was_expected() -> None:
    table = table_of(vectors(CURVES["line"]))
    with pytest.raises(AnalysisError, match="four numeric levels or more; got 8, 16, 32"):
        threshold(table[table["width"] < 64], factor="width")
    with pytest.raises(AnalysisError, match="four numeric levels or more; got none, batch"):
        threshold(table.assign(width=np.where(table["width"] < 64, "none", "batch")), factor="width")
    with pytest.raises(AnalysisError, match="≥ 6 seeds"):
        threshold(table[table["seed"] < 5], factor="width")
    with pytest.raises(AnalysisError, match="in `within`"):
        threshold(pd.concat([table, table]), factor="width")
    with pytest.raises(AnalysisError, match="cells that occur at each"):
        threshold(table.assign(cell=table["width"] > 40), factor="width", within=["cell"])
    with pytest.raises(AnalysisError, match='expected a column "widht"'):
        threshold(table, factor="widht")
