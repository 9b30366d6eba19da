"""How many seeds the claims of a study need, from the records of a pilot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from alignkit.claims.tables import claim_design, claim_factors, claim_table
from alignkit.claims.verdicts import ALPHA
from alignkit.columns import unit_of
from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrast_variance import contrast_variance
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.contrasts.power import (
    detectable_effect,
    difference_power,
    equivalence_power,
    seeds_for_equivalence,
    seeds_needed,
)
from alignkit.stats.tables.levels import in_design, level_column, level_text
from alignkit.study.claim import Claim
from alignkit.study.runs import Plan

NAN = float("nan")


@shown()
@dataclass(frozen=True)
class ClaimPower:
    """What the planned seeds can show of a claim, and how many it needs, in the response's unit.

    `sd` is that of the per-seed contrast with the planned cells, `sd_upper` its upper 80% bound: a pilot of
    few seeds knows it poorly. `power` is the chance that `n_seeds` seeds find `effect`, `detectable` the effect
    that they find with the power asked for, `seeds` how many find `effect` with that power (`seeds_upper`: if the
    sd is at its upper bound), and `seeds_equivalence` how many show an effect of 0 to be smaller than the smallest
    that matters. `reason` says why nothing can be said.
    """

    claim: Claim
    effect: float
    unit: str
    n_seeds: int
    cells: float = NAN
    sd: float = NAN
    sd_upper: float = NAN
    power: float = NAN
    power_equivalence: float = NAN
    detectable: float = NAN
    seeds: int | None = None
    seeds_upper: int | None = None
    seeds_equivalence: int | None = None
    pilot_seeds: int = 0
    method: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return power_frame([self])


def power_frame(results: Iterable[ClaimPower]) -> pd.DataFrame:
    """One row per claim."""
    names = (
        "effect", "unit", "n_seeds", "cells", "sd", "sd_upper", "power", "power_equivalence", "detectable", "seeds",
        "seeds_upper", "seeds_equivalence", "pilot_seeds", "method", "reason",
    )  # fmt: skip
    rows = [
        {"claim": result.claim.name, **{name: getattr(result, name) for name in names}}
        | {"warnings": "; ".join(result.warnings)}
        for result in results
    ]
    return pd.DataFrame(rows, columns=["claim", *names, "warnings"])


def claim_power(
    planned: Plan, pilot: Records, *, effect: float | None = None, power: float = 0.8, alpha: float = ALPHA
) -> list[ClaimPower]:
    """How many seeds each claim of a planned study needs, by the variance components of a pilot's records.

    `pilot` is any study's records that have the claim's factor, levels, rule and response: fewer seeds or cells
    of the same study, say. `effect` is what should be found, by default each claim's smallest effect that matters;
    never the effect that the pilot showed. A claim that the pilot says nothing of has a `reason`.
    """
    if effect is not None and not (np.isfinite(effect) and effect > 0):
        raise AnalysisError(f"--effect: expected a size above 0, in the unit of the claims' responses; got {effect:g}")
    claims = planned.study.claims
    family = sum(claim.family == "confirmatory" for claim in claims)
    powers = []
    for claim in claims:
        wanted = claim.smallest_effect if effect is None else effect
        blank = ClaimPower(claim, wanted, unit_of(claim.response), len(planned.study.seed_list))
        try:
            size = family if claim.family == "confirmatory" else 1
            powers.append(_claim_power(planned, pilot, claim, blank, size, power, alpha))
        except AnalysisError as error:
            powers.append(ClaimPower(claim, wanted, blank.unit, blank.n_seeds, reason=str(error)))
    return powers


def _claim_power(
    planned: Plan, pilot: Records, claim: Claim, blank: ClaimPower, family_size: int, power: float, alpha: float
) -> ClaimPower:
    table = claim_table(pilot, claim)
    if claim.factor not in table.columns:
        raise AnalysisError(f'the pilot has no factor "{claim.factor}": run one that varies it')
    cells = _planned_cells(planned, claim)
    variance = _variance(table, claim, claim_factors(pilot, claim), cells)
    sd, effect = variance["sd"], blank.effect
    if not sd > 0:
        raise AnalysisError("the pilot's contrast does not vary over seeds: its sd says nothing")
    options: dict[str, Any] = {"alpha": alpha, "family_size": family_size}
    try:
        chance = difference_power(blank.n_seeds, effect=effect, sd=sd, **options).power
        detectable = detectable_effect(blank.n_seeds, sd=sd, power=power, **options).effect
        equivalence = equivalence_power(blank.n_seeds, margin=claim.smallest_effect, sd=sd, **options).power
    except AnalysisError:  # so few seeds reject nothing
        chance, detectable, equivalence = 0.0, NAN, 0.0
    upper = variance["sd_upper"]
    return ClaimPower(
        claim=claim,
        effect=effect,
        unit=blank.unit,
        n_seeds=blank.n_seeds,
        cells=cells,
        power=chance,
        power_equivalence=equivalence,
        detectable=detectable,
        seeds=seeds_needed(effect=effect, sd=sd, power=power, **options).n_seeds,
        seeds_upper=seeds_needed(effect=effect, sd=upper, power=power, **options).n_seeds,
        seeds_equivalence=seeds_for_equivalence(margin=claim.smallest_effect, sd=sd, power=power, **options).n_seeds,
        **variance,
    )


def _planned_cells(planned: Plan, claim: Claim) -> float:
    """Cells at each level of the claim, in the design that it will be judged on: those that have a counterpart.

    In a fraction, where none has one, all cells of the level that has fewer.
    """
    rows = [
        {
            **run.levels,
            "run_id": run.run_id,
            "rule": run.rule,
            "cell": run.cell,
            "seed": run.seed,
            "designs": "+".join(run.designs),
            "value": 0.0,
        }
        for run in planned.runs
    ]
    runs = pd.DataFrame(rows)
    records = Records(planned.study, runs, checkpoints=runs.iloc[:0], layers=runs.iloc[:0], factors=planned.factors)
    design = claim_design(records, claim)
    runs = runs[runs["rule"] == claim.rule]
    runs = runs if design is None else runs[in_design(runs, design)]
    runs = runs[runs["seed"] == runs["seed"].iloc[0]]  # the cells are the same under every seed
    within = claim_factors(records, claim)
    compared = seed_contrasts(runs, factor=claim.factor, levels=claim.levels, response="value", within=within).n_cells
    at = level_column(runs[claim.factor])
    return float(min(compared, *(int((at == level_text(level)).sum()) for level in claim.levels)))


def _variance(table: pd.DataFrame, claim: Claim, factors: tuple[str, ...], cells: float) -> dict[str, Any]:
    """The sd of the per-seed contrast, for the planned cells; `AnalysisError` where the pilot cannot say it."""
    parts = contrast_variance(table, factor=claim.factor, levels=claim.levels, within=factors)
    return {
        "sd": parts.sd(cells),
        "sd_upper": parts.sd_upper(cells),
        "pilot_seeds": parts.n_seeds,
        "method": parts.method,
        "warnings": parts.warnings,
    }
