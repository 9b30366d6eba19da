"""Cosines, angles, chance levels and ceilings: pure functions of tensors, in float64.

Vectors lie along the last axis. A zero vector has no direction: what depends on it is NaN, which the means over
samples in `probe.py` and `reductions.py` leave out and count.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from alignkit.numerics.inner_products import centred, chord, cosine_and_lengths, length
from alignkit.numerics.kinds import Bool, Float
from alignkit.numerics.products import elementwise, matmul
from alignkit.numerics.tensors import Broadcast, Numbers, PerMember, PerSample, Signal, Vectors

Arrays = Float[Tensor, "E *shape"]
Feedback = Float[Tensor, "E k d"]
Basis = Float[Tensor, "E rows d"]
Chosen = Bool[Tensor, "*batch"]


class Directions:
    """Vectors along the last axis of a tensor [..., d], in float64, with what their angles need worked out once.

    `scaled` are the vectors themselves where they were float32, whose squares float64 always holds;
    float64 vectors are divided by their largest entry, `scale` [...], so that no square under- or overflows.
    No epsilon is needed.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors, self.scale = vectors, None
        """The vectors as they are."""
        self._numbers = vectors  # those whose products are taken, float32 or float64
        if vectors.dtype == torch.float64:
            largest = vectors.abs().amax(-1, keepdim=True)
            largest = torch.where(largest > 0, largest, 1.0)
            self._numbers, self.scale = vectors / largest, largest[..., 0]
        self._known_length: Tensor | None = None

    @cached_property
    def scaled(self) -> Vectors:
        return self._numbers.double()

    @property
    def scaled_length(self) -> Numbers:
        """The lengths [...] of `scaled`."""
        if self._known_length is None:
            self._known_length = length(self._numbers)
        return self._known_length

    @cached_property
    def length(self) -> Numbers:
        """Euclidean lengths [...]."""
        return self.scaled_length if self.scale is None else self.scaled_length * self.scale

    @cached_property
    def unit(self) -> Vectors:
        """The vectors at length 1; NaN where one is zero or not finite: it has no direction."""
        return self.scaled / self.scaled_length[..., None]

    @cached_property
    def undefined(self) -> Chosen:
        """Which vectors have no direction, [...]."""
        return ~((self.scaled_length > 0) & torch.isfinite(self.scaled_length))

    def cosine(self, other: Directions) -> Numbers:
        """The cosine with another's vectors, one by one, [...]."""
        cosine, self._known_length, other._known_length = cosine_and_lengths(self._numbers, other._numbers)
        return cosine

    def angle_deg(self, other: Directions, cosine: Numbers | None = None) -> Numbers:
        """The angle with another's vectors, one by one, in degrees [...]: 2 atan2(|u - v|, |u + v|) of the unit
        vectors. `cosine` spares the cosine where it is known.

        Exact near 0 and 180 degrees, where arccos of the cosine loses half the digits (Kahan). Of |u - v| and
        |u + v| only the smaller is taken from the vectors: their squares sum to 4. On a CPU, which need not wait to
        know which vectors lie so near, the others' is arccos.
        """
        cosine = self.cosine(other) if cosine is None else cosine
        if cosine.is_cuda:
            return self._angle_from_chords(other, cosine)
        angles = torch.rad2deg(elementwise(torch.acos, cosine))
        near = cosine.abs() > _NEAR
        if near.any():
            angles[near] = self._of(near)._angle_from_chords(other._of(near), cosine[near])
        return angles

    def _angle_from_chords(self, other: Directions, cosine: Numbers) -> Numbers:
        sign = _sign(cosine)
        smaller = length((self.scaled / (self.scaled_length * sign)[..., None]).sub_(other.unit))
        return _from_smaller(smaller, sign)

    def array_angle_deg(self, other: Directions, cosine: Numbers) -> Numbers:
        """`angle_deg` of vectors as long as weight matrices, [E, d], of which no copies are made."""
        lengths = self.scaled_length, other.scaled_length
        return array_angle_deg(self._numbers, other._numbers, lengths, cosine)

    def _of(self, chosen: Chosen) -> Directions:
        """The chosen of the vectors, by a mask [...]."""
        return Directions(self._numbers[chosen])


_NEAR = 0.9
"""Cosine beyond which an angle is not taken from it. Below, arccos loses a bit at most."""


def array_angle_deg(
    u: Vectors, v: Vectors, lengths: tuple[Numbers, Numbers], cosine: Numbers, *, less: Vectors | None = None
) -> Numbers:
    """The angles in degrees [E] of arrays u, or u `less` another, with v, all [E, d], of known lengths and cosines: as
    `Directions.angle_deg`, but for the memory that it takes."""
    sign = _sign(cosine)
    signed = lengths[0] * sign
    if cosine.is_cuda:
        return _from_smaller(chord(u, v, (signed, lengths[1]), less=less), sign)
    angles = torch.rad2deg(elementwise(torch.acos, cosine))
    for near in torch.nonzero(cosine.abs() > _NEAR).flatten().tolist():
        one = slice(near, near + 1)
        without = None if less is None else less[one]
        smaller = chord(u[one], v[one], (signed[one], lengths[1][one]), less=without)
        angles[one] = _from_smaller(smaller, sign[one])
    return angles


def _sign(cosine: Numbers) -> Numbers:
    return torch.where(cosine < 0, -1.0, 1.0)


def _from_smaller(smaller: Numbers, sign: Numbers) -> Numbers:
    """The angle in degrees, of the smaller of |u - v| and |u + v| of unit vectors, and of their cosine's sign."""
    larger = torch.sqrt((4.0 - smaller * smaller).clamp_min(0.0))
    nearest = torch.rad2deg(2.0 * elementwise(torch.atan2, smaller, larger))
    return torch.where(sign < 0, 180.0 - nearest, nearest)


