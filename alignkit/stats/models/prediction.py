"""How well a model predicts what it was not fitted on: new seeds, or cells that were never run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.models.design import Design
from alignkit.stats.models.factorial import seed_codes
from alignkit.stats.models.formula import Interactions
from alignkit.stats.tables.frames import one_row

Held = Literal["seed", "cells"]


@shown()
@dataclass(frozen=True, eq=False)
class PredictionError:
    """The error of predictions for held-out rows, in the unit of the response.

    rmse : the root mean squared error, with `interval`.
    r2 : 1 - (squared error of the model) / (that of the mean), over the same held-out rows, with
        `r2_interval`. It is below 0 where the mean predicts better.
    rmse_mean : the error of the mean-only model; rmse_cell_mean and r2_cell_mean those of the cell's own mean over
        the other seeds: what a model of the cells that supposes nothing would reach. NaN where a cell has
        one seed.
    errors : one row per held-out row, with its fold, prediction and error.
    """

    held: Held
    rmse: float
    interval: tuple[float, float]
    r2: float
    r2_interval: tuple[float, float]
    rmse_mean: float
    rmse_cell_mean: float
    r2_cell_mean: float
    errors: pd.DataFrame
    df: int
    n_seeds: int
    n_folds: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(
            self, "held", "rmse", "interval", "r2", "r2_low", "r2_high", "rmse_mean", "rmse_cell_mean", "r2_cell_mean",
            "df", "n_seeds", "n_folds", "method", "warnings", r2_low=self.r2_interval[0], r2_high=self.r2_interval[1],
        )  # fmt: skip


def prediction_error(
    table: pd.DataFrame,
    formula_or_factors: str | Sequence[str],
    *,
    held: Held,
    response: str = "value",
    seed: str = "seed",
    interactions: Interactions | None = None,
    folds: int = 10,
    shuffle_seed: int = 0,
    level: float = 0.95,
) -> PredictionError:
    """How far a model's predictions are from rows it was not fitted on.

    The model is that of `fit_factorial`, fitted by least squares with the seed as a block.

    held="seed" leaves out one seed at a time and predicts it from the fixed effects: the error holds the
    difference between seeds, which nothing can predict. held="cells" leaves out whole cells, under every
    seed, in `folds` parts that are drawn with a generator seeded by `shuffle_seed`: the seeds are known
    there, so the model and the mean-only model both get the seed's own level from the cells that remain.
    A cell that the remaining ones do not determine (the only one with its level) is left out and counted.

    Intervals are over seeds, by the jackknife on the log scale, and describe these cells. Squared errors of
    few seeds are skewed, and the fits share seeds: at a nominal 95%, simulated intervals of the error
    covered 95% where seeds do not differ, and 86 to 93% where they do (6 to 20 seeds).

    Do not choose a model by it and then report the same figure: the winner's error is too small.

    Raises `AnalysisError` with fewer than three seeds, or fewer cells than folds could leave out.
    """
    if held not in ("seed", "cells"):
        raise AnalysisError(f'expected held to be "seed" or "cells"; got {held!r}')
    design = Design.of(table, formula_or_factors, response=response, interactions=interactions)
    codes, seeds = seed_codes(table, design, seed)
    n_seeds = len(seeds)
    if n_seeds < 3:
        raise AnalysisError(f"expected at least three seeds, to leave one out and have two; got {n_seeds}. Add seeds")
    _, cell = np.unique(design.x, axis=0, return_inverse=True)
    cell = cell.ravel()
    n_cells = int(cell.max()) + 1
    if held == "seed":
        fold = codes
    else:
        if n_cells < 3 or folds < 2:
            raise AnalysisError(
                f"expected at least three cells in two folds or more; got {n_cells} cells, {folds} folds. "
                'Leave out seeds instead, held="seed"'
            )
        order = np.random.default_rng(shuffle_seed).permutation(n_cells)
        fold_of_cell = np.empty(n_cells, dtype=int)
        fold_of_cell[order] = np.arange(n_cells) % min(folds, n_cells)
        fold = fold_of_cell[cell]
    n_folds = int(fold.max()) + 1
    predicted, mean = np.full(len(fold), np.nan), np.full(len(fold), np.nan)
    for part in range(n_folds):
        out = fold == part
        predicted[out], mean[out] = _predict(design, codes, n_seeds, out)
    ceiling = _cell_means_of_other_seeds(design.centred, codes, cell, n_seeds, own_level=held == "cells")
    warnings = list(design.missing_note)
    lost = np.isnan(predicted)
    if lost.all():
        raise AnalysisError(
            f"expected held-out rows that the others determine; got none under {design.formula}. Use fewer terms, or "
            'leave out seeds, held="seed"'
        )
    if lost.any():
        warnings.append(
            f"{len(np.unique(cell[lost]))} of {n_cells} cells left out ({int(lost.sum()):,} rows): "
            "the other cells do not determine them"
        )
    error, error_mean, error_ceiling = (
        np.where(lost, np.nan, design.centred - prediction) for prediction in (predicted, mean, ceiling)
    )
    if np.isnan(error_ceiling).any() and not lost.any():
        warnings.append("some cells have one seed alone: no cell mean to compare with")
    by_seed = np.array([[np.nansum(e[codes == s] ** 2) for e in (error, error_mean)] for s in range(n_seeds)])
    counts = np.array([int((~lost & (codes == s)).sum()) for s in range(n_seeds)])
    used = counts > 0
    by_seed, counts, n_used = by_seed[used], counts[used], int(used.sum())
    # Errors that are rounding alone have no ratio.
    by_seed[:, 1] *= np.abs(np.nan_to_num(error_mean)).max() > design.rounding
    total = by_seed.sum(axis=0)
    mean_square = float(total[0] / counts.sum())
    interval = _jackknife_interval(mean_square, (total[0] - by_seed[:, 0]) / (counts.sum() - counts), level)
    unexplained = float(total[0] / total[1]) if total[1] > 0 else float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (total[0] - by_seed[:, 0]) / (total[1] - by_seed[:, 1])
    r2_interval = _jackknife_interval(unexplained, without, level)
    rows = {"fold": fold, "predicted": predicted + design.offset, "error": error}
    return PredictionError(
        held=held,
        rmse=float(np.sqrt(mean_square)),
        interval=(float(np.sqrt(interval[0])), float(np.sqrt(interval[1]))),
        r2=1 - unexplained,
        r2_interval=(1 - r2_interval[1], 1 - r2_interval[0]),
        rmse_mean=float(np.sqrt(total[1] / counts.sum())),
        rmse_cell_mean=float(np.sqrt(np.mean(error_ceiling[~lost] ** 2))),
        r2_cell_mean=1 - float((error_ceiling[~lost] ** 2).sum() / total[1]) if total[1] > 0 else float("nan"),
        errors=pd.DataFrame({seed: np.array(seeds, dtype=object)[codes], **rows}, index=design.index),
        df=n_used - 1,
        n_seeds=n_used,
        n_folds=n_folds,
        method=(
            f"one of {n_seeds} seeds left out at a time"
            if held == "seed"
            else f"{n_cells} cells left out in {n_folds} parts, whole"
        )
        + f"; intervals over {n_used} seeds",
        warnings=tuple(warnings),
    )


def _predict(design: Design, codes: np.ndarray, n_seeds: int, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the model and the mean, fitted on the rest, say of the rows `out` [n]; NaN where nothing is determined.

    A seed that is among the rest lends its own level; a new one is taken to be at the seeds' mean.
    """
    known = np.unique(codes[~out])
    deviations = np.zeros((n_seeds, max(len(known) - 1, 0)))
    deviations[known] = np.vstack([np.eye(len(known) - 1), -np.ones((1, len(known) - 1))])
    full = np.hstack([design.x, deviations[codes]])
    lengths = np.linalg.norm(full[~out], axis=0)
    # A column that is all zero in training stays so; a held-out row that needs it is not determined.
    full = full / np.where(lengths > 0, lengths, 1.0)
    u, singular, vt = np.linalg.svd(full[~out], full_matrices=False)
    kept = singular > 1e-9 * singular[0]
    solution = vt[kept].T @ ((u[:, kept].T @ design.centred[~out]) / singular[kept])
    outside = full[out] - full[out] @ vt[kept].T @ vt[kept]
    determined = np.linalg.norm(outside, axis=1) < 1e-7 * (1 + np.linalg.norm(full[out], axis=1))
    predicted = np.where(determined, full[out] @ solution, np.nan)
    only_seeds = np.column_stack([np.ones(len(codes)), deviations[codes]])
    means = only_seeds[out] @ np.linalg.lstsq(only_seeds[~out], design.centred[~out], rcond=None)[0]
    return predicted, means


