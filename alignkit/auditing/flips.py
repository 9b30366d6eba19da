"""Whether an opposite answer is one beyond chance, over all the questions asked of a claim."""

from __future__ import annotations

import numpy as np

EXACT_UP_TO = 16
DRAWS = 9_999
CHUNK = 2_048
FLOOR = 1e-12


def chances(differences: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """For each question, how often random signs of the seeds show a mean as far above 0 in any of the questions.

    Parameters
    ----------
    differences : [questions, seeds], NaN where a seed has no answer. A seed changes all its signs together.
    seed : of the signs that are drawn beyond 16 seeds; up to 16, all patterns are taken.

    Returns
    -------
    p [questions], one-sided, of a single-step max-T; NaN where a question has no two answers, or zeros alone.

    Notes
    -----
    Student's t of n seeds is brought to a normal scale by Wallace's (1959) approximation, so that questions with fewer
    seeds do not decide what is extreme.
    """
    there = np.isfinite(differences)
    n = there.sum(axis=1)
    filled = np.where(there, differences, 0.0)
    squares = (filled**2).sum(axis=1)
    usable = (n >= 2) & (squares > 0)
    p = np.full(len(differences), np.nan)
    if not usable.any():
        return p
    n, scaled = n[usable], filled[usable] / np.sqrt(n[usable] * squares[usable])[:, None]
    signs = _signs(differences.shape[1], seed)
    observed = _normal(scaled.sum(axis=1), n)
    groups = [(size, np.ascontiguousarray(scaled[n == size].T)) for size in np.unique(n)]
    largest = np.concatenate([_largest(signs[i : i + CHUNK], groups) for i in range(0, len(signs), CHUNK)])
    largest.sort()
    slack = 1e-9 * np.maximum(1.0, np.abs(observed))
    p[usable] = 1 - np.searchsorted(largest, observed - slack, side="left") / len(largest)
    return p


def _signs(n: int, seed: int) -> np.ndarray:
    """[patterns, seeds], the observed one first."""
    if n <= EXACT_UP_TO:
        return 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    drawn = np.random.default_rng(seed).integers(0, 2, size=(DRAWS, n)) * 2.0 - 1.0
    return np.vstack([np.ones(n), drawn])


def _largest(signs: np.ndarray, groups: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Under each pattern, the largest statistic over all questions. Within one n it grows with the scaled sum."""
    return np.max([_normal((signs @ scaled).max(axis=1), size) for size, scaled in groups], axis=0)


def _normal(share: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Student's t on a normal scale, from the sum over the square root of n times the sum of squares."""
    df = np.asarray(n) - 1.0
    log = -np.log(np.maximum(1 - np.minimum(share**2, 1.0), FLOOR))
    return np.sign(share) * (8 * df + 1) / (8 * df + 3) * np.sqrt(df * log)
