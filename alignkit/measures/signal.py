"""How far the teaching signal points the way of back-propagation's, at each hidden layer."""

from __future__ import annotations

import numpy as np

from alignkit.columns import MEASURES
from alignkit.measures.measure import LayerSignals, Measure, OfLayer
from alignkit.measures.reductions import Found, Measures, mean, sd


class Signal(Measure):
    columns, needs = MEASURES["signal"], ("signals",)

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        return {"cosine": signals.cosine, "angle_deg": signals.t.angle_deg(signals.g, signals.cosine)}

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        cosines = found["cosine"]
        return {
            "signal_cosine": mean(cosines),
            "signal_cosine_sd": sd(cosines),
            "signal_angle_deg": mean(found["angle_deg"]),
            "undefined": np.isnan(cosines).sum(-1),
        }
