"""What a change of an angle is worth by a dose-response curve: the difference of the curve between two angles."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special
from scipy.optimize import isotonic_regression

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.tables.checks import require_level
from alignkit.stats.tables.frames import one_row
from alignkit.text import count


@shown()
@dataclass(frozen=True)
class Worth:
    """What a change is worth, in the unit of the curve's response, on average over cells.

    `interval` holds both uncertainties: of the angles, over the seeds of a study, and of the curve, over its own.
    `clipped` is the share of angles beyond the curve's ends, which are read there.
    """

    estimate: float
    interval: tuple[float, float]
    n_seeds: int
    n_curve_seeds: int
    clipped: float
    method: str

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, "estimate", "interval", "n_seeds", "n_curve_seeds", "clipped", "method")


def worth(curves: pd.DataFrame, before: ArrayLike, after: ArrayLike, *, level: float = 0.95) -> Worth:
    """What going from the angles `before` to those `after` is worth by the curves.

    Parameters
    ----------
    curves : [seed, dose] of the response, doses ascending, at least two seeds.
    before, after : angles [seeds, cells] of a study, its seeds and cells in the same order.

    Notes
    -----
    Each curve is interpolated between its doses, and not smoothed: a monotone fit to a single seed would read noise
    as a fall. Differences are taken cell by cell and then averaged, as the curve bends: half of the cells at 40
    degrees and half at 85 do not lose what all of them at 62 do. The variance is that of the means over the study's
    seeds plus that of the means over the curve's, which are independent; the interval is Student's, with
    Satterthwaite's degrees of freedom.

    It supposes that an angle which was observed costs what the same angle costs where it was imposed, in the curve's
    network; it is a scale to read an effect by, and no forecast of accuracy.

    Examples
    --------
    >>> curves = pd.DataFrame({0.0: [96.0, 97.0], 60.0: [96.0, 97.0], 90.0: [86.0, 89.0]})
    >>> worth(curves, before=[[75.0], [75.0]], after=[[60.0], [50.0]]).estimate
    4.5
    """
    start, end = (np.asarray(each, dtype=float) for each in (before, after))
    require_level(level)
    if start.ndim != 2 or start.shape != end.shape or len(start) < 2:
        raise AnalysisError(
            f"worth: expected angles [seeds, cells] of two seeds or more, the same before and after; got {start.shape} "
            f"and {end.shape}"
        )
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise AnalysisError("worth: expected an angle in every cell under every seed; got some that are missing")
    if len(curves) < 2:
        raise AnalysisError(f"worth: expected the curves of two seeds or more; got {len(curves)}")
    doses = curves.columns.to_numpy(float)
    # [seeds of the study, seeds of the curve], each averaged over cells
    table = np.column_stack(
        [
            (np.interp(end, doses, curve) - np.interp(start, doses, curve)).mean(axis=1)
            for curve in curves.to_numpy(float)
        ]
    )
    of_study, of_curve = (float(table.mean(axis=axis).var(ddof=1)) / table.shape[1 - axis] for axis in (1, 0))
    total = of_study + of_curve
    parts = of_study**2 / (table.shape[0] - 1) + of_curve**2 / (table.shape[1] - 1)
    half = float(special.stdtrit(total**2 / parts, (1 + level) / 2)) * total**0.5 if parts > 0 else 0.0
    estimate = float(table.mean())
    every = np.concatenate([start, end])
    return Worth(
        estimate=estimate,
        interval=(estimate - half, estimate + half),
        n_seeds=table.shape[0],
        n_curve_seeds=table.shape[1],
        clipped=float(((every < doses[0]) | (every > doses[-1])).mean()),
        method=f"curves of {count(len(curves), 'seed')}, interpolated; t over the seeds of both",
    )


def decrease_worth(curves: pd.DataFrame, *, angle: float, gain: float) -> float:
    """The smallest decrease of the angle that gains so much by the mean curve; NaN where none does: it is flat there.

    The mean curve is made non-increasing first (isotonic regression), and an angle beyond its end is read there.

    >>> curves = pd.DataFrame({0.0: [96.0, 97.0], 60.0: [96.0, 97.0], 90.0: [86.0, 89.0]})
    >>> decrease_worth(curves, angle=90, gain=3.0), decrease_worth(curves, angle=60, gain=1.0)
    (10.0, nan)
    """
    doses = curves.columns.to_numpy(float)
    fit = isotonic_regression(curves.mean(axis=0).to_numpy(float), increasing=False).x
    target = float(np.interp(angle, doses, fit)) + gain
    above = np.flatnonzero(fit >= target)
    if not len(above) or isnan(angle):
        return float("nan")
    last = int(above[-1])
    share = (fit[last] - target) / (fit[last] - fit[last + 1])
    return float(min(angle, doses[-1]) - (doses[last] + share * (doses[last + 1] - doses[last])))
