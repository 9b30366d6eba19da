"""The contrast of a claim with its p-values, before it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from alignkit.claims.responses import response_bounds
from alignkit.claims.tables import UNFINISHED, claim_design, claim_factors, claim_table, planned_runs, planned_table
from alignkit.claims.verdict import NAN, Verdict
from alignkit.columns import unit_of
from alignkit.errors import AnalysisError, nearest
from alignkit.records.confounding import rate_note, step_note
from alignkit.records.store import Records
from alignkit.records.tuning import edge_counts
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import minimum_seeds, require_seeds
from alignkit.stats.sensitivity.attrition import worst_case_bounds
from alignkit.stats.tables.levels import in_design, level_text
from alignkit.study.claim import Claim
from alignkit.study.panel import not_identifiable
from alignkit.text import count, sized

OF_THE_CONTRAST = (
    "estimate", "interval", "p", "df", "n_seeds", "n_cells", "pairing_correlation", "seeds", "differences", "method",
)  # fmt: skip


def measure(records: Records, claim: Claim, *, family_size: int, alpha: float) -> Verdict:
    """The contrast of a claim, not yet judged. `reason` is set where it cannot be tested."""
    levels = (level_text(claim.levels[0]) or "none", level_text(claim.levels[1]) or "none")
    blank = Verdict(claim, "undecided", "", levels, unit_of(claim.response), claim_design(records, claim))
    try:
        if claim.factor not in records.factors:
            raise AnalysisError(
                f'"{claim.factor}" is not a factor of this study; {nearest(claim.factor, records.factors)}'
            )
        runs = planned_runs(records)
        if claim.rule not in set(runs["rule"]):
            raise AnalysisError(f'no run has the rule "{claim.rule}"; {nearest(claim.rule, sorted(set(runs["rule"])))}')
        if claim.design is not None and not in_design(runs, claim.design).any():
            raise AnalysisError(
                f'no run is of the design "{claim.design}"; {nearest(claim.design, records.study.designs)}'
            )
        table = planned_table(records, claim)
        within = claim_factors(records, claim)
        result = contrast(table, factor=claim.factor, levels=claim.levels, within=within)
    except AnalysisError as error:
        return replace(blank, reason=str(error))
    same = not_identifiable(claim, records.study)
    equivalence = equivalence_test(result.differences, margin=claim.smallest_effect, alpha=alpha)
    missing = _missing(table, claim, levels)
    failed = _failed(records, table, claim, levels)
    notes = [*failed, *_step_length(records, claim), *result.warnings, *missing]
    if records.missing:
        notes.append(
            f"preliminary: {count(records.missing, 'planned run')} without records yet; verdicts take the worst case "
            "over what is still missing"
        )
    measured = replace(
        blank,
        **{name: getattr(result, name) for name in OF_THE_CONTRAST},
        p_equivalence=equivalence.p,
        learning_rates=rate_note(
            claim_table(records, claim),
            factor=claim.factor,
            levels=claim.levels,
            tuned=records.study.pilot is not None or records.study.tuning is not None,
            within=within,
        ),
        warnings=tuple(notes),
    )
    if same:
        return replace(measured, verdict="not identifiable", reason=f"{same}: nothing else of the two can be judged")
    edges = _at_edges(records, table)
    if edges:
        return replace(measured, reason=edges, p=NAN, p_equivalence=NAN)
    if result.n_seeds > 1 and not any(result.differences) and not failed and not missing:
        return replace(measured, verdict="equivalent", reason="exactly 0 under every seed: no test is made of that")
    size = family_size if claim.family == "confirmatory" else 1
    try:
        require_seeds(result.n_seeds, family_size=size, alpha=alpha)
    except AnalysisError as error:
        # The estimate stands, the tests are not made.
        waiting = int((table["missing"] == UNFINISHED).sum())
        reason = str(error)
        if waiting:
            reason = (
                f"too early to tell: {waiting:,} of its {count(len(table), 'run')} have no records yet, and of the "
                f"{minimum_seeds(size, alpha)} seeds that the exact test needs, {result.n_seeds} can be compared"
            )
        return replace(measured, reason=reason, p=NAN, p_equivalence=NAN)
    if missing:
        try:
            measured = worst_case(measured, table, within, alpha)
        except AnalysisError as error:
            note = f"runs without a value are taken to be missing at random, since no bounds can be had ({error})"
            measured = replace(measured, warnings=(*measured.warnings, note))
    return measured


def worst_case(
    measured: Verdict, table: pd.DataFrame, within: Sequence[str], alpha: float, *, exact: bool = True
) -> Verdict:
    """The claim's p-values, the largest over all values that runs without one could have had.

    With `exact`, p is the sign-flip test's, else the t test's. `AnalysisError` where the response has no bounds.
    """
    claim = measured.claim
    bounds = worst_case_bounds(
        table, factor=claim.factor, levels=claim.levels, bounds=response_bounds(claim.response), within=within,
        margin=claim.smallest_effect, alpha=alpha,
    )  # fmt: skip
    lowest, highest = (sized(float(f"{bound:.3g}"), measured.unit) for bound in (bounds.lowest, bounds.highest))
    note = (
        f"whatever the runs without a value could show, the effect lies between {lowest} and {highest}; the "
        "p-values are the largest over all of that"
    )
    # The bounds use runs without a counterpart, the estimate does not: their signs may differ.
    one_sign = bounds.lowest * measured.estimate > 0
    return replace(
        measured,
        worst_case=bounds.interval,
        p=max(measured.p, bounds.p if exact else bounds.p_t) if one_sign else 1.0,
        p_equivalence=max(measured.p_equivalence, bounds.p_equivalence),
        warnings=(*measured.warnings, note),
    )


MOST_AT_EDGE = 0.05
"""The share of replicates whose best rate may lie at the edge of what they tried, before a claim stays undecided."""


def _at_edges(records: Records, table: pd.DataFrame) -> str:
    """Why a claim stays undecided whose replicates have their best rates at the edge of the grid; else empty."""
    tuning = records.study.tuning
    if tuning is None:
        return ""
    tried = records.runs if records.tuning is None else records.tuning
    edges = edge_counts(tried[tried["replicate"].isin(table["run_id"])])["edge"]
    at = int(edges.sum())
    if at <= MOST_AT_EDGE * len(edges):
        return ""
    return (
        f"the best learning rate of {at:,} of {count(len(edges), 'replicate')} is at the edge of what it tried, "
        f"{tuning.extend} rates beyond the grid: widen tuning.lr"
    )


def _step_length(records: Records, claim: Claim) -> list[str]:
    """What `step_note` says of the updates over training, where they were recorded."""
    table = claim_table(records, claim, response="update_ratio", summary="auc")
    note = step_note(table, factor=claim.factor, levels=claim.levels)
    return [note] if note else []


def _failed(records: Records, table: pd.DataFrame, claim: Claim, levels: tuple[str, str]) -> list[str]:
    """How many runs at each level failed and count as what the claim says of them."""
    failed = claim_table(records, claim, failed=True)
    failed = failed[(failed["missing"] != "") & failed["run_id"].isin(table.loc[table["missing"] == "", "run_id"])]
    at = failed[claim.factor].map(level_text)
    before, after = (int((at == level).sum()) for level in levels)
    if not before + after:
        return []
    value = table.loc[table["run_id"].isin(failed["run_id"]), "value"].iloc[0]
    return [
        f"failed (diverged, or all signals zero): {count(before, 'run')} at {levels[0]}, {after} at {levels[1]}; they "
        f"count as {sized(float(value), unit_of(claim.response))}, as runs that did not align and did not learn"
    ]


def _missing(table: pd.DataFrame, claim: Claim, levels: tuple[str, str]) -> list[str]:
    """How many runs at each level have no value, and why: diverging at one level alone biases what remains."""
    absent = table[table["missing"] != ""]
    at = absent[claim.factor].map(level_text)
    counts = {
        reason: [int(((absent["missing"] == reason) & (at == level)).sum()) for level in levels]
        for reason in sorted(absent["missing"].unique())
    }
    return [
        f"{reason}: {count(before, 'run')} at {levels[0]}, {after} at {levels[1]}"
        for reason, (before, after) in counts.items()
        if before or after
    ]
