"""The two arms of a claim at every learning rate that all of their runs were tried at."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
import pandas as pd

from alignkit.claims.tables import question_table
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.records.tuning import chosen_rates
from alignkit.stats.contrasts.arrays import moments, t_interval
from alignkit.stats.tables.levels import level_column, level_text
from alignkit.study.claim import Claim
from alignkit.study.panel import Question

NAN = float("nan")
LEAST_SHARED = 3
"""Rates on which two curves must overlap for a shift between them to mean anything."""


def over_rates(records: Records, claim: Claim, *, response: str | None = None) -> pd.DataFrame:
    """A response of a claim's two arms at the end of training, at each learning rate.

    One row per arm (`level`) and `lr`, with `mean`, `low` and `high` (95% t interval over seeds, each first averaged
    over its cells), `n_seeds`, `chosen`, the share of the arm's replicates whose value is partly from this rate, and
    `whole`: whether every replicate of the arm was tried there. Where one was not, the others are no sample of the
    arm, and the row has no mean; nor has it one where `without` runs have no value. Failed runs count as the claim
    says.
    """
    own = response is None
    name = response or claim.response
    question = Question(
        "rates", "over rates", "rates", name, claim.mode if own else None, claim.layer if own else "mean"
    )
    rows = question_table(records, claim, question, every_rate=True)
    levels = [str(level_text(level)) for level in claim.levels]
    rows = rows.assign(level=level_column(rows[claim.factor]))
    rows = rows[rows["level"].isin(levels)]
    if rows.empty:
        raise AnalysisError(f"expected runs at {levels[0]} and {levels[1]}; got none")
    counts = chosen_rates(records.runs).set_axis(records.runs["run_id"])
    rows = rows.assign(chosen=rows["run_id"].map(counts).astype(float), lr=rows["lr"].astype(float).round(12))
    found = []
    for level in levels:
        arm = rows[rows["level"] == level]
        replicates = arm["replicate"].nunique()
        for lr, at in arm.groupby("lr"):
            whole = at["replicate"].nunique() == replicates
            seeds = at.groupby("seed")["value"].mean().where(at.groupby("seed")["value"].count() > 0)
            known = bool(whole and at["value"].notna().all())
            low, high = t_interval(moments(seeds.to_numpy(float)), level=0.95) if known else (NAN, NAN)
            found.append(
                {
                    "level": level, "lr": float(str(lr)), "mean": float(seeds.mean()) if known else NAN,
                    "low": float(low), "high": float(high), "n_seeds": int(seeds.notna().sum()),
                    "chosen": float(at["chosen"].sum() / replicates), "whole": bool(whole),
                    "without": int(at["value"].isna().sum()),
                }
            )  # fmt: skip
    return pd.DataFrame(found).assign(response=name)


@dataclass(frozen=True)
class Shift:
    """How far one arm's curve over the rate lies from the other's: `factor` times its rate, and what then is left.

    `before` and `after` are root mean squared distances between the curves, as they are and shifted, over the rates
    that both have.
    """

    factor: float
    before: float
    after: float


def shift_between(curves: pd.DataFrame) -> Shift:
    """The factor on the second arm's rates that brings its curve closest to the first's.

    `curves` is a table of `over_rates`. A grid search over log rates, in which at least three rates of the second arm
    must lie within those of the first. It describes; no test is made of it.
    """
    parts = [part.dropna(subset=["mean"]).sort_values("lr") for _, part in curves.groupby("level", sort=False)]
    if len(parts) != 2 or min(map(len, parts)) < LEAST_SHARED:
        raise AnalysisError(f"expected two arms at {LEAST_SHARED} rates or more; got fewer")
    (x, y), (other_x, other_y) = ((np.log(part["lr"].to_numpy(float)), part["mean"].to_numpy(float)) for part in parts)

    def distance(by: float) -> float:
        moved = other_x + by
        inside = (moved >= x[0] - 1e-9) & (moved <= x[-1] + 1e-9)
        if inside.sum() < LEAST_SHARED:
            return float("inf")
        return float(np.sqrt(np.mean((np.interp(moved[inside], x, y) - other_y[inside]) ** 2)))

    widest = x[-1] - x[0]
    tried = np.linspace(-widest, widest, 401)
    best = min(tried, key=lambda by: (distance(float(by)), abs(float(by))))
    return Shift(exp(float(best)) if abs(best) > log(1.0005) else 1.0, distance(0.0), distance(float(best)))
