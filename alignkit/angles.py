"""Cosines, angles, chance levels and ceilings: pure functions of tensors, in float64.

Vectors lie along the last axis. A zero vector has no direction: what depends on it is NaN, which the
`nan…` reductions of the probe then leave out and count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignkit.batched import elementwise, length, matmul


def unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to length 1, float64; NaN where a vector is zero or not finite.

    Scaled by the largest entry first, so that no length under- or overflows and no epsilon is needed.
    """
    vectors = vectors.double()
    largest = vectors.abs().amax(-1, keepdim=True)
    scaled = vectors / largest  # 0/0 is NaN: a zero vector has no direction
    return scaled / length(scaled)[..., None]


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """cos(u, v) along the last axis, [...]."""
    return unit_cosine(unit(u), unit(v))


def unit_cosine(u: Tensor, v: Tensor) -> Tensor:
    """`cosine` of vectors that already have length 1."""
    return (u * v).sum(-1).clamp(-1.0, 1.0)


def angle_deg(u: Tensor, v: Tensor) -> Tensor:
    """The angle between u and v in degrees, [...]: 2 atan2(|u - v|, |u + v|) of the unit vectors.

    Exact near 0 and 180 degrees, where arccos of the cosine loses half the digits (Kahan).
    """
    return unit_angle_deg(unit(u), unit(v))


def unit_angle_deg(u: Tensor, v: Tensor) -> Tensor:
    """`angle_deg` of vectors that already have length 1."""
    apart = length(u - v)
    along = length(u + v)
    return torch.rad2deg(2.0 * elementwise(torch.atan2, apart, along))


def frobenius_cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of two arrays a member, taken as vectors: [E, …] → [E]."""
    return cosine(a.flatten(1), b.flatten(1))


def chance_sd(sources: Tensor, references: Tensor) -> Tensor:
    """The standard deviation of a mean cosine under redrawn Gaussian feedback, [E].

    With t_n = s_n B and B Gaussian, E[cos(t_n, g_n)] = 0, and the mean over N samples has variance
    sum_nm cos(s_n, s_m) cos(g_n, g_m) / (N^2 d) to leading order in 1/d. `sources` [E, N, k],
    `references` [E, N, d]; samples without a direction in either are left out.
    """
    s, g = unit(sources), unit(references)
    defined = ~(s.isnan().any(-1) | g.isnan().any(-1))
    s, g = (torch.where(defined[..., None], x, torch.zeros_like(x)) for x in (s, g))
    coupling = (matmul(s, s.mT) * matmul(g, g.mT)).sum((1, 2))
    count = defined.sum(-1)
    variance = coupling / (count * count * references.shape[-1])
    return torch.sqrt(variance.clamp_min(0.0))  # no defined sample: 0/0, NaN


def normal_p(z: Tensor) -> Tensor:
    """Two-sided p of a standard normal z."""
    return elementwise(torch.erfc, z.abs() / math.sqrt(2.0))


def ceiling(matrix: Tensor, references: Tensor, *, sum_zero: bool) -> Tensor:
    """|P g| / |g| per sample, [E, N]: the best cosine that any source could reach through a feedback.

    P projects on the row space of `matrix` [E, k, d]. With `sum_zero` the sources are confined to
    vectors that sum to zero, as the errors of a softmax are: k - 1 dimensions.
    """
    matrix = matrix.double()
    if sum_zero:
        matrix = matrix - matrix.mean(1, keepdim=True)  # (I - 11ᵀ/k) B has the row space that is usable
    parts = [torch.linalg.svd(one.clone(), full_matrices=False) for one in torch.nan_to_num(matrix)]  # see batched.py
    singular, rows = torch.stack([part.S for part in parts]), torch.stack([part.Vh for part in parts])
    tolerance = max(matrix.shape[1:]) * torch.finfo(torch.float64).eps * singular[:, :1] * 16
    usable = rows * (singular > tolerance)[..., None]
    return length(matmul(unit(references), usable.mT)).clamp_max(1.0)


def common_mode(signals: Tensor) -> Tensor:
    """N |mean_n t_n|^2 / sum_n |t_n|^2, [E]: the share of a signal that is the same for every sample."""
    signals = signals.double()
    total = (signals * signals).sum((1, 2))
    mean = signals.mean(1)
    return signals.shape[1] * (mean * mean).sum(-1) / total


def effective_rank(hidden: Tensor) -> Tensor:
    """(tr G)^2 / tr G^2 of the centred Gram matrix of activations [E, N, d]: [E]."""
    centred = hidden.double()
    centred = centred - centred.mean(1, keepdim=True)
    if hidden.shape[1] <= hidden.shape[2]:
        gram = matmul(centred, centred.mT)
    else:
        gram = matmul(centred.mT, centred)
    trace = gram.diagonal(dim1=1, dim2=2).sum(-1)
    return trace * trace / (gram * gram).sum((1, 2))
