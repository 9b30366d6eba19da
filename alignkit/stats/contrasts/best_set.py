"""Which of many cells may be the best: a confidence set of the best one, and what its members have in common."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.joint_flips import patterns
from alignkit.stats.tables.checks import require_choice, require_level
from alignkit.stats.tables.levels import level_order
from alignkit.text import listed

MOST_JOINED = 3
LEAST_SHARE = 0.5
"""Of the cells that a sentence with "or" is true of, this part must be in the set: else it says too little."""


@dataclass(frozen=True)
class BestSet:
    """The cells that may be the best, with a chance of at most 1 - `level` that the best is not among them.

    Arrays are over cells. `behind` is how far a cell's mean is behind that of the best-looking one; `p` is that of
    "this cell is the best", NaN for a cell that lacks values, which stays in the set.
    """

    means: np.ndarray
    behind: np.ndarray
    p: np.ndarray
    members: np.ndarray
    n_seeds: int
    level: float
    method: str
    warnings: tuple[str, ...] = ()


def best_set(values: ArrayLike, *, better: Literal["higher", "lower"], level: float = 0.95, seed: int = 0) -> BestSet:
    """Which cells may be the best, given the same seeds' values of all.

    Parameters
    ----------
    values : [seeds, cells], NaN where a cell has no value under a seed.
    better : which side of the value is better.
    level : the chance that the cell with the best true mean is in the set; of several best ones, each.
    seed : of the sign patterns that are drawn beyond 16 seeds; up to 16, all are taken.

    Notes
    -----
    A multiple comparison with the best (Hsu 1984, Annals of Statistics 12), by test inversion. A cell is left out
    where "it is the best" is rejected: the statistic is the largest Student t, over all other cells, of that cell's
    lead over this one. Under the hypothesis no lead is above 0, and the statistic is largest where all are 0; its
    distribution is that under joint sign flips of the seeds, which keep whatever the cells of a seed share. Only the
    test of the true best has to hold, so the level needs no correction for the number of cells: it is in the maximum.

    It supposes that a seed's leads are as likely to have either sign about their means, all together. Below five
    seeds no cell can be left out at 5%. Cells that were chosen by these same values make the level too good.

    Examples
    --------
    >>> rows = np.array([[0, 3, 9], [1, 4, 10], [0, 3, 8], [2, 3, 9], [1, 4, 9], [0, 2, 9], [1, 3, 8]])
    >>> best_set(rows, better="lower").members
    array([ True, False, False])
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise AnalysisError(f"best_set: expected values [seeds, cells] of two cells or more; got {table.shape}")
    require_choice("better", better, ("higher", "lower"))
    require_level(level)
    sign = 1.0 if better == "higher" else -1.0
    oriented = sign * np.where(np.isfinite(table), table, np.nan)
    whole = np.asarray(np.isfinite(oriented).all(axis=0))
    n, alpha = len(table), 1 - level
    p = np.full(table.shape[1], np.nan)
    if n >= 2 and whole.sum() >= 2:
        p[whole] = _p_of_best(oriented[:, whole], patterns(n, seed))
    means = table.mean(axis=0)
    best = (sign * means[whole]).max() if whole.any() else np.nan
    members = ~(p <= alpha)
    warnings = []
    if 2.0**-n > alpha:
        needed = int(np.ceil(-np.log2(alpha)))
        warnings.append(f"{n} seeds cannot leave a cell out at {level:.0%}: at least {needed} are needed")
    if not whole.all():
        warnings.append(
            f"{int((~whole).sum())} of {len(whole)} cells lack a value under some seed: they stay in the set, and no "
            "other is compared with them"
        )
    return BestSet(
        means, best - sign * means, p, members, n, level,
        f"largest t of any cell's lead over each, joint sign flips of {n} seeds", tuple(warnings),
    )  # fmt: skip


