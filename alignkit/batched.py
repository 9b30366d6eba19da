"""Batched operations whose result for one member does not depend on the others, to the bit.

A CPU's GEMM kernels round differently for operands that start at different offsets from a cache line.
In a tensor [E, …] whose members are not a multiple of a cache line long, a member's offset depends on
its place in the cohort. Such products, of odd sizes alone, are taken one member at a time.

Some functions of single elements round differently in a vectorised loop and in its scalar remainder.
`elementwise` leaves no remainder.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CACHE_LINE = 64
VECTOR_LOOP = 32
"""Elements that every vectorised loop's stride divides."""


def matmul(a: Tensor, b: Tensor, *, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """a [E, n, k] @ b [E, k, m], plus a bias [E, m] that is added to every row; `out` receives it."""
    if a.is_cuda or (_in_step(a) and _in_step(b) and a.shape[1] * b.shape[2] * a.itemsize % CACHE_LINE == 0):
        if bias is None:
            return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
        return torch.baddbmm(bias[:, None], a, b)
    members = []
    for e in range(len(a)):
        left, right = _from_start(a[e]), _from_start(b[e])
        members.append(torch.mm(left, right) if bias is None else torch.addmm(bias[e].clone(), left, right))
    return torch.stack(members) if out is None else torch.stack(members, out=out)


def elementwise(function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """`function` of operands of one shape, every element taking the same code path."""
    count = operands[0].numel()
    padded = (F.pad(operand.flatten(), (0, -count % VECTOR_LOOP), value=1.0) for operand in operands)
    return function(*padded)[:count].view_as(operands[0])


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
