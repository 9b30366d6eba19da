"""What each seed tuned: from runs at several learning rates to one number per replicate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.study.runs import Plan
from alignkit.study.tuning import Tried

Rates = Literal["within", "best", "common", "every"] | float
"""Which of a replicate's rates count: those within one standard error of its best, its single best, the best rate of
its arm over all seeds, all of them, or one rate by its value."""


def tried_of(finished: pd.DataFrame, plan: Plan) -> dict[str, list[Tried]]:
    """What each replicate of a plan showed at the rates of its grid, by replicate; unfinished ones are left out.

    The runs in full that follow a short grid belong to no grid.
    """
    tuning = plan.study.tuning
    short = tuning is not None and tuning.epochs is not None
    rows = finished.set_index("run_id")
    score = _score(rows).to_dict()
    diverged = rows["diverged"].to_dict()
    tried: dict[str, list[Tried]] = {}
    unfinished = set()
    for run in plan.runs:
        if run.tunes != short:
            continue
        if run.run_id not in diverged:
            unfinished.add(run.replicate)
            continue
        value = None if diverged[run.run_id] or np.isnan(score[run.run_id]) else score[run.run_id]
        tried.setdefault(run.replicate, []).append(Tried(run.settings.training.lr, value))
    return {replicate: each for replicate, each in tried.items() if replicate not in unfinished}


def is_tuned(runs: pd.DataFrame) -> bool:
    """Whether several runs of a table share a replicate."""
    return "replicate" in runs.columns and bool(runs["replicate"].duplicated().any())


def _score(runs: pd.DataFrame) -> pd.Series:
    """What a seed chooses its rate by: validation accuracy; of a regression, minus the validation loss."""
    return runs["validation_accuracy"].where(runs["validation_accuracy"].notna(), -runs["validation_loss"])


def chosen_rates(runs: pd.DataFrame, rates: Rates = "within") -> pd.Series:
    """Whether each run's rate counts for its replicate, indexed as `runs`.

    "within": a run whose validation accuracy is at least a - sqrt(a (1 - a) / n), where a is the best accuracy of its
    replicate and n the size of the validation split (of a regression: whose loss is within one standard error of the
    best). "best": the single best, the smaller rate on a tie. "common": the rate with the best mean over the seeds of
    its arm, of those that every seed tried, the smaller on a tie. A number: that rate. Runs that diverged never count.
    """
    score, alive = _score(runs), ~runs["diverged"].astype(bool)
    score = score.where(alive)
    if isinstance(rates, float | int) and not isinstance(rates, bool):
        return alive & np.isclose(runs["lr"].astype(float), float(rates), rtol=1e-9)
    if rates == "every":
        return alive
    if rates == "common":
        return alive & _is_common_best(runs, score)
    best = score.groupby(runs["replicate"]).transform("max")
    if rates == "best":
        lr = runs["lr"].where(score == best)
        return alive & (runs["lr"] == lr.groupby(runs["replicate"]).transform("min"))
    if rates != "within":
        raise AnalysisError(f'rates: expected "within", "best", "common" or a learning rate; got {rates!r}')
    regression = runs["validation_accuracy"].isna()
    of_accuracy = ((best * (1 - best)).clip(lower=0) / runs["validation_samples"]) ** 0.5
    at_best = runs["validation_loss_error"].where(score == best)
    of_loss = at_best.groupby(runs["replicate"]).transform("min")
    error = of_accuracy.where(~regression, of_loss).fillna(0.0)
    return alive & (score >= best - error - 1e-12)


def _is_common_best(runs: pd.DataFrame, score: pd.Series) -> pd.Series:
    arm = runs.groupby(["rule", "cell", "designs"], sort=False).ngroup()
    by_rate = score.groupby([arm, runs["lr"]]).agg(["mean", "count"])
    seeds = runs["replicate"].groupby(arm).nunique()
    everywhere = by_rate["count"].to_numpy() == seeds.loc[by_rate.index.get_level_values(0)].to_numpy()
    mean = by_rate["mean"][everywhere].dropna().round(12)  # means of the same scores are a tie, whatever their order
    chosen = dict(mean.groupby(level=0).idxmax())
    return runs["lr"] == arm.map({int(one): rate for one, (_, rate) in chosen.items()})


def edge_counts(runs: pd.DataFrame) -> pd.DataFrame:
    """For each replicate, its smallest and largest rate, how many rates it tried, its best, and whether that is at an
    `edge`."""
    rows = runs.assign(score=_score(runs).where(~runs["diverged"].astype(bool)))
    found = rows.groupby("replicate", sort=False)["lr"].agg(["min", "max", "count"])
    best = rows["score"] == rows.groupby("replicate")["score"].transform("max")
    of_best = rows[best].groupby("replicate")["lr"].agg(["min", "count"])
    found["best"] = of_best["min"].reindex(found.index)
    single = of_best["count"].reindex(found.index) == 1
    found["edge"] = (found["count"] > 1) & single & ((found["best"] == found["min"]) | (found["best"] == found["max"]))
    return found


def per_replicate(runs: pd.DataFrame, value: pd.Series, rates: Rates = "within") -> tuple[pd.DataFrame, pd.Series]:
    """One row per replicate, and its value: the mean over the rates that count, NaN where one of those has none.

    The row is that of the replicate's first run, with its `run_id` the replicate's and its `bp_run_id` that of the
    replicate under BP; accuracies, losses and the learning rates are means over the same rates (of rates: geometric).
    `diverged` says that the replicate diverged at every rate.
    """
    counts = chosen_rates(runs, rates)
    kept = runs[counts]
    first = runs.drop_duplicates("replicate")
    of = kept["replicate"]
    lost = value[counts].isna().groupby(of).any()
    mean = value[counts].groupby(of).mean().mask(lost)
    table = first.copy()
    for column in _averaged(runs):
        numbers = kept[column].to_numpy(float)
        logs = column in ("lr", "output_lr")
        means = pd.Series(np.log(numbers) if logs else numbers, kept.index).groupby(of).mean()
        values = first["replicate"].map(means).astype(float)
        table[column] = np.exp(values.to_numpy()) if logs else values
    alive = (~runs["diverged"].astype(bool)).groupby(runs["replicate"]).any()
    table["diverged"] = ~first["replicate"].map(alive).astype(bool)
    table["run_id"], table["bp_run_id"] = first["replicate"], first["bp_replicate"]
    value_of = first["replicate"].map(mean).astype(float)
    return table.reset_index(drop=True), value_of.reset_index(drop=True)


def _averaged(runs: pd.DataFrame) -> Sequence[str]:
    ends = ("_accuracy", "_loss")
    return [name for name in runs.columns if name.endswith(ends) or name in ("lr", "output_lr")]


def at_best(records: Records) -> Records:
    """The records with one run for each replicate: the one at its best rate. The same ones where nothing is tuned."""
    return _chosen(records, "at best", lambda runs: chosen_rates(runs, "best"))


def trajectories(records: Records) -> Records:
    """The records with one run for each replicate: the one whose course was measured, else the one at its best rate.

    The same ones where nothing is tuned.
    """
    tuning = records.study.tuning
    lr = tuning.trajectory_lr if tuning is not None else None
    if lr is None:
        return at_best(records)
    return _chosen(records, "trajectories", lambda runs: pd.Series(np.isclose(runs["lr"], lr, rtol=1e-9), runs.index))


def _chosen(records: Records, key: str, choose: Callable[[pd.DataFrame], pd.Series]) -> Records:
    if not is_tuned(records.runs):
        return records
    if key not in records.memo:
        runs = records.runs[choose(records.runs)].reset_index(drop=True)
        chosen = set(runs["run_id"])
        checkpoints, layers = (
            table[table["run_id"].isin(chosen)].reset_index(drop=True)
            for table in (records.checkpoints, records.layers)
        )
        records.memo[key] = replace(records, runs=runs, checkpoints=checkpoints, layers=layers)
    one: Records = records.memo[key]
    return one
