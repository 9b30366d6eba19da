"""The cosine of two weight gradients, a rule's and back-propagation's, by the cheapest way to it.

A fully connected layer's gradients are sums over the batch, δ̃ᵀh and δᵀh. Where there are fewer samples than units,
their inner products cost less from the samples than from the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures.angles import Directions, frobenius_cosine, squares_well
from alignkit.measures.measure import LayerDeltas, Measure, OfLayer, Subject
from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.shapes import condenses
from alignkit.numerics.inner_products import products_with_images
from alignkit.numerics.kinds import Float
from alignkit.numerics.products import matmul
from alignkit.numerics.tensors import Delta, PerMember, Signal

Condensed = Float[Tensor, "E N N"]

_LEAST_SHARE = 0.05
"""The squared length of a gradient, as a share of its samples' own, below which they cancel too much."""
_NEAR = 0.99
"""Cosine beyond which the gradients themselves are taken, so that it is exact where angles are small."""


class Gradient(Measure):
    columns, needs = MEASURES["gradient"], ("deltas",)

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        modes = (subject.options.mode, subject.options.reference_mode)
        self._cosines = GradientCosines(subject.network, subject.members, subject.x, modes)

    def of_deltas(self, deltas: LayerDeltas) -> OfLayer:
        network, rule, passes = self.subject.network, self.subject.rule, deltas.passes
        if rule.has_own_gradients and (own := network.own_gradients(deltas.layer, rule, passes[0], deltas.deltas[0])):
            reference = network.weight_gradient(deltas.layer, deltas.deltas[1], passes[1])
            return {"gradient_cosine": frobenius_cosine(own["weight"], reference)}
        directions = (deltas.own, deltas.reference)
        return {"gradient_cosine": self._cosines.at(deltas.layer, deltas.deltas, passes, directions)}


class GradientCosines:
    """Of networks on a fixed batch `x` [E, N, *shape]; `modes` are those that it is ever measured in."""

    def __init__(self, network: Network, members: Sequence[Member], x: Tensor, modes: Sequence[str | None]) -> None:
        self._network, self._x = network, x
        self._drawn_inputs = members[0].settings.network.input_dropout > 0 and "train" in modes

    def at(
        self, layer: int, deltas: tuple[Delta, Delta], passes: tuple[Pass, Pass], directions: tuple[Directions, ...]
    ) -> PerMember:
        """The cosine at hidden layer `layer`, [E], of two walks' deltas there; `directions` are theirs."""
        if layer == 1 and self._condensed_inputs is not None:
            return frobenius_cosine(*(matmul(self._condensed_inputs, delta) for delta in deltas))
        h = passes[0].inputs[layer - 1]
        if passes[1].inputs[layer - 1] is h and self._comes_cheaper_from_samples(layer, h):
            return from_samples(h, *directions)
        return frobenius_cosine(
            *(
                self._network.weight_gradient(layer, delta, forward_pass)
                for delta, forward_pass in zip(deltas, passes, strict=True)
            )
        )

    @cached_property
    def _condensed_inputs(self) -> Condensed | None:
        """Inputs of the first layer in as many coordinates as there are samples, [E, N, N] (transposed), where it sees
        the same ones each time and has more of them. With x = rᵀq and orthonormal rows of q, the gradients are
        δᵀx = (rδ)ᵀq: their inner products are those of rδ."""
        if self._drawn_inputs or not condenses(self._network.layers[0], self._x.shape[1]):
            return None
        _, r = torch.linalg.qr(self._x[0].flatten(1).double().mT, mode="r")
        return r.to(self._x.dtype).contiguous().expand(len(self._x), *r.shape)

    def _comes_cheaper_from_samples(self, layer: int, h: Tensor) -> bool:
        """A GPU would have to wait to know whether samples cancel; in float64 nothing is gained."""
        if h.is_cuda or h.dtype == torch.float64 or not self._network.layers[layer - 1].dense:
            return False
        samples, (outputs, inputs) = h.shape[1], self._network.layers[layer - 1].weight
        return samples * (inputs + 2 * outputs) < 2 * inputs * outputs


def from_samples(h: Signal, own: Directions, reference: Directions) -> PerMember:
    """The cosine of ownᵀh and referenceᵀh, [E], of h [E, N, d'] and deltas [E, N, d] that are float32, on a CPU.

    With K = hhᵀ, the inner product of two gradients is the sum over samples of δ̃_n · (Kδ)_n. Rounding weighs more in it
    than in the gradients where samples cancel, where the cosine is near 1, and where float32 ends: these networks'
    gradients are made.
    """
    gram = matmul(h, h.mT)
    deltas = own.vectors, reference.vectors
    inner, *squares = products_with_images(*deltas, *(matmul(gram, delta) for delta in deltas))
    cosines = inner / (squares[0] * squares[1]).sqrt()
    norms = gram.diagonal(dim1=1, dim2=2).double()
    doubtful = (cosines.abs() > _NEAR) | ~squares_well(norms.sum(1))
    for square, delta in zip(squares, (own, reference), strict=True):
        alone = (norms * delta.length.square()).sum(1)  # sum_n |δ_n|² |h_n|²
        doubtful |= ~squares_well(square) | (square < _LEAST_SHARE * alone)
    if doubtful.any():
        kept = h[doubtful]
        cosines[doubtful] = frobenius_cosine(*(matmul(delta[doubtful].mT, kept) for delta in deltas))
    return cosines
