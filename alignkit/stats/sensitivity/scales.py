"""Scales on which alignment can be analysed: degrees, the cosine's Fisher transform, its share of [0, 1].

Degrees are the primary scale; the others are declared sensitivity analyses. They answer slightly
different questions: a mean of angles is not the angle of a mean cosine, so each scale takes the measure
that belongs to it, and a transform is applied to one number per run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from alignkit.columns import GAP, unit_of
from alignkit.errors import AnalysisError
from alignkit.stats.tables.checks import float_column

# Cosines computed as quotients can pass 1 by rounding.
_ROUNDING = 1e-9


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


def cosine_of(angle_deg: ArrayLike) -> np.ndarray:
    """The cosine of angles in degrees, each in 0 to 180."""
    degrees = _within(angle_deg, 0.0, 180.0, "angles in degrees")
    return np.cos(np.radians(degrees))


def degrees_of(cosine: ArrayLike) -> np.ndarray:
    """The angle, in degrees, whose cosine is given; of a mean cosine, not the mean angle.

    By Jensen's inequality the angle of the mean cosine lies above the mean angle where all angles are
    below 90 degrees, and below it where all are above.
    """
    return np.degrees(np.arccos(_within(cosine, -1.0, 1.0, "cosines", rounding=_ROUNDING)))


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
    values = np.clip(_within(cosine, -1.0, 1.0, "cosines", rounding=_ROUNDING), -limit, limit)
    at_bound = int((np.abs(values) == 1).sum())
    if at_bound:
        raise AnalysisError(
            f"expected cosines strictly between -1 and 1; got {at_bound} of {values.size} at ±1, where atanh is "
            "infinite. Analyse degrees, or declare a limit below 1"
        )
    return np.arctanh(values)


def unit_share(cosine: ArrayLike) -> np.ndarray:
    """(cosine + 1) / 2: a cosine as a share of [0, 1], the response of a Beta model."""
    return (_within(cosine, -1.0, 1.0, "cosines", rounding=_ROUNDING) + 1) / 2


def log_odds(points: ArrayLike) -> np.ndarray:
    """The log odds of accuracies in points (of 100): a scale without bounds. Accuracies of 0 and 100 are refused."""
    shares = _share(points)
    at_bound = int(((shares == 0) | (shares == 1)).sum())
    if at_bound:
        raise AnalysisError(
            f"expected accuracies strictly between 0 and 100 points; got {at_bound} of {shares.size} at a bound, where "
            "log odds are infinite. Analyse points"
        )
    return special.logit(shares)


def scales_of(response: str) -> tuple[Scale, ...]:
    """The scales on which a response can be analysed, its own first: what its sensitivity analyses vary.

    An angle and the cosine that it is of go together; a cosine has Fisher's transform and the Beta model, an
    accuracy its log odds and the Beta model. A difference (a gap, an excess) has no scale but its own.

    >>> [[scale.name for scale in scales_of(name)] for name in ("test_accuracy", "weight_cosine", "accuracy_gap")]
    [['points', 'log odds', 'beta'], ['cosine', 'fisher z', 'beta'], ['points']]
    """
    unit = unit_of(response)
    own = Scale({"°": "degrees"}.get(unit, unit) or "as recorded", response, identity, 1, unit)
    if response == "signal_angle_deg":
        return alignment_scales()
    if response.endswith("_cosine"):
        degrees = (Scale("degrees", "signal_angle_deg", identity, -1, "°"),) if response == "signal_cosine" else ()
        return (
            Scale("cosine", response, identity, 1, ""),
            *degrees,
            Scale("fisher z", response, fisher_z, 1, ""),
            Scale("beta", response, unit_share, 1, "log odds", beta=True),
        )
    if unit == "points" and response != GAP:
        return (
            own,
            Scale("log odds", response, log_odds, 1, ""),
            Scale("beta", response, _share, 1, "log odds", beta=True),
        )
    return (own,)


def alignment_scales(*, angle: str = "signal_angle_deg", cosine: str = "signal_cosine") -> tuple[Scale, ...]:
    """The scales of alignment's declared sensitivity analyses, degrees first.

    >>> [scale.name for scale in alignment_scales()]
    ['degrees', 'fisher z', 'beta']
    """
    return (
        Scale("degrees", angle, identity, 1, "°"),
        Scale("fisher z", cosine, fisher_z, -1, ""),
        Scale("beta", cosine, unit_share, -1, "log odds", beta=True),
    )


def bound_note(means: pd.DataFrame, *, low: float = 0.0, high: float = 180.0, unit: str = "°", sds: float = 3.0) -> str:
    """Says which levels' means lie so near a bound of the scale that a symmetric interval misleads; else "".

    `means` [seed, level] are per-seed means. A level is near a bound where the bound is within `sds`
    standard deviations (over seeds) of its mean: values pile up there, the sd shrinks, and a t interval
    may reach beyond what is possible.

    >>> bound_note(pd.DataFrame({"bp": [1.0, 2.0, 0.5], "dfa": [60.0, 61.0, 59.0]}))
    'the mean at bp (1.2°) lies within 3 sd of the bound of 0°: read the Fisher transform beside it'
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


def _share(points: ArrayLike) -> np.ndarray:
    return _within(points, 0.0, 100.0, "accuracies in points", rounding=_ROUNDING) / 100


def _within(values: ArrayLike, low: float, high: float, what: str, *, rounding: float = 0.0) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    outside = (array < low - rounding) | (array > high + rounding)
    if outside.any():
        raise AnalysisError(
            f"expected {what} within [{low:g}, {high:g}]; got {float(array[outside].flat[0]):g} "
            f"({int(outside.sum())} of {array.size} outside). Is this another measure?"
        )
    return np.clip(array, low, high)
