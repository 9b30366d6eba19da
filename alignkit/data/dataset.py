"""A dataset once it is read: its shape, its three splits, and how samples are taken from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.special import ndtri

Task = Literal["classification", "regression"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Samples: `inputs` [n, *shape], `targets` int64 [n] (classes) or float [n, outputs] (regression)."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)


def gather(split: Split, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples of an index [E, N]: inputs [E, N, *shape] and targets [E, N, …]."""
    chosen = index.reshape(-1)
    inputs, targets = split.inputs.index_select(0, chosen), split.targets.index_select(0, chosen)
    return inputs.view(*index.shape, *inputs.shape[1:]), targets.view(*index.shape, *targets.shape[1:])


@dataclass(frozen=True)
class DatasetShape:
    """What is known of a dataset before its samples are: enough to build a network and plan its runs.

    `shape` is that of one input, (features,) or (channels, height, width); `outputs` counts classes or
    regression targets; `train`, `validation` (0: none) and `test` count samples.
    """

    name: str
    task: Task
    shape: tuple[int, ...]
    outputs: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Dataset:
    """Three splits, normalised, and a `fingerprint` that is the same exactly where the numbers are."""

    name: str
    task: Task
    shape: tuple[int, ...]
    outputs: int
    train: Split
    validation: Split | None
    test: Split
    fingerprint: str

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Dataset:
        """The same data on `device`; inputs and regression targets in `dtype`, classes as int64."""
        train, validation, test = (
            split
            and Split(
                split.inputs.to(device, dtype),
                split.targets.to(device, dtype if split.targets.is_floating_point() else None),
            )
            for split in (self.train, self.validation, self.test)
        )
        assert train is not None and test is not None
        return replace(self, train=train, validation=validation, test=test)


Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


# Philox's raw output is the same in every version of numpy; what Generator's methods make of it is not.
def _raw(count: int, stream: str, seed: int = 0) -> np.ndarray:
    """`count` uint64 of a named stream: the first n are the same whatever `count` is."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    return np.random.Philox(key=np.array([seed % 2**64, name], np.uint64)).random_raw(count)


def permutation(count: int, stream: str) -> np.ndarray:
    return np.argsort(_raw(count, stream), kind="stable")


def gaussian(shape: tuple[int, ...], stream: str, seed: int) -> np.ndarray:
    raw = _raw(int(np.prod(shape)), stream, seed)
    # 52 bits and a half are exact in float64 and never reach 0 or 1.
    return ndtri(((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)
