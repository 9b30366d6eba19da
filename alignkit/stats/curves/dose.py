"""How a response changes along an ordered, numeric factor: curves within seeds, trends, and the dose that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from alignkit.display import shown
from alignkit.errors import AnalysisError, quoted
from alignkit.stats.contrasts.location import median_interval
from alignkit.stats.contrasts.multiplicity import holm
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.curves.page import page_trend
from alignkit.stats.tables.checks import float_column, is_number, require_columns, require_level, require_seed_column
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.inference import inference_of
from alignkit.stats.tables.levels import level_column, level_order, numeric_levels

Scale = Literal["linear", "log2"]
HIGHEST_DEGREE = 3


@dataclass(frozen=True)
class PolynomialContrast:
    """The curve's component of one degree, from one coefficient per seed.

    `estimate` is the mean coefficient of the orthogonal polynomial x^degree + … over the doses, in units
    of the response per unit of x^degree (x: the dose, or its log2): for degree 1 the least-squares slope,
    for degree 2 the bend left when the line is taken out. `share` is the part of the mean curve's sum of
    squares over the doses that it makes up. `p` is the exact sign-flip p, `p_adjusted` Holm's within the
    degrees of one curve.
    """

    degree: int
    estimate: float
    interval: tuple[float, float]
    p: float
    p_adjusted: float
    df: int
    n_seeds: int
    share: float


@shown()
@dataclass(frozen=True)
class DoseResponse:
    """A response along a dose, with the seed as the replicate.

    `curves` [seed, dose] holds the responses of every complete seed. `estimate`, `interval` and `p` are
    those of the linear contrast: the mean slope, per unit of dose or per doubling ("log2"). `page_l` and
    `p_page` (two-sided) are Page's test of a monotone trend.
    """

    dose: str
    response: str
    scale: Scale
    doses: tuple[float, ...]
    curves: pd.DataFrame
    estimate: float
    interval: tuple[float, float]
    p: float
    df: int
    n_seeds: int
    page_l: float
    p_page: float
    polynomial: tuple[PolynomialContrast, ...]
    level: float
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per dose: the mean over seeds with its t interval, and the mean difference from the first
        dose within seeds with its own."""
        rows = []
        for dose in self.doses:
            mean, low, high = _t_interval(self.curves[dose], self.level)
            difference = _t_interval(self.curves[dose] - self.curves[self.doses[0]], self.level)
            rows.append((dose, mean, low, high, *difference, self.n_seeds))
        names = ["mean", "low", "high", "difference", "difference_low", "difference_high", "n_seeds"]
        return pd.DataFrame(rows, columns=[self.dose, *names])

    def polynomial_frame(self) -> pd.DataFrame:
        """One row per degree."""
        return pd.DataFrame(
            [(c.degree, c.estimate, *c.interval, c.p, c.p_adjusted, c.df, c.n_seeds, c.share) for c in self.polynomial],
            columns=["degree", "estimate", "low", "high", "p", "p_adjusted", "df", "n_seeds", "share"],
        )


@shown()
@dataclass(frozen=True)
class DoseAtLoss:
    """The dose at which the response has lost `loss`: the median over seeds, with a distribution-free interval.

    `per_seed` is indexed by seed; infinity stands for a seed whose response never fell that far
    (`n_censored` of them), and for a bound that lies beyond the largest dose. `coverage` is the
    interval's exact level, at least the one asked for.
    """

    loss: float
    estimate: float
    interval: tuple[float, float]
    coverage: float
    n_seeds: int
    n_censored: int
    per_seed: pd.Series
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, "loss", "estimate", "interval", "coverage", "n_seeds", "n_censored", "method", "warnings")


