"""From records, or any tidy table, to the rows that an analysis is made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.columns import EXCESS, unit_of
from alignkit.errors import AnalysisError, nearest, require_text
from alignkit.records.confounding import rate_note, step_note
from alignkit.records.store import Records
from alignkit.records.summaries import Layer, first_mode, in_mode, measures_of, require_summary, run_summaries
from alignkit.records.tuning import Rates
from alignkit.stats.tables.checks import require_columns
from alignkit.stats.tables.levels import in_design, level_column, level_order, level_text

ANGLE = "signal_angle_deg"


@dataclass(frozen=True, eq=False)
class AnalysisRows:
    """The rows of an analysis. `value` is their response's column, `response` what it is called.

    `factors` are those of the study, none for a plain table, whose `records` are None. `design` is set
    once one was chosen.
    """

    table: pd.DataFrame
    response: str
    value: str
    unit: str = ""
    factors: tuple[str, ...] = ()
    records: Records | None = None
    design: str | None = None

    def in_design(self, design: str | None, needs: Mapping[str, Sequence[Any] | None]) -> AnalysisRows:
        """The rows of a design; of the first that holds the levels that are needed, where none is named.

        `needs` maps a factor to its levels, or to None for any two. Where no design has them all, or the
        table is a plain one, every row stays.
        """
        if self.records is None:
            if design is not None:
                raise AnalysisError(f'design "{design}": a table has no designs. Give records, or choose its rows')
            return self
        designs = list(self.records.study.designs)
        if design is not None:
            rows = self.table[in_design(self.table, design)]
            if rows.empty:
                raise AnalysisError(f'no run here is of the design "{design}"; {nearest(design, designs)}')
            return replace(self, table=rows, design=design)
        for name in designs:
            rows = self.table[in_design(self.table, name)]
            if all(_holds(rows[factor], levels) for factor, levels in needs.items()):
                return replace(self, table=rows, design=name)
        return self

    def require_one_rule(self, factors: Sequence[str | None]) -> None:
        """Runs of several rules are no replicates: one rule, or the rule among the factors."""
        rules = sorted(set(self.table["rule"])) if self.records is not None else []
        if len(rules) > 1 and "rule" not in factors:
            raise AnalysisError(
                f'expected runs of one rule, or "rule" among the factors; got those of {", ".join(rules)}. Name one '
                'with rule=, or add "rule" to the factors'
            )

    def notes(self, factor: str | None = None, pairs: Sequence[tuple[str, str]] = ()) -> list[str]:
        """What a reader must know of the rows: runs without a value and why, and learning rates that differ."""
        if self.records is None:
            return []
        notes = []
        if factor is not None:
            steps = summarised(self.records, "update_ratio", summary="auc")
            steps = steps[steps["run_id"].isin(self.table["run_id"])]
            tuned = self.records.study.pilot is not None
            for pair in pairs:
                notes.append(rate_note(self.table, factor=factor, levels=pair, tuned=tuned, within=self.factors))
                notes.append(step_note(steps, factor=factor, levels=pair))
        notes += self._missing(factor, pairs)
        if self.records.missing:
            notes.append(f"preliminary: {self.records.missing:,} planned runs have no records yet")
        return [note for note in dict.fromkeys(notes) if note]

    def _missing(self, factor: str | None, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Counts by reason and, as missing at one level alone biases what remains, by level."""
        absent = self.table[self.table["missing"] != ""]
        levels = list(dict.fromkeys(level for pair in pairs for level in pair))
        notes = []
        for reason in sorted(absent["missing"].unique()):
            rows = absent[absent["missing"] == reason]
            if factor is None:
                notes.append(f"{reason}: {len(rows)} of {len(self.table):,} rows without a value")
                continue
            at = level_column(rows[factor])
            counts = [f"{int((at == level).sum())} at {level}" for level in levels]
            if at.isin(levels).any():
                notes.append(f"{reason}: runs without a value, {', '.join(counts)}")
        return notes


