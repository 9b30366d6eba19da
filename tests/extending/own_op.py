"""A weight op that is no part of the package: what a user would write beside a study."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alignkit.networks.weight_op import WeightOp


class Shifted(WeightOp):
    """z = w_1 ∘ h + w_2 ∘ roll(h, 1) + b on the first d units of h: two weights a unit, in the place of a matrix."""

    layer_name = "shifted"

    @classmethod
    def weight_shape(cls, inputs: int, outputs: int) -> tuple[int, ...]:
        return (2, outputs)

    @classmethod
    def from_dense(cls, values: np.ndarray) -> np.ndarray:
        return np.stack([values[:, 0] + 1.0, values[:, 1]])

    def forward(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        h = h[..., : self.shape.size]
        return h * weight[:, :1] + h.roll(1, -1) * weight[:, 1:] + bias[:, None]  # [E, N, d]

    def transport(self, delta: Tensor, weight: Tensor) -> Tensor:
        signal = delta * weight[:, :1] + (delta * weight[:, 1:]).roll(-1, -1)
        unseen = int(np.prod(self.shape.input)) - self.shape.size
        return torch.nn.functional.pad(signal, (0, unseen))  # [E, N, d_{l-1}]

    def weight_gradient(self, h: Tensor, delta: Tensor) -> Tensor:
        h = h[..., : self.shape.size]
        return torch.stack([(delta * h).sum(1), (delta * h.roll(1, -1)).sum(1)], 1)  # [E, 2, d]


class Turned(Shifted):
    """One that is wrong."""

    def forward(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return super().forward(h, weight, bias).mT
