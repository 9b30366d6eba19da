"""A dataset once it is read: its three splits, and how samples are taken from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from alignkit.data.source import Task


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
