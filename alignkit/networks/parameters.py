"""All trained parameters of a cohort in one tensor, and the optimisers that move them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 32
"""Every member's share of a parameter starts at, and is padded to, a multiple of this many elements: vectorised
loops then have no remainder, whose rounding could differ from member to member."""

Key = tuple[int, str]


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies, counted in elements of one member: from `split` on, those of the output layer, and
    of other layers that learn at its rate. Those that are `transposed` lie in memory as [in, out]."""

    shapes: dict[Key, tuple[int, ...]]
    starts: dict[Key, int]
    split: int
    size: int
    transposed: frozenset[Key] = frozenset()

    @classmethod
    def of(
        cls, shapes: dict[Key, tuple[int, ...]], *, output_layer: int, transposed: frozenset[Key] = frozenset()
    ) -> Layout:
        starts, position, split = {}, 0, 0
        for key in sorted(shapes, key=lambda key: key[0] >= output_layer):  # stable: the output layer last
            if key[0] < output_layer:
                split = position + _padded(math.prod(shapes[key]))
            starts[key] = position
            position += _padded(math.prod(shapes[key]))
        return cls(shapes, starts, split, position, transposed)

    @property
    def count(self) -> int:
        """How many parameters a member has, padding not counted."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def of_output(self, key: Key) -> bool:
        """Whether a parameter learns at the output layer's rate."""
        return self.starts[key] >= self.split


class Parameters:
    """A cohort's parameters (or gradients, or an optimiser's memory of them) and views into them.

    `storage` [E x size] holds one parameter of all members after the other: `blocks` are [E, padded], and
    `views` [E, *shape]. Batched products then write into a parameter as into any contiguous tensor.
    """

    def __init__(self, layout: Layout, storage: Tensor) -> None:
        self.layout, self.storage = layout, storage
        self.n_members = len(storage) // layout.size
        self.blocks = {key: self._block(key) for key in layout.shapes}
        self.views = {key: self._view(key) for key in layout.shapes}
        self._of_layer: dict[int, dict[str, Tensor]] = {}
        for (layer, name), view in self.views.items():
            self._of_layer.setdefault(layer, {})[name] = view

    @classmethod
    def zeros(cls, layout: Layout, *, n_members: int, device: torch.device, dtype: torch.dtype) -> Parameters:
        return cls(layout, torch.zeros(n_members * layout.size, device=device, dtype=dtype))

    def like(self) -> Parameters:
        return Parameters(self.layout, torch.zeros_like(self.storage))

    def copy(self) -> Parameters:
        return Parameters(self.layout, self.storage.clone())

    def of_layer(self, layer: int) -> dict[str, Tensor]:
        return self._of_layer[layer]

    @property
    def finite(self) -> Tensor:
        """Whether all parameters of a member are finite, bool [E]."""
        largest = torch.stack([block.abs().amax(1) for block in self.blocks.values()])
        return torch.isfinite(largest).all(0)

    def _block(self, key: Key) -> Tensor:
        start, count = self.layout.starts[key], _padded(math.prod(self.layout.shapes[key]))
        return self.storage[self.n_members * start : self.n_members * (start + count)].view(self.n_members, count)

    def _view(self, key: Key) -> Tensor:
        shape, block = self.layout.shapes[key], self.blocks[key]
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        if key in self.layout.transposed:
            strides = [1, shape[0]]
        # Not view(): for one member that would forget the row's length, which tells how members are aligned.
        return block.as_strided((self.n_members, *shape), (block.shape[1], *strides), block.storage_offset())


def per_member(values: Sequence[float], like: Tensor) -> Tensor:
    """One number a member, as [E, 1]."""
    return torch.tensor(list(values), dtype=like.dtype, device=like.device)[:, None]


def _padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
