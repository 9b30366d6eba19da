"""How long the signals and the activations are: whether there is anything whose direction can be told."""

from __future__ import annotations

from alignkit.columns import MEASURES
from alignkit.measures.measure import LayerSignals, Measure, OfLayer
from alignkit.measures.reductions import Found, Measures, median
from alignkit.numerics.inner_products import length


class Norms(Measure):
    columns, needs = MEASURES["norms"], ("signals",)

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        hidden = signals.forward_pass.hidden[signals.layer - 1]
        return {"t_length": signals.t.length, "g_length": signals.g.length, "h_length": length(hidden)}

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        names = {"teaching_norm": "t_length", "gradient_norm": "g_length", "activation_norm": "h_length"}
        return {column: median(found[name]) for column, name in names.items()}
