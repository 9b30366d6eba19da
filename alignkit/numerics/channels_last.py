"""Images whose channels lie together in a CPU's memory: [E, N, c, H, W] by their shape, [E, N, H, W, c] where they lie.

Convolutions take a tenth to a third less time so, and pooling several times less. On a GPU images lie as they come.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def channels_last(images: Tensor) -> Tensor:
    """Images [N, c, H, W] that lie channels last on a CPU: a copy only where they do not yet."""
    return images if images.is_cuda else images.contiguous(memory_format=torch.channels_last)


def stack_channels_last(each: Iterable[Tensor], *, n_members: int) -> Tensor:
    """The members' images [N, c, H, W], one after another, as [E, N, c, H, W]."""
    stacked: Tensor | None = None
    for e, images in enumerate(each):
        if n_members == 1:
            return channels_last(images)[None]
        if stacked is None:
            samples, channels, height, width = images.shape
            stacked = images.new_empty(n_members, samples, height, width, channels).permute(0, 1, 4, 2, 3)
        stacked[e] = images
    assert stacked is not None, "a cohort has members"
    return stacked


def in_memory_order(values: Tensor) -> Tensor:
    """[E, N, d] of [E, N, c, H, W] without a copy, each sample's elements in the order in which they lie: for inner
    products, which do not depend on it. Vectors [E, N, d] are left as they are."""
    return (values.permute(0, 1, 3, 4, 2) if values.dim() == 5 and not values.is_cuda else values).flatten(2)
