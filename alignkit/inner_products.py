"""Inner products and lengths in float64, of float32 or float64 tensors, a block of rows at a time.

Whole tensors in float64 would go to memory and back: blocks, in memory that the next block takes again, need a fraction
of the time and next to no memory. Bits do not depend on where a block begins.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LONGEST_DOT = 2**13
"""Elements up to which numpy takes an inner product in one piece, on one thread."""
BLOCK = 2**16
"""Elements that are turned into float64 at a time: half a megabyte, which stays in a core's second cache."""


def inner_and_lengths(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u·v, |u| and |v| along the last axis, [...] in float64, of tensors [..., d], float32 or float64."""
    if not _in_blocks(u, v):
        u, v = u.double(), v.double()
        return (u * v).sum(-1), length(u), length(v)
    inner, own, other = _products_of_rows(u, v)
    return inner, own.sqrt_(), other.sqrt_()


def length(vectors: Tensor) -> Tensor:
    """Euclidean lengths along the last axis, [...] in float64, of float32 or float64."""
    if not _in_blocks(vectors):
        return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64)
    return _products_of_rows(vectors)[0].sqrt_()


def update_products(new: Tensor, old: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(new - old)·gradient, |new - old|, |old| and |gradient| along the last axis, [...] in float64.

    Squares are taken as they are, so that a float64 update below 1e-154 counts as none.
    """
    if not _in_blocks(new, old, gradient):
        inner, update, steepest = inner_and_lengths(new.double() - old.double(), gradient)
        return inner, update, length(old), steepest
    inner, *squares = _products_of_rows(new, old, gradient, first_minus_second=True)
    update, before, steepest = (square.sqrt_() for square in squares)
    return inner, update, before, steepest


def _in_blocks(*tensors: Tensor) -> bool:
    """Whether numpy can take them: they lie on a CPU, and nothing is differentiated by them."""
    return not any(tensor.is_cuda or tensor.requires_grad for tensor in tensors)


def _products_of_rows(*tensors: Tensor, first_minus_second: bool = False) -> tuple[Tensor, ...]:
    """Inner products along the last axis of tensors [..., d], [...] each: of the first with the last, if there are
    several, then of each with itself. With `first_minus_second`, that difference takes the place of the first.
    """
    if any(tensor.shape != tensors[0].shape for tensor in tensors):
        tensors = torch.broadcast_tensors(*tensors)
    shape = tensors[0].shape
    arrays = [tensor.numpy().reshape(shape[:-1].numel(), shape[-1]) for tensor in tensors]
    with np.errstate(all="ignore"):  # what is not finite is counted where it is used
        found = _products(arrays, first_minus_second)
    return torch.from_numpy(found).view(-1, *shape[:-1]).unbind()


def _products(arrays: list[np.ndarray], first_minus_second: bool) -> np.ndarray:
    """`_products_of_rows` of arrays [rows, d]: [products, rows]."""
    rows, d = arrays[0].shape
    if d <= LONGEST_DOT:
        return _products_of_groups([array[None] for array in arrays], first_minus_second)[:, 0]
    whole = d - d % LONGEST_DOT  # in pieces, whose products are summed
    pieces = [array[:, :whole].reshape(rows, -1, LONGEST_DOT) for array in arrays]
    found = _products_of_groups(pieces, first_minus_second).sum(-1)
    if whole < d:
        found += _products([array[:, whole:] for array in arrays], first_minus_second)
    return found


def _products_of_groups(arrays: list[np.ndarray], first_minus_second: bool) -> np.ndarray:
    """The same of arrays [groups, rows, d]: [products, groups, rows]."""
    shape = arrays[0].shape
    if all(array.flags.c_contiguous for array in arrays):  # one group does as well, in fewer calls
        arrays = [array.reshape(1, -1, shape[-1]) for array in arrays]
    groups, rows, d = arrays[0].shape
    several = len(arrays) > 1
    found = np.empty((several + len(arrays), groups, rows))
    at_a_time = max(1, min(rows, BLOCK // (len(arrays) * max(d, 1))))
    blocks = np.empty((len(arrays), at_a_time, d))
    for group in range(groups):
        for start in range(0, rows, at_a_time):
            chosen = slice(start, min(start + at_a_time, rows))
            wide = blocks[:, : chosen.stop - start]
            for block, array in zip(wide, arrays, strict=True):
                np.copyto(block, array[group, chosen])
            if first_minus_second:
                wide[0] -= wide[1]
            if several:
                np.vecdot(wide[0], wide[-1], out=found[0, group, chosen])
            np.vecdot(wide, wide, out=found[several:, group, chosen])
    return found.reshape(-1, *shape[:-1])
