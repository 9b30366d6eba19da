"""Records of a study in which every seed tunes itself, with a known truth at each rate and in each mode."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from synthetic import grid, synthetic_records

from alignkit.records.store import Records

RATES = (0.01, 0.1, 1.0)
FACTORS = {"network.activation": ["relu", "tanh"], "network.norm": ["none", "batch"]}
CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Batch normalisation aligns", "practice": "Normalise", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 2.0,
}  # fmt: skip


def tuned_records(
    *claims: dict[str, Any],
    seeds: int = 8,
    effect: float = -6.0,
    at_tanh: float = 0.0,
    h_in_batch_mode: float = 0.0,
    factors: dict[str, list[Any]] = FACTORS,
    **sections: Any,
) -> Records:
    """Every run at three rates, the middle one the best of every seed, measured in batch and evaluation mode.

    Batch norm moves the angle by `effect`, at tanh by `at_tanh` more, and `h_in_batch_mode` is added to its angle at
    h in batch mode alone. Rates other than the best add five degrees to every angle and take a tenth of the accuracy.
    """
    angles = ("signal_angle_deg", "delta_angle_deg", "gradient_angle_deg")
    options: dict[str, Any] = {
        "claims": [{"response": "gradient_angle_deg", **claim} for claim in claims or (CLAIM,)],
        "designs": {"cells": {"factors": factors}},
        "tuning": {"lr": list(RATES), "trajectory_lr": 0.1},
        "probe": {"modes": ["batch", "eval"], "measures": ["signal", "delta", "gradient"]},
        **sections,
    }
    found = synthetic_records(
        designs={"cells": grid(factors)}, study=options, rules=("dfa",), seeds=seeds, steps=(0, 360),
        angle_effects={"network.norm": effect}, seed_by_factor_sd=0.3, residual_sd=0.3,
    )  # fmt: skip
    runs, layers = found.runs, found.layers
    base = layers["signal_angle_deg"]
    of = runs.set_index("run_id").reindex(layers["run_id"])
    batch = np.zeros(len(layers)) if "norm" not in of else (of["norm"] == "batch").to_numpy(float)
    tanh = np.zeros(len(layers)) if "activation" not in of else (of["activation"] == "tanh").to_numpy(float)
    base = base + at_tanh * batch * tanh
    layers = layers.assign(**dict.fromkeys(angles, base))
    layers["signal_angle_deg"] += h_in_batch_mode * batch
    evaluated = layers.assign(mode="eval", **dict.fromkeys(angles, base))
    end = evaluated["step"] == evaluated["step"].max()
    layers = pd.concat([layers, evaluated[end]], ignore_index=True)
    checkpoints = found.checkpoints
    parts: dict[str, list[pd.DataFrame]] = {"runs": [], "layers": [], "checkpoints": []}
    for lr in RATES:
        worse = float(lr != 0.1)
        name = f"@{lr:g}"
        accuracies = {a: runs[a] - 0.1 * worse for a in ("train_accuracy", "validation_accuracy", "test_accuracy")}
        parts["runs"].append(
            runs.assign(
                run_id=runs["run_id"] + name, replicate=runs["run_id"], bp_replicate="", lr=lr, output_lr=lr,
                validation_samples=400, **accuracies,
            )
        )  # fmt: skip
        moved = {angle: layers[angle] + 5.0 * worse for angle in angles}
        parts["layers"].append(layers.assign(run_id=layers["run_id"] + name, **moved))
        parts["checkpoints"].append(checkpoints.assign(run_id=checkpoints["run_id"] + name))
    whole = {key: pd.concat(tables, ignore_index=True) for key, tables in parts.items()}
    return dataclasses.replace(found, **whole)
