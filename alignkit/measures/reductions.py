"""The columns of `layers` that a measurement fills, from what it found at every layer.

A measurement finds numbers of samples, [E, N], and of whole networks, [E]. What becomes of them is worked out here for
all layers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from alignkit.measures.angles import normal_p

Measures = dict[str, np.ndarray]
"""Columns of `layers` by name, each [E, hidden layers]; what was not asked for is absent."""

Found = Mapping[str, np.ndarray]
"""What was found at all layers, by name: [layers, E, N] or [layers, E]."""


def columns(layers: Sequence[Mapping[str, Tensor]], groups: Collection[str]) -> Measures:
    """The columns of the chosen `groups`, from what was found at each of the layers, from the first one up."""
    found = {**_gathered(layers, dims=2), **_gathered(layers, dims=1)}
    measures: Measures = {}
    with np.errstate(all="ignore"):  # what is undefined is NaN
        for group in groups:
            if group in COLUMNS_OF:
                measures.update(COLUMNS_OF[group](found))
    return {name: values.T for name, values in measures.items()}


def _gathered(layers: Sequence[Mapping[str, Tensor]], *, dims: int) -> Found:
    """What has so many dimensions, brought from the device in one piece."""
    names = [name for name, values in layers[0].items() if values.dim() == dims]
    if not names:
        return {}
    stacked = torch.stack([layer[name] for name in names for layer in layers]).cpu().numpy()
    return dict(zip(names, stacked.reshape(len(names), len(layers), *stacked.shape[1:]), strict=True))


def _signal(found: Found) -> Measures:
    cosines = found["cosine"]
    return {
        "signal_cosine": _mean(cosines),
        "signal_cosine_sd": _sd(cosines),
        "signal_angle_deg": _mean(found["angle_deg"]),
        "undefined": np.isnan(cosines).sum(-1),
    }


def _delta(found: Found) -> Measures:
    return {"delta_cosine": _mean(found["delta_cosine"])}


def _size(found: Found) -> Measures:
    cosines, t, g, delta = (found[name] for name in ("cosine", "t_length", "g_length", "delta_length"))
    gains = np.where(np.isnan(cosines), np.nan, t / g)
    gates = np.where((t > 0) & np.isfinite(delta), delta / t, np.nan)
    return {"signal_gain": _median(gains), "projection": _mean(gains * cosines), "gate": _median(gates)}


def _common_mode(found: Found) -> Measures:
    """N |mean_n t_n|^2 / sum_n |t_n|^2: the share of a signal that is the same for every sample."""
    lengths = found["t_length"]
    return {"common_mode": found["t_sum_length"] ** 2 / (lengths.shape[-1] * (lengths**2).sum(-1))}


def _chance(found: Found) -> Measures:
    """Against the mean and sd of the null. A layer whose null was drawn brings its own p, another's is a normal's."""
    z = (_mean(found["cosine"]) - found["null_mean"]) / found["null_sd"]
    drawn = found["null_p"]
    return {"chance_z": z, "chance_p": np.where(np.isnan(drawn), normal_p(torch.from_numpy(z)).numpy(), drawn)}


COLUMNS_OF: dict[str, Callable[[Found], Measures]] = {
    "signal": _signal,
    "delta": _delta,
    "gradient": lambda found: {"gradient_cosine": found["gradient_cosine"]},
    "size": _size,
    "common_mode": _common_mode,
    "rank": lambda found: {"effective_rank": found["effective_rank"]},
    "weight": lambda found: {"weight_cosine": found["weight_cosine"]},
    "jacobian": lambda found: {"jacobian_cosine": found["jacobian_cosine"]},
    "ceiling": lambda found: {"ceiling_cosine": _mean(found["ceiling"])},
    "chance": _chance,
}
"""By group of `probe.measures`; those of the group "step" come from the update itself."""


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of what is not NaN, along the last axis; NaN of nothing."""
    missing = np.isnan(values)
    return np.where(missing, 0.0, values).sum(-1) / (~missing).sum(-1)


def _sd(values: np.ndarray) -> np.ndarray:
    """The sample standard deviation (ddof 1) of what is not NaN, along the last axis."""
    count = (~np.isnan(values)).sum(-1)
    deviations = values - _mean(values)[..., None]
    squares = deviations * deviations
    return np.sqrt(np.where(np.isnan(squares), 0.0, squares).sum(-1) / np.maximum(count - 1, 0))


def _median(values: np.ndarray) -> np.ndarray:
    """The median of what is not NaN, along the last axis; NaN of nothing."""
    count = (~np.isnan(values)).sum(-1, keepdims=True)
    ascending = np.sort(values, axis=-1)  # NaN last
    middle = [np.take_along_axis(ascending, np.maximum(count - back, 0) // 2, -1)[..., 0] for back in (1, 0)]
    return np.where(count[..., 0] > 0, 0.5 * (middle[0] + middle[1]), np.nan)
