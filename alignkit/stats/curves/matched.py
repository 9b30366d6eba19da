"""Comparisons at equal training loss, beside those at an equal number of steps.

A practice that learns faster is further along at any step. Matched loss asks what alignment it has when it has
learned as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError, quoted
from alignkit.stats.contrasts.contrasts import Contrast, contrast, contrast_frame
from alignkit.stats.curves.rows import curve_rows
from alignkit.stats.tables.checks import float_column, require_columns, require_count, require_seed_column
from alignkit.stats.tables.inference import inference_of
from alignkit.stats.tables.levels import cell_column, level_column, level_text

NAN = float("nan")
UNMATCHED = "does not reach the losses of its counterparts"


def matched_loss_table(
    runs: pd.DataFrame,
    checkpoints: pd.DataFrame,
    layers: pd.DataFrame | None = None,
    *,
    factor: str,
    levels: tuple[Any, Any],
    response: str,
    within: Sequence[str] = (),
    at: Literal["loss", "step"] = "loss",
    summary: Literal["mean", "end"] = "mean",
    loss: str = "train_loss",
    layer: int | Literal["mean"] = "mean",
    reach: float = 1.0,
    points: int = 25,
    run: str = "run_id",
    seed: str = "seed",
    time: str = "step",
) -> pd.DataFrame:
    """Each run's response at the losses that it and its counterparts all pass: one row per run, for a contrast.

    Counterparts are the two runs of a seed that differ in `factor` alone (`within` names the other factors). In a
    regular fraction no run has one: there all runs of a seed are matched to each other, and one that hardly learns
    narrows the range for all. `reach` below 1 lets go of the slowest: the losses end where that share of the runs
    gets, and the others are missing, which favours whatever goes with learning badly; say so where you use it.

    For each group of counterparts, `points` losses are spread evenly on the log scale from the smallest first loss
    to the largest lowest loss. A run's response at a loss is that at the first time that the loss is reached, by
    linear interpolation between checkpoints; later rises of the loss change nothing. `value` is the mean over the
    losses ("mean") or the response at the last of them ("end"). `at="step"` gives the same summary over equal steps
    instead, on log2(1 + step), and nothing else changes.

    Parameters
    ----------
    runs, checkpoints, layers
        One row per run; per run and checkpoint; per run, checkpoint and layer (one `signal` of a run).
    response
        A measure of `layers`, the mean over layers or that of one `layer`; or a column of `checkpoints`.
    loss
        A column of `checkpoints`, above 0.

    Returns
    -------
    The rows of `runs` at the two levels, with `value`, `missing` (why there is no value, else empty), and `loss_from`
    and `loss_to` (or `step_from` and `step_to`): what was matched over. `contrast` and `seed_contrasts` take it as
    they take any table, with all rules of pairing and missing runs.

    Do not read it as the effect of the practice: the loss comes after the practice, and what is compared are runs at
    different steps. It says whether a difference at equal steps is one of speed.
    """
    require_columns(runs, run, seed, factor, *within)
    require_seed_column(runs[seed])
    runs = _runs_at(runs, factor, levels)
    require_count("points", points, least=2)
    if not 0.5 < reach <= 1:
        raise AnalysisError(f"expected 0.5 < reach <= 1; got {quoted(reach)}. Write 1 for whole curves")
    table = _joined(runs, checkpoints, layers, response, layer, loss, run, time)
    if (table["loss"] <= 0).any():
        raise AnalysisError(
            f'expected "{loss}" above 0, to spread it on the log scale; its least value is {table["loss"].min():g}'
        )
    # Both axes fall from left to right, so that one rule of first passage serves both.
    table["axis"] = np.log(table["loss"]) if at == "loss" else -np.log2(1 + float_column(table[time], time))
    known = {name: curve[:, 1:] for name, curve in _curves(table, run) if np.isfinite(curve).all()}
    by_run: dict[Any, tuple[float, str, float, float]] = {}
    for group in _counterparts(runs, factor, run, seed, [name for name in within if name != factor]):
        whole = {name: known[name] for name in group if name in known}
        first, last = _shared_range(list(whole.values()), reach)
        for name in group:
            if name not in whole:
                reason = f"{loss} or {response} undefined"
            elif len(whole) < 2:
                reason = "no counterpart with a value"
            elif not last < first or whole[name][:, 0].min() > last:
                reason = UNMATCHED
            else:
                values = _first_passage(whole[name], np.linspace(first, last, points))
                value = float(values.mean() if summary == "mean" else values[-1])
                by_run[name] = (value, "", _unit(first, at), _unit(last, at))
                continue
            by_run[name] = (NAN, reason, NAN, NAN)
    names = ("value", "missing", f"{at}_from", f"{at}_to")
    columns = zip(*(by_run[name] for name in runs[run]), strict=True)
    return runs.assign(**dict(zip(names, map(list, columns), strict=True)))


def _runs_at(runs: pd.DataFrame, factor: str, levels: tuple[Any, Any]) -> pd.DataFrame:
    """The runs at one of two levels."""
    texts = [level_text(level) for level in levels]
    own = level_column(runs[factor])
    if texts[0] == texts[1] or not set(texts) <= set(own):
        raise AnalysisError(
            f'factor "{factor}": expected runs at two different levels; got {" and ".join(map(str, texts))}, '
            f"of {', '.join(map(str, own.dropna().unique())) or 'none'}"
        )
    return runs[own.isin(texts)].reset_index(drop=True)


def _curves(table: pd.DataFrame, run: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Each run's loss, axis and value [checkpoints, 3], in the table's order."""
    codes, names = pd.factorize(table[run])
    order = np.argsort(codes, kind="stable")
    rows = table[["loss", "axis", "value"]].to_numpy(float)[order]
    return zip(names, np.split(rows, np.cumsum(np.bincount(codes))[:-1]), strict=True)


