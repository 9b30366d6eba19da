"""Several questions to the same seeds: p-values and intervals that hold for all of them together."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import EXACT_UP_TO

DRAWS = 9_999
LEAST_SEEDS = 3


def joint_p_values(differences: ArrayLike, *, side: Literal[-1, 0, 1] = 0, seed: int = 0) -> np.ndarray:
    """For each row of questions, the p of its mean, adjusted over all: step-down max-T by joint sign flips.

    Parameters
    ----------
    differences : [seeds, rows], NaN where a seed has no answer. A seed's differences change sign together.
    side : 1 asks whether a mean is above 0, -1 whether it is below, 0 whether it is either.
    seed : of the random patterns that are drawn beyond 16 seeds; up to 16, all are taken.

    Returns
    -------
    p [rows]; NaN where fewer than three seeds answer, or their differences are all 0.

    Notes
    -----
    The statistic is Student's t over the seeds that answer. The step-down is that of Westfall and Young (1993,
    Resampling-Based Multiple Testing, algorithm 2.8): the chance that any row whose mean is 0 gets a p of alpha or
    less is at most alpha, however the rows depend on each other. It supposes that under the null a seed's differences
    are as likely to have either sign, all together.
    """
    values = _of_questions(differences)
    p = np.full(values.shape[1], np.nan)
    usable = (np.isfinite(values).sum(axis=0) >= LEAST_SEEDS) & (np.nan_to_num(values) != 0).any(axis=0)
    if not usable.any():
        return p
    values = values[:, usable]
    observed, flipped = _statistics(values, patterns(len(values), seed), side)
    order = np.argsort(-observed, kind="stable")
    # from the least extreme up: the largest statistic of a row and all that are less extreme than it
    largest = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]
    slack = 1e-9 * np.maximum(1.0, np.abs(observed[order]))
    share = (largest >= observed[order] - slack).mean(axis=0)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(share)
    p[usable] = adjusted
    return p


def simultaneous_intervals(
    differences: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of an interval for each row's mean, [rows] each, that hold for all rows together with this `level`.

    Half a width is the row's standard error times the `level` quantile of the largest |t| over rows under joint sign
    flips of the seeds' deviations from their means. NaN as for `joint_p_values`.
    """
    values = _of_questions(differences)
    low, high = (np.full(values.shape[1], np.nan) for _ in range(2))
    usable = np.isfinite(values).sum(axis=0) >= LEAST_SEEDS
    if not usable.any():
        return low, high
    rows = values[:, usable]
    n = np.isfinite(rows).sum(axis=0)
    mean = np.nanmean(rows, axis=0)
    centred = (rows - mean) * np.sqrt(n / (n - 1))
    _, flipped = _statistics(centred, patterns(len(rows), seed), 0)
    quantile = np.quantile(np.where(np.isfinite(flipped), flipped, 0.0).max(axis=1), level, method="higher")
    half = quantile * np.nanstd(rows, axis=0, ddof=1) / np.sqrt(n)
    low[usable], high[usable] = mean - half, mean + half
    return low, high


def _of_questions(differences: ArrayLike) -> np.ndarray:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2:
        raise AnalysisError(f"expected differences [seeds, rows]; got an array of {values.ndim} dimensions")
    return np.where(np.isfinite(values), values, np.nan)


def patterns(n: int, seed: int) -> np.ndarray:
    """Signs [patterns, n], the observed ones first: all of them up to 16 seeds, random ones beyond."""
    if n <= EXACT_UP_TO:
        return 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    drawn = np.random.default_rng(seed).integers(0, 2, size=(DRAWS, n)) * 2.0 - 1.0
    return np.vstack([np.ones(n), drawn])


def _statistics(values: np.ndarray, signs: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The observed t of every row, [rows], and that under every pattern, [patterns, rows], larger as more extreme."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    scale = np.nanmax(np.abs(values), axis=0)
    filled = np.where(present, values, 0.0) / np.where(scale > 0, scale, 1.0)
    sums, squares = signs @ filled, (filled**2).sum(axis=0)
    spread = np.maximum(squares - sums**2 / n, 1e-12 * squares)  # all of one size: a t without bounds, kept finite
    t = sums / np.sqrt(spread * n / (n - 1))
    t = np.abs(t) if side == 0 else side * t
    return t[0], t
