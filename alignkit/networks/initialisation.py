"""Initial weights and biases, drawn from the stream `initialisation`."""

from __future__ import annotations

import math

import numpy as np

from alignkit.numerics import streams
from alignkit.numerics.streams import orthogonal


def initial_values(
    law: str, shape: tuple[int, ...], *, seed: int, layer: int, positions: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of `shape` [out, in, …] and biases [out], float64.

    `pytorch`: both uniform on ±1/sqrt(fan-in), the default of `torch.nn.Linear` and `Conv2d`; `pre_aligned`
    (`training/prealignment.py`) starts there too. Others have zero biases: `xavier` uniform (Glorot and Bengio 2010),
    `kaiming` normal with gain sqrt 2 (He et al. 2015), `orthogonal` with unit gain (Saxe et al. 2014), `zero`.
    Of a locally connected layer with `positions`, `out` counts its kernels, position after position within a channel;
    each position has a law as a convolution's.
    """
    fan_in, fan_out = math.prod(shape[1:]), shape[0] // positions * math.prod(shape[2:])
    bias = np.zeros(shape[0])
    if law == "zero":
        return np.zeros(shape), bias
    if law in ("pytorch", "pre_aligned"):
        bound = 1.0 / math.sqrt(fan_in)
        uniforms = streams.uniform(seed, "initialisation", shape=(shape[0], fan_in + 1), layer=layer)
        scaled = bound * (2.0 * uniforms - 1.0)
        return scaled[:, :-1].reshape(shape), scaled[:, -1].copy()
    if law == "xavier":
        bound = math.sqrt(6.0 / (fan_in + fan_out))
        return bound * (2.0 * streams.uniform(seed, "initialisation", shape=shape, layer=layer) - 1.0), bias
    matrix = streams.gaussian(seed, "initialisation", shape=(shape[0], fan_in), layer=layer)
    if law == "orthogonal":
        kernels = matrix.reshape(-1, positions, fan_in).transpose(1, 0, 2)  # [positions, out, fan-in]
        turned = np.stack([orthogonal(kernel) for kernel in kernels], axis=1)
        return turned.reshape(shape), bias
    return (matrix * math.sqrt(2.0 / fan_in)).reshape(shape), bias
