"""One number per run: what a confirmatory test is made of. Trajectories only describe."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from alignkit.columns import _ACCURACIES, EXCESS, GAP
from alignkit.errors import AnalysisError, nearest, require_text
from alignkit.records.tuning import Rates, is_tuned, per_replicate
from alignkit.stats.tables.checks import (
    float_column,
    require_choice,
    require_columns,
    require_count,
    without_index_names,
)

_KEYS = frozenset({"run_id", "step", "epoch", "layer", "layer_name", "width", "signal"})
_LAYER_KEYS = ("run_id", "step", "epoch", "layer", "signal")


def require_summary(summary: str, layer: int | str) -> None:
    """How a measure becomes one number: at the end or over training, in one layer or their mean."""
    require_choice("summary", summary, ("final", "auc"))
    if layer != "mean":
        require_count('layer (or "mean")', layer)


def measures_of(layers: pd.DataFrame) -> list[str]:
    """The columns of `layers` that hold a measure: alignkit's, and whatever else was recorded there as a number."""
    return [name for name in layers.columns if name not in _KEYS and pd.api.types.is_numeric_dtype(layers[name])]


def own_signal(layers: pd.DataFrame) -> pd.DataFrame:
    """The rows of one signal for each run: the one that taught it, where there was one."""
    teaching = layers.loc[layers["signal"] == "teaching", "run_id"].unique()
    return layers[(layers["signal"] == "teaching") | ~layers["run_id"].isin(teaching)]


def run_summaries(
    runs: pd.DataFrame,
    layers: pd.DataFrame,
    response: str,
    *,
    summary: Literal["final", "auc"] = "final",
    layer: int | Literal["mean"] = "mean",
    rates: Rates | Literal["every"] = "within",
) -> pd.DataFrame:
    """One row per replicate: the columns of `runs`, `value`, and `missing`, which says why a value is missing.

    A replicate is a run; where each seed tunes itself it is an arm under a seed, and its value the mean over those of
    its `rates` that count (`records.tuning.chosen_rates`). With "every", a row per run all the same.

    `response` is one of

    - a measure of `layers`, alignkit's or one of your own: its value at the last checkpoint ("final") or its time
      average over epochs ("auc": the area under the curve over its length, so that the unit stays), for one hidden
      layer or the mean over all;
    - a measure with `_excess` appended: the same minus that of the untaught feedback in the run's BP
      twin, which is the alignment that learning brought;
    - a number column of `runs`, accuracies in points (x 100, so that a margin of 1 is one point);
    - `accuracy_gap`: test accuracy minus that of the BP twin, in points.

    Only measures have layers and a course over training; with any other response `summary` and `layer` are refused.

    A value is missing where the run diverged, where its measure is undefined (or infinite) in a layer or at a
    checkpoint, or where the twin's is: never replaced, and never averaged around. Only what is
    undefined in every run (a step measure at step 0, a weight measure before a convolution) is left
    out. The output layer is in no summary: its angle is 0 by construction. Give all runs, BP twins
    included, and choose rules and designs from the result.
    """
    require_text("response", response)
    require_summary(summary, layer)
    require_columns(runs, "run_id")
    require_columns(layers, *_LAYER_KEYS)
    per_run = response == GAP or (response in runs.columns and (response in _KEYS or response not in layers.columns))
    if per_run and (summary != "final" or layer != "mean"):
        raise AnalysisError(
            f'response "{response}": one number per run, which has no layers and no course over training; got '
            f"summary={summary!r}, layer={layer!r}. Leave both out, or name a measure of layers"
        )
    tuned = rates != "every" and is_tuned(runs)
    if response == GAP:
        own = runs["test_accuracy"].astype(float) * 100
        if tuned:
            runs, own = per_replicate(runs, own, rates)
        twin = _of_twin(runs, own)
        value, label = (own - twin).where(runs["rule"] != "bp"), "test accuracy"
        return _labelled(runs, value, runs["rule"] == "bp", twin, label)
    if response.endswith(EXCESS):
        measure = response.removesuffix(EXCESS)
        own = _measure(runs, layers, measure, summary=summary, layer=layer)
        if tuned:
            runs, own = per_replicate(runs, own, rates)
        twin = _of_twin(runs, own)
        return _labelled(runs, (own - twin).where(runs["rule"] != "bp"), runs["rule"] == "bp", twin, measure)
    if response in measures_of(layers):
        value = _measure(runs, layers, response, summary=summary, layer=layer)
    elif response in runs.columns and pd.api.types.is_numeric_dtype(runs[response]):
        value = runs[response].astype(float) * (100 if response in _ACCURACIES else 1)
    else:
        numbers = [name for name in runs.columns if pd.api.types.is_numeric_dtype(runs[name])]
        valid = [*measures_of(layers), *numbers, GAP]
        raise AnalysisError(
            f'response "{response}": no such measure; {nearest(response, valid)}; or a measure with {EXCESS} appended'
        )
    if tuned:
        runs, value = per_replicate(runs, value, rates)
    return _labelled(runs, value, pd.Series(False, index=runs.index), None, response)


