"""Batched operations whose result for one member does not depend on the others, to the bit.

A CPU's GEMM kernels round differently for operands that start at different offsets from a cache line.
In a tensor [E, …] whose members are not a multiple of a cache line long, a member's offset depends on
its place in the cohort. Such products, of odd sizes alone, are taken one member at a time.

Some functions of single elements round differently in a vectorised loop and in its scalar remainder.
`elementwise` leaves no remainder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CACHE_LINE = 64
SMALL_PRODUCT = 2**20
"""Multiplications below which a batch of one may take a kernel of its own."""

VECTOR_LOOP = 32
"""Elements that every vectorised loop's stride divides."""


def matmul_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out [E, n, m] = a [E, n, k] @ b [E, k, m], without a copy where the product may be written in place."""
    if (a.is_cuda or _aligned(a, b)) and not _has_kernels_of_its_own(a, b):
        torch.bmm(a, b, out=out)
    else:
        out.copy_(matmul(a, b))


def matmul(a: Tensor, b: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """a [E, n, k] @ b [E, k, m], plus a bias [E, 1, m] or [E, n, 1]."""
    if not (a.is_cuda or _aligned(a, b)):
        pairs = [(_from_start(a[e]), _from_start(b[e])) for e in range(a.shape[0])]
        if bias is None:
            return torch.stack([torch.mm(left, right) for left, right in pairs])
        return torch.stack([torch.addmm(bias[e].clone(), *pair) for e, pair in enumerate(pairs)])
    if _has_kernels_of_its_own(a, b):
        a, b = _doubled(a), _doubled(b)
        bias = None if bias is None else _doubled(bias)
        return (torch.bmm(a, b) if bias is None else torch.baddbmm(bias, a, b))[:1]
    return torch.bmm(a, b) if bias is None else torch.baddbmm(bias, a, b)


def subtract_product(target: Tensor, a: Tensor, b: Tensor) -> None:
    """target [E, n, m] -= a [E, n, k] @ b [E, k, m], in place and in one pass over the target."""
    if not (a.is_cuda or _aligned(a, b)):
        for e in range(a.shape[0]):
            target[e].sub_(torch.mm(_from_start(a[e]), _from_start(b[e])))
    elif _has_kernels_of_its_own(a, b):
        both = target.repeat(2, 1, 1)
        target.copy_(both.baddbmm_(_doubled(a), _doubled(b), alpha=-1.0)[:1])
    else:
        target.baddbmm_(a, b, alpha=-1.0)


def _aligned(a: Tensor, b: Tensor) -> bool:
    return _in_step(a) and _in_step(b) and a.shape[1] * b.shape[2] * a.itemsize % CACHE_LINE == 0


def _has_kernels_of_its_own(a: Tensor, b: Tensor) -> bool:
    """Whether this batch of one would take other kernels than a larger one: compute it twice, as if in company."""
    return a.shape[0] == 1 and a[0].numel() * b.shape[2] <= SMALL_PRODUCT and not a.is_cuda


def _doubled(operand: Tensor) -> Tensor:
    return operand.expand(2, *operand.shape[1:])


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


def move_against(new: Tensor, old: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(new - old)·direction, |new - old|, |old| and |direction| along the last axis, [...] in float64."""
    if not _in_blocks(new, old, direction):
        inner, moved, steepest = inner_and_lengths(new.double() - old.double(), direction)
        return inner, moved, length(old), steepest
    inner, *squares = _products_of_rows(new, old, direction, first_minus_second=True)
    moved, before, steepest = (square.sqrt_() for square in squares)
    return inner, moved, before, steepest


LONGEST_DOT = 2**13
"""Elements up to which numpy takes an inner product in one piece, on one thread."""
BLOCK = 2**16
"""Elements that are turned into float64 at a time: half a megabyte, which stays in a core's second cache."""


def _in_blocks(*tensors: Tensor) -> bool:
    return not any(tensor.is_cuda or tensor.requires_grad for tensor in tensors)


def _products_of_rows(*tensors: Tensor, first_minus_second: bool = False) -> tuple[Tensor, ...]:
    """Inner products along the last axis of tensors [..., d], [...] each: of the first with the last, if there are
    several, then of each with itself. With `first_minus_second`, that difference takes the place of the first.

    A block of rows at a time, in memory that the next block takes again: a fraction of the time of whole tensors in
    float64, which would go to memory and back.
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


def elementwise(function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """`function` of operands of one shape, every element taking the same code path."""
    count = operands[0].numel()
    if count % VECTOR_LOOP == 0 and all(operand.is_contiguous() for operand in operands):
        return function(*operands)
    padded = (F.pad(operand.flatten(), (0, -count % VECTOR_LOOP), value=1.0) for operand in operands)
    return function(*padded)[:count].view_as(operands[0])


def constant(number: float, like: Tensor) -> Tensor:
    """A number as a tensor [], of the type and on the device of `like`.

    torch makes one of a Python number at every use, which on a small network takes longer than the operation.
    """
    return _constant(number, like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _constant(number: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(number, dtype=dtype, device=device)


def _in_step(operand: Tensor) -> bool:
    """Whether every member starts at the same offset from a cache line."""
    step = operand.stride(0) or operand[0].numel()  # an expanded tensor counts as its copies would
    return step * operand.itemsize % CACHE_LINE == 0 and operand.data_ptr() % CACHE_LINE == 0


def _from_start(matrix: Tensor) -> Tensor:
    """A copy at the start of an allocation, transposed in memory where the matrix was."""
    return (
        matrix.mT.clone(memory_format=torch.contiguous_format).mT
        if matrix.stride(0) == 1
        else matrix.contiguous().clone()
    )
