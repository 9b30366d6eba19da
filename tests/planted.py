"""Records of a study whose measures are made up place by place: what an audit must find is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from synthetic import grid, synthetic_records

from alignkit.records.store import Records

CLAIM: dict[str, Any] = {
    "name": "width", "statement": "Wide layers align better", "factor": "width", "levels": [16, 64],
    "direction": "decrease", "smallest_effect": 1.0, "response": "gradient_angle_deg",
}  # fmt: skip
FACTORS = {"network.width": [16, 64], "network.activation": ["tanh", "relu"]}
ANGLES = ("signal", "centred", "delta", "gradient", "step")

Effect = Callable[[pd.DataFrame], np.ndarray]
"""Of rows of layers beside the factors of their runs, the angle of a place in degrees, without noise."""


def planted_records(
    effects: dict[str, Effect], *claims: dict[str, Any], depth: int = 3, seeds: int = 10, noise: int = 1
) -> Records:
    """Records at step 360 alone; `effects` names places, "" all others. Of wide layers angles are 6 degrees less."""
    records = synthetic_records(
        designs={"cells": grid({**FACTORS, "network.depth": [depth]})},
        study={
            "claims": claims or [CLAIM],
            "designs": {"cells": {"factors": FACTORS}},
            "network": {"depth": depth},
            "probe": {"measures": ["signal", "delta", "gradient", "step"]},
        },
        steps=(360,),
        seeds=seeds,
    )
    layers = records.layers.merge(records.runs[["run_id", "seed", "activation"]], on="run_id")
    generator = np.random.default_rng(noise)
    of_seed = generator.normal(0, 0.4, seeds)[layers["seed"]] * (layers["width"] == 64)
    for place in ANGLES:
        effect = effects.get(place, effects.get("", lambda rows: np.zeros(len(rows))))
        angle = 70 - 6.0 * (layers["width"] == 64) + effect(layers) + of_seed + generator.normal(0, 0.4, len(layers))
        layers[f"{place}_angle_deg"] = angle
        if place != "centred":
            layers[f"{place}_cosine"] = np.cos(np.radians(angle))
    return dataclasses.replace(records, layers=layers[[*records.layers.columns]])


def turned(amount: float, *, layer: int | None = None) -> Effect:
    """An effect of the width that is by so many degrees otherwise, at all layers or one."""
    return lambda rows: amount * ((rows["width"] == 64) & ((rows["layer"] == layer) if layer else True)).to_numpy(float)
