"""How far a claim's effect differs between the cells that its marginal effect averages over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from alignkit.claims.tables import claim_factors, planned_table
from alignkit.display import block, effect_words, head_html, table_html
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.cells import CellSpread, cell_spread
from alignkit.stats.tables.levels import cell_column, level_column, level_order, level_text
from alignkit.study.claim import Claim
from alignkit.text import change_interval, count, level, level_interval, with_interval


@dataclass(frozen=True)
class ClaimCells:
    """A claim's effect in every cell, and the spread of the true effects over cells.

    `cells` has one row per cell: its levels of the other factors, its own `effect` over seeds, and the same `pooled`,
    drawn towards the mean by as much as it is noise.
    """

    claim: Claim
    spread: CellSpread
    cells: pd.DataFrame
    warnings: tuple[str, ...] = ()

    @property
    def levels(self) -> tuple[str, str]:
        """The claim's two levels as text."""
        low, high = (level_text(each) or "none" for each in self.claim.levels)
        return low, high

    def sentence(self) -> str:
        """The spread in words."""
        found, response = self.spread, self.claim.response
        sd = with_interval(level(found.sd, response), level_interval(found.sd_interval, response))
        like = change_interval(found.prediction, response)
        other = f"; in {found.opposite} of them it has the other sign" if found.opposite else ""
        return (
            f"{effect_words(found.estimate, found.interval, response)} on average over "
            f"{count(found.n_cells, 'cell')}{other}; true effects have an sd of {sd} between cells, and in a cell like "
            f"these the effect lies in {like}"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per cell."""
        return self.cells

    def __repr__(self) -> str:
        return f"ClaimCells({self.claim.name}: {self.sentence()})"

    def _repr_html_(self) -> str:
        head = head_html("ClaimCells", f"{self.claim.name}: {self.sentence()}")
        return block(head, table_html(self.cells), notes=[self.spread.method, *self.warnings])


def claim_cells(records: Records, claim: Claim) -> ClaimCells:
    """How far the effect of a claim differs between cells, on the rows that its verdict is made on.

    A cell is a combination of the other factors that was tried at both levels. `AnalysisError` where fewer than three
    cells or three seeds have an effect: in a fraction no cell has its counterpart.
    """
    key = ("claim cells", claim.name)
    if key not in records.memo:
        records.memo[key] = _measured(records, claim)
    found: ClaimCells = records.memo[key]
    return found


def _measured(records: Records, claim: Claim) -> ClaimCells:
    table = planned_table(records, claim)
    factors = [name for name in claim_factors(records, claim) if name != claim.factor and name in table]
    at = level_column(table[claim.factor])
    cell = cell_column(table, factors)
    sides = []
    for wanted in claim.levels:
        rows = table.assign(cell_=cell)[at == level_text(wanted)]
        sides.append(rows.pivot_table(index="seed", columns="cell_", values="value", dropna=False, sort=False))
    effects = (sides[1] - sides[0]).sort_index().dropna(axis=1, how="all")
    both = set(sides[0].columns) & set(sides[1].columns)
    if not both:
        raise AnalysisError(f"claim {claim.name}: no cell was tried at both levels, as in a fraction of a design")
    whole = effects.loc[:, np.isfinite(effects.to_numpy(float)).all(axis=0)]
    spread = cell_spread(whole.to_numpy(float))
    lost = len(both) - whole.shape[1]
    warnings = (f"{count(lost, 'cell')} without an effect under some seed left out",) if lost else ()
    first = table[~cell.duplicated()].set_index(cell[~cell.duplicated()])
    varying = [name for name in factors if len(level_order(first.loc[whole.columns, name])) > 1]
    levels = pd.DataFrame({name: level_column(first.loc[whole.columns, name]).map(str) for name in varying})
    cells = levels.reset_index(drop=True).assign(effect=spread.effects, pooled=spread.pooled)
    return ClaimCells(claim, spread, cells, warnings)


def cells_entry(records: Records, claim: Claim) -> dict[str, Any] | None:
    """The spread for recommendations.json; None where it cannot be had."""
    try:
        found = claim_cells(records, claim).spread
    except AnalysisError:
        return None
    return {
        "n_cells": found.n_cells,
        "sd": found.sd,
        "sd_interval": list(found.sd_interval),
        "a_cell_like_these": list(found.prediction),
        "cells_of_the_other_sign": found.opposite,
    }
