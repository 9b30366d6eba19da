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

from alignkit.numerics.products import constant


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


class DropoutUniforms:
    """16-bit uniforms for the dropout masks of one layer, made on the device of `seeds`: each member's dropout seed,
    int64 [E].

    Notes
    -----
    Two keys a member and draw from a 64-bit finaliser (Steele, Lea and Flood 2014), then a 32-bit
    finaliser with two multiplications over the element counter (constants: C. Wellons' lowbias32).
    One 32-bit word serves two elements. Integer operations alone: the same bits on every device.
    """

    def __init__(self, seeds: Tensor, *, layer: int) -> None:
        self._keys = _mix64(seeds + _wrapped(layer * 0x632BE59BD9B4E019))
        self._block: int | None = None
        self._of_block: tuple[Tensor, Tensor]

    def draw(self, *, step: int | Tensor, count: int, steps: int = 1) -> Tensor:
        """The draws of `steps` steps from `step` on, `count` elements a member: int16 [steps, E, count]; (value +
        32768) / 65536 is uniform on [0, 1).

        A step may be an int64 tensor of one element on the device, if it is one alone. Several are a power of two,
        up to 64, and the first a multiple of it.
        """
        first, second = self._drawn_keys(step, steps)
        word = _counter((count + 1) // 2, str(first.device)) + first  # [steps, E, ceil(count / 2)]
        shifted = torch.empty_like(word)  # one for all, that stays in the cache
        _fold(word, 16, 0xFFFF, shifted)
        word *= constant(0x7FEB352D, word)
        _fold(word, 15, 0x1FFFF, shifted)
        word ^= second
        word *= constant(-0x7B935975, word)
        _fold(word, 16, 0xFFFF, shifted)
        return word.view(torch.int16)[..., :count]

    def _drawn_keys(self, step: int | Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The two keys of each step, int32 [steps, E, 1]. Where it is a number, those of many steps are worked out at
        once: there are few members, so that the calls are all that they cost."""
        if isinstance(step, Tensor):
            return self._keys_of(step.view(1, 1) * _STEP)
        block, place = divmod(step, _BLOCK)
        if block != self._block:
            moves = [_wrapped((block * _BLOCK + each) * _STEP) for each in range(_BLOCK)]
            moved = torch.tensor(moves, dtype=torch.int64, device=self._keys.device)[:, None]
            self._block, self._of_block = block, self._keys_of(moved)
        first, second = self._of_block
        return first[place : place + steps], second[place : place + steps]

    def _keys_of(self, moved: Tensor) -> tuple[Tensor, Tensor]:
        key = _mix64(self._keys + moved)
        return key.to(torch.int32)[..., None], (key >> 32).to(torch.int32)[..., None]


_BLOCK = 64
"""Steps whose keys are worked out together."""
_STEP = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number


@functools.lru_cache(maxsize=64)
def _counter(count: int, device: str) -> Tensor:
    return torch.arange(count, dtype=torch.int32, device=device) * -0x61C88647


def _fold(word: Tensor, shift: int, mask: int, shifted: Tensor) -> None:
    """word ^= word >> shift, a logical shift, with `shifted` to work in."""
    torch.bitwise_right_shift(word, constant(shift, word), out=shifted)
    shifted &= constant(mask, word)
    word ^= shifted


def dropout_mask(uniforms: Tensor, *, last_dropped: Tensor, scales: Tensor) -> Tensor:
    """`scales` where the uniforms [..., E, count] are beyond the largest that is dropped (int32 [E, 1]), else 0.

    `scales` [E, 1], float32 or float64. Selects by the sign bit, which is several times faster than a comparison
    and a product.
    """
    sign = uniforms.to(torch.int32)
    torch.sub(last_dropped, sign, out=sign)
    sign >>= constant(31, sign)  # -1, all bits set, where the element is kept
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


def last_dropped(rate: float) -> int:
    """The largest 16-bit uniform (of `DropoutUniforms`) that dropout at `rate` drops."""
    return min(round(rate * 65536), 65535) - 32769


def orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The Haar-distributed matrix with orthonormal rows (or columns) that a Gaussian one maps to."""
    rows, columns = matrix.shape
    q, r = np.linalg.qr(matrix.T if rows < columns else matrix)
    q = q * np.sign(np.diag(r))
    return q.T if rows < columns else q
