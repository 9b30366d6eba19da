"""Every factor's contrasts: each level against the first, with interval and adjusted p."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from alignkit.errors import AnalysisError
from alignkit.stats.levels import level_order, level_text
from alignkit.stats.multiplicity import benjamini_hochberg, holm
from alignkit.stats.paired import paired_test, seed_contrasts

ADJUSTMENTS = {"holm": holm, "bh": benjamini_hochberg}


@dataclass(frozen=True)
class Contrast:
    """The effect of one change of a factor: `levels[1]` minus `levels[0]`, averaged over the other factors.

    `differences` are the per-seed effects, in the order of `seeds`; `level_means` are their two sides.
    """

    factor: str
    levels: tuple[str, str]
    response: str
    estimate: float
    interval: tuple[float, float]
    p: float
    p_adjusted: float
    df: int
    n_seeds: int
    n_cells: int
    level_means: tuple[float, float]
    pairing_correlation: float
    seeds: tuple[Any, ...]
    differences: tuple[float, ...]
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return contrast_frame([self])


COLUMNS = (
    "factor", "level_from", "level_to", "response", "estimate", "low", "high", "p", "p_adjusted", "df",
    "n_seeds", "n_cells", "mean_from", "mean_to", "pairing_correlation", "method", "warnings",
)  # fmt: skip


def contrast_frame(results: Iterable[Contrast]) -> pd.DataFrame:
    """One row per contrast, in the order given."""
    rows = [
        (
            result.factor, *result.levels, result.response, result.estimate, *result.interval, result.p,
            result.p_adjusted, result.df, result.n_seeds, result.n_cells, *result.level_means,
            result.pairing_correlation, result.method, "; ".join(result.warnings),
        )
        for result in results
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def contrast(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    response: str = "value",
    seed: str = "seed",
    within: Sequence[str] = (),
    level: float = 0.95,
) -> Contrast:
    """The effect of going from `levels[0]` to `levels[1]`, with its t interval and exact sign-flip p.

    `table` is as for `seed_contrasts`. `p_adjusted` equals `p`: one contrast is its own family.
    """
    per_seed = seed_contrasts(table, factor=factor, levels=levels, response=response, seed=seed, within=within)
    test = paired_test(per_seed.differences, level=level)
    low, high = per_seed.levels
    means = per_seed.means.mean()
    return Contrast(
        factor=factor,
        levels=per_seed.levels,
        response=response,
        estimate=test.estimate,
        interval=test.interval,
        p=test.p,
        p_adjusted=test.p,
        df=test.df,
        n_seeds=test.n_seeds,
        n_cells=per_seed.n_cells,
        level_means=(float(means[low]), float(means[high])),
        pairing_correlation=per_seed.pairing_correlation,
        seeds=tuple(per_seed.differences.index),
        differences=tuple(float(value) for value in per_seed.differences),
        method=f"{per_seed.method}; {test.method}",
        warnings=per_seed.warnings + test.warnings,
    )


def level_means(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: Sequence[str],
    response: str = "value",
    seed: str = "seed",
    within: Sequence[str] = (),
) -> pd.DataFrame:
    """Each level's mean in each seed [seed, level]: the one that its contrast with the first level was taken from.

    So the means are over the cells that two levels have in common, and no others.
    """
    if len(levels) < 2:
        raise AnalysisError(f'factor "{factor}": expected two levels or more; got {", ".join(levels) or "none"}')
    sides: dict[str, pd.Series] = {}
    for level in levels[1:]:
        pair = (levels[0], level)
        means = seed_contrasts(table, factor=factor, levels=pair, response=response, seed=seed, within=within).means
        sides.setdefault(levels[0], means[levels[0]])
        sides[level] = means[level]
    return pd.DataFrame(sides)[list(levels)]


def contrasts(
    table: pd.DataFrame,
    factors: Sequence[str],
    *,
    response: str = "value",
    seed: str = "seed",
    base: Mapping[str, Any] | None = None,
    level: float = 0.95,
    adjust: Literal["holm", "bh"] = "holm",
) -> tuple[Contrast, ...]:
    """What each factor does to `response`: every level against the base level, all in one family.

    `table` has one row per seed and cell, and a column per factor. The base level of a factor is that
    in `base`, or else its first (the smallest number, false, or the first in the table). A factor with
    one level, or that the design cannot separate from another, gives no contrast.

    The p-values serve to describe. For a confirmatory test, declare a claim: the choice of factor,
    levels and response must come before the data.
    """
    base = base or {}
    found: list[Contrast] = []
    for factor in factors:
        levels = level_order(table[factor])
        first = level_text(base[factor]) if factor in base else None
        if first in levels:
            levels = [str(first), *(text for text in levels if text != first)]
        for other in levels[1:]:
            try:
                pair = (levels[0], other)
                found.append(
                    contrast(
                        table, factor=factor, levels=pair, response=response, seed=seed, within=factors, level=level
                    )
                )
            except AnalysisError as error:
                if "cannot be told apart" not in str(error):
                    raise
    adjusted = ADJUSTMENTS[adjust]([result.p for result in found])
    return tuple(replace(result, p_adjusted=float(p)) for result, p in zip(found, adjusted, strict=True))
