"""How far effects differ between the cells that a marginal effect averages over."""

from __future__ import annotations

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.cells import ClaimCells
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.text import change, change_interval, count, level, level_interval, listed, row_label, with_interval

METHOD = (
    "A partially pooled model of every seed's effect in every cell, with seeds as blocks: the spread of the true "
    "effects, without what noise adds to it. The last interval is where the effect lies in another network like these, "
    "with 95%, if effects are roughly normal over cells; an average can be certain while a single network's effect is "
    "not."
)


def cells(analysis: Analysis) -> Answer | None:
    """For each claim, the spread of its effect over cells, and where the effect in another cell lies."""
    found: list[ClaimCells] = []
    notes = [METHOD]
    for verdict in analysis.verdicts:
        if not verdict.n_seeds:
            continue
        try:
            one = analysis.claim_cells(verdict.claim)
        except AnalysisError:
            continue
        found.append(one)
        notes += [f"{verdict.claim.name}: {warning}." for warning in one.warnings]
    if not found:
        return None
    either = [one for one in found if one.spread.prediction[0] < 0 < one.spread.prediction[1]]
    if either:
        names = listed(one.claim.name for one in either)
        average = "Its average alone says" if len(either) == 1 else "Their averages alone say"
        text = (
            f"Of {count(len(found), 'effect')}, {len(either)} may have either sign in another network like these: "
            f"{names}. {average} little of a single network."
        )
    else:
        text = "Every effect has the sign of its average in nearly all networks like these."
    return Answer((text,), (_table(found),), (), tuple(notes))


def _table(found: list[ClaimCells]) -> Table:
    data = pd.DataFrame(
        {
            "claim": one.claim.name, "estimate": one.spread.estimate, "low": one.spread.interval[0],
            "high": one.spread.interval[1], "sd": one.spread.sd, "sd_low": one.spread.sd_interval[0],
            "sd_high": one.spread.sd_interval[1], "cell_low": one.spread.prediction[0],
            "cell_high": one.spread.prediction[1], "n_cells": one.spread.n_cells,
            "cells_of_the_other_sign": one.spread.opposite, "n_seeds": one.spread.n_seeds, "method": one.spread.method,
        }
        for one in found
    )  # fmt: skip
    caption = (
        "Each claim's effect averaged over its cells, the standard deviation of the true effects between cells, and "
        "the effect in another cell like these. In brackets: 95% intervals."
    )
    return Table.each("cells", caption, found, data, words=2, columns=[
        ("claim", lambda one: one.claim.name),
        ("change", lambda one: row_label(one.claim.factor, one.levels)),
        ("average effect", lambda one: with_interval(change(one.spread.estimate, one.claim.response),
                                             change_interval(one.spread.interval, one.claim.response))),
        ("sd between cells", lambda one: with_interval(level(one.spread.sd, one.claim.response),
                                               level_interval(one.spread.sd_interval, one.claim.response))),
        ("in a cell like these", lambda one: change_interval(one.spread.prediction, one.claim.response)),
        ("cells", lambda one: str(one.spread.n_cells)),
        ("other sign", lambda one: str(one.spread.opposite)),
    ])  # fmt: skip
