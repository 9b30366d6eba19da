"""Where the differences of seeds lie, by estimators that single seeds cannot carry away.

Sensitivity analyses of the paired test: the mean is the primary estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test, sign_flip_p
from alignkit.stats.tables.checks import require_level
from alignkit.stats.tables.frames import one_row

Differences = Sequence[float] | np.ndarray | pd.Series


@shown()
@dataclass(frozen=True)
class LocationResult:
    """An estimate of the differences' centre, its interval and p; an infinite end says that n is too small."""

    estimate: float
    interval: tuple[float, float]
    p: float
    df: int
    n_seeds: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, "estimate", "interval", "p", "df", "n_seeds", "method", "warnings")


def mean_location(differences: Differences, *, level: float = 0.95) -> LocationResult:
    """The mean, its t interval and exact sign-flip p: `paired_test`, as one estimator among others."""
    result = paired_test(differences, level=level)
    return LocationResult(
        result.estimate, result.interval, result.p, result.df, result.n_seeds, result.method, result.warnings
    )


def signed_rank(differences: Differences, *, level: float = 0.95) -> LocationResult:
    """The pseudo-median of differences taken within seeds (Hodges and Lehmann 1963), with Wilcoxon's exact p.

    The estimate is the median of the means of all pairs of differences (a difference paired with itself
    included). The p is that of the ranks of their sizes under random signs, ties and zeros allowed for;
    the interval inverts the test without ties. Both suppose that differences are symmetric about their
    centre. With five differences or fewer no 95% interval exists: its ends are infinite.

    >>> signed_rank([1.0, 2.0, 3.0, 4.0, 5.0, 60.0]).estimate
    3.5
    """
    require_level(level)
    values, warnings = _finite(differences)
    n = len(values)
    first, second = np.triu_indices(n)
    means = np.sort((values[first] + values[second]) / 2)
    # How many subsets of the ranks 1 to n have each sum: the law of the signed-rank statistic.
    counts = np.ones(1)
    for rank in range(1, n + 1):
        counts = np.pad(counts, (0, rank)) + np.pad(counts, (rank, 0))
    cumulative = np.cumsum(counts) / 2.0**n
    outside = int(np.searchsorted(cumulative, (1 - level) / 2, side="right"))
    low, high = (means[outside - 1], means[-outside]) if outside else (-np.inf, np.inf)
    p = sign_flip_p(np.sign(values) * stats.rankdata(np.abs(values)))
    return LocationResult(
        float(np.median(means)), (float(low), float(high)), p, n - 1, n, "Hodges-Lehmann; exact signed-rank p", warnings
    )


def trimmed_mean(differences: Differences, *, level: float = 0.95, share: float = 0.2) -> LocationResult:
    """The mean without the `share` of the smallest and of the largest differences, with its t interval and p.

    The error is that of Tukey and McLaughlin (1963): the sd of the differences with the trimmed ones drawn
    in to their neighbours, over the share that is kept. With fewer than 1 / `share` differences nothing is
    trimmed, and the result is the mean and Student's t test. In simulations with 6 to 20 normal or t(4)
    differences its 95% intervals covered in 93% to 96%: slightly narrow, so not for confirmation.

    >>> round(trimmed_mean([1.0, 2.0, 3.0, 4.0, 50.0]).estimate, 6)
    3.0
    """
    values, warnings = _finite(differences)
    if not 0 <= share < 0.5:
        raise AnalysisError(f"expected a share to trim of 0 or more and below 0.5; got {share}")
    n = len(values)
    cut = int(share * n)
    kept = np.sort(values)[cut : n - cut]
    df = len(kept) - 1
    drawn_in = np.clip(values, kept[0], kept[-1])
    estimate = float(kept.mean())
    error = float(drawn_in.std(ddof=1)) / ((1 - 2 * cut / n) * np.sqrt(n)) if df > 0 else 0.0
    nothing = float("nan")
    if error == 0:
        interval, p = (nothing, nothing), nothing
        warnings = (*warnings, "no variance between seeds to build an interval on")
    else:
        half = float(special.stdtrit(df, (1 + level) / 2)) * error
        interval, p = (estimate - half, estimate + half), float(2 * special.stdtr(df, -abs(estimate) / error))
    return LocationResult(estimate, interval, p, df, n, f"mean trimmed by {cut} at each end; t interval", warnings)


def median_interval(ordered: np.ndarray, level: float) -> tuple[tuple[float, float], float]:
    """Order statistics k and n + 1 - k with the largest k that covers the median with `level`, and their coverage."""
    n = len(ordered)
    coverage = 1 - 2 * stats.binom.cdf(np.arange(n // 2), n, 0.5)
    enough = np.flatnonzero(coverage >= level)
    if not len(enough):
        return (math.nan, math.nan), math.nan
    k = int(enough[-1])
    return (float(ordered[k]), float(ordered[n - 1 - k])), float(coverage[k])


SEED_MODELS: dict[str, Callable[[Differences], LocationResult]] = {
    "mean": mean_location,
    "signed rank": signed_rank,
    "trimmed mean": trimmed_mean,
}


def _finite(differences: Differences) -> tuple[np.ndarray, tuple[str, ...]]:
    values = np.asarray(differences, dtype=float)
    missing = int((~np.isfinite(values)).sum())
    if missing == len(values):
        raise AnalysisError(f"expected one difference or more; got {len(values)}, none of them finite")
    warnings = (f"{missing} of {len(values)} differences missing, left out",) if missing else ()
    return values[np.isfinite(values)], warnings
