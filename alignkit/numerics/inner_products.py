"""Cosines and lengths in float64, of float32 or float64 tensors, a block of rows at a time.

Whole tensors in float64 would go to memory and back: blocks, in memory that the next block takes again, need a fraction
of the time and next to no memory. Bits do not depend on where a block begins.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alignkit.numerics.kinds import Float
from alignkit.numerics.tensors import Broadcast, Numbers, Signal, Vectors

Sums = Float[Tensor, "E d"]
ThreeSums = Float[Tensor, "3 E"]

LONGEST_DOT = 2**13
"""Elements up to which numpy takes an inner product in one piece, on one thread."""
BLOCK = 2**16
"""Elements that are turned into float64 at a time: half a megabyte, which stays in a core's second cache."""

Products = tuple[tuple[slice, slice], ...]
"""Which of several arrays to multiply with which others of them."""
SQUARES: Products = ((slice(None), slice(None)),)
FIRST_WITH_LAST: Products = ((slice(1), slice(-1, None)), *SQUARES)
WITH_IMAGES: Products = ((slice(1), slice(-1, None)), (slice(2), slice(2, None)))


def cosine_and_lengths(u: Broadcast, v: Broadcast) -> tuple[Numbers, Numbers, Numbers]:
    """cos(u, v), |u| and |v| along the last axis, [...] in float64, of tensors [..., d]; NaN where one is zero."""
    if not _in_blocks(u, v):
        u, v = u.double(), v.double()
        own, other = length(u), length(v)
        return ((u * v).sum(-1) / (own * other)).clamp_(-1.0, 1.0), own, other
    with np.errstate(all="ignore"):  # what is not finite is counted where it is used
        products = _products_of_rows((u, v), FIRST_WITH_LAST)
        np.sqrt(products[1:], out=products[1:])
        products[:1] /= products[1] * products[2]
        np.clip(products[:1], -1.0, 1.0, out=products[:1])
    cosine, own, other = torch.from_numpy(products)
    return cosine, own, other


def length(vectors: Vectors) -> Numbers:
    """Euclidean lengths along the last axis, [...] in float64, of float32 or float64."""
    if not _in_blocks(vectors):
        return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64)
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.sqrt(_products_of_rows((vectors,), SQUARES)[0]))


def update_products(new: Broadcast, old: Broadcast, gradient: Broadcast) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """(new - old)·gradient, |new - old|, |old| and |gradient| along the last axis, [...] in float64.

    Squares are taken as they are, so that a float64 update below 1e-154 counts as none.
    """
    if not _in_blocks(new, old, gradient):
        update, steepest = new.double() - old.double(), gradient.double()
        return (update * steepest).sum(-1), length(update), length(old), length(gradient)
    with np.errstate(all="ignore"):
        products = _products_of_rows((new, old, gradient), FIRST_WITH_LAST, first_minus_second=True)
        np.sqrt(products[1:], out=products[1:])
    inner, update, before, steepest = torch.from_numpy(products)
    return inner, update, before, steepest


def chord(u: Vectors, v: Vectors, lengths: tuple[Numbers, Numbers], *, less: Vectors | None = None) -> Numbers:
    """|u / lengths[0] - v / lengths[1]| along the last axis, [...] in float64, of u, or of u `less` another.

    On a CPU of a piece at a time, so that whole arrays are never copied.
    """
    first, second = (each[..., None] for each in lengths)
    total, d = torch.zeros_like(lengths[0]), u.shape[-1]
    for start in range(0, d, d if u.is_cuda else LONGEST_DOT):
        piece = slice(start, start + d if u.is_cuda else start + LONGEST_DOT)
        difference = u[..., piece].to(torch.float64, copy=True)
        if less is not None:
            difference -= less[..., piece]
        difference /= first
        difference -= v[..., piece].to(torch.float64, copy=True).div_(second)
        total += length(difference).square()
    return total.sqrt()


def products_with_images(u: Signal, v: Signal, image_of_u: Signal, image_of_v: Signal) -> ThreeSums:
    """Of u, v and their images Mu, Mv under some map, all [E, N, d], the sums over samples of u·Mv, u·Mu and v·Mv,
    [3, E] in float64: on a CPU."""
    with np.errstate(all="ignore"):
        products = _products_of_rows((u, v, image_of_u, image_of_v), WITH_IMAGES)
        return torch.from_numpy(products.sum(-1))


