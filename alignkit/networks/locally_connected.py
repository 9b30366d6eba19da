"""Locally connected layers over the ensemble axis: a kernel of its own at every position of every channel.

Of a member, the weights are [out H' W', in, k, k] and the biases [out H' W'], position after position within a channel.
What each position sees is laid out with the samples last, a few rows of positions at a time, so that on a CPU it stays
in the cache between being gathered and being multiplied: to store it whole would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit.networks.weight_op import WeightOp
from alignkit.numerics.channels_last import stack_channels_last
from alignkit.numerics.kinds import Float
from alignkit.numerics.tensors import Signal

Images = Float[Tensor, "E N c H W"]
Maps = Float[Tensor, "E N c_out H_out W_out"]
Kernels = Float[Tensor, "E places c k k"]
Biases = Float[Tensor, "E places"]

CACHED_BYTES = 2**20
"""Of what positions see at a time, on a CPU: about a core's own cache."""


class LocallyConnected(WeightOp):
    """Kernels [E, out H' W', in, k, k], one for each position of each channel of images [E, N, c, H, W]."""

    def forward(self, h: Images, weight: Kernels, bias: Biases) -> Maps:
        return connect_locally(h, weight, bias, padding=self.shape.padding)  # [E, N, out, H', W']

    def transport(self, delta: Maps, weight: Kernels) -> Signal:
        return connect_locally_back(delta, weight, self.shape.input, padding=self.shape.padding).flatten(2)

    def weight_gradient(self, h: Images, delta: Maps) -> Kernels:
        return local_gradient(h, delta, self.shape.weight, padding=self.shape.padding)  # [E, out H' W', in, k, k]

    def bias_gradient(self, delta: Maps) -> Biases:
        return delta.sum(1).flatten(1)  # [E, out H' W']


def connect_locally(h: Images, weight: Kernels, bias: Biases, *, padding: int) -> Maps:
    """z [E, N, out, H', W'] of h [E, N, in, H, W]."""
    members = range(len(weight))
    each = (_connect_locally(h[e], weight[e], bias[e], padding) for e in members)
    return stack_channels_last(each, n_members=len(members))


def _connect_locally(h: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """A member's z [N, out, H', W'] of its h [N, in, H, W]."""
    windows = _windows(h, weight.shape[-1], padding)
    rows, columns = windows.shape[:2]
    kernels = _by_position(weight, rows * columns)
    z = h.new_empty(rows * columns, kernels.shape[1], len(h))  # [P, out, N]
    for block, positions in _blocks(windows):
        torch.bmm(kernels[positions], _seen(windows[block]), out=z[positions])
    z += bias.view(-1, rows * columns).t()[..., None]
    by_sample = z.flatten(0, 1).t().contiguous()
    return by_sample.view(len(h), rows, columns, -1).permute(0, 3, 1, 2)


def connect_locally_back(delta: Maps, weight: Kernels, size: Sequence[int], *, padding: int) -> Images:
    """The signal at the input, [E, N, *size], of a delta at the output [E, N, out, H', W']."""
    kernel = weight.shape[-1]
    channels, height, width = size
    signal = delta.new_empty(*delta.shape[:2], *size)
    for e in range(len(weight)):
        there = _by_position_first(delta[e])
        kernels = _by_position(weight[e], len(there)).mT  # [P, in k k, out]
        padded = delta.new_zeros(channels, height + 2 * padding, width + 2 * padding, delta.shape[1])
        windows = padded.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 4, 5, 3)  # as `_windows`
        for block, positions in _blocks(windows):
            reached = windows[block]
            handed_down = torch.bmm(kernels[positions], there[positions]).view(reached.shape)
            for y in range(kernel):  # windows overlap: one place of each at a time
                for x in range(kernel):
                    reached[:, :, :, y, x] += handed_down[:, :, :, y, x]
        inner = padded[:, padding : padding + height, padding : padding + width]
        signal[e].flatten(1).copy_(inner.flatten(0, 2).t())
    return signal


def local_gradient(h: Images, delta: Maps, shape: Sequence[int], *, padding: int) -> Kernels:
    """The gradient of the weights, [E, *shape], summed over samples."""
    gradients = h.new_empty(len(h), *shape)
    for e in range(len(h)):
        there = _by_position_first(delta[e])
        windows = _windows(h[e], shape[-1], padding)
        gradient = h.new_empty(len(there), there.shape[1], shape[1] * shape[2] * shape[3])  # [P, out, in k k]
        for block, positions in _blocks(windows):
            torch.bmm(there[positions], _seen(windows[block]).mT, out=gradient[positions])
        gradients[e].view(-1, len(there), gradient.shape[-1]).copy_(gradient.transpose(0, 1))
    return gradients


def _windows(h: Tensor, kernel: int, padding: int) -> Tensor:
    """What each position of the output sees of a member's h [N, in, H, W]: a view [H', W', in, k, k, N]."""
    padded = F.pad(_samples_last(h), (0, 0, 0, 0, padding, padding, padding, padding))
    return padded.unfold(0, kernel, 1).unfold(1, kernel, 1).permute(0, 1, 2, 4, 5, 3)


def _blocks(windows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows of positions that are worked on at a time, and which positions those are."""
    rows, columns = windows.shape[:2]
    at_a_time = rows if windows.is_cuda else max(1, CACHED_BYTES // (windows[0].numel() * windows.itemsize))
    for first in range(0, rows, at_a_time):
        last = min(first + at_a_time, rows)
        yield slice(first, last), slice(first * columns, last * columns)


def _seen(windows: Tensor) -> Tensor:
    """Windows as matrices, [P, in k k, N]."""
    return windows.reshape(windows.shape[0] * windows.shape[1], -1, windows.shape[-1])


def _by_position(weight: Tensor, positions: int) -> Tensor:
    """A member's kernels [out P, in, k, k] as [P, out, in k k]."""
    return weight.flatten(1).view(-1, positions, weight[0].numel()).transpose(0, 1)


def _by_position_first(delta: Tensor) -> Tensor:
    """A member's deltas [N, out, H', W'] as [P, out, N]."""
    return _samples_last(delta).flatten(0, 1)


def _samples_last(images: Tensor) -> Tensor:
    """A member's images [N, c, H, W] as [H, W, c, N]: where they lie channels last, a matrix turned over."""
    by_sample = images.permute(0, 2, 3, 1).reshape(len(images), -1)
    return by_sample.t().contiguous().view(*images.shape[2:], images.shape[1], -1)
