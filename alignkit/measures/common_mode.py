"""How much of the teaching signal is the same for every sample."""

from __future__ import annotations

from alignkit.columns import MEASURES
from alignkit.measures.measure import LayerSignals, Measure, OfLayer
from alignkit.measures.reductions import Found, Measures
from alignkit.numerics.inner_products import length, sums_of_samples


class CommonMode(Measure):
    columns, needs = MEASURES["common_mode"], ("signals",)

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        t = signals.t
        return {"cosine": signals.cosine, "t_length": t.length, "t_sum_length": length(sums_of_samples(t.vectors))}

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        """N |mean_n t_n|^2 / sum_n |t_n|^2: the share of a signal that is the same for every sample."""
        lengths = found["t_length"]
        return {"common_mode": found["t_sum_length"] ** 2 / (lengths.shape[-1] * (lengths**2).sum(-1))}
