"""From whole-number pixels to normalised inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def channel_moments(pixels: np.ndarray, rows: np.ndarray, full: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each channel over `rows`, from whole-number sums: exact in any order."""
    channels = pixels.shape[1]
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for _, chunk in _chunks(pixels, rows):
        total += chunk.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=(0, 2, 3), dtype=np.int64)
    count = len(rows) * pixels[0, 0].size
    mean = total / count
    sd = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean / full, np.where(sd > 0, sd, full) / full  # a constant channel is centred alone


def lookup_table(mean: np.ndarray, sd: np.ndarray, full: int) -> np.ndarray:
    """What each of the values 0 … 255 becomes in each channel, float32 [channels, 256]."""
    return ((np.arange(256) / full - mean[:, None]) / sd[:, None]).astype(np.float32)


def normalised(pixels: np.ndarray, rows: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float32 [n, channels, height, width], with no other copy of that size."""
    inputs = np.empty((len(rows), *pixels.shape[1:]), np.float32)
    for start, chunk in _chunks(pixels, rows):
        for channel, values in enumerate(table):
            inputs[start : start + len(chunk), channel] = values[chunk[:, channel]]
    return inputs


def _chunks(pixels: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), 1024):
        yield start, pixels[rows[start : start + 1024]]