def dose_response(
    table: pd.DataFrame,
    *,
    dose: str,
    response: str = "value",
    seed: str = "seed",
    scale: Scale = "linear",
    level: float = 0.95,
) -> DoseResponse:
    """How `response` changes along `dose`: the mean curve, its trend, and its polynomial components.

    Parameters
    ----------
    table : one row per seed and dose; choose a rule and a design before, and average over other factors.
    dose : a column of numbers, at least three different ones.
    scale : whether the contrasts are polynomials of the dose or of its log2 (doses above 0).

    Returns
    -------
    DoseResponse, in the unit of the response.

    Raises
    ------
    AnalysisError : a column is missing, a dose is no number, there are fewer than three doses, a seed has
        a dose twice, or no seed has all doses.

    Notes
    -----
    Every test uses one number per seed: the coefficient of an orthogonal polynomial over the seed's own
    curve (R's `contr.poly(scores=doses)`, not normalised), with a t interval and the exact sign-flip p.
    Page's L (Page 1963; `page_trend`) ranks within seeds and sees any monotone trend; its null is that the doses are
    exchangeable within a seed, so a spread that grows with the dose can make it reject as well.

    A seed that lacks a dose is left out and counted. Where values are missing because of the dose (runs
    that diverge at large ones), the curve of the seeds that remain is too good, and only bounds are honest.

    Do not use it for a threshold (a trend test does not show one), or on an angle that was observed and
    not imposed: a dose must have been set.

    Examples
    --------
    >>> rows = [(s, d, 96 - d**2 / 1000 + 0.1 * ((s * d) % 3)) for s in range(6) for d in (0, 30, 60, 90)]
    >>> result = dose_response(pd.DataFrame(rows, columns=["seed", "angle", "value"]), dose="angle")
    >>> [round(contrast.share, 2) for contrast in result.polynomial]
    [0.92, 0.08, 0.0]
    """
    curves, warnings = _curves(table, dose=dose, response=response, seed=seed)
    doses = curves.columns.to_numpy(float)
    x = _scaled(doses, scale, dose)
    values = curves.to_numpy(float)
    polynomials = orthogonal_polynomials(x, degree=min(HIGHEST_DEGREE, len(x) - 1))
    mean_curve = values.mean(axis=0)
    total = float(((mean_curve - mean_curve.mean()) ** 2).sum())
    tests = [paired_test(values @ p / (p @ p), level=level) for p in polynomials]
    polynomial = tuple(
        PolynomialContrast(
            degree=degree,
            **inference_of(test),
            p_adjusted=float(adjusted),
            share=test.estimate**2 * float(p @ p) / total if total > 0 else float("nan"),
        )
        for degree, (test, p, adjusted) in enumerate(
            zip(tests, polynomials, holm([test.p for test in tests]), strict=True), start=1
        )
    )
    slope, (page_l, p_page) = tests[0], page_trend(values)
    too_few = ["Page's test needs two seeds"] if len(values) < 2 else []
    return DoseResponse(
        dose=dose,
        response=response,
        scale=scale,
        doses=tuple(map(float, doses)),
        curves=curves,
        **inference_of(slope),
        page_l=page_l,
        p_page=p_page,
        polynomial=polynomial,
        level=level,
        method=f"per-seed linear contrast over {len(x)} doses ({scale}); {slope.method}; Page's trend test",
        warnings=(*warnings, *slope.warnings, *too_few),
    )


def dose_at_loss(result: DoseResponse, *, loss: float, level: float = 0.95) -> DoseAtLoss:
    """The dose at which the response has fallen by `loss` from its value at the smallest dose.

    `loss` is above 0, in the unit of the response. No shape is assumed but a fall: each seed's curve is
    replaced by its best non-increasing fit (isotonic regression), which is interpolated between doses, on
    the result's scale. The estimate is the median over seeds and the interval is between order statistics
    (the sign test's), so that seeds which never lose that much count without a value being made up.

    Not for a response that rises with the dose (give its negative), nor for a loss within the noise of one
    run: the fit then reads noise as a fall, and the dose comes out too small.
    """
    if not (is_number(loss) and np.isfinite(loss) and loss > 0):
        raise AnalysisError(f"dose_at_loss: expected a loss above 0 in the unit of the response; got {quoted(loss)}")
    require_level(level)
    x = _scaled(np.array(result.doses), result.scale, result.dose)
    crossed = [_crossing(x, row, loss) for row in result.curves.to_numpy(float)]
    per_seed = pd.Series(crossed, index=result.curves.index, name=result.dose)
    if result.scale == "log2":
        per_seed = 2.0**per_seed
    ordered = np.sort(per_seed.to_numpy())
    n, censored = len(ordered), int(np.isinf(ordered).sum())
    warnings = []
    if censored:
        warnings.append(f"{censored} of {n} seeds never lose {loss:g}: their dose is beyond {result.doses[-1]:g}")
    interval, coverage = median_interval(ordered, level)
    if np.isnan(coverage):
        warnings.append(f"{n} seeds are too few for a {level:.0%} interval of a median")
    return DoseAtLoss(
        loss=loss,
        estimate=float(np.median(ordered)),
        interval=interval,
        coverage=coverage,
        n_seeds=n,
        n_censored=censored,
        per_seed=per_seed,
        method="isotonic fit per seed, interpolated; median over seeds, order-statistic interval",
        warnings=tuple(warnings),
    )


