"""Adjusted p-values for a family of tests: Holm for what was declared, Benjamini-Hochberg to explore.

Every function takes one family, or an array [..., family] of many; each family is adjusted alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignkit.errors import AnalysisError
from alignkit.stats.tables.checks import p_values_of

# Written out, with statsmodels' multipletests as the tests' oracle: that one takes one family at a time and
# collects garbage at every call, some 60 ms, which a calibration by simulation would pay ten thousand times.


def holm(p_values: Sequence[float] | np.ndarray, *, count_missing: bool = True) -> np.ndarray:
    """Family-wise adjusted p-values of a family that was declared beforehand.

    A missing p (a test that could not be made) stays missing. It still counts as a member, so that a
    failed run never makes the other tests easier; `count_missing=False` shrinks the family instead.

    Do not use it on tests that were chosen after seeing the data: their number is unknown.

    >>> [round(float(p), 6) for p in holm([0.01, 0.04, float("nan")])]
    [0.03, 0.08, nan]
    """
    p, order, ranked, members = _ranked(p_values, count_missing)
    left = np.maximum(members - np.arange(p.shape[-1]), 1)
    return _unranked(p, order, np.maximum.accumulate(ranked * left, axis=-1))


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray, *, count_missing: bool = False) -> np.ndarray:
    """P-values adjusted to the false discovery rate, for exploration.

    Do not use it for a confirmatory family: it bounds the expected share of false discoveries, not
    the chance of any.
    """
    p, order, ranked, members = _ranked(p_values, count_missing)
    scaled = ranked * np.maximum(members, 1) / np.arange(1, p.shape[-1] + 1)
    return _unranked(p, order, np.minimum.accumulate(scaled[..., ::-1], axis=-1)[..., ::-1])


def holm_joint(
    p_difference: Sequence[float] | np.ndarray, p_equivalence: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p-values of a family in which each claim is tested for a difference and for equivalence.

    Claim i has two null hypotheses, D: its effect is 0, and E: its effect is at least the margin in size.
    With all adjusted p-values below alpha rejected, the chance of any false rejection among both kinds is
    at most alpha, whatever the effects and however the tests depend on each other. Adjusting each kind by
    a Holm of its own would let that chance reach twice alpha.

    It is Holm's step-down over all 2k p-values, but the smallest one left is multiplied by the number of
    claims that still have an unrejected null. The multiplier starts at k, not 2k, since D and E of one
    claim cannot both be true, and it falls only when both nulls of a claim are gone (Shaffer 1986, JASA
    81:826, procedure S2; Goeman, Solari & Stijnen 2010, Stat. Med. 29:2117, make the case for testing
    superiority and equivalence together).

    Why it holds: let t nulls be true, of t distinct claims. With probability at least 1 - alpha none of
    their p-values is alpha / t or less (Bonferroni). Suppose that, and that a true null were rejected;
    take the first. Before it, no true null was, so t claims still had an unrejected null, the
    multiplier was t or more, and its p-value was alpha / t or less: a contradiction.

    Parameters
    ----------
    p_difference, p_equivalence
        One p per claim, [..., k], in the same order. NaN is a test that was not made: it stays NaN, and
        counts as 1.

    Returns
    -------
    The adjusted p-values of both kinds, in the shape of what was given.

    Notes
    -----
    Do not use it to choose between margins, or on claims found in the data. Where no claim is tested for
    equivalence, `holm` is the more powerful: there the multiplier falls with every rejection.

    >>> difference, equivalence = holm_joint([0.001, 0.6], [0.9, 0.02])
    >>> difference.tolist(), equivalence.tolist()
    ([0.002, 1.0], [1.0, 0.04])
    """
    difference, equivalence = p_values_of(p_difference), p_values_of(p_equivalence)
    if difference.shape != equivalence.shape:
        raise AnalysisError(
            f"expected one p for difference and one for equivalence per claim; got shapes {difference.shape} and "
            f"{equivalence.shape}. Put NaN where a test was not made"
        )
    k = difference.shape[-1]
    both = np.concatenate([difference, equivalence], axis=-1)
    p, order, ranked, _ = _ranked(np.where(np.isfinite(both), both, 1.0), count_missing=True)
    position = np.argsort(order, axis=-1)
    # A claim is finished once its second null is reached; until then it counts.
    second = np.take_along_axis(position > np.roll(position, k, axis=-1), order, axis=-1)
    left = k - (np.cumsum(second, axis=-1) - second)
    adjusted = _unranked(p, order, np.maximum.accumulate(ranked * left, axis=-1))
    adjusted = np.where(np.isfinite(both), adjusted, np.nan)
    return adjusted[..., :k], adjusted[..., k:]


def _ranked(
    p_values: Sequence[float] | np.ndarray, count_missing: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The p-values, their order, the p-values in that order (missing ones infinite, last), and the family's size."""
    p = p_values_of(p_values)
    defined = np.isfinite(p)
    filled = np.where(defined, p, np.inf)
    order = np.argsort(filled, axis=-1, kind="stable")
    members = np.full((*p.shape[:-1], 1), p.shape[-1]) if count_missing else defined.sum(axis=-1, keepdims=True)
    return p, order, np.take_along_axis(filled, order, axis=-1), members


def _unranked(p: np.ndarray, order: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Adjusted p-values in the order that they came, at most 1, missing where p is."""
    adjusted = np.take_along_axis(np.minimum(scaled, 1.0), np.argsort(order, axis=-1), axis=-1)
    return np.where(np.isfinite(p), adjusted, np.nan)
