"""Convolutions over the ensemble axis: member e of [E, N, c, H, W] has the kernel e of [E, out, in, k, k].

On a CPU a loop over members is as fast as a grouped convolution, and keeps members independent to the bit; what it
makes lies channels last in memory. On a GPU one grouped call fills the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from alignkit.networks.weight_op import WeightOp
from alignkit.numerics.channels_last import channels_last, stack_channels_last
from alignkit.numerics.kinds import Float
from alignkit.numerics.tensors import Signal

Images = Float[Tensor, "E N c H W"]
Maps = Float[Tensor, "E N c_out H_out W_out"]
Kernels = Float[Tensor, "E c_out c k k"]
Biases = Float[Tensor, "E c_out"]


class Convolution(WeightOp):
    """Kernels [E, out, in, k, k] shared by all positions of images [E, N, c, H, W]."""

    def forward(self, h: Images, weight: Kernels, bias: Biases) -> Maps:
        return convolve(h, weight, bias, padding=self.shape.padding)  # [E, N, out, H', W']

    def transport(self, delta: Maps, weight: Kernels) -> Signal:
        return convolve_back(delta, weight, padding=self.shape.padding).flatten(2)  # [E, N, in H W]

    def weight_gradient(self, h: Images, delta: Maps) -> Kernels:
        return kernel_gradient(h, delta, self.shape.weight, padding=self.shape.padding)  # [E, out, in, k, k]


def convolve(h: Images, weight: Kernels, bias: Biases, *, padding: int) -> Maps:
    """z [E, N, out, H', W']."""
    if _in_groups(h):
        merged = F.conv2d(_merge(h), weight.flatten(0, 1), bias.flatten(), padding=padding, groups=len(weight))
        return _split(merged, len(weight))
    members = range(len(weight))
    each = (F.conv2d(channels_last(h[e]), weight[e], bias[e], padding=padding) for e in members)
    return stack_channels_last(each, n_members=len(members))


def convolve_back(delta: Maps, weight: Kernels, *, padding: int) -> Images:
    """The signal at the input, [E, N, in, H, W], of a delta at the output."""
    if _in_groups(delta):
        merged = F.conv_transpose2d(_merge(delta), weight.flatten(0, 1), padding=padding, groups=len(weight))
        return _split(merged, len(weight))
    members = range(len(weight))
    each = (F.conv_transpose2d(channels_last(delta[e]), weight[e], padding=padding) for e in members)
    return stack_channels_last(each, n_members=len(members))


def kernel_gradient(h: Images, delta: Maps, shape: Sequence[int], *, padding: int) -> Kernels:
    """The gradient of the kernels, [E, *shape], summed over samples and positions."""
    n_members = len(h)
    if _in_groups(h):
        merged_shape = [n_members * shape[0], *shape[1:]]
        merged = conv2d_weight(_merge(h), merged_shape, _merge(delta), padding=padding, groups=n_members)
        return merged.view(n_members, *shape)
    pairs = [(channels_last(h[e]), channels_last(delta[e])) for e in range(n_members)]
    return torch.stack([conv2d_weight(images, list(shape), there, padding=padding) for images, there in pairs])


def _in_groups(x: Tensor) -> bool:
    return x.is_cuda


def _merge(x: Tensor) -> Tensor:
    """[E, N, c, H, W] as grouped convolutions want it: [N, E c, H, W]."""
    return x.transpose(0, 1).flatten(1, 2)


def _split(x: Tensor, n_members: int) -> Tensor:
    return x.view(x.shape[0], n_members, -1, *x.shape[2:]).transpose(0, 1).contiguous()
