"""Is there anything to measure? A certificate: which cosines stand on solid ground, and which do not."""

from __future__ import annotations

from collections import Counter
from math import isfinite

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer, Fold
from alignkit.report.tables import Table
from alignkit.stats.tables.levels import level_column
from alignkit.study.hypotheses import seeds_for_panels
from alignkit.text import ABSENT, count, number, rule_name, sentence, signed

SOLID = "solid"


def vital_signs(analysis: Analysis) -> Answer | None:
    """What the cosines of each taught rule stand on; None where no norm was recorded."""
    if not analysis.recorded("gradient_norm") or not analysis.recorded("teaching_norm"):
        return None
    taught = [rule for rule in analysis.rules if rule != "bp"]
    signs = analysis.vital_signs()
    signs = signs[signs["rule"].isin(taught)].reset_index(drop=True)
    if signs.empty:
        return None
    tables = [_what_is_wrong(signs), *_by_claim(analysis, signs)]
    return Answer(
        (*(_certificate(signs[signs["rule"] == rule], rule) for rule in taught if (signs["rule"] == rule).any()),
         *_seeds(analysis)),
        tuple(tables), notes=_notes(analysis, signs), folds=(Fold("Every cell and layer", (_each(signs),)),),
    )  # fmt: skip


def _certificate(signs: pd.DataFrame, rule: str) -> str:
    solid, layers = int((signs["ground"] == SOLID).sum()), len(signs)
    cells = signs.groupby("cell")["ground"].apply(lambda grounds: (grounds == SOLID).all())
    if solid == layers:
        where = f"{count(layers, 'layer')}, {count(len(cells), 'cell')}"
        return f"{rule_name(rule)}: every cosine stands on solid ground ({where})."
    return (
        f"{rule_name(rule)}: {solid} of {count(layers, 'layer')} stand on solid ground, and in {int(cells.sum())} of "
        f"{count(len(cells), 'cell')} every layer does."
    )


def _seeds(analysis: Analysis) -> tuple[str, ...]:
    needed = seeds_for_panels(analysis.study)
    if not needed:
        return ()
    enough = "" if analysis.n_seeds >= needed else ": too few"
    return (
        f"The verdicts and panels of this study need {count(needed, 'seed')} or more; it has "
        f"{analysis.n_seeds}{enough}.",
    )


def _notes(analysis: Analysis, signs: pd.DataFrame) -> tuple[str, ...]:
    tuned = "Of each seed the run at its best rate, at" if analysis.study.tuning is not None else "At"
    notes = [f"{tuned} the end of training. {analysis.not_solid}"]
    if signs["ground"].str.contains("halves of the probe").any():
        notes.append(
            "Halves that disagree concern the weight gradient, which is taken over the whole probe batch: there it is "
            "mostly of the samples at hand. Angles at h and z are means over single samples, and do not rest on it."
        )
    if "shallow" not in analysis.study.rules:
        notes.append(
            "Frozen hidden layers (rule shallow) did not run, so whether the hidden layers learned is not known."
        )
    if not analysis.recorded("gradient_stability"):
        notes.append("Whether halves of the probe agree was not measured (measure group stability).")
    return tuple(notes)


def _what_is_wrong(signs: pd.DataFrame) -> Table:
    rows = []
    for rule, part in signs.groupby("rule", sort=False):
        wrong = Counter(text for ground in part["ground"] for text in str(ground).split("; "))
        for text, layers in sorted(wrong.items(), key=lambda each: (each[0] != SOLID, -each[1], each[0])):
            cells = part["cell"][part["ground"].str.split("; ").map(lambda each, text=text: text in each)].nunique()
            rows.append({"rule": str(rule), "ground": text, "layers": layers, "of": len(part), "cells": cells})
    caption = "What the cosines stand on. A layer of a cell may have more than one thing wrong."
    return Table.each("vital_signs", caption, rows, pd.DataFrame(rows), words=2, columns=[
        ("rule", lambda row: rule_name(str(row["rule"]))),
        ("ground", lambda row: str(row["ground"])),
        ("layers", lambda row: f"{row['layers']} of {row['of']}"),
        ("cells", lambda row: str(row["cells"])),
    ])  # fmt: skip


def _by_claim(analysis: Analysis, signs: pd.DataFrame) -> list[Table]:
    """How much of each claim's two arms is solid: a claim may compare one that is with one that is not."""
    rows = []
    for verdict in analysis.verdicts:
        try:
            table = analysis.claim_rows(verdict.claim)
        except AnalysisError:
            continue
        of_rule = signs[signs["rule"] == verdict.claim.rule]
        arms = level_column(table[verdict.claim.factor]) if verdict.claim.factor in table else None
        if arms is None or of_rule.empty:
            continue
        for level in verdict.levels:
            own = of_rule[of_rule["cell"].isin(set(table.loc[arms == level, "cell"]))]
            if len(own):
                solid = int((own["ground"] == SOLID).sum())
                rows.append(
                    {
                        "claim": verdict.claim.name,
                        "arm": level,
                        "solid": solid,
                        "layers": len(own),
                        "share": solid / len(own),
                    }
                )
    if not rows:
        return []
    caption = "How many of the layers that each claim compares stand on solid ground, arm by arm."
    return [
        Table.each("vital_signs_claims", caption, rows, pd.DataFrame(rows), words=2, columns=[
            ("claim", lambda row: str(row["claim"])),
            ("arm", lambda row: str(row["arm"])),
            ("solid", lambda row: f"{row['solid']} of {row['layers']}"),
            ("share", lambda row: f"{row['share']:.0%}"),
        ])
    ]  # fmt: skip


def _each(signs: pd.DataFrame) -> Table:
    caption = (
        "Medians over runs of the median norms over samples (t: teaching signal, g: BP signal, h: activation); "
        "stability: cosine between the BP gradients of two halves of the probe; over shallow: test accuracy above "
        "frozen hidden layers, in points."
    )
    return Table.each("vital_signs_layers", caption, signs.to_dict("records"), signs, words=4, columns=[
        ("rule", lambda row: rule_name(str(row["rule"]))),
        ("cell", lambda row: str(row["cell"]) or "the study's options"),
        ("layer", lambda row: str(row["layer"])),
        ("ground", lambda row: sentence(str(row["ground"]))),
        ("|t|", lambda row: _norm(row["teaching_norm"])),
        ("|g|", lambda row: _norm(row["gradient_norm"])),
        ("|h|", lambda row: _norm(row["activation_norm"])),
        ("stability", lambda row: number(row["gradient_stability"], 2)),
        ("over shallow", lambda row: signed(row["over_shallow"], 1)),
    ])  # fmt: skip


def _norm(value: float) -> str:
    return f"{value:.2g}" if isfinite(value) else ABSENT
