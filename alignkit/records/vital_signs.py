"""Whether there is anything to measure: how long the compared vectors are, and whether the network learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from alignkit.records.rows import last_layers
from alignkit.records.store import Records
from alignkit.records.summaries import own_signal

NORMS = ("teaching_norm", "gradient_norm", "activation_norm")
FLOOR_RATIO = 1e6
"""Ratio to the floor below which entries that are a millionth of the typical one lose digits."""
LEAST_STABILITY = 0.1
"""Cosine of two half batches' BP gradients below which the reference is mostly of the samples at hand."""
MOST_UNDEFINED = 0.1
"""Share of samples without a direction above which a mean over the others is no longer of the probe."""


NOT_SOLID = (
    f"Not solid is what has: a norm within {FLOOR_RATIO:,.0f} times of the smallest normal number; a BP signal that "
    f"the activations' rounding swallows; more than {MOST_UNDEFINED:.0%} of samples without a direction; halves of the "
    f"probe whose BP gradients agree by a cosine below {LEAST_STABILITY:g}; or no accuracy above that of frozen hidden "
    "layers. What was not measured is not held against a cosine."
)


def vital_signs(records: Records) -> pd.DataFrame:
    """What every cosine of a study stands on: one row per rule, cell and hidden layer, at the end of training.

    Returns
    -------
    A table with `rule`, `cell`, `layer`, `signal`, `runs`, and

    - `teaching_norm`, `gradient_norm`, `activation_norm`: medians over runs of the medians over samples;
    - `floor_ratio`: the smallest norm of any run over √width times the smallest normal number of its format (float32
      or float64): how many times the root mean square entry is that number, below which digits are lost;
    - `gradient_over_activation`: the median of |g_l| / |h_l|;
    - `gradient_stability`: its median over runs; `undefined`: the share of samples without a direction;
    - `accuracy`: mean test accuracy; `over_shallow`: the same less that of frozen hidden layers (rule "shallow") in the
      same cell and seed, in points, NaN where that did not run;
    - `ground`: "solid", or what is wrong.
    """
    runs = records.runs.assign(over_shallow=_over_shallow(records), dtype_of_run=_dtype(records))
    rows = own_signal(last_layers(records)).merge(
        runs[["run_id", "rule", "cell", "diverged", "test_accuracy", "over_shallow", "dtype_of_run"]], on="run_id"
    )
    tiny = rows["dtype_of_run"].map({name: np.finfo(name).tiny for name in ("float32", "float64")}).astype(float)
    norms = rows[[*NORMS]].astype(float)
    # a rule that teaches nothing has no signal to lose digits
    smallest = norms.where(norms > 0).min(axis=1)
    rows = rows.assign(
        **norms,
        floor_ratio=smallest / (np.sqrt(rows["width"].astype(float)) * tiny),
        gradient_over_activation=norms["gradient_norm"] / norms["activation_norm"].where(norms["activation_norm"] > 0),
        undefined=rows["undefined"].astype(float) / records.study.probe.samples,
        gradient_stability=rows["gradient_stability"].astype(float),
        accuracy=rows["test_accuracy"].astype(float),
        lost=rows["diverged"].fillna(False).astype(bool),
    )
    found = rows.groupby(["rule", "cell", "layer"], sort=False, dropna=False).agg(
        signal=("signal", "first"),
        runs=("run_id", "nunique"),
        diverged=("lost", "sum"),
        **{name: (name, "median") for name in NORMS},
        floor_ratio=("floor_ratio", "min"),
        gradient_over_activation=("gradient_over_activation", "median"),
        gradient_stability=("gradient_stability", "median"),
        undefined=("undefined", "mean"),
        accuracy=("accuracy", "mean"),
        over_shallow=("over_shallow", "mean"),
        eps=("dtype_of_run", lambda names: max(float(np.finfo(name).eps) for name in names)),
    )
    found = found.reset_index()
    return found.assign(ground=[_ground(row) for row in found.to_dict("records")]).drop(columns="eps")


def _ground(row: Mapping[Any, Any]) -> str:
    """What is wrong, in a few words; what was not measured is not held against a cosine."""
    wrong = {
        "every run diverged": row["diverged"] == row["runs"],
        "samples without a direction": row["undefined"] > MOST_UNDEFINED,
        "norms near the floor of the number format": row["floor_ratio"] < FLOOR_RATIO,
        # a move of h along g is lost in the rounding of h, and so is the sum of 1 / eps of them
        "BP signal lost in the rounding of the activations": row["gradient_over_activation"] < row["eps"] ** 2,
        "no BP signal": row["gradient_norm"] == 0,
        "no teaching signal": row["teaching_norm"] == 0,
        "halves of the probe disagree on the BP gradient": row["gradient_stability"] < LEAST_STABILITY,
        "not above frozen hidden layers": row["over_shallow"] <= 0,
    }
    return "; ".join(text for text, is_so in wrong.items() if is_so) or "solid"


def _over_shallow(records: Records) -> pd.Series:
    """Test accuracy less that of the shallow run of the same seed and of those factors that it has, in points."""
    runs, shallow = records.runs, records.runs[records.runs["rule"] == "shallow"]
    if shallow.empty:
        return pd.Series(np.nan, runs.index)
    shared = ["seed", *(factor for factor in records.factors if shallow[factor].notna().all())]
    keys = [pd.Series(list(zip(*(table[name].astype(str) for name in shared), strict=True)), table.index)
            for table in (runs, shallow)]  # fmt: skip
    floor = shallow["test_accuracy"].astype(float).groupby(keys[1]).mean()
    above = 100 * (runs["test_accuracy"].astype(float) - keys[0].map(floor))
    return above.mask(runs["rule"] == "shallow")


def _dtype(records: Records) -> pd.Series:
    """The number format of each run: of the study, of a design's base, or a factor's level."""
    runs, study = records.runs, records.study
    if "dtype" in records.factors:
        return runs["dtype"].fillna(study.training.dtype).astype(str)
    bases = {
        name: design.base.get("training.dtype", design.base.get("training", {}).get("dtype"))
        for name, design in study.designs.items()
    }
    return runs["designs"].map(lambda names: bases.get(str(names).split("+")[0]) or study.training.dtype)
