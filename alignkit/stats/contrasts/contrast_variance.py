"""What the sd of a per-seed contrast is made of, from a pilot: the effect's own spread and the runs' noise.

More cells in a seed average the noise of runs away, and leave the spread of the effect from seed to seed.
So a pilot that separates the two says what another design would need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.levels import cell_column, level_column

NAN = float("nan")


@shown()
@dataclass(frozen=True)
class ContrastVariance:
    """Variance components of the contrast from `levels[0]` to `levels[1]`, in squared units of the response.

    `seed_by_factor` is the variance of the effect between seeds, as the analysis of variance gives it:
    unbiased, so it may come out negative (`sd` then takes it as 0). `run` is the variance of one run,
    with whatever seed and cell do together. `cells` counts the cells at each level, `estimate` is the
    pilot's effect, `observed_sd` the sd of its per-seed contrasts, and `noise_per_seed` the part of their
    variance that came from runs. With one cell at each level the two sources cannot be told apart: both
    are NaN, and the sd is known for such designs alone.
    """

    factor: str
    levels: tuple[str, str]
    response: str
    estimate: float
    seed_by_factor: float
    run: float
    noise_per_seed: float
    observed_sd: float
    cells: float
    n_seeds: int
    df: tuple[int, int]
    method: str
    warnings: tuple[str, ...] = ()

    def sd(self, cells: float | None = None) -> float:
        """The sd of the per-seed contrast with `cells` cells at each level (those of the pilot by default)."""
        cells = self._known_cells(cells)
        if np.isnan(self.run):
            return self.observed_sd
        noise = 2 * self.run / cells
        return float(np.sqrt(max(self.seed_by_factor, 0.0) + noise))

    def sd_upper(self, cells: float | None = None, *, confidence: float = 0.8) -> float:
        """An upper confidence bound of `sd`, to plan with: a pilot of few seeds knows it poorly.

        With the pilot's own cells this is the chi-square bound on the variance of the contrasts. With
        others it is the modified large-sample bound for a combination of mean squares (Graybill and Wang
        1980; Ting et al. 1990, without their cross term), never below the noise that runs alone make.
        """
        target = self._known_cells(cells)
        df_between, df_run = self.df
        if np.isnan(self.run):
            return float(self.observed_sd * np.sqrt(df_between / stats.chi2.ppf(1 - confidence, df_between)))
        between, run = self.seed_by_factor + self.noise_per_seed, self.run
        # The variance sought is between + weight * run, both independent mean squares.
        weight = 2 / target - self.noise_per_seed / run if run > 0 else 0.0
        tail = (1 - confidence) if weight >= 0 else confidence
        factor_between = df_between / stats.chi2.ppf(1 - confidence, df_between) - 1
        factor_run = df_run / stats.chi2.ppf(tail, df_run) - 1
        reach = np.hypot(factor_between * between, factor_run * weight * run)
        return float(np.sqrt(max(between + weight * run + reach, 2 * run / target)))

    def _known_cells(self, cells: float | None) -> float:
        if cells is None:
            return self.cells
        if not cells >= 1:
            raise AnalysisError(f"expected one cell or more at each level; got {cells}")
        if np.isnan(self.run) and cells != self.cells:
            raise AnalysisError(
                f"expected a pilot with several cells at each level, to say what {cells:g} would give; "
                f"got one with {self.cells:g}. Add cells to the pilot"
            )
        return float(cells)

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(
            self, "factor", "levels", "response", "estimate", "seed_by_factor", "run", "sd", "sd_upper", "cells",
            "n_seeds", "df_seeds", "df_run", "method", "warnings", sd=self.sd(), sd_upper=self.sd_upper(),
            df_seeds=self.df[0], df_run=self.df[1],
        )  # fmt: skip


def contrast_variance(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    within: Sequence[str] = (),
    response: str = "value",
    seed: str = "seed",
) -> ContrastVariance:
    """How much of a contrast's variance between seeds is the effect's own, and how much is the runs' noise.

    `table` is as for `seed_contrasts`: a row per seed and cell, with two seeds or more. Where cells have
    counterparts, the differences of counterparts are modelled as cell + seed + noise; in a fraction, the
    values as cell + (intercept, factor and other main effects within each seed) + noise. Cells are fixed,
    seeds random. The components are those of the analysis of variance (Henderson's method 3), which with
    complete balanced tables are the REML estimates where positive.

    With one run per seed and cell, an interaction of seed, factor and cell is part of `run`: right for a
    design with more cells of the same kind, too optimistic for one that repeats the same cells.

    Do not use it to test the effect: it is for planning.

    Raises `AnalysisError` with one seed, and where cells that are missing leave seeds without a link.

    >>> generator = np.random.default_rng(0)
    >>> rows = [{"seed": s, "norm": n, "width": w, "value": generator.normal()}
    ...         for s in range(5) for n in ("none", "batch") for w in (8, 16, 32)]
    >>> pilot = contrast_variance(pd.DataFrame(rows), factor="norm", levels=("none", "batch"), within=["width"])
    >>> pilot.sd(cells=24) < pilot.sd() < pilot.sd_upper()
    True
    """
    contrasts = seed_contrasts(table, factor=factor, levels=levels, response=response, seed=seed, within=within)
    within = [name for name in within if name != factor]
    rows = pd.DataFrame({name: level_column(table[name]).map(str) for name in (factor, *within)})
    rows = rows.assign(cell=cell_column(table, within), seed=table[seed], value=table[response].astype(float))
    rows = rows[rows[factor].isin(contrasts.levels)].dropna(subset=["seed", "value"])
    wide = rows.pivot(index=["seed", "cell"], columns=factor, values="value").reindex(columns=list(contrasts.levels))
    if (wide.notna().all(axis="columns")).any():
        pairs = (wide[contrasts.levels[1]] - wide[contrasts.levels[0]]).dropna()
        (between, run, noise, df), n_cells = _of_counterparts(pairs, factor)
        model = "differences of counterparts: cell + seed + noise"
    else:
        (between, run, noise, df), n_cells = _of_fraction(rows, factor, contrasts.levels[1], within)
        model = "cells of a fraction: cell + main effects within each seed + noise"
    warnings = list(contrasts.warnings)
    if np.isnan(run):
        warnings.append("too few cells to tell the effect's own spread from the runs' noise")
    if between < 0:
        warnings.append("the effect's variance between seeds came out below 0: it is taken as 0 in the sd")
    if df[0] < 5:
        warnings.append(f"{df[0] + 1} seeds know a variance poorly: plan with the upper bound")
    return ContrastVariance(
        factor=factor,
        levels=contrasts.levels,
        response=response,
        estimate=float(contrasts.differences.mean()),
        seed_by_factor=between,
        run=run,
        noise_per_seed=run * noise,
        observed_sd=float(contrasts.differences.std()),
        cells=n_cells,
        n_seeds=df[0] + 1,
        df=df,
        method=f"analysis of variance of {model}",
        warnings=tuple(warnings),
    )


Components = tuple[float, float, float, tuple[int, int]]


def _of_counterparts(pairs: pd.Series, factor: str) -> tuple[Components, float]:
    """The components from differences of counterparts, by seed and cell, and the cells at each level."""
    own, cells = (_dummies(pairs.index.get_level_values(name)) for name in ("seed", "cell"))
    between, run, noise, df = _components(pairs.to_numpy(), own, np.empty((len(pairs), 0)), cells, factor)
    return (between, run / 2, 2 * noise, df), float(cells.shape[1])  # a difference has the noise of two runs


def _of_fraction(rows: pd.DataFrame, factor: str, high: str, within: Sequence[str]) -> tuple[Components, float]:
    """The same from the values of a fraction, in which no cell occurs at both levels."""
    varying = [name for name in within if rows[name].nunique() > 1]
    main = [np.ones((len(rows), 1)), *(_dummies(rows[name])[:, 1:] for name in varying)]
    seeds, indicator = _dummies(rows["seed"]), (rows[factor] == high).to_numpy(float)
    nuisance = np.hstack([seeds * column[:, None] for block in main for column in block.T])
    cells, own = _dummies(rows[factor] + "\x1f" + rows["cell"]), seeds * indicator[:, None]
    return _components(rows["value"].to_numpy(), own, nuisance, cells, factor), cells.shape[1] / 2


def _components(
    values: np.ndarray, effects: np.ndarray, nuisance: np.ndarray, cells: np.ndarray, factor: str
) -> Components:
    """Variance of the seeds' effects, mean square of the noise, noise in one effect per mean square, both df.

    `effects` [rows, seeds] holds each seed's own regressor of interest. Its coefficients are estimable up
    to their mean, which the cells hold; the pseudo-inverse gives them centred.
    """
    fixed = np.hstack([cells, nuisance])
    left = effects - fixed @ np.linalg.lstsq(fixed, effects, rcond=None)[0]
    residual = values - fixed @ np.linalg.lstsq(fixed, values, rcond=None)[0]
    n_seeds = effects.shape[1]
    rank = int(np.linalg.matrix_rank(left, tol=1e-8))
    df_run = len(values) - int(np.linalg.matrix_rank(fixed)) - rank
    if n_seeds < 2 or rank < n_seeds - 1:
        raise AnalysisError(
            f'factor "{factor}": expected two seeds or more that share cells, to know how the effect varies between '
            f"seeds; got {n_seeds}, of which {rank + 1} can be compared. Add seeds, or complete their cells"
        )
    if df_run < 1:
        return NAN, NAN, NAN, (n_seeds - 1, 0)
    information = np.linalg.pinv(left.T @ left, hermitian=True, rcond=1e-10)
    own = information @ (left.T @ residual)
    run = float(np.sum((residual - left @ own) ** 2)) / df_run
    noise = float(np.trace(information)) / (n_seeds - 1)
    return float(own @ own) / (n_seeds - 1) - run * noise, run, noise, (n_seeds - 1, df_run)


def _dummies(labels: pd.Series | pd.Index) -> np.ndarray:
    return pd.get_dummies(pd.Series(np.asarray(labels))).to_numpy(float)