def sums_of_samples(values: Signal) -> Sums:
    """The sum over the second axis of [E, N, d], [E, d] in float64."""
    if not _in_blocks(values):
        return values.sum(1, dtype=torch.float64)
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.add.reduce(values.numpy(), axis=1, dtype=np.float64))


def centred(values: Signal) -> Signal:
    """[E, N, d] less the mean over its second axis, worked out in float64 and then rounded to the values' own type: a
    mean that is rounded first would leave the same rest in every sample. What is the same in all samples becomes 0."""
    if not _in_blocks(values):
        shifted = values.double() - values[:, :1].double()
        return (shifted - shifted.mean(1, keepdim=True)).to(values.dtype)
    array = values.numpy()
    scaled = np.empty_like(array)
    members, samples, d = array.shape
    at_a_time = max(1, min(members, BLOCK // max(samples * d, 1)))
    block = np.empty((at_a_time, samples, d))
    with np.errstate(all="ignore"):
        for start in range(0, members, at_a_time):
            chosen = slice(start, min(start + at_a_time, members))
            wide = block[: chosen.stop - start]
            np.copyto(wide, array[chosen])
            if array.dtype == np.float64:  # whose sums would round: of samples that are the same, too
                wide -= array[chosen, :1]
            wide -= np.add.reduce(wide, axis=1, keepdims=True) / samples
            scaled[chosen] = wide
    return torch.from_numpy(scaled)


def _in_blocks(*tensors: Tensor) -> bool:
    """Whether numpy can take them: they lie on a CPU, and nothing is differentiated by them."""
    return not any(tensor.is_cuda or tensor.requires_grad for tensor in tensors)


def _products_of_rows(tensors: tuple[Tensor, ...], which: Products, *, first_minus_second: bool = False) -> np.ndarray:
    """Inner products along the last axis of tensors [..., d], [products, ...]. With `first_minus_second`, that
    difference takes the place of the first."""
    if any(tensor.shape != tensors[0].shape for tensor in tensors):
        tensors = torch.broadcast_tensors(*tensors)
    shape = tensors[0].shape
    arrays = [tensor.numpy().reshape(shape[:-1].numel(), shape[-1]) for tensor in tensors]
    return _products(arrays, which, first_minus_second).reshape(-1, *shape[:-1])


def _products(arrays: list[np.ndarray], which: Products, first_minus_second: bool) -> np.ndarray:
    """`_products_of_rows` of arrays [rows, d]: [products, rows]."""
    rows, d = arrays[0].shape
    if d <= LONGEST_DOT:
        return _products_of_groups([array[None] for array in arrays], which, first_minus_second)[:, 0]
    whole = d - d % LONGEST_DOT  # in pieces, whose products are summed
    pieces = [array[:, :whole].reshape(rows, -1, LONGEST_DOT) for array in arrays]
    products = _products_of_groups(pieces, which, first_minus_second).sum(-1)
    if whole < d:
        products += _products([array[:, whole:] for array in arrays], which, first_minus_second)
    return products


def _products_of_groups(arrays: list[np.ndarray], which: Products, first_minus_second: bool) -> np.ndarray:
    """The same of arrays [groups, rows, d]: [products, groups, rows]."""
    shape = arrays[0].shape
    if all(array.flags.c_contiguous for array in arrays):  # one group does as well, in fewer calls
        arrays = [array.reshape(1, -1, shape[-1]) for array in arrays]
    groups, rows, d = arrays[0].shape
    at_a_time = max(1, min(rows, BLOCK // (len(arrays) * max(d, 1))))
    blocks = np.empty((len(arrays), at_a_time, d))
    ends = np.cumsum([len(arrays[left]) for left, _ in which]).tolist()
    places = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    products = np.empty((ends[-1], groups, rows))
    for group in range(groups):
        for start in range(0, rows, at_a_time):
            chosen = slice(start, min(start + at_a_time, rows))
            wide = blocks[:, : chosen.stop - start]
            for block, array in zip(wide, arrays, strict=True):
                np.copyto(block, array[group, chosen])
            if first_minus_second:
                wide[0] -= wide[1]
            for place, (left, right) in zip(places, which, strict=True):
                np.vecdot(wide[left], wide[right], out=products[place, group, chosen])
    return products.reshape(-1, *shape[:-1])
