"""The measures of the records as arrays: each run's value in each mode and layer, at the end and over training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from alignkit.records.store import Records

OWN_MODE = "own mode"


@dataclass(frozen=True, eq=False)
class Measured:
    """Where each row of `layers` belongs, so that a column becomes an array.

    `run`, `mode`, `layer` and `place` [rows] are positions (`place`: which of the study's checkpoints), `depth` [runs]
    the number of hidden layers, `modes` the names of the modes, a run's first one first.
    """

    frame: pd.DataFrame
    run: np.ndarray
    mode: np.ndarray
    layer: np.ndarray
    place: np.ndarray
    ends: np.ndarray
    depth: np.ndarray
    modes: tuple[str, ...]
    epochs: np.ndarray
    best_place: np.ndarray

    def end(self, column: str) -> np.ndarray:
        """[runs, modes, layers] at the last checkpoint of each mode; NaN where there is none."""
        found = np.full((len(self.depth), len(self.modes), int(self.depth.max(initial=1))), np.nan)
        chosen = self.ends
        found[self.run[chosen], self.mode[chosen], self.layer[chosen]] = self._numbers(column)[chosen]
        return found

    def course(self, column: str) -> np.ndarray:
        """[runs, checkpoints, layers] in each run's first mode."""
        found = np.full((*self.epochs.shape, int(self.depth.max(initial=1))), np.nan)
        chosen = self.mode == 0
        found[self.run[chosen], self.place[chosen], self.layer[chosen]] = self._numbers(column)[chosen]
        return found

    def _numbers(self, column: str) -> np.ndarray:
        numbers = self.frame[column].to_numpy(float)
        return np.where(np.isfinite(numbers), numbers, np.nan)


def measured(records: Records) -> Measured:
    """The rows of each run's own signal: what taught it, or what did not where nothing else was measured."""
    runs, frame = records.runs, records.layers
    position = {run_id: index for index, run_id in enumerate(runs["run_id"])}
    run = frame["run_id"].map(position).to_numpy()
    teaching = (frame["signal"] == "teaching").to_numpy()
    taught = np.zeros(len(runs), dtype=bool)
    taught[run[teaching]] = True
    own = teaching | ~taught[run]
    frame, run = frame[own], run[own]
    modes, mode = _modes(records, frame, run)
    step = frame["step"].to_numpy()
    layer = frame["layer"].to_numpy() - 1
    place, steps = _places(run, step, len(runs))
    epochs = np.full(steps.shape, np.nan)
    epochs[run, place] = frame["epoch"].to_numpy(float)
    last = np.full((len(runs), max(len(modes), 1)), -1)
    np.maximum.at(last, (run, mode), step)
    depth = np.zeros(len(runs), dtype=int)
    np.maximum.at(depth, run, layer + 1)
    best = _best_places(records, steps, position)
    return Measured(frame, run, mode, layer, place, step == last[run, mode], depth, modes, epochs, best)


def _modes(records: Records, frame: pd.DataFrame, run: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the modes, and each row's: 0 is the first that its run has."""
    if "mode" not in frame or not len(frame):
        return (records.study.probe.mode,), np.zeros(len(frame), dtype=int)
    code, names = pd.factorize(frame["mode"].astype(object).where(frame["mode"].notna(), ""))
    rows = pd.DataFrame({"run": run, "code": code, "row": np.arange(len(run))})
    first = rows.drop_duplicates(["run", "code"]).copy()
    first["order"] = first.groupby("run").cumcount()
    order = np.zeros((run.max() + 1, len(names)), dtype=int)
    order[first["run"], first["code"]] = first["order"]
    mode = order[run, code]
    found = []
    for index in range(int(mode.max()) + 1):
        there = {str(names[each]) for each in np.unique(code[mode == index])}
        found.append(there.pop() if len(there) == 1 else OWN_MODE)
    return tuple(name or records.study.probe.mode for name in found), mode


def _places(run: np.ndarray, step: np.ndarray, n_runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Which step, of all that any run has, each row is at; and the steps [runs, checkpoints], -1 where it has none."""
    known, place = np.unique(step, return_inverse=True)
    steps = np.full((n_runs, max(len(known), 1)), -1)
    steps[run, place] = step
    return place, steps


def _best_places(records: Records, steps: np.ndarray, position: dict[str, int]) -> np.ndarray:
    """Each run's checkpoint of the best validation accuracy (of a regression: loss) after step 0; -1 without one."""
    table = records.checkpoints
    accuracy = table["validation_accuracy"].to_numpy(float)
    score = np.where(np.isfinite(accuracy), accuracy, -table["validation_loss"].to_numpy(float))
    rows = pd.DataFrame({"run": table["run_id"].map(position), "step": table["step"], "score": score})
    rows = rows[(rows["step"] > 0) & rows["score"].notna()]
    best = rows.sort_values(["run", "score", "step"], ascending=[True, False, True]).drop_duplicates("run")
    found = np.full(len(steps), -1)
    for run, step in zip(best["run"], best["step"], strict=True):
        at = np.flatnonzero(steps[int(run)] == step)
        if len(at):
            found[int(run)] = at[0]
    return found


def over_layers(values: np.ndarray, depth: np.ndarray, layer: int | str) -> np.ndarray:
    """One number in the place of the layers, the last axis of `values` [runs, ..., layers].

    NaN where a layer that counts is undefined, or where a network has no such layer. A layer that is undefined in
    every run counts nowhere.
    """
    of_run = depth.reshape(-1, *(1,) * (values.ndim - 2))
    if layer in ("mean", "median"):
        known = np.isfinite(values).any(axis=tuple(range(values.ndim - 1)))
        counts = (np.arange(values.shape[-1]) < of_run[..., None]) & known
        lost = (counts & np.isnan(values)).any(axis=-1) | ~counts.any(axis=-1)
        kept = np.where(counts & ~lost[..., None], values, np.nan)
        filled = np.where(lost[..., None], 0.0, kept)
        summary = np.nanmean(filled, axis=-1) if layer == "mean" else np.nanmedian(filled, axis=-1)
        return np.where(lost, np.nan, summary)
    place = layer - 1 if isinstance(layer, int) else 0
    number = np.full(of_run.shape, place)
    if isinstance(layer, str) and layer != "first":
        number = of_run - 1 - int(layer.removeprefix("last").removeprefix("-") or 0)
    there = np.broadcast_to((number >= 0) & (number < of_run), values.shape[:-1])
    at = np.broadcast_to(np.clip(number, 0, values.shape[-1] - 1), values.shape[:-1])
    taken = np.take_along_axis(values, at[..., None], axis=-1)[..., 0]
    return np.where(there, taken, np.nan)


def has_layer(depth: np.ndarray, layer: int | str) -> np.ndarray:
    """Whether each run's network has the layer."""
    if isinstance(layer, int):
        return depth >= layer
    back = int(layer.removeprefix("last-")) if layer.startswith("last-") else 0
    return depth > back


def time_average(course: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """The mean over epochs of a course [runs, checkpoints], by the trapezoidal rule; of one checkpoint, its value.

    Checkpoints at which no run has a value are left out, and a run that lacks one of the others has none.
    """
    known = np.isfinite(course).any(axis=0)
    course, epochs = course[:, known], epochs[:, known]
    found = np.full(len(course), np.nan)
    patterns, pattern = np.unique(np.isfinite(epochs), axis=0, return_inverse=True)
    for index, there in enumerate(patterns):
        runs = np.flatnonzero(pattern == index)
        values, times = course[np.ix_(runs, there)], epochs[np.ix_(runs, there)]
        if values.shape[1] == 1:
            found[runs] = values[:, 0]
        elif values.shape[1]:
            found[runs] = np.trapezoid(values, times, axis=1) / (times[:, -1] - times[:, 0])
    return found
