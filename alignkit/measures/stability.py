"""Whether two halves of the probe agree on back-propagation's weight gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures.angles import frobenius_cosine
from alignkit.measures.gradient import condensed_inputs
from alignkit.measures.measure import Measure, OfLayer, Subject
from alignkit.networks.forward_pass import Pass
from alignkit.networks.masks import Masks
from alignkit.networks.stages import Mode
from alignkit.numerics.products import matmul

_OTHER_MASKS = 2**32
"""Between the counters of the halves' dropout masks; no step of training has them."""


class Stability(Measure):
    """Halves of one pass would not do: under batch norm their gradients are anti-correlated by construction."""

    columns, needs = MEASURES["stability"], ("network",)

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._half = subject.x.shape[1] // 2  # an odd sample is left out
        modes = (subject.options.mode,)
        self._condensed = condensed_inputs(subject.network, subject.members, subject.x, modes)

    def of_network(self, forward_pass: Pass) -> Sequence[OfLayer]:
        network, bp = self.subject.network, self.subject.bp
        halves = [self._pass(forward_pass, which) for which in (0, 1)]
        walks = [network.backward_signals(half, bp, may_overwrite=True) for half in halves]
        found: list[OfLayer] = []
        for below in zip(*walks, strict=True):
            layer, deltas = below[0].layer, [one.pull_back() for one in below]
            gradients = [self._gradient(layer, which, halves[which], delta) for which, delta in enumerate(deltas)]
            found.insert(0, {"gradient_stability": frobenius_cosine(gradients[0], gradients[1])})
        return found

    def _pass(self, whole: Pass, which: int) -> Pass:
        samples = slice(which * self._half, (which + 1) * self._half)
        step = whole.dropout_step
        mode = Mode(
            batch_statistics=self.subject.options.mode != "eval",
            dropout_step=None if step is None else step - which * _OTHER_MASKS,
        )
        half = self.subject.network.forward(self.subject.x[:, samples], whole.targets[:, samples], mode)
        return dataclasses.replace(half, masks=self._masks(which))

    def _masks(self, which: int) -> Masks | None:
        """Those of the reference: the second half's samples lie at places of their own."""
        masks = self.subject.reference_masks
        if masks is None or not which:
            return masks
        return Masks(masks.trained, {layer: mask.roll(-self._half, 1) for layer, mask in masks.signals.items()})

    def _gradient(self, layer: int, which: int, half: Pass, delta: Tensor | None) -> Tensor:
        assert delta is not None, "BP always has a delta"
        if layer == 1 and self._condensed is not None:
            samples = slice(which * self._half, (which + 1) * self._half)
            return matmul(self._condensed[..., samples], delta)
        return self.subject.network.weight_gradient(layer, delta, half)
