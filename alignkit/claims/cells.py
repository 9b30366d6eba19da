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


@dataclass(frozen=True)
class PairedCells:
    """The values of a claim's two arms, [seed, cell] each, in the cells that have both under every seed.

    `levels` has one row per cell: its levels of the other factors that vary. `lost` counts the cells left out.
    """

    before: pd.DataFrame
    after: pd.DataFrame
    levels: pd.DataFrame
    lost: int


def paired_cells(records: Records, claim: Claim) -> PairedCells:
    """Both arms of a claim cell by cell; `AnalysisError` where no cell was tried at both levels."""
    table = planned_table(records, claim)
    if claim.factor not in table or not table["value"].notna().any():
        raise AnalysisError(f"claim {claim.name}: no run of it has a value")
    factors = [name for name in claim_factors(records, claim) if name != claim.factor and name in table]
    at = level_column(table[claim.factor])
    cell = cell_column(table, factors)
    before, after = (
        table.assign(cell_=cell)[at == level_text(level)].pivot_table(
            index="seed", columns="cell_", values="value", dropna=False, sort=False
        )
        for level in claim.levels
    )
    shared = [name for name in before.columns if name in set(after.columns)]
    if not shared:
        raise AnalysisError(f"claim {claim.name}: no cell was tried at both levels, as in a fraction of a design")
    seeds = sorted({*before.index, *after.index})
    before, after = (side.reindex(index=seeds, columns=shared) for side in (before, after))
    whole = np.isfinite(before.to_numpy(float) + after.to_numpy(float)).all(axis=0)
    first = table[~cell.duplicated()].set_index(cell[~cell.duplicated()]).loc[before.columns[whole]]
    varying = [name for name in factors if len(level_order(first[name])) > 1]
    levels = pd.DataFrame({name: level_column(first[name]).map(str) for name in varying})
    return PairedCells(
        before.loc[:, whole], after.loc[:, whole], levels.reset_index(drop=True), int((~whole).sum())
    )  # fmt: skip


def _measured(records: Records, claim: Claim) -> ClaimCells:
    pairs = paired_cells(records, claim)
    spread = cell_spread((pairs.after - pairs.before).to_numpy(float))
    cells = pairs.levels.assign(effect=spread.effects, pooled=spread.pooled)
    lost = f"{count(pairs.lost, 'cell')} without an effect under some seed left out"
    return ClaimCells(claim, spread, cells, (lost,) if pairs.lost else ())


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
