"""The laws of the feedback matrices B: distribution, normalisation, sharing between layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignkit.numerics import streams
from alignkit.numerics.kinds import Float
from alignkit.numerics.streams import orthogonal
from alignkit.settings.feedback import Feedback

Matrix = Float[np.ndarray, "k d"]
Matrices = Float[Tensor, "E k d"]


@dataclass(frozen=True)
class Projection:
    """A layer's feedback as one linear map of a source to a teaching signal, t_l = source · matrix.

    `matrix` is [E, k, d_l]. `from_error`: the source is the output error e [E, N, C]; otherwise it is
    the delta of the layer above.
    """

    matrix: Matrices
    from_error: bool


def draw(feedback: Feedback, shape: tuple[int, int], *, seed: int, layer: int = 0, step: int = 0) -> Matrix:
    """A matrix of unit entry variance from the feedback's law, float64 [rows, columns].

    Every law starts from the same uniforms. An orthogonal matrix has orthogonal rows (orthogonal
    columns where there are fewer of those) and the entry variance of the others.
    """
    if feedback.law == "uniform":
        return math.sqrt(3.0) * (2.0 * streams.uniform(seed, "feedback", shape=shape, layer=layer, step=step) - 1.0)
    matrix = streams.gaussian(seed, "feedback", shape=shape, layer=layer, step=step)
    return orthogonal(matrix) * math.sqrt(max(shape)) if feedback.law == "orthogonal" else matrix


def _limited(matrix: Matrix, rank: int | None, *, seed: int, layer: int, step: int) -> Matrix:
    """A matrix [k, d] whose rows are projected on a random subspace of `rank` of the k dimensions, and lengthened by
    sqrt(k / rank): the mean of |s B|^2 over subspaces stays, for every source s. Subspaces of lower rank lie within
    those of higher rank, and the full one changes nothing."""
    rows = len(matrix)
    if rank is None or rank >= rows:
        return matrix
    subspace = orthogonal(streams.gaussian(seed, "feedback rank", shape=(rows, rows), layer=layer, step=step)[:, :rank])
    return subspace @ (subspace.T @ matrix) * math.sqrt(rows / rank)


def dfa_matrix(
    feedback: Feedback, *, outputs: int, sizes: Sequence[int], layer: int, seed: int, step: int = 0
) -> Matrix:
    """B_l of direct feedback alignment, float64 [C, d_l], for the 1-based hidden layer `layer`.

    Normalised entries have variance 1/(C d_l), so that E|e B_l|^2 = |e|^2 / C at every layer
    (Launay, Poli and Krzakala 2019); otherwise 1. Sliced, B_l is the first d_l columns of one matrix
    drawn for the widest of the hidden `sizes`.
    """
    size = sizes[layer - 1]
    shared = feedback.sharing == "sliced"
    if not shared:
        matrix = draw(feedback, (outputs, size), seed=seed, layer=layer, step=step)
    elif feedback.law == "orthogonal":
        widest = streams.gaussian(seed, "feedback", shape=(outputs, max(sizes)), step=step)
        matrix = orthogonal(widest[:, :size]) * math.sqrt(max(outputs, size))
    else:
        matrix = draw(feedback, (outputs, max(sizes)), seed=seed, step=step)[:, :size]
    matrix = _limited(matrix, feedback.rank, seed=seed, layer=0 if shared else layer, step=step)
    variance = 1.0 / (outputs * size) if feedback.normalised else 1.0
    return matrix * (feedback.scale * math.sqrt(variance))


def fa_matrix(feedback: Feedback, *, shape: tuple[int, ...], layer: int, seed: int, step: int = 0) -> np.ndarray:
    """FA's stand-in for the weights of layer `layer`, float64 of the weights' own `shape`.

    [d_l, d_{l-1}], or [channels out, channels in, k, k]. Normalised entries have variance 1/fan-in,
    which keeps the expected length of a signal that passes down (Lillicrap et al. 2016 leave the scale
    free); otherwise 1.
    """
    fan_in = math.prod(shape[1:])
    matrix = draw(feedback, (shape[0], fan_in), seed=seed, layer=layer, step=step)
    matrix = _limited(matrix, feedback.rank, seed=seed, layer=layer, step=step)
    variance = 1.0 / fan_in if feedback.normalised else 1.0
    return (matrix * (feedback.scale * math.sqrt(variance))).reshape(shape)


def stack(matrices: Sequence[np.ndarray], like: Tensor) -> Tensor:
    """Members' matrices as one tensor [E, …] of the type and on the device of `like`."""
    # cloned: torch aligns what it allocates, NumPy does not (see numerics/products.py)
    return torch.from_numpy(np.stack(matrices)).to(device=like.device, dtype=like.dtype).clone()
