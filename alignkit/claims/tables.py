"""The runs that a claim is judged on: its design, the factors that make its cells, and a row per run."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from alignkit.records.rows import rows_of, summarised
from alignkit.records.store import Records
from alignkit.records.summaries import measures_of
from alignkit.stats.tables.levels import in_design, level_order, level_text
from alignkit.study.claim import Claim
from alignkit.study.designs import declared_factors
from alignkit.study.panel import Question

UNFINISHED = "not finished yet"
MOST_HAVE_A_VALUE = 0.5
"""Of the runs: where fewer have a response, it is not the runs that fail, but the response that they do not have."""


def claim_design(records: Records, claim: Claim) -> str | None:
    """The design that a claim is judged on: its own, else the first whose runs hold both its levels."""
    if claim.design is not None or claim.factor not in records.runs.columns:
        return claim.design
    wanted = {level_text(level) for level in claim.levels}
    runs = planned_runs(records)
    runs = runs[runs["rule"] == claim.rule]
    for design in records.study.designs:
        if wanted <= set(level_order(runs.loc[in_design(runs, design), claim.factor])):
            return design
    return None


def claim_factors(records: Records, claim: Claim) -> tuple[str, ...]:
    """The factors that make a cell of the claim's design: those that it declares, or else the study's."""
    design = claim_design(records, claim)
    if design is None or design not in records.study.designs:
        return records.factors
    declared = declared_factors(records.study, records.study.name)[design]
    return tuple(dict.fromkeys([*(factor.name for factor in declared), claim.factor]))


def claim_table(
    records: Records,
    claim: Claim,
    *,
    response: str | None = None,
    summary: Literal["final", "auc"] | None = None,
    failed: bool = False,
) -> pd.DataFrame:
    """One row per run under the claim's rule and in its design: the table that its contrast is taken on.

    A failed run has the value that the claim says, or none where `failed` asks for them as they are.
    Another `response` is taken over all layers at the end of training, unless `summary` says otherwise.
    """
    own = response is None
    table = summarised(
        records,
        response or claim.response,
        summary=summary or (claim.summary if own else "final"),
        layer=claim.layer if own else "mean",
        mode=claim.mode if own else None,
    )
    table = rows_of(table, rule=claim.rule, design=claim_design(records, claim))
    return table if failed else with_failed(table, claim, response or claim.response)


def question_table(records: Records, claim: Claim, question: Question, *, every_rate: bool = False) -> pd.DataFrame:
    """The rows of a claim as a question of its panel asks them; with `every_rate`, one per run and not per replicate.

    A question about a measure takes it as the claim does, at the end or over training.
    """
    summary = claim.summary if question.response in measures_of(records.layers) else "final"
    table = summarised(
        records, question.response, summary=summary, layer=question.layer, mode=question.mode,
        rates="every" if every_rate else question.rates,
    )  # fmt: skip
    return with_failed(rows_of(table, rule=claim.rule, design=claim_design(records, claim)), claim, question.response)


def with_failed(table: pd.DataFrame, claim: Claim, response: str) -> pd.DataFrame:
    """The rows with what the claim says a failed run counts as; `missing` is then empty there.

    A run failed that diverged, or whose response is undefined where most others have it: all its signals are zero.
    """
    return table if claim.failed != "not_aligned" else as_not_aligned(table, response)


def as_not_aligned(table: pd.DataFrame, response: str) -> pd.DataFrame:
    """The rows with what `not_aligned` says in the place of the value that a failed run lacks."""
    value = not_aligned(response, table)
    dead = table["missing"].str.endswith(" undefined") & (table["value"].notna().mean() > MOST_HAVE_A_VALUE)
    failed = (table["missing"] == "diverged") | dead
    if value is None or not failed.any():
        return table
    filled = table["value"].where(~failed, value)
    return table.assign(value=filled, missing=table["missing"].where(filled.isna() | ~failed, ""))


def not_aligned(response: str, table: pd.DataFrame) -> pd.Series | float | None:
    """What a run shows that did not align and did not learn; None where the response does not say."""
    if response.endswith("_excess"):
        return None
    if response.endswith("_angle_deg"):
        return 90.0
    if response.endswith("_cosine") and response != "ceiling_cosine":
        return 0.0
    if response in ("train_accuracy", "validation_accuracy", "test_accuracy"):
        return 100.0 / table["n_classes"] if "n_classes" in table else None
    return None


def planned_runs(records: Records) -> pd.DataFrame:
    """What the plan knows of every run, finished or not."""
    known = records.runs[["rule", "cell", "designs", "seed", *records.factors]]
    if records.unfinished is None or records.unfinished.empty:
        return known
    return pd.concat([known, records.unfinished[list(known.columns)]], ignore_index=True)


def planned_table(records: Records, claim: Claim) -> pd.DataFrame:
    """`claim_table`, with a row that has no value for each of the claim's runs that has not finished."""
    table = claim_table(records, claim)
    if records.unfinished is None:
        return table
    rows = rows_of(records.unfinished, rule=claim.rule, design=claim_design(records, claim))
    parts = [part for part in (table, rows.assign(value=float("nan"), missing=UNFINISHED)) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else table
