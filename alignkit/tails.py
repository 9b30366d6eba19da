"""The stages of a layer's tail: normalisation, activation, dropout, pooling.

Each stage maps forward and pulls a signal back by hand-written derivatives (checked against autograd
in the tests), over tensors with a leading ensemble axis: [E, N, d] after a fully connected op,
[E, N, c, H, W] after a convolution. Only operations whose result for one member cannot depend on the
others are used; that excludes `torch.sigmoid`, `gelu` and fused multiply-adds, whose vectorised and
scalar code paths round differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit import streams

NORM_EPSILON = 1e-5
RUNNING_MOMENTUM = 0.1


@dataclass(frozen=True)
class Mode:
    """How a forward pass treats normalisation and dropout.

    `dropout_step` is the counter of the masks, None for dropout off. `update_running` lets batch norm
    learn its running statistics from this pass.
    """

    batch_statistics: bool
    dropout_step: int | None = None
    update_running: bool = False


def training_mode(step: int) -> Mode:
    return Mode(batch_statistics=True, dropout_step=step, update_running=True)


EVALUATION = Mode(batch_statistics=False)


@dataclass(frozen=True)
class ActivationFunction:
    """An activation and its derivative; both take the pre-activation z and the slope."""

    value: Callable[[Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor, Tensor], Tensor]  # of z, the value at z, and the slope


def _sigmoid(z: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.tanh(0.5 * z)


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.erf(z * math.sqrt(0.5))


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * (z * z)) * (1.0 / math.sqrt(2.0 * math.pi))


ACTIVATIONS = {
    "tanh": ActivationFunction(lambda z, a: torch.tanh(z), lambda z, h, a: 1.0 - h * h),
    "relu": ActivationFunction(lambda z, a: torch.relu(z), lambda z, h, a: (z > 0).to(z.dtype)),
    "leaky_relu": ActivationFunction(
        lambda z, a: torch.where(z > 0, z, z * a), lambda z, h, a: torch.where(z > 0, torch.ones_like(z), a)
    ),
    "sigmoid": ActivationFunction(lambda z, a: _sigmoid(z), lambda z, h, a: h * (1.0 - h)),
    "gelu": ActivationFunction(
        lambda z, a: z * _normal_cdf(z), lambda z, h, a: _normal_cdf(z) + z * _normal_density(z)
    ),
    # erf(z / sqrt 2), the activation of solvable teacher-student models (Saad and Solla 1995)
    "erf": ActivationFunction(lambda z, a: torch.erf(z * math.sqrt(0.5)), lambda z, h, a: 2.0 * _normal_density(z)),
    "linear": ActivationFunction(lambda z, a: z, lambda z, h, a: torch.ones_like(z)),
}


class Activation:
    """An elementwise activation; `slope` [E] belongs to leaky ReLU alone."""

    def __init__(self, name: str, slope: Tensor) -> None:
        self._function = ACTIVATIONS[name]
        self._linear = name == "linear"
        self._slope = slope

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        if self._linear:
            return x, None
        slope = _per_member(self._slope, x)
        value = self._function.value(x, slope)
        return value, (x, value, slope)

    def pull_back(self, signal: Tensor, cache: Any, gradients: dict[str, Tensor] | None) -> Tensor:
        return signal if self._linear else signal * self._function.derivative(*cache)


class Norm:
    """Batch norm (statistics over samples, and positions of a channel) or layer norm (over the units of
    a sample), with a gain and a shift per unit or channel, [E, d]."""

    def __init__(self, kind: str, gain: Tensor, shift: Tensor) -> None:
        self._kind = kind
        self.gain, self.shift = gain, shift
        self.running_mean = torch.zeros_like(gain)
        self.running_variance = torch.ones_like(gain)

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        own_statistics = self._kind == "layer" or mode.batch_statistics
        axes = self._axes(x)
        if own_statistics:
            mean = x.mean(axes, keepdim=True)
            centred = x - mean
            variance = (centred * centred).mean(axes, keepdim=True)
            if self._kind == "batch" and mode.update_running:
                self._learn_statistics(mean, variance, count=x.numel() // mean.numel())
        else:
            centred = x - _per_unit(self.running_mean, x)
            variance = _per_unit(self.running_variance, x)
        inverse_sd = 1.0 / torch.sqrt(variance + NORM_EPSILON)
        normalised = centred * inverse_sd
        value = normalised * _per_unit(self.gain, x) + _per_unit(self.shift, x)
        return value, (normalised, inverse_sd, own_statistics)

    def pull_back(self, signal: Tensor, cache: Any, gradients: dict[str, Tensor] | None) -> Tensor:
        normalised, inverse_sd, own_statistics = cache
        if gradients is not None:
            others = tuple(axis for axis in range(1, signal.dim()) if axis != 2)
            gradients["gain"].copy_((signal * normalised).sum(others))
            gradients["shift"].copy_(signal.sum(others))
        inner = signal * _per_unit(self.gain, signal)
        if own_statistics:
            axes = self._axes(signal)
            inner = inner - inner.mean(axes, keepdim=True) - normalised * (inner * normalised).mean(axes, keepdim=True)
        return inner * inverse_sd

    def fixed(self, cache: Any) -> Any:
        """The cache of a pass in which the statistics are constants; layer norm has no batch statistics."""
        normalised, inverse_sd, own_statistics = cache
        return normalised, inverse_sd, own_statistics and self._kind == "layer"

    def _axes(self, x: Tensor) -> tuple[int, ...]:
        if self._kind == "layer":
            return tuple(range(2, x.dim()))
        return (1, *range(3, x.dim()))

    def _learn_statistics(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        unbiased = variance * (count / max(count - 1, 1))
        for running, batch in ((self.running_mean, mean), (self.running_variance, unbiased)):
            running.mul_(1.0 - RUNNING_MOMENTUM)
            running += batch.view_as(running) * RUNNING_MOMENTUM


class Dropout:
    """Inverted dropout; whole channels after a convolution (and on images given to one).

    `rates` holds each member's rate. Members compare the same uniforms with their own rates.
    """

    def __init__(self, rates: list[float], seeds: Tensor, *, layer: int, dtype: torch.dtype) -> None:
        self._seeds, self._layer = seeds, layer
        thresholds = [streams.keep_threshold(rate) for rate in rates]
        kept = [(32768 - threshold) / 65536 for threshold in thresholds]
        self._thresholds = torch.tensor(thresholds, dtype=torch.int16, device=seeds.device)[:, None]
        self._scales = torch.tensor([1.0 / k for k in kept], dtype=dtype, device=seeds.device)[:, None]

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        if mode.dropout_step is None:
            return x, None
        shape = (*x.shape[:3], *(1 for _ in x.shape[3:]))
        count = math.prod(shape[1:])
        uniforms = streams.dropout_uniforms(self._seeds, layer=self._layer, step=mode.dropout_step, count=count)
        mask = ((uniforms >= self._thresholds) * self._scales).view(shape)
        return x * mask, mask

    def pull_back(self, signal: Tensor, cache: Any, gradients: dict[str, Tensor] | None) -> Tensor:
        return signal if cache is None else signal * cache


class MaxPool:
    """Max pooling of [E, N, c, H, W] over windows of `size`, `stride` apart."""

    def __init__(self, size: int, stride: int) -> None:
        self._size, self._stride = size, stride

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        images = x.flatten(0, 1)
        value, indices = F.max_pool2d(images, self._size, self._stride, return_indices=True)
        return value.view(*x.shape[:2], *value.shape[1:]), (images, indices)

    def pull_back(self, signal: Tensor, cache: Any, gradients: dict[str, Tensor] | None) -> Tensor:
        images, indices = cache
        back = torch.ops.aten.max_pool2d_with_indices_backward(
            signal.flatten(0, 1), images, [self._size] * 2, [self._stride] * 2, [0, 0], [1, 1], False, indices
        )
        return back.view(*signal.shape[:2], *images.shape[1:])


Tail = list[Activation | Norm | Dropout | MaxPool]


def _per_member(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[1:]))


def _per_unit(values: Tensor, like: Tensor) -> Tensor:
    """[E, d] aligned with [E, N, d] or [E, N, d, H, W]."""
    return values.view(values.shape[0], 1, values.shape[1], *(1 for _ in like.shape[3:]))
