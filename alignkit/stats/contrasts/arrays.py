"""Paired inference on many studies at once: the arithmetic behind `paired_test` and `equivalence_test`.

Arrays are [..., seeds]: one row of differences per study, NaN where a seed has none. The results for one
study call the same functions with a single row, so that what holds for simulated studies by the
thousand holds for the one that a user has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

EXACT_UP_TO = 16
DRAWS = 99_999
_ROWS, _PATTERNS = 32, 8192  # of sums that are held at once: 2 MB, which stays in cache
_DRAWN = 10_000


@dataclass(frozen=True)
class Moments:
    """Count, mean and sd of each study's differences; the sd is 0 where all are the same, NaN below two."""

    n: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @property
    def standard_error(self) -> np.ndarray:
        """NaN where there is no variance between seeds to estimate it from."""
        return np.where(self.sd > 0, self.sd, np.nan) / np.sqrt(np.maximum(self.n, 1))


def moments(differences: np.ndarray) -> Moments:
    """Count, mean and sd over the last axis, missing differences left out."""
    present = np.isfinite(differences)
    n = present.sum(axis=-1)
    values = np.where(present, differences, 0.0)
    mean = np.where(n > 0, values.sum(axis=-1) / np.maximum(n, 1), np.nan)
    deviations = np.where(present, values - mean[..., None], 0.0)
    sd = np.sqrt((deviations**2).sum(axis=-1) / np.maximum(n - 1, 1))
    highest = np.where(present, values, -np.inf).max(axis=-1, initial=-np.inf)
    lowest = np.where(present, values, np.inf).min(axis=-1, initial=np.inf)
    # Differences that vary by rounding alone would give an interval of no width.
    same = highest - lowest <= 1e-12 * np.abs(values).max(axis=-1, initial=0.0)
    return Moments(n, mean, np.where(n < 2, np.nan, np.where(same, 0.0, sd)))


def t_interval(of: Moments, *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the t interval of each mean, n - 1 df."""
    half = special.stdtrit(np.maximum(of.n - 1, 1), (1 + level) / 2) * of.standard_error
    return of.mean - half, of.mean + half


def t_p(of: Moments) -> np.ndarray:
    """The two-sided p of Student's one-sample test of mean zero."""
    return 2 * special.stdtr(np.maximum(of.n - 1, 1), -np.abs(of.mean) / of.standard_error)


def tost_p(of: Moments, *, margin: float | np.ndarray) -> np.ndarray:
    """The p of two one-sided t tests against -margin and +margin: the larger one, of the nearer bound."""
    return special.stdtr(np.maximum(of.n - 1, 1), (np.abs(of.mean) - margin) / of.standard_error)


def sign_flip_p_values(differences: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Each study's two-sided p of its mean under random signs; NaN where no difference is left.

    Exact where a study has up to 16 differences; else from `draws` patterns, which a generator seeded by
    `seed` makes anew for each number of differences: (b + 1)/(draws + 1).
    """
    values = np.asarray(differences, dtype=float)
    rows = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    present = np.isfinite(rows)
    counts = present.sum(axis=1)
    p = np.full(len(rows), np.nan)
    for n in np.unique(counts[counts > 0]):
        chosen = counts == n
        p[chosen] = _sign_flip_p(rows[chosen][present[chosen]].reshape(-1, n), seed, draws)
    return p.reshape(values.shape[:-1])


def matched_differences(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The mean of `after` - `before` [..., seeds, cells] over the cells in which neither is missing; else NaN."""
    return mean_of_present(after - before)


def mean_of_present(values: np.ndarray) -> np.ndarray:
    """The mean along the last axis of what is not NaN; NaN where nothing is."""
    present = ~np.isnan(values)
    n = present.sum(axis=-1)
    return np.where(n > 0, np.where(present, values, 0.0).sum(axis=-1) / np.maximum(n, 1), np.nan)


def _sign_flip_p(rows: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """As `sign_flip_p_values`, of rows that all have the same number of differences."""
    n = rows.shape[1]
    exact = n <= EXACT_UP_TO
    # Sums that differ by rounding alone are ties, and ties count against the null's rejection.
    threshold = np.abs(rows.sum(axis=1)) - 1e-12 * np.abs(rows).sum(axis=1)
    as_extreme = np.zeros(len(rows), dtype=np.int64)
    for signs in _all_signs(n) if exact else _drawn_signs(n, seed, draws):
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            sums = rows[part] @ signs
            np.abs(sums, out=sums)
            as_extreme[part] += np.count_nonzero(sums >= threshold[part, None], axis=1)
    return as_extreme / 2.0 ** (n - 1) if exact else (as_extreme + 1) / (draws + 1)


def _all_signs(n: int) -> Iterator[np.ndarray]:
    """Blocks [n, patterns]. A pattern and its mirror image have the same |sum|, so the first sign stays."""
    for start in range(0, 2 ** (n - 1), _PATTERNS):
        pattern = np.arange(start, min(start + _PATTERNS, 2 ** (n - 1)))
        yield 1.0 - 2.0 * (pattern >> np.arange(n)[:, None] & 1)[::-1]


def sign_patterns(n: int, *, seed: int, draws: int = 9_999) -> np.ndarray:
    """Signs of n seeds [patterns, n], the observed ones first: every pattern up to 16 seeds, `draws` more beyond."""
    if n <= EXACT_UP_TO:
        return np.ascontiguousarray(np.hstack(list(_all_signs(n))).T)
    drawn = np.random.default_rng(seed).integers(0, 2, size=(draws, n)) * 2.0 - 1.0
    return np.vstack([np.ones(n), drawn])


def _drawn_signs(n: int, seed: int, draws: int) -> Iterator[np.ndarray]:
    signs = _drawn(n, seed, draws)
    for start in range(0, draws, _DRAWN):
        yield signs[:, start : start + _DRAWN].astype(float)


@lru_cache(maxsize=4)
def _drawn(n: int, seed: int, draws: int) -> np.ndarray:
    """Random signs [n, draws], kept for the next test of as many differences."""
    generator = np.random.default_rng(seed)
    sizes = (min(_DRAWN, draws - start) for start in range(0, draws, _DRAWN))
    blocks = [generator.integers(0, 2, size=(size, n), dtype=np.int64).T for size in sizes]
    return np.hstack(blocks).astype(np.int8) * np.int8(2) - np.int8(1)