def _cell_means_of_other_seeds(
    y: np.ndarray, codes: np.ndarray, cell: np.ndarray, n_seeds: int, *, own_level: bool
) -> np.ndarray:
    """Each row's cell mean over the other seeds; with `own_level`, moved to the level of the row's own seed."""
    groups, group = np.unique(np.column_stack([codes, cell]), axis=0, return_inverse=True)
    group = group.ravel()
    means = np.bincount(group, weights=y) / np.bincount(group)
    in_cell = np.eye(int(cell.max()) + 1)[groups[:, 1]]
    # Cells, with the seed as a block where its level is known: each group is predicted from all the others.
    x = np.hstack([in_cell, np.eye(n_seeds)[groups[:, 0], 1:]]) if own_level else in_cell
    u, singular, _ = np.linalg.svd(x, full_matrices=False)
    u = u[:, singular > 1e-9 * singular[0]]
    leverage = (u**2).sum(axis=1)
    free = 1 - leverage > 1e-9
    left_out = np.divide(means - u @ (u.T @ means), 1 - leverage, out=np.full(len(means), np.nan), where=free)
    return (means - left_out)[group]


def _jackknife_interval(estimate: float, without: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of a positive figure from its values without each seed, by t on the log scale."""
    n = len(without)
    if not (estimate > 0 and (without > 0).all()):
        return (float("nan"), float("nan"))
    logs = np.log(without)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt((n - 1) / n * ((logs - logs.mean()) ** 2).sum()))
    return float(estimate * np.exp(-half)), float(estimate * np.exp(half))