def summarised(
    records: Records,
    response: str,
    *,
    summary: Literal["final", "auc"] = "final",
    layer: Layer = "mean",
    mode: str | None = None,
    rates: Rates = "within",
) -> pd.DataFrame:
    """`run_summaries` of all the records' runs, worked out once: an analysis asks for the same ones many times."""
    require_summary(summary, layer, mode)  # before the memo, to which True is 1
    key = ("run_summaries", response, summary, layer, mode, rates)
    if key not in records.memo:
        layers = records.layers if mode is not None else layers_of(records)
        options: dict[str, Any] = {"summary": summary, "layer": layer, "mode": mode, "rates": rates}
        records.memo[key] = run_summaries(records.runs, layers, response, **options)
    rows: pd.DataFrame = records.memo[key]
    return rows.copy(deep=False)


def layers_of(records: Records, mode: str | None = None) -> pd.DataFrame:
    """The records' `layers` in one mode, worked out once: where none is named in the study's own, that of each run's
    `checkpoints`."""
    key = ("layers", mode)
    if key not in records.memo:
        records.memo[key] = _in_own_mode(records) if mode is None else in_mode(records.layers, mode)
    rows: pd.DataFrame = records.memo[key]
    return rows


def last_layers(records: Records) -> pd.DataFrame:
    """The rows of `layers` at each run's last checkpoint, in the study's own mode."""
    layers = layers_of(records)
    return layers[layers["step"] == layers.groupby("run_id")["step"].transform("max")]


def _in_own_mode(records: Records) -> pd.DataFrame:
    layers, checkpoints = records.layers, records.checkpoints
    if "mode" not in layers.columns or "mode" not in checkpoints.columns or layers["mode"].nunique(dropna=False) <= 1:
        return first_mode(layers)
    own = layers["run_id"].map(checkpoints.drop_duplicates("run_id").set_index("run_id")["mode"])
    return layers[(layers["mode"] == own) | layers["mode"].isna() | own.isna()]


def require_records(records: Any) -> None:
    """Records, and neither their directory nor one of their tables."""
    if not isinstance(records, Records):
        raise AnalysisError(
            f"expected records; got {type(records).__name__}. Read a directory of records with load(...)"
        )


def require_records_or_table(records_or_table: Any) -> None:
    """Records or a table."""
    if not isinstance(records_or_table, Records | pd.DataFrame):
        raise AnalysisError(
            f"expected records or a pandas table; got {type(records_or_table).__name__}. "
            "Read a directory of records with load(...)"
        )


def analysis_rows(
    records_or_table: Records | pd.DataFrame,
    response: str | None,
    *,
    rule: str | None,
    summary: Literal["final", "auc"],
    layer: Layer,
    mode: str | None = None,
) -> AnalysisRows:
    """Records as one row per run under `rule` (or per run and hidden layer, with layer="each"); a table as it is.

    The response is the angle in degrees unless another is named, or a table's column "value".
    """
    require_records_or_table(records_or_table)
    if isinstance(records_or_table, pd.DataFrame):
        of_records = {
            "rule": (rule, ("dfa", None)), "summary": (summary, ("final",)), "layer": (layer, ("mean",)),
            "mode": (mode, (None,)),
        }  # fmt: skip
        given = [f"{name}={value!r}" for name, (value, defaults) in of_records.items() if value not in defaults]
        if given:
            raise AnalysisError(
                f"expected rule, summary and layer with records alone; got a table and {', '.join(given)}. Give "
                "records, or choose the table's rows and response"
            )
        value = "value" if response is None else response
        require_columns(records_or_table, value)
        return AnalysisRows(table=records_or_table, response=value, value=value, unit=unit_of(value))
    records, name = records_or_table, ANGLE if response is None else response
    require_text("response", name)
    table = (
        _each_layer(records, name, summary, mode)
        if layer == "each"
        else summarised(records, name, summary=summary, layer=layer, mode=mode)
    )
    if rule is not None:
        ran = sorted(set(table["rule"]))
        if rule not in ran:
            raise AnalysisError(f'no run has the rule "{rule}"; {nearest(rule, ran)}')
        table = table[table["rule"] == rule]
    return AnalysisRows(
        table=table, response=name, value="value", unit=unit_of(name), factors=tuple(records.factors), records=records
    )


