"""What a data source answers. A new source defines `shape` and `read`; the rest has defaults.

Nothing here imports torch, so that a study that names a source of the user's own is read without it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from alignkit.settings.data import DataOptions

Task = Literal["classification", "regression"]
SPLITS = ("train", "validation", "test")
Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By split: inputs [n, *shape] and targets, whole numbers [n] (classes) or numbers [n, outputs] (regression)."""


@dataclass(frozen=True)
class DatasetShape:
    """What is known of a dataset before its samples are: enough to build a network and plan its runs.

    `shape` is that of one input, (features,) or (channels, height, width); `outputs` counts classes or
    regression targets; `train`, `validation` (0: none) and `test` count samples.
    """

    task: Task
    shape: tuple[int, ...]
    outputs: int
    train: int
    validation: int
    test: int

    @property
    def samples(self) -> int:
        return self.train + self.validation + self.test


class DataSource(ABC):
    """Where the samples of a study come from. Every method is given the validated options of a `[data]` section.

    A source holds no state, and what it reads depends on its options and its files alone: not on the seed of a run,
    nor on global random generators (`alignkit.data.draws` has draws that are the same everywhere).

    Examples
    --------
    >>> class Corners(DataSource):
    ...     def shape(self, options):
    ...         return DatasetShape("classification", (2,), outputs=2, train=64, validation=32, test=32)
    ...
    ...     def read(self, options):
    ...         corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    ...         inputs, sizes = np.tile(corners, (32, 1)), {"train": 64, "validation": 32, "test": 32}
    ...         return {split: (inputs[:n], inputs[:n].sum(axis=1) % 2) for split, n in sizes.items()}
    """

    Options: ClassVar[type[DataOptions]] = DataOptions
    """A subclass of `DataOptions` with the source's own options, all with defaults or required."""

    @abstractmethod
    def shape(self, options: Any) -> DatasetShape:
        """The dataset's shape and sizes, for little: samples are read later.

        Raises `DataError` where files are missing or options ask for what cannot be.
        """

    @abstractmethod
    def read(self, options: Any) -> Arrays:
        """The samples of every split, as many as `shape` says, in an order in which any first n are a random sample.

        They are kept as float32, classes as int64.
        """

    def content(self, options: Any) -> dict[str, Any]:
        """What identifies the samples beside options and code, as JSON: hashes of files, say (`content.content_hash`).

        Empty for samples that the options determine. Runs of other content get other ids.
        """
        return {}

    def notes(self, options: Any) -> tuple[str, ...]:
        """What is odd about the data though they can be used, in sentences: said before anything runs."""
        return ()

    def working_bytes(self, options: Any, described: DatasetShape) -> int:
        """About how much memory reading the samples takes at most: by default their floats, twice."""
        return 8 * described.samples * (math.prod(described.shape) + described.outputs)

    def determinants(self, options: Any) -> dict[str, Any]:
        """The options that decide the samples: those that are not at their defaults.

        A source leaves out here what only says where files lie, if `content` says what they hold.
        """
        determined: dict[str, Any] = options.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        return determined
