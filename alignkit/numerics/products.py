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

import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit.numerics.kinds import Float
from alignkit.numerics.tensors import Numbers

Left = Float[Tensor, "E n k"]
Right = Float[Tensor, "E k m"]
Product = Float[Tensor, "E n m"]
Bias = Float[Tensor, "E #n #m"]

CACHE_LINE = 64
SMALL_PRODUCT = 2**20
"""Multiplications below which a batch of one may take a kernel of its own."""

VECTOR_LOOP = 32
"""Elements that every vectorised loop's stride divides."""


def matmul_into(out: Product, a: Left, b: Right) -> None:
    """out [E, n, m] = a [E, n, k] @ b [E, k, m], without a copy where the product may be written in place."""
    if (a.is_cuda or _aligned(a, b)) and not _has_kernels_of_its_own(a, b):
        torch.bmm(a, b, out=out)
    else:
        out.copy_(matmul(a, b))


def matmul(a: Left, b: Right, *, bias: Bias | None = None) -> Product:
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


def subtract_product(target: Product, a: Left, b: Right) -> None:
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


def elementwise(function: Callable[..., Tensor], *operands: Numbers) -> Numbers:
    """`function` of operands of one shape, every element taking the same code path."""
    if in_whole_vectors(*operands):
        return function(*operands)
    count = operands[0].numel()
    padded = (F.pad(operand.flatten(), (0, -count % VECTOR_LOOP), value=1.0) for operand in operands)
    return function(*padded)[:count].view_as(operands[0])


def in_whole_vectors(*operands: Numbers) -> bool:
    """Whether vectorised loops over operands of one shape have no remainder: each lies in one piece, all in the same
    order."""
    if operands[0].numel() % VECTOR_LOOP:
        return False
    if all(operand.is_contiguous() for operand in operands):
        return True
    shape, strides = operands[0].shape, operands[0].stride()
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    return last == operands[0].numel() - 1 and all(operand.stride() == strides for operand in operands)


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
