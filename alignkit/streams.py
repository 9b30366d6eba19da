"""Named, counter-based randomness: every draw is a function of (seed, stream, layer, step, element).

No global generator is touched, and no draw depends on what was drawn before. What is drawn once
(weights, feedback) or once an epoch (batch order) comes from NumPy's Philox on the host, through
transformations that are fixed here, so that its bits are the same on every device and NumPy version.
Dropout is drawn at every step, so its bits come from an integer hash on the device itself.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor


def _key(seed: int, stream: str, layer: int, step: int) -> np.ndarray:
    digest = hashlib.blake2b(f"{seed}/{stream}/{layer}/{step}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8")


def bits(seed: int, stream: str, *, count: int, layer: int = 0, step: int = 0) -> np.ndarray:
    """`count` independent 64-bit words, uint64 [count], from Philox 4x64 (Salmon et al. 2011)."""
    return np.random.Philox(key=_key(seed, stream, layer, step)).random_raw(count)


def uniform(seed: int, stream: str, *, shape: tuple[int, ...], layer: int = 0, step: int = 0) -> np.ndarray:
    """Uniform draws on the open interval (0, 1), float64 `shape`."""
    words = bits(seed, stream, count=int(np.prod(shape)), layer=layer, step=step)
    return (((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).reshape(shape)


def gaussian(seed: int, stream: str, *, shape: tuple[int, ...], layer: int = 0, step: int = 0) -> np.ndarray:
    """Standard normal draws, float64 `shape`, by inversion of the uniform ones."""
    return ndtri(uniform(seed, stream, shape=shape, layer=layer, step=step))


def permutation(seed: int, stream: str, *, count: int, step: int = 0) -> np.ndarray:
    """A random order of `count` items, int64 [count]."""
    return np.argsort(bits(seed, stream, count=count, step=step), kind="stable")


def dropout_keys(seeds: Tensor, *, layer: int) -> Tensor:
    """What the masks of a layer are drawn from, int64 [E], of each member's dropout seed, int64 [E]."""
    return _mix64(seeds + _wrapped(layer * 0x632BE59BD9B4E019))


def dropout_uniforms(keys: Tensor, *, step: int | Tensor, count: int) -> Tensor:
    """16-bit uniforms for dropout masks, made on the device of `keys`.

    Parameters
    ----------
    keys : `dropout_keys`, int64 [E].
    step, count : which draw, and how many elements a member needs. `step` may be an int64 tensor of one element
        on the device.

    Returns
    -------
    int16 [E, count]: (value + 32768) / 65536 is uniform on [0, 1).

    Notes
    -----
    Two keys a member and draw from a 64-bit finaliser (Steele, Lea and Flood 2014), then a 32-bit
    finaliser with two multiplications over the element counter (constants: C. Wellons' lowbias32).
    One 32-bit word serves two elements. Integer operations alone: the same bits on every device.
    """
    moved = step * _STEP if isinstance(step, Tensor) else _wrapped(step * _STEP)
    key = _mix64(keys + moved)
    first = key.to(torch.int32)[:, None]
    second = (key >> 32).to(torch.int32)[:, None]
    word = _counter((count + 1) // 2, str(keys.device)) + first  # [E, ceil(count / 2)]
    _fold(word, 16, 0xFFFF)
    word *= 0x7FEB352D
    _fold(word, 15, 0x1FFFF)
    word ^= second
    word *= -0x7B935975
    _fold(word, 16, 0xFFFF)
    return word.view(torch.int16)[:, :count]


_STEP = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number


@functools.lru_cache(maxsize=64)
def _counter(count: int, device: str) -> Tensor:
    return torch.arange(count, dtype=torch.int32, device=device) * -0x61C88647


def _fold(word: Tensor, shift: int, mask: int) -> None:
    """word ^= word >> shift, a logical shift."""
    shifted = word >> shift
    shifted &= mask
    word ^= shifted


def dropout_mask(uniforms: Tensor, *, thresholds: Tensor, scales: Tensor) -> Tensor:
    """`scales` where the uniforms [E, count] reach the `thresholds` (`keep_threshold`; int32 [E, 1]), else 0.

    `scales` [E, 1], float32 or float64. Selects by the sign bit, which is several times faster than a comparison
    and a product.
    """
    sign = torch.sub(thresholds - 1, uniforms.to(torch.int32))
    sign >>= 31  # -1, all bits set, where the element is kept
    if scales.dtype == torch.float32:
        sign &= scales.view(torch.int32)
        return sign.view(torch.float32)
    return sign * -scales


def _wrapped(number: int) -> int:
    """The signed 64-bit integer that is congruent to `number`."""
    return (number + 2**63) % 2**64 - 2**63


def _mix64(word: Tensor) -> Tensor:
    """A bijection of int64 that spreads every bit over all; shifts are made logical by masking."""
    word = (word ^ ((word >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    word = (word ^ ((word >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return word ^ ((word >> 31) & 0x1FFFFFFFF)


def keep_threshold(rate: float) -> int:
    """The smallest 16-bit uniform (as `dropout_uniforms` gives it) that survives dropout at `rate`."""
    return min(round(rate * 65536), 65535) - 32768
