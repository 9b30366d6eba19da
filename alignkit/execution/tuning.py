"""Studies whose seeds tune themselves: the grid, its growth at the edges, and what follows a short grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from alignkit.data import loading
from alignkit.errors import StudyError
from alignkit.execution.checks import plan_cohorts
from alignkit.execution.progress import OnStatus
from alignkit.execution.workers import execute
from alignkit.records import store
from alignkit.records.tuning import tried_of
from alignkit.study.plan import grown, with_full_runs
from alignkit.study.runs import Plan

WORTH_A_WORKER = 2e11
"""Arithmetic operations below which it is quicker to train here than to start worker processes: some seconds."""


def check_tuning(plan: Plan) -> None:
    """Seeds tune themselves by their validation accuracy: the data must have a validation split."""
    if plan.study.tuning is None:
        return
    for settings in {run.settings.data: run.settings for run in plan.runs}.values():
        if not loading.describe(settings.data).validation:
            raise StudyError(
                f"{plan.source}: tuning: expected data with a validation split; got none. Set data.validation above 0"
            )


def execute_tuned(
    plan: Plan, directory: Path, *, device: str, workers: int, begin: Callable[[str], OnStatus | None]
) -> Plan:
    """Train a plan whose seeds tune themselves, and return it with the runs that tuning added.

    Which runs those are depends on the validation accuracies of the same replicate alone, so the same command goes on
    where it was stopped.
    """
    check_tuning(plan)
    tuning = plan.study.tuning
    assert tuning is not None
    execute(plan, directory, device=device, workers=workers, on_status=begin("training"))
    while (bigger := grown(plan, tried_of(store.finished_runs(directory), plan), loading.fingerprint)) is not plan:
        _go_on(plan, bigger, directory, device, workers, begin("training beyond the edges of the grids"))
        plan = bigger
    if tuning.epochs is not None:
        bigger = with_full_runs(plan, tried_of(store.finished_runs(directory), plan), loading.fingerprint)
        _go_on(plan, bigger, directory, device, workers, begin("training at each seed's best rate"))
        plan = bigger
    return plan


def _go_on(plan: Plan, bigger: Plan, directory: Path, device: str, workers: int, on_status: OnStatus | None) -> None:
    """Train what a bigger plan adds to a finished one."""
    added = dataclasses.replace(bigger, runs=bigger.runs[len(plan.runs) :])
    few = sum(cohort.cost for cohort in plan_cohorts(added, device=device)) < WORTH_A_WORKER
    execute(bigger, directory, device=device, workers=1 if few else workers, on_status=on_status, part=added)
