"""Random draws that are the same on every machine and under every version of numpy."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.special import ndtri


# Philox's raw output is the same in every version of numpy; what Generator's methods make of it is not.
def _raw(count: int, stream: str, seed: int = 0) -> np.ndarray:
    """`count` uint64 of a named stream: the first n are the same whatever `count` is."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    return np.random.Philox(key=np.array([seed % 2**64, name], np.uint64)).random_raw(count)


def permutation(count: int, stream: str) -> np.ndarray:
    """0 … count - 1 in the random order of a named stream, int64 [count]."""
    return np.argsort(_raw(count, stream), kind="stable")


def gaussian(shape: tuple[int, ...], stream: str, seed: int) -> np.ndarray:
    """Independent N(0, 1) of a named stream and seed, float64 [*shape]."""
    raw = _raw(int(np.prod(shape)), stream, seed)
    # 52 bits and a half are exact in float64 and never reach 0 or 1.
    return ndtri(((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)