def _p_of_best(values: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """For each cell the p of its being the best; `values` [seeds, cells] are higher where better."""
    p = np.empty(values.shape[1])
    for cell in range(values.shape[1]):
        leads = np.delete(values, cell, axis=1) - values[:, [cell]]
        # t grows with sum / sqrt(sum of squares), and the sum of squares does not change with signs
        size = np.sqrt((leads**2).sum(axis=0))
        scaled = leads / np.where(size > 0, size, 1.0)
        largest = (signs @ scaled).max(axis=1)
        p[cell] = (largest >= largest[0] - 1e-9).mean()
    return p


@dataclass(frozen=True)
class CommonLevels:
    """What all cells of a set have in common.

    `terms` are joined by "and", the alternatives within a term by "or"; each alternative is a factor and its level.
    It is true of `matching` cells, among them all `members`, so `share` of those is in the set.
    """

    terms: tuple[tuple[tuple[str, str], ...], ...]
    matching: int
    members: int
    cells: int

    @property
    def share(self) -> float:
        return self.members / self.matching


def common_levels(levels: pd.DataFrame, members: Sequence[bool] | np.ndarray) -> CommonLevels | None:
    """At most three levels, joined by "and" or "or", that are true of every cell of a set; None where nothing says it.

    Parameters
    ----------
    levels : one row per cell, a column of texts (`level_column`) per factor. Factors with one level say nothing.
    members : which cells are in the set.

    Notes
    -----
    Of all such sentences it is the one that the fewest other cells match; of several, the one with the fewest levels,
    then without "or", then the first in the order of the factors. A sentence with "or" counts only where at least
    half of the cells that match it are in the set: three alternatives are true of nearly any set.

    Where the set holds the best cell with 95%, so does what is true of all its cells.

    Examples
    --------
    >>> cells = pd.DataFrame({"act": ["relu", "relu", "tanh", "tanh"], "norm": ["none", "batch"] * 2})
    >>> common_levels(cells, [False, True, True, True]).terms
    ((('act', 'tanh'), ('norm', 'batch')),)
    """
    inside = np.asarray(members, dtype=bool)
    if len(inside) != len(levels):
        raise AnalysisError(f"common_levels: expected a member mark for each of {len(levels)} cells; got {len(inside)}")
    if not inside.any() or inside.all():
        return None
    has = {
        (str(name), str(level)): (levels[name] == level).to_numpy(bool)
        for name in levels.columns
        if levels[name].nunique() > 1
        for level in level_order(levels[name])
    }
    best: CommonLevels | None = None
    rank: tuple[float, ...] = ()
    n = int(inside.sum())
    for terms in _sentences(list(has)):
        true = np.all([np.any([has[each] for each in term], axis=0) for term in terms], axis=0)
        if not true[inside].all() or true.all():
            continue
        found = CommonLevels(terms, int(true.sum()), n, len(inside))
        alternatives = any(len(term) > 1 for term in terms)
        if alternatives and found.share < LEAST_SHARE:
            continue
        own = (found.matching, sum(map(len, terms)), float(alternatives))
        if best is None or own < rank:
            best, rank = found, own
    return best


def _sentences(literals: list[tuple[str, str]]) -> list[tuple[tuple[tuple[str, str], ...], ...]]:
    """Every way to join up to three levels: a; a and b; a or b; a and b and c; a or b or c; a and (b or c)."""
    found: list[tuple[tuple[tuple[str, str], ...], ...]] = []
    for size in range(1, MOST_JOINED + 1):
        for chosen in itertools.combinations(literals, size):
            if len({factor for factor, _ in chosen}) == size:
                found.append(tuple((each,) for each in chosen))
            if size > 1:
                found.append((chosen,))
            if size == MOST_JOINED:
                for first in chosen:
                    others = tuple(each for each in chosen if each != first)
                    if first[0] not in {factor for factor, _ in others}:
                        found.append(((first,), others))
    return found


def in_words(common: CommonLevels, names: Mapping[tuple[str, str], str]) -> str:
    """The sentence's condition: "tanh and (batch norm or width 64)"; `names` put a factor and its level into words."""
    terms = [" or ".join(names[each] for each in term) for term in common.terms]
    if len(terms) == 1:
        return terms[0]
    return listed(f"({text})" if len(term) > 1 else text for text, term in zip(terms, common.terms, strict=True))