def _measure(
    runs: pd.DataFrame,
    layers: pd.DataFrame,
    measure: str,
    *,
    summary: Literal["final", "auc"],
    layer: int | Literal["mean"],
) -> pd.Series:
    """The summary of one measure, indexed as `runs`."""
    if measure not in measures_of(layers):
        raise AnalysisError(f'"{measure}": no such measure; {nearest(measure, measures_of(layers))}')
    rows = layers.loc[layers["run_id"].isin(runs["run_id"]), ["run_id", "step", "epoch", "layer", "signal", measure]]
    rows = own_signal(without_index_names(rows))
    if layer != "mean":
        rows = rows[rows["layer"] == layer]
        if rows.empty:
            hidden = ", ".join(map(str, sorted(layers["layer"].unique())))
            raise AnalysisError(f"layer {layer}: no run has it; hidden layers: {hidden}")
    if summary == "final":
        rows = rows[rows["step"] == rows.groupby("run_id")["step"].transform("max")]
    rows = rows.assign(value=float_column(rows[measure], measure))
    for key in ("layer", "step"):
        defined = rows["value"].notna().groupby(rows[key]).transform("any")
        rows = rows[defined]
    grouped = rows.assign(lost=rows["value"].isna()).groupby(["run_id", "step", "epoch"], sort=True)
    # The mean of the layers that remain would compare unlike things, so one undefined layer is enough.
    by_step = grouped["value"].mean().mask(grouped["lost"].any())
    if summary == "final":
        per_run = by_step.groupby(level="run_id").last(skipna=False) if len(by_step) else by_step
    else:
        per_run = _time_averages(by_step)
    values = runs["run_id"].map(per_run.to_dict()).astype(float)
    return values


def _time_averages(by_step: pd.Series) -> pd.Series:
    """Each run's mean over its epochs, by the trapezoidal rule; of a single checkpoint, its value."""
    runs, first = pd.factorize(by_step.index.get_level_values("run_id"))
    epochs, values = by_step.index.get_level_values("epoch").to_numpy(float), by_step.to_numpy(float)
    same = runs[1:] == runs[:-1]
    areas = np.where(same, (values[1:] + values[:-1]) / 2 * np.diff(epochs), 0.0)
    lengths = np.bincount(runs[1:], weights=np.where(same, np.diff(epochs), 0.0), minlength=len(first))
    total = np.bincount(runs[1:], weights=areas, minlength=len(first))
    last = by_step.groupby(level="run_id", sort=False).last(skipna=False).to_numpy(float, copy=True)
    return pd.Series(np.divide(total, lengths, out=last, where=lengths > 0), index=first)


def _of_twin(runs: pd.DataFrame, value: pd.Series) -> pd.Series:
    by_id = dict(zip(runs["run_id"], value, strict=True))
    return runs["bp_run_id"].map(lambda twin: by_id.get(twin, np.nan)).astype(float)


def _labelled(
    runs: pd.DataFrame, value: pd.Series, reference: pd.Series, twin: pd.Series | None, label: str
) -> pd.DataFrame:
    missing = pd.Series("", index=runs.index, dtype=object)
    infinite = pd.Series(np.isinf(value), index=runs.index)
    value = value.mask(infinite)
    absent = value.isna()
    missing[absent] = f"{label} undefined"
    missing[infinite] = f"{label} infinite"
    if twin is not None:
        missing[absent & twin.isna()] = "no value in the BP twin"
    if "diverged" in runs.columns:
        missing[absent & runs["diverged"].fillna(False).astype(bool)] = "diverged"
    missing[absent & reference] = "is the reference itself"
    return runs.assign(value=value, missing=missing)
