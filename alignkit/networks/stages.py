"""The stages of a layer: normalisation, activation, dropout, pooling.

Each stage maps forward and pulls a signal back, where it `may_overwrite` that in its memory, by hand-written
derivatives (checked against autograd in the tests), over tensors with a leading ensemble axis: [E, N, d] after a fully
connected op, [E, N, c, H, W] after a convolution. Only operations whose result for one member cannot depend on the
others are used; that excludes `torch.sigmoid`, `gelu` and fused multiply-adds, whose vectorised and scalar code paths
round differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit.numerics import streams
from alignkit.numerics.channels_last import channels_last
from alignkit.numerics.kinds import Float, Int
from alignkit.numerics.products import constant, elementwise, in_whole_vectors
from alignkit.numerics.tensors import PerMember

Values = Float[Tensor, "E N *d"]
"""What a stage maps: [E, N, d] after a fully connected op, [E, N, c, H, W] after a convolution."""
Images = Float[Tensor, "E N c H W"]
Pooled = Float[Tensor, "E N c H_out W_out"]
PerUnit = Float[Tensor, "E d"]
Elements = Float[Tensor, "E count"]
Seeds = Int[Tensor, "E"]

NORM_EPSILON = 1e-5
RUNNING_MOMENTUM = 0.1
MOST_STEPS_AHEAD, ELEMENTS_AHEAD = 8, 2**17
"""How many steps' masks, and elements of them, a dropout layer makes at once."""


@dataclass(frozen=True)
class Mode:
    """How a forward pass treats normalisation and dropout.

    `dropout_step` is the counter of the masks (a number, or a tensor of one on the device), None for dropout
    off. `update_running` lets batch norm learn its running statistics from this pass. `phase` is "training" in a
    step of training alone, whose number is `step` (from 1): from every other pass nobody learns.
    """

    batch_statistics: bool
    dropout_step: int | Tensor | None = None
    update_running: bool = False
    phase: Literal["training", "probing"] = "probing"
    step: int | Tensor = 0


def training_mode(step: int | Tensor) -> Mode:
    return Mode(batch_statistics=True, dropout_step=step, update_running=True, phase="training", step=step)


EVALUATION = Mode(batch_statistics=False)


@dataclass(frozen=True)
class ActivationFunction:
    """An activation of the pre-activation z and a signal pulled back through it, given the slopes [E] of the members.

    The derivative is worked out from `value`, which may then take the memory of z; or from z itself, where
    `needs_input`. `pull_back_in_place`, where there is one, leaves the result in the signal's memory.
    """

    value: Callable[[Tensor, Tensor], Tensor]  # of z and the slopes
    pull_back: Callable[[Tensor, Tensor, Tensor], Tensor]  # of the signal, the value (or z) and the slopes
    needs_input: bool = False
    pull_back_in_place: Callable[[Tensor, Tensor], Tensor] | None = None  # of the signal and the value


def _sigmoid(z: Tensor) -> Tensor:
    return 0.5 + 0.5 * _tanh(0.5 * z)


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.erf(z * math.sqrt(0.5))


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * (z * z)) * (1.0 / math.sqrt(2.0 * math.pi))


def _where_positive(signal: Tensor, value: Tensor) -> Tensor:
    """signal where the value > 0, else 0."""
    return torch.ops.aten.threshold_backward(signal, value, 0.0)


def _leaky(z: Tensor, slopes: Tensor) -> Tensor:
    return torch.maximum(z, z * _per_member(slopes, z), out=z)  # slopes lie in [0, 1]


