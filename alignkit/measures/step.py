"""How the last update lies to back-propagation's, and how long it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alignkit.columns import MEASURES
from alignkit.measures.angles import array_angle_deg
from alignkit.measures.measure import LastStep, Measure, OfLayer
from alignkit.numerics.inner_products import update_products


class Step(Measure):
    columns, needs = MEASURES["step"], ("step",)

    def of_step(self, step: LastStep) -> Sequence[OfLayer]:
        network, found = self.subject.network, []
        for layer in range(1, len(network.hidden_sizes) + 1):
            new, old, gradient = (
                parameters.blocks[layer, "weight"] for parameters in (network.parameters, step.before, step.bp_gradient)
            )
            inner, moved, weight, steepest = update_products(new, old, gradient)
            cosine = (-inner / (moved * steepest)).clamp(-1.0, 1.0)
            angle = array_angle_deg(new, gradient, (moved, -steepest), cosine, less=old)
            ratio = torch.where(weight > 0, moved / weight, torch.nan)
            found.append({"step_cosine": cosine, "step_angle_deg": angle, "update_ratio": ratio})
        return found
