"""How long the teaching signal and the delta are."""

from __future__ import annotations

import numpy as np

from alignkit.columns import MEASURES
from alignkit.measures.measure import LayerDeltas, LayerSignals, Measure, OfLayer
from alignkit.measures.reductions import Found, Measures, mean, median


class Size(Measure):
    columns, needs = MEASURES["size"], ("signals", "deltas")

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        return {"cosine": signals.cosine, "t_length": signals.t.length, "g_length": signals.g.length}

    def of_deltas(self, deltas: LayerDeltas) -> OfLayer:
        return {"delta_length": deltas.own.length}

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        cosines, t, g, delta = (found[name] for name in ("cosine", "t_length", "g_length", "delta_length"))
        gains = np.where(np.isnan(cosines), np.nan, t / g)
        gates = np.where((t > 0) & np.isfinite(delta), delta / t, np.nan)
        return {"signal_gain": median(gains), "projection": mean(gains * cosines), "gate": median(gates)}
