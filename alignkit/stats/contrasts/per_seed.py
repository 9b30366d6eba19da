"""One difference per seed: what the confirmatory test of alignkit is made on.

A pooled regression with a seed intercept rejects too often as soon as the effect itself varies from
seed to seed. One number per seed does not, whatever happens inside a seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AliasedError, AnalysisError
from alignkit.stats.contrasts.arrays import matched_differences, mean_of_present
from alignkit.stats.tables.checks import levels_given, names_of, number_column, require_columns, require_seed_column
from alignkit.stats.tables.levels import level_column, level_order, level_text
from alignkit.text import count


def _words(contrasts: SeedContrasts) -> str:
    low, high = contrasts.levels
    of = f"{contrasts.factor} {low} to {high}, {contrasts.response}"
    return f"{of}: {count(len(contrasts.differences), 'seed')}, {count(contrasts.n_cells, 'cell')}"


@shown(words=_words)
@dataclass(frozen=True)
class SeedContrasts:
    """The effect of going from `levels[0]` to `levels[1]`, once per seed.

    `differences` is indexed by seed; `means` [seed, level] holds each level's mean over the cells that
    were compared. `n_cells` is how many pairs of cells (or, in a fraction, cells) the design has.
    """

    factor: str
    levels: tuple[str, str]
    response: str
    differences: pd.Series
    means: pd.DataFrame
    n_cells: int
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def pairing_correlation(self) -> float:
        """Correlation over seeds of the two levels' means: what sharing a seed was worth. NaN below three seeds."""
        means = self.means.dropna()
        if len(means) < 3 or (means.std() == 0).any():
            return float("nan")
        return float(np.corrcoef(means.to_numpy().T)[0, 1])

    def to_frame(self) -> pd.DataFrame:
        """One row per seed."""
        frame = self.means.rename(columns=lambda level: f"mean_{level}").assign(difference=self.differences)
        return frame.reset_index()


def seed_contrasts(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    response: str,
    seed: str = "seed",
    within: Sequence[str] = (),
) -> SeedContrasts:
    """How far `response` moves from `levels[0]` to `levels[1]` of a factor, averaged over cells, in every seed.

    `table` has one row per seed and cell; a cell is a combination of `factor` and the other factors,
    `within`. Where a cell at one level has its counterpart at the other (a grid, one factor at a time),
    the differences between counterparts are averaged, and cells without one are left aside: a warning
    says how many, and which levels of the other factors the effect is then not averaged over. In a
    regular fraction no cell has one: there the difference of the level means is taken, and where values
    are missing or the levels are not balanced over the other factors, a main-effects model is fitted by
    least squares within each seed, which assumes that the factors' effects add.

    A missing value takes its counterpart with it, in that seed. Whatever is left out is counted in
    `warnings`. Do not read the result as an effect when values are missing because of the factor (runs
    that diverge at one level): only bounds are honest then.

    Raises `AnalysisError` where a column or level does not exist, where a seed holds a cell twice, and
    where the design cannot separate the factor from another.
    """
    within = [name for name in names_of("within", within) if name != factor]
    require_columns(table, factor, response, seed, *within)
    if len({factor, response, seed}) < 3 or {response, seed} & set(within):
        raise AnalysisError(
            f'expected columns of their own for the response, "{response}", and the seed, "{seed}"; got '
            f"{', '.join([factor, *within])} as factors. Name the factors alone"
        )
    low, high = _known_levels(table[factor], factor, levels)
    at = level_column(table[factor]).to_numpy()
    chosen = (at == low) | (at == high)
    rows = table.loc[chosen, [seed, response, *within]]
    texts = {name: level_column(rows[name]).tolist() for name in within}
    others = {name: levels for name, levels in texts.items() if len(set(levels)) > 1}
    cell = ["\x1f".join(map(str, row)) for row in zip(*others.values(), strict=True)] if others else [""] * len(rows)
    values = number_column(rows[response], response)
    require_seed_column(rows[seed])
    numbers, seeds = pd.factorize(rows[seed], sort=True)
    # tables [level, seed, cell] of the values, NaN where there is no run, and [level, cell] of what was tried
    names = sorted(set(cell))
    columns = {name: column for column, name in enumerate(names)}
    place = ((at[chosen] == high).astype(int), numbers, np.array([columns[name] for name in cell], dtype=int))
    shape = (2, len(seeds), len(names))
    repeated = pd.Index(np.ravel_multi_index(place, shape)).duplicated()
    if repeated.any():
        first = int(repeated.argmax())
        raise AnalysisError(
            f"expected one row per {seed} and cell; {seed} {rows[seed].iloc[first]} has several at {factor} = "
            f"{at[chosen][first]}. Name every factor that varies in `within`, or summarise each run first"
        )
    runs, tried = np.full(shape, np.nan), np.zeros((2, len(names)), dtype=bool)
    runs[place], tried[place[0], place[2]] = values, True
    paired = tried[0] & tried[1]
    if paired.any():
        before, after = runs[:, :, paired]
        differences, method, warnings = _matched(before, after)
        warnings += _without_counterpart(paired[place[2]], cell, others, int(paired.sum()))
        # Both sides of a level's mean are the cells that were compared, and no others.
        lost = np.isnan(before) | np.isnan(after)
        before, after = (np.where(lost, np.nan, side) for side in (before, after))
        n_cells = int(paired.sum())
    else:
        before, after = (side[:, there] for side, there in zip(runs, tried, strict=True))
        levels_of = dict(zip(cell, zip(*others.values(), strict=True), strict=True)) if others else {}
        order = [name for there in tried for name, known in zip(names, there, strict=True) if known]
        nuisance = {name: [str(levels_of[each][k]) for each in order] for k, name in enumerate(others)}
        differences, method, warnings = _fraction(before, after, factor, nuisance)
        n_cells = before.shape[1] + after.shape[1]
    index = pd.Index(seeds, name=seed)
    kept = ~np.isnan(differences)
    if not kept.all():
        warnings.append(f"{count(int((~kept).sum()), 'seed')} left out: no comparison remains there")
    means = pd.DataFrame({low: mean_of_present(before), high: mean_of_present(after)}, index=index)
    return SeedContrasts(
        factor, (low, high), response, pd.Series(differences, index=index)[kept], means[kept], n_cells, method,
        tuple(warnings),
    )  # fmt: skip


