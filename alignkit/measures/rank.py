"""In how many directions the activations of a hidden layer vary."""

from __future__ import annotations

from alignkit.columns import MEASURES
from alignkit.measures.angles import effective_rank
from alignkit.measures.measure import LayerSignals, Measure, OfLayer


class Rank(Measure):
    columns, needs = MEASURES["rank"], ("signals",)

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        return {"effective_rank": effective_rank(signals.forward_pass.hidden[signals.layer - 1])}
