"""How far the delta points the way of back-propagation's, at each weight op's output."""

from __future__ import annotations

from alignkit.columns import MEASURES
from alignkit.measures.measure import LayerDeltas, Measure, OfLayer


class Delta(Measure):
    columns, needs = MEASURES["delta"], ("deltas",)

    def of_deltas(self, deltas: LayerDeltas) -> OfLayer:
        cosine = deltas.own.cosine(deltas.reference)
        return {"delta_cosine": cosine, "delta_angle_deg": deltas.own.angle_deg(deltas.reference, cosine)}