def orthogonal_polynomials(x: Sequence[float] | np.ndarray, *, degree: int) -> np.ndarray:
    """The orthogonal polynomials of degree 1 … `degree` at the points `x`, [degree, points], each x^k + ….

    Stieltjes' recurrence on the points. Over equally spaced ones they are the tabled contrasts.

    >>> orthogonal_polynomials([1, 2, 3], degree=2) * [[1], [3]]
    array([[-1.,  0.,  1.],
           [ 1., -2.,  1.]])
    """
    x = np.asarray(x, dtype=float)
    before, current = np.zeros_like(x), np.ones_like(x)
    size_before = 1.0
    polynomials = []
    for _ in range(degree):
        size = current @ current
        following = (x - (x * current) @ current / size) * current - size / size_before * before
        before, current, size_before = current, following, size
        polynomials.append(current)
    return np.array(polynomials)


def _curves(table: pd.DataFrame, *, dose: str, response: str, seed: str) -> tuple[pd.DataFrame, list[str]]:
    """The responses of every complete seed, [seed, dose], doses ascending; what was left out, in words."""
    require_columns(table, dose, response, seed)
    at = level_column(table[dose])
    without = int(at.isna().sum())
    warnings = [f"{without} rows without a {dose} left out"] if without else []
    texts = level_order(at)
    doses = numeric_levels(texts)
    if doses is None:
        raise AnalysisError(f'dose "{dose}": expected numbers; its levels: {", ".join(texts)}')
    if len(doses) < 3:
        raise AnalysisError(
            f'dose "{dose}": a curve needs ≥ 3 doses; got {len(doses)} ({", ".join(texts) or "none"}). '
            "Compare two levels with `contrast`"
        )
    number = dict(zip(texts, doses, strict=True))
    require_seed_column(table[seed])
    values = float_column(table[response], response)
    frame = pd.DataFrame({"seed": table[seed], "dose": at.map(number), "value": values})
    frame = frame[at.notna()]
    repeated = frame.duplicated(["seed", "dose"])
    if repeated.any():
        first = frame[repeated].to_dict("records")[0]
        raise AnalysisError(
            f"expected one row per {seed} and dose; {seed} {first['seed']} has several at {dose} = {first['dose']:g}. "
            "Choose one rule and one design, or average over the other factors first"
        )
    wide = frame.pivot(index="seed", columns="dose", values="value").sort_index(axis="columns")
    complete = np.isfinite(wide.to_numpy(float)).all(axis=1)
    if not complete.any():
        raise AnalysisError(f"expected seeds with a value at all {len(doses)} doses; got none of {len(wide)}")
    if not complete.all():
        lacking = wide.columns[~np.isfinite(wide.to_numpy(float)).all(axis=0)]
        warnings.append(
            f"{(~complete).sum()} of {len(wide)} seeds left out: no value at {dose} = "
            + ", ".join(f"{value:g}" for value in lacking)
        )
    return wide[complete], warnings


def _scaled(doses: np.ndarray, scale: str, name: str) -> np.ndarray:
    if scale == "linear":
        return doses
    if scale != "log2":
        raise AnalysisError(f'scale: expected "linear" or "log2"; got {scale!r}')
    if doses.min() <= 0:
        raise AnalysisError(f'dose "{name}": log2 needs doses above 0; got {doses.min():g}. Use scale="linear"')
    return np.log2(doses)


def _crossing(x: np.ndarray, values: np.ndarray, loss: float) -> float:
    """Where the non-increasing fit is `loss` below its start; infinity where it never is."""
    fit = isotonic_regression(values, increasing=False).x
    target = fit[0] - loss
    below = np.flatnonzero(fit <= target)
    if not len(below):
        return float("inf")
    j = int(below[0])
    return float(x[j - 1] + (fit[j - 1] - target) / (fit[j - 1] - fit[j]) * (x[j] - x[j - 1]))


def _t_interval(values: Any, level: float) -> tuple[float, float, float]:
    test = paired_test(values, level=level)
    return test.estimate, *test.interval