def cosine(u: Broadcast, v: Broadcast) -> Numbers:
    """cos(u, v) along the last axis, [...]."""
    return Directions(u).cosine(Directions(v))


def angle_deg(u: Broadcast, v: Broadcast) -> Numbers:
    """The angle between u and v in degrees, [...]: see `Directions.angle_deg`."""
    return Directions(u).angle_deg(Directions(v))


def frobenius_cosine(a: Arrays, b: Arrays) -> PerMember:
    """The cosine of two arrays a member, taken as vectors: [E, …] → [E]."""
    return cosine(a.flatten(1), b.flatten(1))


def chance_sd(sources: Directions, references: Directions) -> PerMember:
    """The standard deviation of a mean cosine under redrawn Gaussian feedback, [E].

    With t_n = s_n B and B Gaussian, E[cos(t_n, g_n)] = 0, and the mean over N samples has variance
    sum_nm cos(s_n, s_m) cos(g_n, g_m) / (N^2 d) to leading order in 1/d. `sources` [E, N, k],
    `references` [E, N, d]; samples without a direction in either are left out.
    """
    lengths = sources.scaled_length * references.scaled_length
    defined = (lengths > 0) & (lengths < torch.inf)
    s, g = sources.scaled, references.scaled
    if g.is_cuda or not defined.all():  # a GPU need not wait to know
        s, g = (torch.where(defined[..., None], x, 0.0) for x in (s, g))
        lengths = torch.where(defined, lengths, 1.0)
    # the double sum is |sum_n s_n g_n'|^2 of unit vectors: the shorter ones, s, are divided by both lengths
    coupling = matmul((s / lengths[..., None]).mT, g).square_().sum((1, 2))
    count = defined.sum(-1)
    variance = coupling / (count * count * g.shape[-1])
    return torch.sqrt(variance.clamp_min(0.0))  # no defined sample: 0/0, NaN


def normal_p(z: Numbers) -> Numbers:
    """Two-sided p of a standard normal z."""
    return elementwise(torch.erfc, z.abs() / math.sqrt(2.0))


def row_space(matrix: Feedback, *, sum_zero: bool) -> Basis:
    """An orthonormal basis of the rows of `matrix` [E, k, d], float64 [E, min(k, d), d]; rows beyond the rank are 0.

    With `sum_zero` of the rows' combinations by vectors that sum to zero, as the errors of a softmax do: of
    dimension k - 1 at most.
    """
    rounding = torch.finfo(matrix.dtype).eps
    matrix = matrix.double()
    if sum_zero:
        matrix = matrix - matrix.mean(1, keepdim=True)  # (I - 11ᵀ/k) B has the row space that is usable
    parts = [torch.linalg.svd(one.clone(), full_matrices=False) for one in torch.nan_to_num(matrix)]  # products.py
    singular, rows = torch.stack([part.S for part in parts]), torch.stack([part.Vh for part in parts])
    tolerance = max(matrix.shape[1:]) * rounding * singular[:, :1]
    return rows * (singular > tolerance)[..., None]


def ceiling(basis: Basis, references: Directions) -> PerSample:
    """|P g| / |g| per sample, [E, N]: the best cosine that any source could reach through a feedback, with P the
    projector on its row space, of which `basis` is `row_space`."""
    return (length(matmul(references.scaled, basis.mT)) / references.scaled_length).clamp_max(1.0)


def masked_ceiling(basis: Basis, references: Directions, mask: Signal) -> PerSample:
    """`ceiling` of a signal of which each sample keeps the entries of its own `mask` [E, N, d] of 0 and 1."""
    found = []
    for rows, unit, kept in zip(basis, references.unit, mask.double(), strict=True):
        each = rows[None] * kept[:, None]  # [N, k, d]: what is left of the feedback's rows
        inner = torch.bmm(each, unit[..., None])  # [N, k, 1]
        solved = torch.linalg.pinv(torch.bmm(each, each.mT), rtol=1e-10, hermitian=True) @ inner
        found.append((inner * solved).sum((1, 2)).clamp(0.0, 1.0).sqrt())
    return torch.where(references.undefined, torch.nan, torch.stack(found))


def effective_rank(hidden: Signal) -> PerMember:
    """(tr G)^2 / tr G^2 of the centred Gram matrix of activations [E, N, d]: [E].

    G is multiplied in the activations' own precision: both traces are sums of squares, in which nothing cancels.
    """
    spread = centred(hidden)
    if not spread.is_cuda:  # a GPU need not wait to know
        trace, square = _traces(spread)
        if squares_well(trace).all():
            return trace * trace / square
    # by a power of two, which rounds nothing: no square under- or overflows then
    largest = spread.abs().amax((1, 2), keepdim=True)
    trace, square = _traces(spread / (largest / (2.0 * torch.frexp(largest).mantissa)))
    return trace * trace / square


def squares_well(sums: Numbers) -> Chosen:
    """Whether sums of squares are so far from float32's ends that no square that counts under- or overflowed."""
    return (sums > 1e-25) & (sums < 1e25)


def _traces(spread: Signal) -> tuple[PerMember, PerMember]:
    """tr G and tr G^2, [E] in float64, of G the Gram matrix of samples [E, N, d] (or of units: they are the same)."""
    wide = spread.shape[1] <= spread.shape[2]
    gram = (matmul(spread, spread.mT) if wide else matmul(spread.mT, spread)).double()
    return gram.diagonal(dim1=1, dim2=2).sum(-1), gram.square_().sum((1, 2))
