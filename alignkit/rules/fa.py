"""Feedback alignment (Lillicrap et al. 2016): BP with fixed random matrices on the way back."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.numerics.tensors import Delta, Signal, Weight
from alignkit.rules.base import Rule, TaughtNetwork
from alignkit.rules.feedback import Projection, fa_matrix, stack


class FA(Rule):
    """t_l = delta_{l+1} B_{l+1}, with B_{l+1} of the shape of W_{l+1}: `matrices[l - 1]`, [E, …]."""

    linear_in_error = True
    makes_its_signals = True

    def __init__(self, network: TaughtNetwork, members: Sequence[Member]) -> None:
        super().__init__(network, members)
        self.matrices = [self._draw(layer, 0) for layer in range(1, len(network.hidden_sizes) + 1)]

    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None) -> Signal | None:
        return self._through(self.matrices[layer - 1], layer, delta_above)

    def projection(self, layer: int) -> Projection | None:
        matrix = self.matrices[layer - 1]
        if not self.network.layers[layer].dense:
            return None  # a convolution's kernel, say: no single matrix maps delta to signal
        return Projection(matrix, from_error=layer == len(self.matrices))

    def redrawn_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None, *, draw: int) -> Signal | None:
        return self._through(self._draw(layer, draw), layer, delta_above)

    def _through(self, matrix: Weight, layer: int, delta_above: Delta | None) -> Signal | None:
        return None if delta_above is None else self.network.transport(layer + 1, delta_above, weight=matrix)

    def _draw(self, layer: int, draw: int) -> Weight:
        shape = tuple(self.network.weight(layer + 1).shape[1:])
        matrices = [
            fa_matrix(m.settings.feedback, shape=shape, layer=layer + 1, seed=m.seed_of("feedback"), step=draw)
            for m in self.members
        ]
        return stack(matrices, like=self.network.like)
