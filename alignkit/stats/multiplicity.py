"""Adjusted p-values for a family of tests: Holm for what was declared, Benjamini-Hochberg to explore."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def holm(p_values: Sequence[float], *, count_missing: bool = True) -> np.ndarray:
    """Family-wise adjusted p-values of a family that was declared beforehand.

    A missing p (a test that could not be made) stays missing. It still counts as a member, so that a
    failed run never makes the other tests easier; `count_missing=False` shrinks the family instead.

    Do not use it on tests that were chosen after seeing the data: their number is unknown.

    >>> [round(float(p), 6) for p in holm([0.01, 0.04, float("nan")])]
    [0.03, 0.08, nan]
    """
    return _adjust(p_values, _step_down, count_missing)


def benjamini_hochberg(p_values: Sequence[float], *, count_missing: bool = False) -> np.ndarray:
    """P-values adjusted to the false discovery rate, for exploration.

    Do not use it for a confirmatory family: it bounds the expected share of false discoveries, not
    the chance of any.
    """
    return _adjust(p_values, _step_up, count_missing)


def _adjust(p_values: Sequence[float], adjust: Callable[[np.ndarray], np.ndarray], count_missing: bool) -> np.ndarray:
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    defined = np.isfinite(p)
    if defined.any():
        # A test that was not made cannot reject: 1 is its p-value.
        family = np.where(defined, p, 1.0) if count_missing else p[defined]
        corrected = adjust(family)
        adjusted[defined] = corrected[defined] if count_missing else corrected
    return adjusted


# Written out, with statsmodels' multipletests as the tests' oracle: that one collects garbage at every
# call, some 60 ms, which a calibration by simulation would pay ten thousand times.
def _step_down(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p, kind="stable")
    scaled = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return scaled[np.argsort(order, kind="stable")]


def _step_up(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p, kind="stable")[::-1]
    scaled = np.minimum(np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1)), 1.0)
    return scaled[np.argsort(order, kind="stable")]
