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

CACHED_BYTES = 2**20
"""Of what positions see at a time, on a CPU: about a core's own cache."""


def connect_locally(h: Tensor, weight: Tensor, bias: Tensor, *, padding: int) -> Tensor:
    """z [E, N, out, H', W'] of h [E, N, in, H, W]."""
    found = []
    for e in range(len(weight)):
        windows = _windows(h[e], weight.shape[-1], padding)
        rows, columns = windows.shape[:2]
        kernels = _by_position(weight[e], rows * columns)
        z = h.new_empty(rows * columns, kernels.shape[1], h.shape[1])  # [P, out, N]
        for block, positions in _blocks(windows):
            torch.bmm(kernels[positions], _seen(windows[block]), out=z[positions])
        z = z.permute(2, 1, 0) + bias[e].view(-1, rows * columns)
        found.append(z.view(*z.shape[:2], rows, columns))
    return torch.stack(found)


def connect_locally_back(delta: Tensor, weight: Tensor, size: Sequence[int], *, padding: int) -> Tensor:
    """The signal at the input, [E, N, *size], of a delta at the output [E, N, out, H', W']."""
    kernel = weight.shape[-1]
    found = []
    for e in range(len(weight)):
        there = _by_position_first(delta[e])
        kernels = _by_position(weight[e], len(there)).mT  # [P, in k k, out]
        channels, height, width = size
        padded = delta.new_zeros(channels, height + 2 * padding, width + 2 * padding, delta.shape[1])
        windows = padded.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 4, 5, 3)  # as `_windows`
        for block, positions in _blocks(windows):
            reached = windows[block]
            handed_down = torch.bmm(kernels[positions], there[positions]).view(reached.shape)
            for y in range(kernel):  # windows overlap: one place of each at a time
                for x in range(kernel):
                    reached[:, :, :, y, x] += handed_down[:, :, :, y, x]
        inner = padded[:, padding : padding + height, padding : padding + width]
        found.append(inner.permute(3, 0, 1, 2))
    return torch.stack(found)


def local_gradient(h: Tensor, delta: Tensor, shape: Sequence[int], *, padding: int) -> Tensor:
    """The gradient of the weights, [E, *shape], summed over samples."""
    found = []
    for e in range(len(h)):
        there = _by_position_first(delta[e])
        windows = _windows(h[e], shape[-1], padding)
        gradient = h.new_empty(len(there), there.shape[1], shape[1] * shape[2] * shape[3])  # [P, out, in k k]
        for block, positions in _blocks(windows):
            torch.bmm(there[positions], _seen(windows[block]).mT, out=gradient[positions])
        found.append(gradient.transpose(0, 1).reshape(list(shape)))
    return torch.stack(found)


def _windows(h: Tensor, kernel: int, padding: int) -> Tensor:
    """What each position of the output sees of a member's h [N, in, H, W]: a view [H', W', in, k, k, N]."""
    padded = F.pad(h.permute(1, 2, 3, 0).contiguous(), (0, 0, padding, padding, padding, padding))
    return padded.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 4, 5, 3)


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
    return delta.flatten(2).permute(2, 1, 0).contiguous()
