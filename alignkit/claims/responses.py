"""What is known of a response: its range, and the scales on which it can be analysed.

Of alignment, degrees are the primary scale; the others are declared sensitivity analyses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from alignkit.columns import EXCESS, GAP, unit_of
from alignkit.errors import AnalysisError
from alignkit.stats.sensitivity.scales import Scale, fisher_z, identity, unit_share, within


def response_bounds(response: str) -> tuple[float, float]:
    """The range that one of alignkit's responses can have, in the unit of its summaries.

    An angle can reach 180 degrees, not 90: a network that diverges may point away from the gradient.

    >>> response_bounds("signal_angle_deg"), response_bounds("accuracy_gap"), response_bounds("signal_cosine_excess")
    ((0.0, 180.0), (-100.0, 100.0), (-2.0, 2.0))
    """
    if response.endswith(EXCESS):
        low, high = response_bounds(response.removesuffix(EXCESS))
        return low - high, high - low
    if response == GAP:
        return -100.0, 100.0
    if response.endswith("_cosine"):
        return -1.0, 1.0
    ranges = {"°": (0.0, 180.0), "points": (0.0, 100.0)}
    if unit_of(response) not in ranges:
        raise AnalysisError(
            f'expected a response with a known range (an angle, a cosine, an accuracy); got "{response}". '
            "State its bounds yourself"
        )
    return ranges[unit_of(response)]


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


def _share(points: ArrayLike) -> np.ndarray:
    return within(points, 0.0, 100.0, "accuracies in points") / 100
