"""Optimisers: what moves the parameters along the gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.networks.parameters import Parameters
from alignkit.numerics.inner_products import length


class SGD:
    """Gradient descent with optional heavy-ball momentum (PyTorch's convention: v ← m v + g). `rates` are the
    hidden layers' and the output layer's, each [E, 1]."""

    def __init__(self, parameters: Parameters, *, rates: tuple[Tensor, Tensor], momentum: float) -> None:
        self._parameters, self._rates, self._momentum = parameters, rates, momentum
        self._velocity = parameters.like() if momentum else None

    def step(self, gradients: Parameters) -> None:
        moving = gradients
        if self._velocity is not None:
            self._velocity.storage.mul_(self._momentum).add_(gradients.storage)
            moving = self._velocity
        _descend(self._parameters, moving, self._rates)


class Adam:
    """Adam (Kingma and Ba 2015) with its usual constants. `scales` are applied to the gradients of the
    hidden and the output layers first (1/N turns a sum over the batch into a mean)."""

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(
        self, parameters: Parameters, *, rates: tuple[Tensor, Tensor], scales: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        self._parameters, self._rates, self._scales = parameters, rates, scales
        self._first, self._second, self._steps = parameters.like(), parameters.like(), 0

    def step(self, gradients: Parameters) -> None:
        self._steps += 1
        for key, block in gradients.blocks.items():
            block.mul_(self._scales[gradients.layout.of_output(key)])
        (beta1, beta2), g = self.BETAS, gradients.storage
        self._first.storage.mul_(beta1).add_(g * (1.0 - beta1))
        self._second.storage.mul_(beta2).add_((g * g) * (1.0 - beta2))
        bias1, bias2 = 1.0 - beta1**self._steps, 1.0 - beta2**self._steps
        moved = (self._first.storage / bias1) / (torch.sqrt(self._second.storage / bias2) + self.EPSILON)
        _descend(self._parameters, Parameters(gradients.layout, moved), self._rates)


def _descend(parameters: Parameters, directions: Parameters, rates: tuple[Tensor, Tensor]) -> None:
    for key, block in parameters.blocks.items():
        block.sub_(directions.blocks[key] * rates[parameters.layout.of_output(key)])


def match_norms(gradients: Parameters, reference: Parameters) -> None:
    """Give every parameter's gradient the length of the reference's, in place; zero stays zero."""
    for key, gradient in gradients.blocks.items():
        own, wanted = length(gradient), length(reference.blocks[key])
        factor = torch.where(own > 0, wanted / own, torch.zeros_like(own))
        gradient *= factor.to(gradient.dtype)[:, None]
