"""How two measures of runs go together once seeds and cells are accounted for, with whole seeds left out in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import require_seeds
from alignkit.stats.tables.checks import float_column, require_columns, require_level, require_seed_column
from alignkit.stats.tables.levels import cell_column

NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """An estimate with its interval over seeds."""

    name: str
    estimate: float
    interval: tuple[float, float]
    p: float


@shown()
@dataclass(frozen=True)
class Association:
    """How mediator and outcome go together from run to run, at equal seed and cell.

    `slope` is the outcome's change per unit of the mediator; `correlation` the partial correlation, whose interval
    is taken on Fisher's z. `sds` are the residual standard deviations of mediator and outcome.
    """

    slope: Effect
    correlation: Effect
    sds: tuple[float, float]
    df: int
    n_seeds: int
    n_runs: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row for the slope, one for the correlation."""
        return effect_frame([self.slope, self.correlation], self.df, self.n_seeds, self.method, self.warnings)


def within_association(
    table: pd.DataFrame,
    *,
    mediator: str,
    outcome: str,
    seed: str = "seed",
    within: Sequence[str] = (),
    level: float = 0.95,
) -> Association:
    """Whether runs with more of `mediator` have more of `outcome`, at equal seed and cell.

    `table` has one row per run; a cell is a combination of the columns `within` (all factors of the design). Both
    variables are taken less an intercept for every seed and every cell; what remains is correlated. Intervals are
    t intervals with n_seeds - 1 df on the jackknife over whole seeds, for the correlation on Fisher's z.

    Do not read a slope into it that a practice would follow: it is what chance moved, and noise in the mediator
    draws it towards 0.
    """
    require_level(level)
    complete, warnings = both_or_neither(table, mediator, outcome)
    runs = WithinRuns.of(complete, mediator, outcome, seed, within)
    names = np.unique(runs.seeds)
    require_seeds(len(names))

    def both(kept: np.ndarray) -> np.ndarray:
        m, y = runs.residuals(np.isin(runs.seeds, names[kept]), np.ones((1, len(runs.seeds))))
        cross, m2, y2 = float(m[0] @ y), float(m[0] @ m[0]), float(y @ y)
        correlation = cross / np.sqrt(m2 * y2) if y2 > 0 else NAN
        return np.array([cross / m2, np.arctanh(np.clip(correlation, -1 + 1e-15, 1 - 1e-15)), m2, y2])

    (slope, z, m2, y2), covariance = jackknife(both, len(names))
    df = len(names) - 1
    quantile = float(stats.t.ppf(0.5 + level / 2, df))
    sd = np.sqrt(np.diag(covariance))
    fisher = t_effect("correlation", z, sd[1], df, quantile)
    low, high = np.tanh(fisher.interval)
    return Association(
        slope=t_effect("mediator on outcome", slope, sd[0], df, quantile),
        correlation=Effect("correlation", float(np.tanh(z)), (float(low), float(high)), fisher.p),
        sds=(float(np.sqrt(m2 / runs.df)), float(np.sqrt(y2 / runs.df))),
        df=df,
        n_seeds=len(names),
        n_runs=len(runs.seeds),
        method="seed and cell intercepts; jackknife t over seeds",
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class WithinRuns:
    """Runs with both values: their seeds, and dummies of seeds and cells."""

    index: pd.Index
    seeds: np.ndarray
    dummies: np.ndarray
    mediator: np.ndarray
    outcome: np.ndarray
    df: int

    @classmethod
    def of(cls, table: pd.DataFrame, mediator: str, outcome: str, seed: str, within: Sequence[str]) -> WithinRuns:
        require_columns(table, mediator, outcome, seed, *within)
        require_seed_column(table[seed])
        table = table[table[mediator].notna()]
        cells = list(cell_column(table, within))
        dummies = np.hstack([pd.get_dummies(pd.Series(codes)).to_numpy(float) for codes in (list(table[seed]), cells)])
        n_cells, n_seeds = len(set(cells)), table[seed].nunique()
        m, y = (float_column(table[name], name) for name in (mediator, outcome))
        runs = cls(table.index, table[seed].to_numpy(), dummies, m, y, len(m) - n_cells - n_seeds)
        left = runs.residuals(np.ones(len(m), bool), np.ones((1, len(m))))[0][0] if len(m) else m
        if runs.df < 1 or left @ left <= 1e-18 * (m @ m):
            raise AnalysisError(
                f'expected runs in which "{mediator}" differs at equal seed and cell; got {len(m)} runs of {n_seeds} '
                f"seeds and {n_cells} cells without. Give more seeds, or leave what names each run out of `within`"
            )
        return runs

    def residuals(self, among: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mediator times each part [part, run], and the outcome, less seed and cell intercepts."""
        columns = np.vstack([parts * self.mediator, self.outcome])[:, among].T
        dummies = self.dummies[among]
        left = columns - dummies @ np.linalg.lstsq(dummies, columns, rcond=None)[0]
        return left[:, :-1].T, left[:, -1]

    def slopes(self, among: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """The slopes of the outcome on the mediator in each part, by least squares."""
        m, y = self.residuals(among, parts)
        return np.asarray(np.linalg.lstsq(m.T, y, rcond=None)[0])


def both_or_neither(table: pd.DataFrame, mediator: str, outcome: str) -> tuple[pd.DataFrame, list[str]]:
    """The table with neither value where one is missing, and how many runs that concerns."""
    require_columns(table, mediator, outcome)
    values = pd.DataFrame({name: float_column(table[name], name) for name in (mediator, outcome)}, index=table.index)
    missing = values.isna().any(axis=1)
    complete = table.copy()
    complete[[mediator, outcome]] = values.mask(missing)
    note = [f"{int(missing.sum())} of {len(table)} runs left out: mediator or outcome is missing"]
    return complete, note if missing.any() else []


def jackknife(statistics: Callable[[np.ndarray], np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of all n seeds, and their covariance from leaving out each."""
    everyone = np.arange(n)
    without = np.stack([statistics(np.delete(everyone, index)) for index in everyone])
    centred = without - without.mean(axis=0)
    return statistics(everyone), (n - 1) / n * centred.T @ centred


def t_effect(name: str, estimate: float, sd: float, df: int, quantile: float) -> Effect:
    if not sd > 1e-12 * abs(estimate):
        return Effect(name, float(estimate), (NAN, NAN), NAN)
    p = float(2 * stats.t.sf(abs(estimate) / sd, df))
    return Effect(name, float(estimate), (float(estimate - quantile * sd), float(estimate + quantile * sd)), p)


def effect_frame(
    effects: Sequence[Effect], df: int, n_seeds: int, method: str, warnings: tuple[str, ...]
) -> pd.DataFrame:
    rows = [(effect.name, effect.estimate, *effect.interval, effect.p) for effect in effects]
    frame = pd.DataFrame(rows, columns=["effect", "estimate", "low", "high", "p"])
    return frame.assign(df=df, n_seeds=n_seeds, method=method, warnings="; ".join(warnings))