def _leaky_pull_back(signal: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
    above = _where_positive(signal, value)
    below = (signal - above).mul_(_per_member(slopes, signal))
    return below.add_(above)


def _tanh(z: Tensor) -> Tensor:
    """tanh in the memory of z. On a CPU numpy's, within two units in the last place like torch's: that one costs six
    times as much, as a third of a small network's step."""
    if z.is_cuda or z.requires_grad:
        return z.tanh_()
    values = z.numpy()
    with np.errstate(all="ignore"):  # what is not finite is watched for elsewhere
        np.tanh(values, out=values)
    return z


ACTIVATIONS = {
    "tanh": ActivationFunction(
        lambda z, a: _tanh(z),
        lambda t, h, a: elementwise(torch.ops.aten.tanh_backward, t, h),
        pull_back_in_place=lambda t, h: torch.ops.aten.tanh_backward.grad_input(t, h, grad_input=t),
    ),
    "relu": ActivationFunction(
        lambda z, a: z.relu_(),
        lambda t, h, a: _where_positive(t, h),
        pull_back_in_place=lambda t, h: torch.ops.aten.threshold_backward.grad_input(t, h, 0.0, grad_input=t),
    ),
    "leaky_relu": ActivationFunction(_leaky, _leaky_pull_back),
    "sigmoid": ActivationFunction(lambda z, a: _sigmoid(z), lambda t, h, a: t * (h * (1.0 - h))),
    "gelu": ActivationFunction(
        lambda z, a: z * _normal_cdf(z),
        lambda t, z, a: t * (_normal_cdf(z) + z * _normal_density(z)),
        needs_input=True,
    ),
    # erf(z / sqrt 2), the activation of solvable teacher-student models (Saad and Solla 1995)
    "erf": ActivationFunction(
        lambda z, a: torch.erf(z * math.sqrt(0.5)), lambda t, z, a: t * (2.0 * _normal_density(z)), needs_input=True
    ),
    "linear": ActivationFunction(lambda z, a: z, lambda t, h, a: t),
}


class Activation:
    """An elementwise activation; `slopes` [E] belong to leaky ReLU alone."""

    def __init__(self, name: str, slopes: PerMember) -> None:
        self._function = ACTIVATIONS[name]
        self._slopes = slopes

    def forward(self, x: Values, mode: Mode) -> tuple[Values, Any]:
        """May work in the memory of `x`: nothing else needs what a weight op or another stage has just made."""
        value = self._function.value(x, self._slopes)
        return value, x if self._function.needs_input else value

    def pull_back(
        self, signal: Values, cache: Any, gradients: dict[str, Tensor] | None, *, may_overwrite: bool = False
    ) -> Values:
        overwriting = self._function.pull_back_in_place
        if may_overwrite and overwriting is not None and in_whole_vectors(signal, cache):
            return overwriting(signal, cache)
        return self._function.pull_back(signal, cache, self._slopes)


class _Normalised(NamedTuple):
    """What a norm leaves for the way back: its input less the mean, and what that was multiplied by. `scale` has the
    gain in it, and is None for layer norm, whose gain is another axis's."""

    centred: Tensor
    inverse_sd: Tensor
    scale: Tensor | None
    own_statistics: bool


class Norm:
    """Batch norm (statistics over samples, and positions of a channel) or layer norm (over the units of
    a sample), with a gain and a shift per unit or channel, [E, d].

    `positions` counts the axes that follow the units': 2 after a convolution. What `comes_first` in a layer may
    work in the memory of its input.
    """

    def __init__(self, kind: str, gain: PerUnit, shift: PerUnit, *, positions: int, comes_first: bool = False) -> None:
        self._kind, self._comes_first = kind, comes_first
        self.gain, self.shift = gain, shift
        self.running_mean = torch.zeros_like(gain)
        self.running_variance = torch.ones_like(gain)
        after = tuple(range(3, 3 + positions))
        self._axes = (2, *after) if kind == "layer" else (1, *after)
        self._over_samples = (1, *after)
        # views of the parameters and of the running statistics, aligned with [E, N, d, …]
        aligned = (len(gain), 1, gain.shape[1], *(1 for _ in after))
        self._gain, self._shift = gain.view(aligned), shift.view(aligned)
        self._running_mean, self._running_variance = (
            running.view(aligned) for running in (self.running_mean, self.running_variance)
        )

    def forward(self, x: Values, mode: Mode) -> tuple[Values, Any]:
        own_statistics = self._kind == "layer" or mode.batch_statistics
        mean = _mean(x, self._axes) if own_statistics else self._running_mean
        centred = x.sub_(mean) if self._comes_first else x - mean
        variance, value = self._running_variance, torch.empty_like(centred)
        if own_statistics:
            variance = _mean(torch.mul(centred, centred, out=value), self._axes)
            if self._kind == "batch" and mode.update_running:
                self._learn_statistics(mean, variance, count=x.numel() // mean.numel())
        inverse_sd = torch.rsqrt(variance + constant(NORM_EPSILON, variance))
        if self._kind == "layer":
            torch.mul(centred, inverse_sd, out=value).mul_(self._gain)
            scale = None
        else:
            scale = inverse_sd * self._gain  # which samples share
            torch.mul(centred, scale, out=value)
        value += self._shift
        return value, _Normalised(centred, inverse_sd, scale, own_statistics)

    def pull_back(
        self, signal: Values, cache: _Normalised, gradients: dict[str, Tensor] | None, *, may_overwrite: bool = False
    ) -> Values:
        """With u the normalised input and s the signal times the gain, (s - mean s - u mean(s u)) / sd; the
        means are over what shares its statistics, and absent where those are constants."""
        centred, inverse_sd, scale = cache.centred, cache.inverse_sd, cache.scale
        if scale is None:
            return self._pull_back_layer(signal, centred * inverse_sd, inverse_sd, gradients)
        if not cache.own_statistics and gradients is None:
            return signal * scale
        shift, gain = (None if gradients is None else gradients[name].view_as(scale) for name in ("shift", "gain"))
        along = signal * centred
        of_shift = torch.sum(signal, self._axes, keepdim=True, out=shift)
        of_gain = torch.mul(along.sum(self._axes, keepdim=True), inverse_sd, out=gain)
        if not cache.own_statistics:
            return signal * scale
        # the formula with the gain and one sd gathered in `scale`
        count = constant(signal.numel() // scale.numel(), signal)
        torch.mul(centred, of_gain * inverse_sd / count, out=along)
        along += of_shift / count
        return torch.sub(signal, along, out=along).mul_(scale)

    def _pull_back_layer(
        self, signal: Values, normalised: Values, inverse_sd: Tensor, gradients: dict[str, Tensor] | None
    ) -> Values:
        if gradients is not None:
            gradients["gain"].copy_((signal * normalised).sum(self._over_samples))
            gradients["shift"].copy_(signal.sum(self._over_samples))
        inner = signal * self._gain
        return (inner - _mean(inner, self._axes) - normalised * _mean(inner * normalised, self._axes)) * inverse_sd

    def is_elementwise(self, cache: _Normalised) -> bool:
        """Whether a pass treated every unit of every sample by itself: its statistics were constants."""
        return not cache.own_statistics

    def fixed(self, cache: _Normalised) -> _Normalised:
        """The cache of a pass in which the statistics are constants; layer norm has no batch statistics."""
        return cache._replace(own_statistics=cache.own_statistics and self._kind == "layer")

    def _learn_statistics(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        share, unbiased = RUNNING_MOMENTUM, RUNNING_MOMENTUM * count / max(count - 1, 1)
        kept = constant(1.0 - share, mean)
        self._running_mean.mul_(kept).add_(mean * constant(share, mean))
        self._running_variance.mul_(kept).add_(variance * constant(unbiased, variance))


class Dropout:
    """Inverted dropout; whole channels after a convolution (and on images given to one).

    `rates` holds each member's rate. Members compare the same uniforms with their own rates.
    """

    def __init__(self, rates: list[float], seeds: Seeds, *, layer: int, dtype: torch.dtype) -> None:
        self._uniforms = streams.DropoutUniforms(seeds, layer=layer)
        dropped = [streams.last_dropped(rate) for rate in rates]
        kept = [(32767 - last) / 65536 for last in dropped]
        self._dropped = torch.tensor(dropped, dtype=torch.int32, device=seeds.device)[:, None]
        self._scales = torch.tensor([1.0 / k for k in kept], dtype=dtype, device=seeds.device)[:, None]
        self._ahead: dict[int, tuple[int, Tensor]] = {}
        """By elements a member (of a batch, of the probe): a step, and the masks from it on."""

    def forward(self, x: Values, mode: Mode) -> tuple[Values, Any]:
        if mode.dropout_step is None:
            return x, None
        mask = self._mask(mode.dropout_step, x.shape[1] * x.shape[2]).view(*x.shape[:3], *(1 for _ in x.shape[3:]))
        return x * mask, mask

    def _mask(self, step: int | Tensor, count: int) -> Elements:
        """The mask of a step, `count` elements a member: [E, count]. Where it is small, those of a few steps are made
        at once: the calls cost as much as the arithmetic."""
        if isinstance(step, Tensor):
            return self._masks(step, count, 1)[0]
        steps = 1
        while steps < MOST_STEPS_AHEAD and 2 * steps * len(self._scales) * count <= ELEMENTS_AHEAD:
            steps *= 2
        first = step - step % steps
        known = self._ahead.get(count)
        if known is None or known[0] != first:
            known = self._ahead[count] = (first, self._masks(first, count, steps))
        return known[1][step - first]

    def _masks(self, step: int | Tensor, count: int, steps: int) -> Tensor:
        uniforms = self._uniforms.draw(step=step, count=count, steps=steps)
        return streams.dropout_mask(uniforms, last_dropped=self._dropped, scales=self._scales)

    def pull_back(
        self, signal: Values, cache: Any, gradients: dict[str, Tensor] | None, *, may_overwrite: bool = False
    ) -> Values:
        if cache is None:
            return signal
        return signal.mul_(cache) if may_overwrite else signal * cache


class MaxPool:
    """Max pooling of [E, N, c, H, W] over windows of `size`, `stride` apart."""

    def __init__(self, size: int, stride: int) -> None:
        self._size, self._stride = size, stride

    def forward(self, x: Images, mode: Mode) -> tuple[Pooled, Any]:
        images = channels_last(x.flatten(0, 1))
        value, indices = F.max_pool2d(images, self._size, self._stride, return_indices=True)
        return value.view(*x.shape[:2], *value.shape[1:]), (images, indices)

    def pull_back(
        self, signal: Pooled, cache: Any, gradients: dict[str, Tensor] | None, *, may_overwrite: bool = False
    ) -> Images:
        images, indices = cache
        size, stride, padding, dilation = [self._size] * 2, [self._stride] * 2, [0, 0], [1, 1]
        back = torch.ops.aten.max_pool2d_with_indices_backward(
            channels_last(signal.flatten(0, 1)), images, size, stride, padding, dilation, False, indices
        )
        return back.view(*signal.shape[:2], *images.shape[1:])


Stages = list[Activation | Norm | Dropout | MaxPool]


def _mean(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean over axes that stay, of length 1. A third of what `Tensor.mean` takes."""
    total = values.sum(axes, keepdim=True)
    return total.div_(constant(values.numel() // total.numel(), total))


def _per_member(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[1:]))
