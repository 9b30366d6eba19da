"""Page's test of a trend along ordered columns, with ties."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special, stats

EXACT_COLUMNS = 8  # 8! orders a row


def page_trend(table: np.ndarray) -> tuple[float, float]:
    """Whether values rise or fall along ordered columns, by ranks within rows: Page's L and its two-sided p.

    `table` is [seeds, columns], the columns in the order that is expected of them, nothing missing. The null is that
    every order of a row's values is as likely; a spread that grows along the columns can make it reject as well.

    Values that tie in a row take the mean of their ranks, and the null keeps the ties: it is that of the orders of
    the tied ranks (scipy's `page_trend_test` takes the law without ties, whose p is too large there). Up to eight
    columns the p is exact, the laws of the rows being convolved; beyond, it is that of the normal law with the mean
    of L and its variance under the ties. Rows of equal values throughout give p = 1, fewer than two rows NaN.

    >>> page_trend(np.tile([1.0, 2.0, 3.0], (4, 1)))
    (56.0, 0.0015432098765432098)
    """
    if len(table) < 2:
        return float("nan"), float("nan")
    ranks = stats.rankdata(table, axis=1)
    k = ranks.shape[1]
    position = np.arange(1, k + 1)
    observed, centre = float((ranks @ position).sum()), len(ranks) * k * (k + 1) ** 2 / 4
    if k > EXACT_COLUMNS:
        spread = ((position - position.mean()) ** 2).sum() * ((ranks - (k + 1) / 2) ** 2).sum() / (k - 1)
        z = abs(observed - centre) / np.sqrt(spread) if spread > 0 else 0.0
        return observed, float(2 * special.ndtr(-z))
    orders = np.array(list(itertools.permutations(range(k))))
    law = np.ones(1)
    known: dict[tuple[float, ...], np.ndarray] = {}
    for row in ranks:
        key = tuple(np.sort(row))
        if key not in known:
            # Mid-ranks are halves, so that twice the statistic is whole.
            known[key] = np.bincount(np.rint(2 * (row[orders] @ position)).astype(int)) / len(orders)
        law = np.convolve(law, known[key])
    distance = np.abs(np.arange(len(law)) / 2 - centre)
    return observed, float(min(1.0, law[distance >= abs(observed - centre) - 1e-9].sum()))
