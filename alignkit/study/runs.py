"""Runs, and the plan that lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from alignkit.columns import FORMAT_VERSION, Column
from alignkit.display import block, head_html, rows_html
from alignkit.settings.rules import WITHOUT_FEEDBACK, display_of
from alignkit.settings.study_options import Settings
from alignkit.study.seed_notes import seed_notes
from alignkit.study.study import Study
from alignkit.text import count, listed

Rates = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """An arm under one seed, at one rate. `bp_run_id` is empty where no BP run is its like.

    A `replicate` is an arm under a seed at whatever rate: where each seed tunes itself, several runs share one.
    `tunes` marks the short runs of a grid that only choose the rate of the run `in_full`.
    """

    run_id: str
    rule: str
    cell: str
    seed: int
    settings: Settings
    levels: dict[str, Any]
    designs: tuple[str, ...] = ()
    bp_run_id: str = ""
    replicate: str = ""
    bp_replicate: str = ""
    tunes: bool = False
    in_full: Settings | None = None


@dataclass(frozen=True)
class Plan:
    """All runs of a study, in the order of its designs, cells, rules and seeds."""

    study: Study
    runs: tuple[Run, ...]
    factors: tuple[str, ...]
    notes: tuple[str, ...] = ()
    source: str = "study"
    own_columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    """What measures of the user's own record, by the measure's name."""

    @property
    def cells(self) -> int:
        return len(
            {run.cell for run in self.runs if run.rule not in WITHOUT_FEEDBACK} or {run.cell for run in self.runs}
        )

    @property
    def tuned_rates(self) -> dict[str, list[float | None]]:
        """Learning rate and that of the output layer where a pilot tunes them, by rule, cell and designs."""
        if self.study.pilot is None:
            return {}
        return {
            f"{run.rule} | {run.cell} | {'+'.join(run.designs)}": [
                run.settings.training.lr,
                run.settings.training.output_lr,
            ]
            for run in self.runs
        }

    def __repr__(self) -> str:
        return f"Plan({_words(self)})"

    def _repr_html_(self) -> str:
        return _html(self)

    def to_json(self) -> str:
        runs = [
            {
                "run_id": run.run_id, "rule": run.rule, "cell": run.cell, "designs": "+".join(run.designs),
                "bp_run_id": run.bp_run_id, "seed": run.seed, "levels": run.levels,
                **({"replicate": run.replicate, "bp_replicate": run.bp_replicate} if run.replicate else {}),
                **({"tunes": True} if run.tunes else {}),
            }
            for run in self.runs
        ]  # fmt: skip
        written = {"format": FORMAT_VERSION, "study": self.study.name, "factors": list(self.factors), "runs": runs}
        shown = {rule: display for rule in self.study.rules if (display := display_of(rule))}
        columns = [asdict(column) for columns in self.own_columns.values() for column in columns]
        own = {**({"rules": shown} if shown else {}), **({"columns": columns} if columns else {})}
        return json.dumps({**written, **own}, indent=0)


def _words(plan: Plan) -> str:
    study = plan.study
    held_out = f" and {len(study.held_out_seeds)} held out" if study.held_out_seeds else ""
    return (
        f"{study.name!r}: {count(len(plan.runs), 'run')}, {count(plan.cells, 'cell')}, "
        f"{count(len(study.seed_list), 'seed')}{held_out}, rules {listed(study.rules)}"
    )


def _html(plan: Plan) -> str:
    """The plan at a glance: how much each design runs, and what to know before it does."""
    rows = []
    for name in plan.study.designs or ("study",):
        runs = [run for run in plan.runs if name in run.designs]
        cells = {run.cell for run in runs if run.rule not in WITHOUT_FEEDBACK} or {run.cell for run in runs}
        varied = {
            factor: dict.fromkeys(str(run.levels[factor]) for run in runs if run.levels[factor] is not None)
            for factor in plan.factors
        }
        levels = "; ".join(f"{factor}: {', '.join(found)}" for factor, found in varied.items() if len(found) > 1)
        rows.append((name, f"{len(cells):,}", f"{len(runs):,}", levels))
    table = rows_html(rows, head=("design", "cells", "runs", "what varies"), right=("cells", "runs"))
    return block(head_html("Plan", _words(plan)), table, notes=[*plan.notes, *seed_notes(plan.study)])
