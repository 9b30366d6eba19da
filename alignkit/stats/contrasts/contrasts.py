"""Every factor's contrasts: each level against the first, with interval and adjusted p."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from alignkit.display import shown
from alignkit.errors import AliasedError, AnalysisError
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.tables.checks import float_column, names_of, require_choice, require_columns, without_index_names
from alignkit.stats.tables.levels import cell_column, level_column, level_order, level_text
from alignkit.text import count

NAN = float("nan")
ADJUSTMENTS = {"holm": holm, "bh": benjamini_hochberg}


@shown(in_response=True)
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


@shown(words=lambda result: f"{count(result.means.shape[1], 'level')}, {count(len(result.means), 'seed')}")
@dataclass(frozen=True)
class LevelMeans:
    """Each level's mean in each seed: `means` [seed, level], NaN where a seed has none; `method` says over what.

    `missing` counts the runs without a value, of `runs`, in the cells in which every level was tried (in all of
    them, where none was).
    """

    means: pd.DataFrame
    method: str
    missing: int
    runs: int
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per seed."""
        return self.means.reset_index()


def level_means(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: Sequence[str],
    response: str = "value",
    seed: str = "seed",
    within: Sequence[str] = (),
) -> LevelMeans:
    """Each level's mean in each seed, over the same cells for all: those of the seed in which every level has a value.

    Cells differ in their level of the response, so a level that lacks the hard ones, or lost its runs there,
    would look good for that. Over shared cells any two levels differ by their effect alone, whether or not the
    effect depends on the cell; so these means can be ranked. Two levels have the difference that their
    `contrast` has. Of several, a pair's own contrast may use more cells than all levels share, and then
    differs; `warnings` counts what was left out.

    Where no cell has every level (a fraction, or levels that were tried in cells of their own) a mean is the
    first level's plus the level's own matched contrast with it. Levels are then compared over different
    cells, which supposes that effects do not depend on the cell: `warnings` says so.
    """
    if len(levels) < 2:
        raise AnalysisError(f'factor "{factor}": expected two levels or more; got {", ".join(levels) or "none"}')
    options: dict[str, Any] = {"factor": factor, "response": response, "seed": seed, "within": within}
    pairs = {level: seed_contrasts(table, levels=(levels[0], level), **options) for level in levels[1:]}
    rows = pd.DataFrame(
        {"seed": table[seed], "at": level_column(table[factor]), "value": float_column(table[response], response)}
    )
    rows["cell"] = cell_column(table, [name for name in within if name != factor])
    rows = without_index_names(rows[rows["at"].isin(levels)])
    seeds = pd.Index(sorted(rows["seed"].unique()), name=seed)
    tried = rows.groupby("cell")["at"].transform("nunique")
    known = rows["at"].where(rows["value"].notna()).groupby([rows["seed"], rows["cell"]]).transform("nunique")
    everywhere = rows[tried == len(levels)] if (tried == len(levels)).any() else rows
    counts = {"missing": int(everywhere["value"].isna().sum()), "runs": len(everywhere)}
    warnings = []
    shared = rows[known == len(levels)]
    if len(shared):
        means = shared.groupby(["seed", "at"])["value"].mean().unstack().reindex(seeds)[list(levels)]
        means.columns.name = None
        kept, total = len(shared) // len(levels), len(rows.loc[tried > 1, ["seed", "cell"]].drop_duplicates())
        if kept < total:
            warnings.append(
                f"level means are over {kept} of {total} cells by seed: in the others a level has no run or no value"
            )
        lost = int(means[levels[0]].isna().sum())
        if lost:
            warnings.append(f"level means: {lost} of {len(means)} seeds have no cell in which every level has a value")
        method = "per-seed means over the cells in which every level has a value"
        return LevelMeans(means, method, **counts, warnings=tuple(warnings))
    if (tried > 1).any():
        warnings.append(
            "no cell has a value at every level: level means are the first level's plus each one's own matched "
            "contrast, which assumes that effects do not depend on the cell"
        )
    warnings += [f"{level} against {levels[0]}: {note}" for level, pair in pairs.items() for note in pair.warnings]
    first = rows[rows["at"] == levels[0]].groupby("seed")["value"].mean().reindex(seeds)
    means = pd.DataFrame({levels[0]: first} | {level: first + pair.differences for level, pair in pairs.items()})
    method = "the first level's mean plus each level's contrast with it, per seed"
    return LevelMeans(means.reindex(seeds), method, **counts, warnings=tuple(warnings))


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
    one level gives no contrast. Where the design cannot separate the levels from those of another factor,
    the contrast has no estimate and no seeds; its warning says why, and it still counts in the family.

    The p-values serve to describe. For a confirmatory test, declare a claim: the choice of factor,
    levels and response must come before the data.
    """
    base = base or {}
    factors = names_of("factors", factors)
    if not factors:
        raise AnalysisError('expected at least one factor; got none. Name them, as in ["norm", "width"]')
    require_columns(table, *factors, *base)
    require_choice("adjust", adjust, tuple(ADJUSTMENTS))
    results: list[Contrast] = []
    for factor in factors:
        levels = level_order(table[factor])
        first = level_text(base[factor]) if factor in base else None
        if first in levels:
            levels = [str(first), *(text for text in levels if text != first)]
        for other in levels[1:]:
            pair = (levels[0], other)
            try:
                result = contrast(
                    table, factor=factor, levels=pair, response=response, seed=seed, within=factors, level=level
                )
            except AliasedError as error:
                result = Contrast(
                    factor, pair, response, NAN, (NAN, NAN), NAN, NAN, 0, 0, 0, (NAN, NAN), NAN, (), (),
                    method="no contrast", warnings=(str(error),),
                )  # fmt: skip
            results.append(result)
    adjusted = ADJUSTMENTS[adjust]([result.p for result in results])
    return tuple(replace(result, p_adjusted=float(p)) for result, p in zip(results, adjusted, strict=True))
