"""Scales on which a response can be analysed: as it is, Fisher's transform of a cosine, its share of [0, 1].

The transforms of one response answer slightly different questions: a mean of angles is not the angle of a mean
cosine, so each scale takes the measure that belongs to it, and a transform is applied to one number per run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from alignkit.errors import AnalysisError
from alignkit.stats.tables.checks import float_column

# Cosines computed as quotients can pass 1 by rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Scale:
    """A response and what is done to each of its values before an analysis.

    `orientation` is 1 where larger values mean more of what the first scale of an analysis measures, -1
    where they mean less: a larger cosine is a smaller angle. `beta` marks a share of [0, 1] that is to be
    described by a Beta model, whose effects are log odds.
    """

    name: str
    response: str
    transform: Callable[[ArrayLike], np.ndarray]
    orientation: Literal[1, -1]
    unit: str
    beta: bool = False


def identity(values: ArrayLike) -> np.ndarray:
    """The values as they are."""
    return np.asarray(values, dtype=float)


def fisher_z(cosine: ArrayLike, *, limit: float = 1.0) -> np.ndarray:
    """atanh of a cosine: a scale without bounds, on which small angles are told apart.

    At |cosine| = 1 it is infinite. One infinite run would decide every mean, and leaving such runs out
    would drop the best aligned ones, so they are refused. `limit` below 1 moves cosines beyond ±limit to
    it, openly: declare it beforehand and report it.

    The logit of (cosine + 1) / 2 is exactly twice this. It is therefore no scale of its own: every test
    and every standardised effect is the same.

    Missing values stay missing. Raises `AnalysisError` for values beyond ±1.

    >>> fisher_z([0.0, 0.5]).round(3).tolist()
    [0.0, 0.549]
    """
    if not 0 < limit <= 1:
        raise AnalysisError(f"expected a limit above 0 and at most 1; got {limit}. Values beyond it are moved to it")
    values = np.clip(within(cosine, -1.0, 1.0, "cosines"), -limit, limit)
    at_bound = int((np.abs(values) == 1).sum())
    if at_bound:
        raise AnalysisError(
            f"expected cosines strictly between -1 and 1; got {at_bound} of {values.size} at ±1, where atanh is "
            "infinite. Analyse degrees, or declare a limit below 1"
        )
    return np.arctanh(values)


def unit_share(cosine: ArrayLike) -> np.ndarray:
    """(cosine + 1) / 2: a cosine as a share of [0, 1], the response of a Beta model."""
    return (within(cosine, -1.0, 1.0, "cosines") + 1) / 2


def bound_note(means: pd.DataFrame, *, low: float = 0.0, high: float = 180.0, unit: str = "°", sds: float = 3.0) -> str:
    """Says which levels' means lie so near a bound of the scale that a symmetric interval misleads; else "".

    `means` [seed, level] are per-seed means. A level is near a bound where the bound is within `sds`
    standard deviations (over seeds) of its mean: values pile up there, the sd shrinks, and a t interval
    may reach beyond what is possible.

    >>> bound_note(pd.DataFrame({"a": [1.0, 2.0, 0.5], "b": [60.0, 61.0, 59.0]}))
    'the mean at a (1.2°) lies within 3 sd of the bound of 0°: read the Fisher transform beside it'
    """
    notes = []
    for level in means.columns:
        values = pd.Series(float_column(means[level], str(level)))
        mean, sd = values.mean(), values.std()
        for bound in (low, high):
            if abs(mean - bound) <= sds * sd:
                notes.append(
                    f"the mean at {level} ({mean:.1f}{unit}) lies within {sds:g} sd of the bound of {bound:g}{unit}"
                )
    return "; ".join(notes) + ": read the Fisher transform beside it" if notes else ""


def within(values: ArrayLike, low: float, high: float, what: str) -> np.ndarray:
    """The values as an array, those beyond a bound by rounding moved to it; `AnalysisError` for any further out."""
    array = np.asarray(values, dtype=float)
    outside = (array < low - ROUNDING) | (array > high + ROUNDING)
    if outside.any():
        raise AnalysisError(
            f"expected {what} within [{low:g}, {high:g}]; got {float(array[outside].flat[0]):g} "
            f"({int(outside.sum())} of {array.size} outside). Is this another measure?"
        )
    return np.clip(array, low, high)
