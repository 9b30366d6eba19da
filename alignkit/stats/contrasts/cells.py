"""How far an effect differs between cells: the spread of the true effects, and an interval for a cell like these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import moments, t_interval
from alignkit.stats.tables.checks import require_level
from alignkit.text import count

LEAST_CELLS = 3
LEAST_SEEDS = 3


@shown(words=lambda result: f"sd {result.sd:.3g} over {count(result.n_cells, 'cell')}, {count(result.n_seeds, 'seed')}")
@dataclass(frozen=True)
class CellSpread:
    """How far an effect differs between cells, once the noise of the seeds is taken out.

    `estimate` and `interval` are the mean effect over these very cells. `sd` is the standard deviation of the true
    cell effects, `sd_interval` its interval; `prediction` holds the effect in another cell like these with the chance
    `level`. `effects` are the cells' own means over seeds, `pooled` the same drawn towards the mean by as much as
    they are noise. Arrays are over cells.
    """

    estimate: float
    interval: tuple[float, float]
    sd: float
    sd_interval: tuple[float, float]
    prediction: tuple[float, float]
    effects: np.ndarray
    pooled: np.ndarray
    n_seeds: int
    n_cells: int
    level: float
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def opposite(self) -> int:
        """How many cells have a pooled effect of the other sign than the mean."""
        return int((self.pooled * self.estimate < 0).sum())

    def to_frame(self) -> pd.DataFrame:
        """One row per cell."""
        return pd.DataFrame({"cell": np.arange(self.n_cells), "effect": self.effects, "pooled": self.pooled})


def cell_spread(effects: ArrayLike, *, level: float = 0.95) -> CellSpread:
    """The spread of the true effects of cells, from every seed's effect in every cell.

    Parameters
    ----------
    effects : [seeds, cells], all finite: the contrast of two arms in each cell, under each seed.
    level : of all intervals.

    Raises
    ------
    AnalysisError : fewer than three seeds or three cells, or an effect that is missing.

    Notes
    -----
    effect[s, c] = mean + cell[c] + seed[s] + error[s, c]. The variance of the cells is that of the cells' means less
    what errors add to it. Seeds are blocks: what a seed adds to all cells cancels, and errors may be correlated over
    cells in any way and larger in some cells, since the residuals' sum of squares has the same expectation as the
    errors' part in the sum of squares of the cell means. In a complete table this is the REML estimate of
    lme4's `1 + (1 | cell) + (1 | seed)`, wherever that is not 0.

    The interval of the sd inverts the F ratio of the two mean squares, whose degrees of freedom are Satterthwaite's:
    they count what the correlations leave of them (Box 1954, with unbiased traces). It supposes cell effects that are
    roughly normal; cells that fall into two groups have a spread, and no bell of that width. The cells of a design
    were chosen, not drawn: "a cell like these" is one whose effect might as well have been among them.

    Examples
    --------
    >>> seeds, cells = np.array([-1.0, 0, 1, 0])[:, None], np.array([2.0, 4, 6])
    >>> noise = np.array([[0.1, -0.1, 0], [-0.1, 0.1, 0], [0, 0.1, -0.1], [0, -0.1, 0.1]])
    >>> round(cell_spread(seeds + cells + noise).sd, 2)
    2.0
    """
    table = np.asarray(effects, dtype=float)
    require_level(level)
    if table.ndim != 2 or table.shape[0] < LEAST_SEEDS or table.shape[1] < LEAST_CELLS:
        raise AnalysisError(
            f"the spread of effects over cells needs ≥ {LEAST_SEEDS} seeds and ≥ {LEAST_CELLS} cells; got "
            f"{' x '.join(map(str, table.shape))}"
        )
    if not np.isfinite(table).all():
        raise AnalysisError("expected an effect in every cell under every seed; got some that are missing")
    n_seeds, n_cells = table.shape
    means = table.mean(axis=0)
    mean = float(means.mean())
    over_seeds = moments(table.mean(axis=1))
    low, high = t_interval(over_seeds, level=level)
    squares = _mean_squares(table)
    variance = max(0.0, (squares.cells - squares.error) / n_seeds)
    kept = 0.0 if squares.cells == 0 else n_seeds * variance / squares.cells
    return CellSpread(
        estimate=mean,
        interval=(float(low), float(high)),
        sd=variance**0.5,
        sd_interval=_sd_interval(squares, level),
        prediction=_prediction(mean, variance, over_seeds.sd.item() ** 2 / n_seeds, squares, level),
        effects=means,
        pooled=mean + kept * (means - mean),
        n_seeds=n_seeds,
        n_cells=n_cells,
        level=level,
        method="moments of the cell means with seeds as blocks; F ratio with Satterthwaite's degrees of freedom",
    )


@dataclass(frozen=True)
class _MeanSquares:
    """Of the cell means (times the seeds) and of the errors; `share` is Box's epsilon, 1 where errors are equal and
    correlated alike."""

    cells: float
    error: float
    share: float
    n_seeds: int
    n_cells: int

    def df_error(self) -> float:
        return (self.n_seeds - 1) * (self.n_cells - 1) * self.share

    def df_cells(self, between: float) -> float:
        """Of the cells' mean square where their variance times the seeds is `between`."""
        error = self.error
        spread = between**2 + 2 * between * error + error**2 / self.share
        return (self.n_cells - 1) * ((between + error) ** 2 / spread if spread > 0 else 1.0)

    def chance_below(self, between: float) -> float:
        """How probable a smaller mean square of the cells would be, were their variance times the seeds `between`."""
        expected = between + self.error
        if expected <= 0:
            return 1.0 if self.cells > 0 else 0.5
        df = self.df_error() * (expected / self.error) ** 2 if self.error > 0 else 1e12
        return float(special.fdtr(self.df_cells(between), min(df, 1e12), self.cells / expected))