def _each_layer(
    records: Records, response: str, summary: Literal["final", "auc"], mode: str | None = None
) -> pd.DataFrame:
    """One row per run and hidden layer, with `layer` and `position`, the layer over the number of layers."""
    measures = measures_of(records.layers)
    if response.removesuffix(EXCESS) not in measures:
        raise AnalysisError(f'response "{response}": expected a measure of layers; {nearest(response, measures)}')
    layers = records.layers.groupby("run_id")["layer"].max()
    of_replicate = records.runs["run_id"].map(layers).groupby(records.runs["replicate"]).max().to_dict()
    parts = []
    for layer in sorted(records.layers["layer"].unique()):
        part = summarised(records, response, summary=summary, layer=int(layer), mode=mode)
        depth = part["replicate"].map(of_replicate)
        has = depth >= layer
        parts.append(part[has].assign(layer=int(layer), position=layer / depth[has]))
    return pd.concat(parts, ignore_index=True)


def _holds(column: pd.Series, levels: Sequence[Any] | None) -> bool:
    present = level_order(column)
    return len(present) > 1 if levels is None else {level_text(level) for level in levels} <= set(present)


def rows_of(runs: pd.DataFrame, *, rule: str | None = None, design: str | None = None) -> pd.DataFrame:
    """The rows of one rule in one design; of all where none is named. `runs` has a row per run."""
    runs = runs if rule is None else runs[runs["rule"] == rule]
    return runs if design is None else runs[in_design(runs, design)]


def final_values(records: Records, *, rule: str, design: str | None, response: str) -> pd.DataFrame:
    """`run_summaries` of one rule in one design (all designs if None)."""
    return rows_of(summarised(records, response), rule=rule, design=design)


def curves(
    records: Records, *, rule: str, design: str | None = None, response: str = "signal_angle_deg"
) -> pd.DataFrame:
    """Mean and 95% t interval over seeds, by layer and step; each seed is first averaged over its cells."""
    runs = rows_of(records.runs, rule=rule, design=design)[["run_id", "seed"]]
    rows = layers_of(records)[["run_id", "step", "layer", response]].merge(runs, on="run_id")
    common = rows.groupby("step")["run_id"].nunique() == rows["run_id"].nunique()
    rows = rows[rows["step"].map(common).astype(bool)].dropna(subset=[response])
    seeds = rows.groupby(["layer", "step", "seed"])[response].mean()
    summary = seeds.groupby(["layer", "step"]).agg(["mean", "sem", "count"]).reset_index()
    spread = summary["sem"] * stats.t.ppf(0.975, np.maximum(summary["count"] - 1, 1))
    return summary.assign(low=summary["mean"] - spread, high=summary["mean"] + spread)


def at_the_end(layers: pd.DataFrame, runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of `layers` at each run's last checkpoint, beside the columns of these runs."""
    rows = layers[["run_id", "step", "layer", *columns]].merge(runs, on="run_id")
    return rows[rows["step"] == rows.groupby("run_id")["step"].transform("max")]


def final_by_layer(records: Records, *, rule: str, design: str | None, factor: str, response: str) -> pd.DataFrame:
    """Columns layer, x (the factor as a number), seed and value, at the last checkpoint."""
    runs = rows_of(records.runs, rule=rule, design=design)
    runs = runs.assign(x=pd.to_numeric(level_column(runs[factor]), errors="coerce"))[["run_id", "seed", "x"]]
    rows = at_the_end(layers_of(records), runs, [response])
    return rows.rename(columns={response: "value"}).dropna(subset=["value", "x"])


def until(layers: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    """The rows up to "half-way" or the "first epoch"; `AnalysisError` where no checkpoint lies before it."""
    end = float(layers["epoch"].max())
    limit = {"half-way": end / 2, "first epoch": 1.0}[checkpoint]
    if limit > end or not (layers["epoch"] > 0).any():
        raise AnalysisError(f"the runs are shorter than the checkpoint {checkpoint}")
    reached = layers["epoch"] <= limit + 1e-9
    if not (layers.loc[reached, "epoch"] > 0).any():
        raise AnalysisError(f"no checkpoint between the start and {checkpoint}: ask for more in [probe]")
    return layers[reached]
