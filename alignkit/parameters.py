"""All trained parameters of a cohort in one flat tensor [E, P], and the optimisers that move it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignkit.batched import length

ALIGNMENT = 32
"""Every parameter starts at, and every member's row is, a multiple of this many elements: vectorised
loops then have no remainder, whose rounding could differ from member to member."""

Key = tuple[int, str]


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in a row: hidden layers first, from `split` on the output layer."""

    shapes: dict[Key, tuple[int, ...]]
    starts: dict[Key, int]
    split: int
    size: int

    @classmethod
    def of(cls, shapes: dict[Key, tuple[int, ...]], *, output_layer: int) -> Layout:
        starts, position, split = {}, 0, 0
        for key in sorted(shapes, key=lambda key: key[0] == output_layer):  # stable: the output layer last
            if key[0] != output_layer:
                split = position + _padded(math.prod(shapes[key]))
            starts[key] = position
            position += _padded(math.prod(shapes[key]))
        return cls(shapes, starts, split, position)

    @property
    def count(self) -> int:
        """How many parameters a member has, padding not counted."""
        return sum(math.prod(shape) for shape in self.shapes.values())


class Parameters:
    """A cohort's parameters (or gradients, or an optimiser's memory of them) and views into them."""

    def __init__(self, layout: Layout, flat: Tensor) -> None:
        self.layout, self.flat = layout, flat
        self.views = {key: self._view(key) for key in layout.shapes}

    @classmethod
    def zeros(cls, layout: Layout, *, members: int, device: torch.device, dtype: torch.dtype) -> Parameters:
        return cls(layout, torch.zeros(members, layout.size, device=device, dtype=dtype))

    def like(self) -> Parameters:
        return Parameters(self.layout, torch.zeros_like(self.flat))

    def copy(self) -> Parameters:
        return Parameters(self.layout, self.flat.clone())

    def of_layer(self, layer: int) -> dict[str, Tensor]:
        return {name: view for (owner, name), view in self.views.items() if owner == layer}

    @property
    def groups(self) -> tuple[Tensor, Tensor]:
        """The hidden layers' and the output layer's part of every row."""
        return self.flat[:, : self.layout.split], self.flat[:, self.layout.split :]

    def _view(self, key: Key) -> Tensor:
        shape, start = self.layout.shapes[key], self.layout.starts[key]
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        # Not view(): for one member that would forget the row's length, which tells how members are aligned.
        return self.flat.as_strided(
            (len(self.flat), *shape), (self.layout.size, *strides), self.flat.storage_offset() + start
        )


class SGD:
    """Gradient descent with optional heavy-ball momentum (PyTorch's convention: v ← m v + g)."""

    def __init__(self, parameters: Parameters, *, rates: tuple[Tensor, Tensor], momentum: float) -> None:
        self._parameters, self._rates, self._momentum = parameters, rates, momentum
        self._velocity = parameters.like() if momentum else None

    def step(self, gradients: Parameters) -> None:
        moving = gradients
        if self._velocity is not None:
            self._velocity.flat.mul_(self._momentum).add_(gradients.flat)
            moving = self._velocity
        for part, direction, rate in zip(self._parameters.groups, moving.groups, self._rates, strict=True):
            part.sub_(direction * rate)


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
        for part, scale in zip(gradients.groups, self._scales, strict=True):
            part.mul_(scale)
        (beta1, beta2), g = self.BETAS, gradients.flat
        self._first.flat.mul_(beta1).add_(g * (1.0 - beta1))
        self._second.flat.mul_(beta2).add_((g * g) * (1.0 - beta2))
        bias1, bias2 = 1.0 - beta1**self._steps, 1.0 - beta2**self._steps
        moments = zip(self._first.groups, self._second.groups, strict=True)
        for part, (first, second), rate in zip(self._parameters.groups, moments, self._rates, strict=True):
            part.sub_(rate * ((first / bias1) / (torch.sqrt(second / bias2) + self.EPSILON)))


def match_norms(gradients: Parameters, reference: Parameters) -> None:
    """Give every parameter's gradient the length of the reference's, in place; zero stays zero."""
    for key, gradient in gradients.views.items():
        own = length(gradient.flatten(1))
        wanted = length(reference.views[key].flatten(1))
        factor = torch.where(own > 0, wanted / own, torch.zeros_like(own))
        gradient *= factor.view(-1, *(1 for _ in gradient.shape[1:]))


def per_member(values: Sequence[float], like: Tensor) -> Tensor:
    """One number a member, as [E, 1]."""
    return torch.tensor(list(values), dtype=like.dtype, device=like.device)[:, None]


def _padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
