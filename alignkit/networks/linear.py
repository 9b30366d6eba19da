"""Fully connected layers over the ensemble axis: z = h Wᵀ + b, one batched product for all members."""

from __future__ import annotations

from torch import Tensor

from alignkit.networks.weight_op import WeightOp
from alignkit.numerics.kinds import Float
from alignkit.numerics.products import matmul, matmul_into, subtract_product
from alignkit.numerics.tensors import Signal, Weight

Below = Float[Tensor, "E N in"]
Above = Float[Tensor, "E N out"]
Biases = Float[Tensor, "E out"]


class Linear(WeightOp):
    """The weights [E, out, in] lie in memory as [in, out]: products h Wᵀ are then up to a third faster, and those that
    descend no slower."""

    def forward(self, h: Below, weight: Weight, bias: Biases) -> Above:
        return matmul(h, weight.transpose(1, 2), bias=bias[:, None])  # [E, N, in] @ [E, in, out]

    def transport(self, delta: Above, weight: Weight) -> Signal:
        return matmul(delta, weight)  # [E, N, out] @ [E, out, in]

    def weight_gradient(self, h: Below, delta: Above) -> Weight:
        return matmul(delta.transpose(1, 2), h)  # [E, out, N] @ [E, N, in]

    def write_gradient(self, out: Weight, h: Below, delta: Above) -> None:
        matmul_into(out.transpose(1, 2), h.transpose(1, 2), delta)  # as it lies: [E, in, N] @ [E, N, out]

    def subtract_gradient(self, weight: Weight, h: Below, delta: Above) -> None:
        subtract_product(weight.transpose(1, 2), h.transpose(1, 2), delta)


class OutputLinear(Linear):
    """The output layer: few outputs. Its weights lie as [out, in] and samples come last, which makes products and the
    softmax twice as fast."""

    def forward(self, h: Below, weight: Weight, bias: Biases) -> Above:
        return matmul(weight, h.mT, bias=bias[..., None]).mT  # [E, C, in] @ [E, in, N]

    def write_gradient(self, out: Weight, h: Below, delta: Above) -> None:
        matmul_into(out, delta.transpose(1, 2), h)  # [E, C, N] @ [E, N, in]

    def subtract_gradient(self, weight: Weight, h: Below, delta: Above) -> None:
        subtract_product(weight, delta.transpose(1, 2), h)
