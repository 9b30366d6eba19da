"""The section `[feedback]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignkit.settings.types import Count, Flag, Positive, Section


class Feedback(Section):
    """The law of the feedback matrices. `sharing = "sliced"` draws one matrix for the widest layer and
    gives every layer its first columns. `normalised` scales a DFA matrix [C, d] to entries of variance
    1/(C d), an FA matrix to variance 1/fan-in; otherwise the variance is 1. `scale` multiplies either.
    `rank` is that of every matrix: its rows are projected on a random subspace of the outputs (FA: of the units
    above) and lengthened so that the expected size of a signal stays. `points` are the hidden layers, counted from
    1, where feedback enters: a layer that is not among them learns by what the layer above hands down through its
    weights, as in back-propagation.
    `angle_deg` is read by the rule imposed_angle alone: how far it turns the deltas of back-propagation,
    from 0 (back-propagation) to 180 (ascent)."""

    law: Literal["gaussian", "uniform", "orthogonal"] = "gaussian"
    sharing: Literal["per_layer", "sliced"] = "per_layer"
    normalised: Flag = True
    scale: Positive = 1.0
    rank: Count | None = None
    points: tuple[Count, ...] | None = None
    angle_deg: Annotated[float, Field(strict=True, ge=0.0, le=180.0, allow_inf_nan=False)] = 0.0
