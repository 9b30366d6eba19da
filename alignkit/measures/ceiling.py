"""The best alignment that a layer's feedback allows, whatever use is made of it."""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures import angles
from alignkit.measures.measure import LayerSignals, Measure, OfLayer, Subject
from alignkit.measures.reductions import Found, Measures, mean
from alignkit.rules.feedback import Projection


class Ceiling(Measure):
    columns, needs = MEASURES["ceiling"], ("signals",)

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._bases: dict[int, tuple[Tensor, int, Tensor]] = {}

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        layer = signals.layer
        projection = self.subject.projection(layer)
        if projection is None:
            return {"ceiling": torch.full_like(signals.cosine, torch.nan)}
        basis, masks = self._basis(layer, projection), signals.forward_pass.masks
        if masks is not None and layer in masks.signals:
            mask = masks.signal(layer, torch.ones_like(signals.forward_pass.hidden[layer - 1]))
            return {"ceiling": angles.masked_ceiling(basis, signals.g, mask)}
        return {"ceiling": angles.ceiling(basis, signals.g)}

    def _basis(self, layer: int, projection: Projection) -> Tensor:
        """The row space of a layer's feedback, worked out anew only where the feedback has changed."""
        matrix = projection.matrix
        known = self._bases.get(layer)
        if known is None or known[0] is not matrix or known[1] != matrix._version:
            sum_zero = projection.from_error and self.subject.network.loss == "cross_entropy"
            known = self._bases[layer] = (matrix, matrix._version, angles.row_space(matrix, sum_zero=sum_zero))
        return known[2]

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        return {"ceiling_cosine": mean(found["ceiling"])}
