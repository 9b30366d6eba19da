"""What a layer's feedback stands for in a network as it is: the mean Jacobian of the outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures.angles import frobenius_cosine
from alignkit.measures.measure import Measure, OfLayer
from alignkit.networks.forward_pass import Pass
from alignkit.networks.network import Network
from alignkit.numerics.kinds import Float
from alignkit.numerics.products import matmul
from alignkit.rules.bp import BP

MeanJacobian = Float[Tensor, "E C _"]


class Jacobian(Measure):
    columns, needs = MEASURES["jacobian"], ("network",)

    def of_network(self, forward_pass: Pass) -> Sequence[OfLayer]:
        jacobians = mean_jacobians(self.subject.network, forward_pass, self.subject.bp)
        return [{"jacobian_cosine": self._cosine(layer, each)} for layer, each in enumerate(jacobians, start=1)]

    def _cosine(self, layer: int, jacobian: Tensor) -> Tensor:
        projection = self.subject.projection(layer)
        if projection is None or not projection.from_error:
            return self.subject.undefined
        return frobenius_cosine(projection.matrix, jacobian)


def mean_jacobians(network: Network, forward_pass: Pass, bp: BP) -> list[MeanJacobian]:
    """The mean Jacobian dy/dh_l of the batch, [E, C, d_l] for each hidden layer.

    Batch statistics are held constant: with them free, a shift of all samples together changes
    nothing above a batch norm, so that the mean Jacobian below one would be exactly zero.

    With D_l,n the derivative of sample n's stages at layer l, diagonal where they act on single units,
    the top three are W_L, W_L <D_{L-1}> W_{L-1} and W_L (<d_{L-1} d_{L-2}ᵀ> ∘ W_{L-1}) W_{L-2}, with the means
    <·> over samples and d the diagonals. Further down, and through other stages, each output's row is carried
    down for every sample.
    """
    forward_pass = network.with_fixed_statistics(forward_pass)
    depth = len(network.layers)
    found = [network.weight(depth)]
    above: Tensor | None = None
    for layer in range(depth - 1, 1, -1):  # the weight op that leads down to h_{layer - 1}
        gates = network.gates(layer, forward_pass)
        if gates is None or not network.layers[layer - 1].dense or len(found) == 3:
            break
        weight = network.weight(layer)
        if above is None:
            found.append(matmul(network.weight(depth) * gates.mean(1, keepdim=True), weight))
        else:
            both = matmul(gates.mT, above) * network.weight(layer + 1).mT  # as those weights lie in memory
            found.append(matmul(matmul(network.weight(depth) / gates.shape[1], both.mT), weight))
        above = gates
    found.reverse()
    missing = depth - 1 - len(found)
    return [*_walked(network, forward_pass, bp, missing), *found]


def _walked(network: Network, forward_pass: Pass, bp: BP, layers: int) -> list[MeanJacobian]:
    """The mean Jacobians at the first `layers` hidden layers, output by output."""
    if not layers:
        return []
    rows = []
    for output in range(network.outputs):
        one = torch.zeros_like(forward_pass.error)
        one[..., output] = 1.0
        means: list[Tensor] = []
        for below in network.backward_signals(dataclasses.replace(forward_pass, error=one, masks=None), bp):
            assert below.signal is not None, "BP always has a signal"
            if below.layer <= layers:
                means.insert(0, below.signal.mean(1))
            if below.layer == 1:
                break  # its delta, the largest, is not needed
            below.pull_back()
        rows.append(means)
    return [torch.stack(layer, 1) for layer in zip(*rows, strict=True)]
