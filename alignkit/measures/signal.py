"""How far the teaching signal points the way of back-propagation's, at each hidden layer."""

from __future__ import annotations

import numpy as np
import torch

from alignkit.columns import MEASURES
from alignkit.measures.angles import Directions
from alignkit.measures.measure import LayerSignals, Measure, OfLayer
from alignkit.measures.reductions import Found, Measures, mean, sd
from alignkit.numerics.inner_products import centred
from alignkit.numerics.tensors import PerSample

_ROUNDING = 16
"""Units in the last place of a signal, below which what is left of it without its mean is rounding."""


class Signal(Measure):
    columns, needs = MEASURES["signal"], ("signals",)

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        return {
            "cosine": signals.cosine,
            "angle_deg": signals.t.angle_deg(signals.g, signals.cosine),
            "centred_angle_deg": _centred_angle_deg(signals.t, signals.g),
        }

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        cosines = found["cosine"]
        return {
            "signal_cosine": mean(cosines),
            "signal_cosine_sd": sd(cosines),
            "signal_angle_deg": mean(found["angle_deg"]),
            "centred_angle_deg": mean(found["centred_angle_deg"]),
            "undefined": np.isnan(cosines).sum(-1),
        }


def _centred_angle_deg(t: Directions, g: Directions) -> PerSample:
    """The angle of two signals less their means over the samples; NaN where nothing is left of one but rounding."""
    whole = (t, g)
    rest = tuple(Directions(centred(signal.vectors)) for signal in whole)
    angles = rest[0].angle_deg(rest[1])
    for signal, left in zip(whole, rest, strict=True):
        rounding = _ROUNDING * torch.finfo(signal.vectors.dtype).eps
        angles = torch.where(left.length > rounding * signal.length, angles, torch.nan)
    return angles