def _mean_squares(table: np.ndarray) -> _MeanSquares:
    n_seeds, n_cells = table.shape
    within = table - table.mean(axis=1, keepdims=True)  # a seed's own part cancels
    cells = within.mean(axis=0)
    residuals = within - cells
    nu, p = n_seeds - 1, n_cells - 1
    products = residuals @ residuals.T / nu
    trace, trace_of_square = float(np.trace(products)), float((products**2).sum())
    # unbiased (tr S)² and tr S² of a Wishart matrix
    scale = nu / ((nu - 1) * (nu + 2))
    squared = scale * ((nu + 1) * trace**2 - 2 * trace_of_square)
    of_square = scale * nu * (trace_of_square - trace**2 / nu)
    share = squared / (p * of_square) if of_square > 0 else 1.0
    size = float(np.abs(table).max())
    error = trace / p if trace > (1e-12 * size) ** 2 else 0.0  # rounding is no error
    between = float((cells**2).sum())
    return _MeanSquares(
        n_seeds * between / p if between > (1e-12 * size) ** 2 else 0.0,
        error, float(np.clip(share, 1 / p, 1.0)), n_seeds, n_cells,
    )  # fmt: skip


def _sd_interval(squares: _MeanSquares, level: float) -> tuple[float, float]:
    """The sds at which the F ratio that was seen is neither too large nor too small."""

    def at(chance: float) -> float:
        off: Callable[[float], float] = lambda between: squares.chance_below(between) - chance  # noqa: E731
        if off(0.0) <= 0:
            return 0.0
        top = max(squares.cells, squares.error)
        while off(top) > 0:
            top *= 4
        return float((optimize.brentq(off, 0.0, top) / squares.n_seeds) ** 0.5)

    if squares.cells == 0:
        return 0.0, 0.0
    return at((1 + level) / 2), at((1 - level) / 2)


def _prediction(
    mean: float, variance: float, of_mean: float, squares: _MeanSquares, level: float
) -> tuple[float, float]:
    """The interval of the true effect in another cell."""
    spread = variance * (1 + 1 / squares.n_cells)
    df = squares.n_seeds - 1.0
    if variance > 0:
        difference = squares.cells - squares.error
        noise = squares.cells**2 / squares.df_cells(squares.n_seeds * variance)
        noise += squares.error**2 / squares.df_error()
        df_spread = difference**2 / noise
        df = (spread + of_mean) ** 2 / (spread**2 / df_spread + of_mean**2 / (squares.n_seeds - 1))
    half = float(special.stdtrit(df, (1 + level) / 2)) * (spread + of_mean) ** 0.5
    return mean - half, mean + half
