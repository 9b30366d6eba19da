"""One number per run: what a confirmatory test is made of. Trajectories only describe."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

import numpy as np
import pandas as pd

from alignkit.columns import _ACCURACIES, EXCESS, GAP
from alignkit.errors import AnalysisError, nearest, quoted, require_text
from alignkit.records.tuning import Rates, is_tuned, per_replicate
from alignkit.stats.tables.checks import (
    float_column,
    require_choice,
    require_columns,
    without_index_names,
)
from alignkit.study.claim import LAYER_NAMES, Layer, is_layer_name, layer_number

_KEYS = frozenset({"run_id", "step", "epoch", "mode", "layer", "layer_name", "width", "signal"})
_LAYER_KEYS = ("run_id", "step", "epoch", "layer", "signal")


def require_summary(summary: str, layer: Layer, mode: str | None = None) -> None:
    """How a measure becomes one number: at the end or over training, in one layer or their mean, in one mode."""
    require_choice("summary", summary, ("final", "auc"))
    counted = isinstance(layer, Integral) and not isinstance(layer, bool) and layer > 0
    if not counted and not (isinstance(layer, str) and (layer == "mean" or is_layer_name(layer))):
        raise AnalysisError(f"layer: expected {LAYER_NAMES}; got {quoted(layer)}")
    if mode is not None:
        require_text("mode", mode)


def first_mode(layers: pd.DataFrame) -> pd.DataFrame:
    """The rows in each run's first mode, the study's own: all rows of a table of one mode, or without modes.

    A run's rows come in the order of its modes, as `load` gives them.
    """
    if "mode" not in layers.columns or layers["mode"].nunique(dropna=False) <= 1:
        return layers
    mode = layers["mode"].astype(object).where(layers["mode"].notna(), "")
    return layers[mode == mode.groupby(layers["run_id"], sort=False).transform("first")]


def in_mode(layers: pd.DataFrame, mode: str | None) -> pd.DataFrame:
    """The rows in one mode; in each run's first where it is None."""
    if mode is None:
        return first_mode(layers)
    present = sorted(layers["mode"].dropna().unique()) if "mode" in layers.columns else []
    if mode not in present:
        raise AnalysisError(f'mode "{mode}": nothing was measured in it; {nearest(mode, present)}')
    return layers[(layers["mode"] == mode).fillna(False).astype(bool)]


def at_layer(layers: pd.DataFrame, layer: Layer) -> pd.DataFrame:
    """The rows of one hidden layer, counted in each run where it is counted from the output; of all for "mean"."""
    if layer == "mean":
        return layers
    number: int | pd.Series = layer if not isinstance(layer, str) else 0
    if isinstance(layer, str):
        depth = layers.groupby("run_id")["layer"].transform("max")
        number = depth.map({hidden: layer_number(layer, hidden) for hidden in depth.unique()})
    rows = layers[layers["layer"] == number]
    if rows.empty:
        hidden = ", ".join(map(str, sorted(layers["layer"].unique())))
        raise AnalysisError(f"layer {layer}: no run has it; hidden layers: {hidden}")
    return rows


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
    layer: Layer = "mean",
    mode: str | None = None,
    rates: Rates = "within",
) -> pd.DataFrame:
    """One row per replicate: the columns of `runs`, `value`, and `missing`, which says why a value is missing.

    A replicate is a run; where each seed tunes itself it is an arm under a seed, and its value the mean over those of
    its `rates` that count (`records.tuning.chosen_rates`). With "every", a row per run all the same.

    `response` is one of

    - a measure of `layers`, alignkit's or one of your own: its value at the last checkpoint ("final") or its time
      average over epochs ("auc": the area under the curve over its length, so that the unit stays), for the mean over
      hidden layers or one of them: 1, 2, …, "first", "last", or "last-1", "last-2", … from each network's output;
    - a measure with `_excess` appended: the same minus that of the untaught feedback in the run's BP
      twin, which is the alignment that learning brought;
    - a number column of `runs`, accuracies in points (x 100, so that a margin of 1 is one point);
    - `accuracy_gap`: test accuracy minus that of the BP twin, in points.

    Only measures have layers, modes and a course over training; with any other response `summary`, `layer` and `mode`
    are refused. Of several modes of measurement, one is taken: `mode`, or each run's first, which is the study's own.
    Measures of the last step stand with the first mode alone.

    A value is missing where the run diverged, where its measure is undefined (or infinite) in a layer or at a
    checkpoint, or where the twin's is: never replaced, and never averaged around. Only what is
    undefined in every run (a step measure at step 0, a weight measure before a convolution) is left
    out. The output layer is in no summary: its angle is 0 by construction. Give all runs, BP twins
    included, and choose rules and designs from the result.
    """
    require_text("response", response)
    require_summary(summary, layer, mode)
    require_columns(runs, "run_id")
    require_columns(layers, *_LAYER_KEYS)
    per_run = response == GAP or (response in runs.columns and (response in _KEYS or response not in layers.columns))
    if per_run and (summary != "final" or layer != "mean" or mode is not None):
        given = f"summary={summary!r}, layer={layer!r}" + ("" if mode is None else f", mode={mode!r}")
        raise AnalysisError(
            f'response "{response}": one number per run, which has no layers and no course over training; got '
            f"{given}. Leave {'both' if mode is None else 'them'} out, or name a measure of layers"
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
        own = _measure(runs, layers, measure, summary=summary, layer=layer, mode=mode)
        if tuned:
            runs, own = per_replicate(runs, own, rates)
        twin = _of_twin(runs, own)
        return _labelled(runs, (own - twin).where(runs["rule"] != "bp"), runs["rule"] == "bp", twin, measure)
    if response in measures_of(layers):
        value = _measure(runs, layers, response, summary=summary, layer=layer, mode=mode)
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
    layer: Layer,
    mode: str | None,
) -> pd.Series:
    """The summary of one measure, indexed as `runs`."""
    if measure not in measures_of(layers):
        raise AnalysisError(f'"{measure}": no such measure; {nearest(measure, measures_of(layers))}')
    keys = [*_LAYER_KEYS, *(("mode",) if "mode" in layers.columns else ())]
    rows = layers.loc[layers["run_id"].isin(runs["run_id"]), [*keys, measure]]
    chosen = in_mode(rows, mode)
    if mode is not None and summary == "auc":
        _require_whole_course(rows, chosen, mode)
    rows = at_layer(own_signal(without_index_names(chosen)), layer)
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


def _require_whole_course(layers: pd.DataFrame, chosen: pd.DataFrame, mode: str) -> None:
    """A mode that was measured at the end alone has no average over training."""
    steps = chosen.groupby("run_id")["step"].nunique()
    if (steps < layers.groupby("run_id")["step"].nunique().loc[steps.index]).any():
        raise AnalysisError(
            f'mode "{mode}": measured at fewer checkpoints than the first mode, so it has no average over training. '
            'Take summary="final", or measure with probe.modes_at = "all"'
        )


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
