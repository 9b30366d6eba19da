"""The angle of two weight gradients, a rule's and back-propagation's, by the cheapest way to it.

A fully connected layer's gradients are sums over the batch, δ̃ᵀh and δᵀh. Where there are fewer samples than units,
their inner products cost less from the samples than from the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures.angles import Directions, squares_well
from alignkit.measures.measure import LayerDeltas, Measure, OfLayer, Subject
from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.shapes import condenses
from alignkit.numerics.inner_products import products_with_images
from alignkit.numerics.kinds import Float
from alignkit.numerics.products import elementwise, matmul
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
        self._gradients = Gradients(subject.network, subject.members, subject.x, modes)

    def of_deltas(self, deltas: LayerDeltas) -> OfLayer:
        network, rule, passes = self.subject.network, self.subject.rule, deltas.passes
        if rule.has_own_gradients and (own := network.own_gradients(deltas.layer, rule, passes[0], deltas.deltas[0])):
            reference = network.weight_gradient(deltas.layer, deltas.deltas[1], passes[1])
            return of_gradients(own["weight"], reference)
        directions = (deltas.own, deltas.reference)
        return self._gradients.at(deltas.layer, deltas.deltas, passes, directions)


def of_gradients(own: Tensor, reference: Tensor) -> OfLayer:
    """What is found of two gradients [E, …], a rule's and back-propagation's: their cosine and angle, and the length of
    the latter."""
    ours, bp = Directions(own.flatten(1)), Directions(reference.flatten(1))
    cosine = ours.cosine(bp)
    return {
        "gradient_cosine": cosine,
        "gradient_angle_deg": ours.array_angle_deg(bp, cosine),
        "bp_gradient_length": bp.length,
    }


def update_angle_deg(layers: Sequence[OfLayer]) -> PerMember:
    """The angle [E] in degrees of the rule's update of all hidden layers to back-propagation's gradient, each layer's
    update scaled to the gradient's length there: with w_l the layers' shares of its square, sin² and cos² of half the
    angle are the means Σ w_l sin² and Σ w_l cos² over the layers'.

    A layer without a BP gradient has no share. NaN where the rule's is undefined in another, and where there is no BP
    gradient at all.
    """
    half = torch.deg2rad(torch.stack([found["gradient_angle_deg"] for found in layers])) / 2.0  # [layers, E]
    lengths = torch.stack([found["bp_gradient_length"] for found in layers])
    squares = (lengths / lengths.amax(0)).square()
    sine, cosine = (
        torch.where(lengths > 0, squares * elementwise(of, half).square(), 0.0).sum(0).sqrt()
        for of in (torch.sin, torch.cos)
    )
    angle = torch.rad2deg(2.0 * elementwise(torch.atan2, sine, cosine))
    return torch.where(lengths.amax(0) > 0, angle, torch.nan)


def condensed_inputs(
    network: Network, members: Sequence[Member], x: Tensor, modes: Sequence[str | None]
) -> Condensed | None:
    """Inputs of the first layer in as many coordinates as there are samples, [E, N, N] (transposed), where it sees the
    same ones each time and has more of them. With x = rᵀq and orthonormal rows of q, the gradients are δᵀx = (rδ)ᵀq:
    their inner products are those of rδ."""
    drawn_inputs = members[0].settings.network.input_dropout > 0 and "train" in modes
    if drawn_inputs or not condenses(network.layers[0], x.shape[1]):
        return None
    _, r = torch.linalg.qr(x[0].flatten(1).double().mT, mode="r")
    return r.to(x.dtype).contiguous().expand(len(x), *r.shape)


class Gradients:
    """Of networks on a fixed batch `x` [E, N, *shape]; `modes` are those that it is ever measured in."""

    def __init__(self, network: Network, members: Sequence[Member], x: Tensor, modes: Sequence[str | None]) -> None:
        self._network = network
        self._condensed_inputs = condensed_inputs(network, members, x, modes)

    def at(
        self, layer: int, deltas: tuple[Delta, Delta], passes: tuple[Pass, Pass], directions: tuple[Directions, ...]
    ) -> OfLayer:
        """What is found at hidden layer `layer` of two walks' deltas there; `directions` are theirs."""
        if layer == 1 and self._condensed_inputs is not None:
            return of_gradients(*(matmul(self._condensed_inputs, delta) for delta in deltas))
        h = passes[0].inputs[layer - 1]
        if passes[1].inputs[layer - 1] is h and self._comes_cheaper_from_samples(layer, h):
            return from_samples(h, *directions)
        return of_gradients(
            *(
                self._network.weight_gradient(layer, delta, forward_pass)
                for delta, forward_pass in zip(deltas, passes, strict=True)
            )
        )

    def _comes_cheaper_from_samples(self, layer: int, h: Tensor) -> bool:
        """A GPU would have to wait to know whether samples cancel; in float64 nothing is gained."""
        if h.is_cuda or h.dtype == torch.float64 or not self._network.layers[layer - 1].dense:
            return False
        samples, (outputs, inputs) = h.shape[1], self._network.layers[layer - 1].weight
        return samples * (inputs + 2 * outputs) < 2 * inputs * outputs


def from_samples(h: Signal, own: Directions, reference: Directions) -> OfLayer:
    """`of_gradients` of ownᵀh and referenceᵀh, of h [E, N, d'] and deltas [E, N, d] that are float32, on a CPU.

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
    found = {
        "gradient_cosine": cosines,
        "gradient_angle_deg": torch.rad2deg(elementwise(torch.acos, cosines)),
        "bp_gradient_length": squares[1].sqrt(),
    }
    if doubtful.any():
        kept = h[doubtful]
        made = of_gradients(*(matmul(delta[doubtful].mT, kept) for delta in deltas))
        for name, values in found.items():
            values[doubtful] = made[name]
    return found