def _known_levels(column: pd.Series, factor: str, levels: tuple[Any, Any]) -> tuple[str, str]:
    given = levels_given(factor, levels)
    if len(given) != 2:
        raise AnalysisError(
            f'factor "{factor}": expected two levels, from and to; got {len(given)}. Name one pair at a time'
        )
    present = level_order(column)
    wanted = tuple(level_text(level) for level in given)
    for text in wanted:
        if text not in present:
            listing = ", ".join(present) if present else "none (these runs do not have the factor)"
            raise AnalysisError(
                f'factor "{factor}": expected the level {text}, which no run has; its levels: {listing}'
            )
    low, high = str(wanted[0]), str(wanted[1])
    if low == high:
        raise AnalysisError(f'factor "{factor}": expected two different levels; got {low} twice')
    return low, high


def _matched(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    lost, total = int(np.isnan(after - before).sum()), before.size
    warnings = []
    if lost:
        warnings.append(f"{lost} of {count(total, 'pair')} of runs left out: one or both values are missing")
    method = f"per-seed mean over {count(before.shape[1], 'pair')} of matched cells"
    return matched_differences(before, after), method, warnings


def _without_counterpart(
    compared: np.ndarray, cell: list[str], others: dict[str, list[str | None]], pairs: int
) -> list[str]:
    """What the comparison of cells with their counterparts is not averaged over; `compared` tells the runs in it."""
    if compared.all():
        return []
    absent = []
    for name, texts in others.items():
        levels = level_order(itertools.compress(texts, compared))
        absent += [f"{name} = {level}" for level in level_order(texts) if level not in levels]
    shown = ", ".join(absent[:6]) + (f" and {len(absent) - 6} more levels" if len(absent) > 6 else "")
    lone = count(len(set(itertools.compress(cell, ~compared))), "cell")
    return [
        f"{lone} without a counterpart at the other level left aside: the effect is averaged over "
        f"{count(pairs, 'pair')} of cells" + (f", none at {shown}" if absent else "")
    ]


def _fraction(
    before: np.ndarray, after: np.ndarray, factor: str, others: dict[str, list[str]]
) -> tuple[np.ndarray, str, list[str]]:
    """The effect in every seed, of values [seed, cell] at the two levels; `others` are the cells' other levels."""
    values = np.hstack([before, after])
    indicator = np.repeat([0.0, 1.0], [before.shape[1], after.shape[1]])
    columns = [np.ones(len(indicator))]
    for levels in others.values():
        columns += [np.array([each == level for each in levels], dtype=float) for level in sorted(set(levels))[1:]]
    nuisance = np.column_stack(columns)
    if _separable(indicator, nuisance) is None:
        raise AliasedError(
            f'factor "{factor}": its levels cannot be told apart from those of other factors in these cells '
            f"({', '.join(others) or 'none'}). Add cells in which {factor} alone changes"
        )
    absent = np.isnan(values)
    balanced = np.allclose(nuisance[indicator == 1].mean(axis=0), nuisance[indicator == 0].mean(axis=0))
    n_cells = f"{len(indicator)} cells"
    if balanced and not absent.any():
        difference = after.mean(axis=1) - before.mean(axis=1)
        return difference, f"per-seed difference of level means over {n_cells} of a fraction", []
    why = (
        f"{int(absent.sum())} of {absent.size:,} values are missing"
        if absent.any()
        else "the levels are not balanced over the other factors"
    )
    warnings = [f"{why}: main-effects least squares within each seed, which assumes that effects add"]
    effects = []
    for row in values:
        present = ~np.isnan(row)
        residual = _separable(indicator[present], nuisance[present])
        effects.append(np.nan if residual is None else float(residual @ row[present] / (residual @ residual)))
    return np.array(effects), f"per-seed main-effects least squares over {n_cells}", warnings


def _separable(indicator: np.ndarray, nuisance: np.ndarray) -> np.ndarray | None:
    """What is left of the factor once the other factors are regressed out (Frisch-Waugh-Lovell); None if nothing."""
    if not len(indicator):
        return None
    coefficients = np.linalg.lstsq(nuisance, indicator, rcond=None)[0]
    residual = indicator - nuisance @ coefficients
    return residual if residual @ residual > 1e-9 * len(indicator) else None
