"""One difference per seed, and what such differences say: the confirmatory test of alignkit.

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

from alignkit.errors import AnalysisError
from alignkit.stats.arrays import (
    DRAWS,
    EXACT_UP_TO,
    matched_differences,
    moments,
    sign_flip_p_values,
    t_interval,
    t_p,
)
from alignkit.stats.checks import (
    differences_of,
    levels_given,
    names_of,
    number_column,
    require_alpha,
    require_columns,
    require_count,
    require_level,
    require_seed_column,
)
from alignkit.stats.frames import one_row
from alignkit.stats.levels import level_column, level_order, level_text


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


@dataclass(frozen=True)
class PairedResult:
    """What differences within seeds say of their mean: t interval, exact sign-flip p, and the t test's p."""

    estimate: float
    interval: tuple[float, float]
    p: float
    p_t: float
    df: int
    n_seeds: int
    sd: float
    level: float
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, "estimate", "interval", "p", "p_t", "df", "n_seeds", "method", "warnings")


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
    # a table [level, seed, cell] of the values, NaN where there is no run
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
    runs = np.full(shape, np.nan)
    runs[place] = values
    tried = np.zeros((2, len(names)), dtype=bool)
    tried[place[0], place[2]] = True
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
        warnings.append(f"{_count(int((~kept).sum()), 'seed')} left out: no comparison remains there")
    means = pd.DataFrame({low: _mean_of_cells(before), high: _mean_of_cells(after)}, index=index)
    return SeedContrasts(
        factor, (low, high), response, pd.Series(differences, index=index)[kept], means[kept], n_cells, method,
        tuple(warnings),
    )  # fmt: skip


def paired_test(
    differences: Sequence[float] | np.ndarray | pd.Series,
    *,
    level: float = 0.95,
    alpha: float | None = None,
    family_size: int = 1,
    seed: int = 0,
) -> PairedResult:
    """Whether differences taken within seeds have mean zero: t interval and exact sign-flip p.

    The p comes from all 2^n sign patterns up to 16 seeds, beyond that from 99,999 patterns drawn with
    a generator seeded by `seed`, as (b + 1)/(K + 1). It supposes that under the null a difference is
    as likely to have either sign; the interval supposes normal differences.

    With `alpha` the test is confirmatory, in a Holm family of `family_size`: it is refused
    (`AnalysisError`) where no data could reach `alpha` with so few seeds.

    Do not feed it checkpoints, layers or samples: they are not independent. One number per seed.

    >>> result = paired_test([1.0, 2.0, 1.5, 0.5, 1.0, 2.0])
    >>> result.estimate, result.p, result.df
    (1.3333333333333333, 0.03125, 5)
    """
    require_level(level)
    require_count("seed", seed, least=0)
    values = differences_of(differences)
    warnings = []
    missing = np.isnan(values)
    if missing.any():
        warnings.append(f"{_count(int(missing.sum()), 'missing difference')} left out")
        values = values[~missing]
    n = len(values)
    if alpha is not None:
        require_seeds(n, family_size=family_size, alpha=alpha)
    patterns = f"exact sign-flip p, {2**n:,} patterns" if n <= EXACT_UP_TO else f"sign-flip p, {DRAWS:,} draws"
    method = f"t interval; {patterns}"
    nothing = float("nan")
    if n == 0:
        warnings.append("no seed has a difference: nothing can be estimated")
        return PairedResult(
            nothing, (nothing, nothing), nothing, nothing, 0, 0, nothing, level, method, tuple(warnings)
        )
    of = moments(values)
    low, high = t_interval(of, level=level)
    if n == 1:
        warnings.append("one seed: no interval, and no test can reject")
    elif of.sd == 0:
        warnings.append("all seeds have the same difference: no variance to build an interval on")
    return PairedResult(
        float(of.mean), (float(low), float(high)), sign_flip_p(values, seed=seed), float(t_p(of)), n - 1, n,
        float(of.sd), level, method, tuple(warnings),
    )  # fmt: skip


def sign_flip_p(differences: Sequence[float] | np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> float:
    """The two-sided p of a mean under random signs: exact up to 16 differences, drawn beyond.

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    require_count("seed", seed, least=0)
    require_count("draws", draws)
    values = differences_of(differences)
    missing = int(np.isnan(values).sum())
    if missing:
        raise AnalysisError(
            f"expected finite differences; got {missing} missing of {len(values)}. "
            "Use paired_test, which leaves them out and counts them"
        )
    return float(sign_flip_p_values(values, seed=seed, draws=draws))


def minimum_seeds(family_size: int = 1, alpha: float = 0.05) -> int:
    """The fewest seeds with which an exact paired test can reach `alpha` in a Holm family.

    >>> minimum_seeds(), minimum_seeds(10)
    (6, 9)
    """
    require_count("family_size", family_size)
    require_alpha(alpha)
    n = 1
    while 2 / 2**n * family_size > alpha:
        n += 1
    return n


def require_seeds(n_seeds: int, *, family_size: int = 1, alpha: float = 0.05) -> None:
    """Raise `AnalysisError` where `n_seeds` differences cannot reach `alpha`, whatever they are."""
    require_count("n_seeds", n_seeds, least=0)
    needed = minimum_seeds(family_size, alpha)
    if n_seeds >= needed:
        return
    family = f" in a Holm family of {family_size}" if family_size > 1 else ""
    mend = ", declare fewer claims" if n_seeds >= minimum_seeds(1, alpha) else ""
    raise AnalysisError(
        f"an exact paired test{family} needs ≥ {needed} seeds to reach p < {str(alpha).removeprefix('0')}; "
        f"got {n_seeds}. Add seeds{mend}, or report the estimate alone"
    )


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
            has = ", ".join(present) if present else "none (these runs do not have the factor)"
            raise AnalysisError(f'factor "{factor}": expected the level {text}, which no run has; its levels: {has}')
    low, high = str(wanted[0]), str(wanted[1])
    if low == high:
        raise AnalysisError(f'factor "{factor}": expected two different levels; got {low} twice')
    return low, high


def _mean_of_cells(values: np.ndarray) -> np.ndarray:
    """The mean along the last axis of what is not NaN; NaN where nothing is."""
    present = ~np.isnan(values)
    n = present.sum(axis=-1)
    return np.where(n > 0, np.where(present, values, 0.0).sum(axis=-1) / np.maximum(n, 1), np.nan)


def _matched(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    lost, total = int(np.isnan(after - before).sum()), before.size
    warnings = []
    if lost:
        warnings.append(f"{lost} of {_count(total, 'pair')} of runs left out: one or both values are missing")
    method = f"per-seed mean over {_count(before.shape[1], 'pair')} of matched cells"
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
    lone = _count(len(set(itertools.compress(cell, ~compared))), "cell")
    return [
        f"{lone} without a counterpart at the other level left aside: the effect is averaged over "
        f"{_count(pairs, 'pair')} of cells" + (f", none at {shown}" if absent else "")
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
        raise AnalysisError(
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


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