@shown(in_response=True)
@dataclass(frozen=True)
class MatchedComparison:
    """An effect at equal training loss, beside the same effect at equal steps.

    `at_loss` and `at_step` are contrasts over the same runs; `estimate`, `interval` and `p` are those at equal loss.
    Of `n_runs` runs, `n_unmatched` do not get to the losses of their counterparts, and have no value at equal loss.
    `loss_range` is the median range of losses matched over, from the higher to the lower.
    """

    factor: str
    levels: tuple[str, str]
    response: str
    estimate: float
    interval: tuple[float, float]
    p: float
    df: int
    n_seeds: int
    at_loss: Contrast
    at_step: Contrast
    n_runs: int
    n_unmatched: int
    loss_range: tuple[float, float]
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row at equal loss, one at equal steps."""
        frame = contrast_frame([self.at_loss, self.at_step])
        frame.insert(0, "matched", ["loss", "step"])
        return frame.assign(n_runs=self.n_runs, n_unmatched=[self.n_unmatched, 0])


def matched_comparison(
    runs: pd.DataFrame,
    checkpoints: pd.DataFrame,
    layers: pd.DataFrame | None = None,
    *,
    factor: str,
    levels: tuple[Any, Any],
    response: str,
    within: Sequence[str] = (),
    seed: str = "seed",
    level: float = 0.95,
    **options: Any,
) -> MatchedComparison:
    """Whether an effect at equal steps is still there at equal training loss.

    The tables and `options` are those of `matched_loss_table`; both contrasts are taken over the runs that have a
    value at equal loss. That one is significant and the other is not says nothing of their difference.
    """
    given: dict[str, Any] = {"factor": factor, "levels": levels, "response": response, "within": within, "seed": seed}
    by_loss, by_step = (
        matched_loss_table(runs, checkpoints, layers, at=at, **given, **options) for at in ("loss", "step")
    )
    if by_loss["value"].isna().all():
        raise AnalysisError(
            "expected counterparts that reach a common loss; got none "
            f"({'; '.join(dict.fromkeys(by_loss['missing']))}). Compare at equal steps, or train longer"
        )
    by_step["value"] = by_step["value"].mask(by_loss["value"].isna())  # the same runs on both sides
    at_loss, at_step = (contrast(table, **given | {"response": "value"}, level=level) for table in (by_loss, by_step))
    unmatched = int((by_loss["missing"] == UNMATCHED).sum())
    note = [f"{unmatched} of {len(by_loss)} runs left out: each {UNMATCHED}"] if unmatched else []
    return MatchedComparison(
        factor=factor,
        levels=at_loss.levels,
        response=response,
        **inference_of(at_loss),
        at_loss=at_loss,
        at_step=at_step,
        n_runs=len(by_loss),
        n_unmatched=unmatched,
        loss_range=(float(by_loss["loss_from"].median()), float(by_loss["loss_to"].median())),
        method=f"{options.get('summary', 'mean')} over matched losses; {at_loss.method}",
        warnings=(*at_loss.warnings, *note),
    )


def _joined(
    runs: pd.DataFrame,
    checkpoints: pd.DataFrame,
    layers: pd.DataFrame | None,
    response: str,
    layer: int | Literal["mean"],
    loss: str,
    run: str,
    time: str,
) -> pd.DataFrame:
    """Loss and response of each run at each checkpoint: the columns `loss` and `value`, in order of time."""
    require_columns(checkpoints, run, time, loss)
    losses = curve_rows(runs, checkpoints, [run], time, loss)[[run, time, loss]].rename(columns={loss: "loss"})
    if layers is not None and response in layers.columns:
        require_columns(layers, run, time, "layer")
        rows = layers if layer == "mean" else layers[layers["layer"] == layer]
        if rows.empty:
            hidden = ", ".join(map(str, sorted(layers["layer"].unique())))
            raise AnalysisError(f"layer {layer}: no run has it; hidden layers: {hidden}")
        rows = curve_rows(runs, rows, [run, "layer"], time, response)
        rows = rows[rows[response].notna().groupby(rows["layer"]).transform("any")]
        # The mean of the layers that remain would compare unlike things, so one undefined layer is enough.
        grouped = rows[response].astype(float).groupby([rows[run], rows[time]])
        lost = rows[response].isna().groupby([rows[run], rows[time]]).any()
        values = grouped.mean().mask(lost).rename("value").reset_index()
    else:
        require_columns(checkpoints, response)
        values = curve_rows(runs, checkpoints, [run], time, response)
        values = values[[run, time]].assign(value=values[response].astype(float))
    return losses.merge(values, on=[run, time]).sort_values([run, time], kind="stable")


def _counterparts(runs: pd.DataFrame, factor: str, run: str, seed: str, within: Sequence[str]) -> list[list[Any]]:
    """Groups of run ids to be matched: pairs that differ in the factor alone, or all runs of a seed."""
    at = level_column(runs[factor])
    cell = cell_column(runs, within)
    paired = at.groupby(cell).transform("nunique") == 2
    key = [runs[seed], cell] if paired.any() else [runs[seed]]
    return [list(names) for _, names in runs[run].groupby(key, sort=False)]


def _shared_range(curves: Sequence[np.ndarray], reach: float) -> tuple[float, float]:
    """Along the axis, from the smallest start of these curves to where the share `reach` of them gets."""
    if not curves:
        return NAN, NAN
    reached = np.sort([curve[:, 0].min() for curve in curves])
    return min(curve[0, 0] for curve in curves), float(reached[int(np.ceil(reach * len(curves) - 1e-9)) - 1])


def _first_passage(curve: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The value where the curve's axis first falls to each target; the axis starts at or above all of them."""
    axis, value = curve.T
    lowest = np.minimum.accumulate(axis)
    slack = 1e-12 * (1 + np.abs(targets))
    after = np.array(
        [int(np.flatnonzero(lowest <= target + gap)[0]) for target, gap in zip(targets, slack, strict=True)]
    )
    before = np.maximum(after - 1, 0)
    fall = axis[before] - axis[after]
    share = np.where(fall > 0, (axis[before] - targets) / np.where(fall > 0, fall, 1.0), 1.0)
    return np.asarray(value[before] + np.clip(share, 0, 1) * (value[after] - value[before]))


def _unit(bound: float, at: str) -> float:
    return float(np.exp(bound)) if at == "loss" else float(2.0**-bound - 1)
