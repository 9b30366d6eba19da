"""The columns of `layers` that a measurement fills, from what it found at every layer.

A measurement finds numbers of samples, [E, N], and of whole networks, [E]. What becomes of them is worked out here for
all layers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Measures = dict[str, np.ndarray]
"""Columns of `layers` by name, each [E, hidden layers]; what was not asked for is absent."""

Found = Mapping[str, np.ndarray]
"""What was found at all layers, by name: [layers, E, N] or [layers, E]."""


class _Reducible(Protocol):
    def reduce(self, found: Found) -> Measures: ...


def columns(layers: Sequence[Mapping[str, Tensor]], measures: Iterable[_Reducible]) -> Measures:
    """The columns of the chosen `measures`, from what was found at each of the layers, from the first one up."""
    found = {**_gathered(layers, dims=2), **_gathered(layers, dims=1)}
    reduced: Measures = {}
    with np.errstate(all="ignore"):  # what is undefined is NaN
        for measure in measures:
            reduced.update(measure.reduce(found))
    return {name: values.T for name, values in reduced.items()}


def _gathered(layers: Sequence[Mapping[str, Tensor]], *, dims: int) -> Found:
    """What has so many dimensions, brought from the device in one piece."""
    names = [name for name, values in layers[0].items() if values.dim() == dims]
    if not names:
        return {}
    stacked = torch.stack([layer[name] for name in names for layer in layers]).cpu().numpy()
    return dict(zip(names, stacked.reshape(len(names), len(layers), *stacked.shape[1:]), strict=True))


def mean(values: np.ndarray) -> np.ndarray:
    """The mean of what is not NaN, along the last axis; NaN of nothing."""
    missing = np.isnan(values)
    return np.where(missing, 0.0, values).sum(-1) / (~missing).sum(-1)


def sd(values: np.ndarray) -> np.ndarray:
    """The sample standard deviation (ddof 1) of what is not NaN, along the last axis."""
    count = (~np.isnan(values)).sum(-1)
    deviations = values - mean(values)[..., None]
    squares = deviations * deviations
    return np.sqrt(np.where(np.isnan(squares), 0.0, squares).sum(-1) / np.maximum(count - 1, 0))


def median(values: np.ndarray) -> np.ndarray:
    """The median of what is not NaN, along the last axis; NaN of nothing."""
    count = (~np.isnan(values)).sum(-1, keepdims=True)
    ascending = np.sort(values, axis=-1)  # NaN last
    middle = [np.take_along_axis(ascending, np.maximum(count - back, 0) // 2, -1)[..., 0] for back in (1, 0)]
    return np.where(count[..., 0] > 0, 0.5 * (middle[0] + middle[1]), np.nan)
