"""The pilot: tunes every arm's learning rates on seeds of its own and the validation split."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignkit.data import loading
from alignkit.errors import StudyError, quoted
from alignkit.execution.progress import OnStatus
from alignkit.execution.workers import execute
from alignkit.paths import kind_of
from alignkit.records import store
from alignkit.study.designs import MOST_RUNS, declared_factors, flat
from alignkit.study.identities import arm_id, run_id
from alignkit.study.plan import expand
from alignkit.study.runs import Plan, Run
from alignkit.study.study import Study
from alignkit.study.watch import counted

RATES_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One arm at one pair of rates."""

    arm: str
    lr: float
    output_lr: float


def pilot_plan(study: Study, *, source: str = "study") -> tuple[Plan, dict[str, Candidate]]:
    """The pilot's runs, measured only at their end, and which candidate each belongs to."""
    pilot = study.pilot
    if pilot is None:
        raise StudyError(f"{source}: has no [pilot] section to tune rates by. Add one, with lr = [0.03, 0.1, 0.3]")
    base = expand(study, fingerprint=loading.fingerprint, seeds=pilot.seeds, source=source)
    _refuse_rate_factors(study, source)
    if not loading.describe(base.runs[0].settings.data).validation:
        raise StudyError(
            f"{source}: the pilot needs a validation split and the data has none. Set data.validation above 0"
        )
    candidates_of_arm = len(pilot.lr) * max(len(pilot.output_lr), 1)
    if len(base.runs) * candidates_of_arm > MOST_RUNS:
        raise StudyError(
            f"{source}: expected a pilot of at most {MOST_RUNS:,} runs; got {len(base.runs) * candidates_of_arm:,}. "
            "Take fewer rates or seeds in [pilot], or fewer cells"
        )
    quiet = {"measures": (), "log_steps": 0, "every_epochs": 0, "steps": (), "evaluation_samples": 1}
    runs: dict[str, Run] = {}
    candidates: dict[str, Candidate] = {}
    for run in counted("Planning the pilot's runs", base.runs):
        arm = arm_id(run.rule, run.settings, loading.fingerprint)
        for lr, output_lr in itertools.product(pilot.lr, pilot.output_lr or (None,)):
            output = output_lr or run.settings.training.output_lr or lr
            training = run.settings.training.model_copy(
                update={"lr": lr, "output_lr": output, "epochs": pilot.epochs or run.settings.training.epochs}
            )
            probe = run.settings.probe.model_copy(update=quiet)
            settings = run.settings.model_copy(update={"training": training, "probe": probe})
            identity = run_id(run.rule, settings, run.seed, loading.fingerprint)
            runs[identity] = dataclasses.replace(run, run_id=identity, settings=settings, bp_run_id="")
            candidates[identity] = Candidate(arm, lr, output)
    return Plan(study, tuple(runs.values()), base.factors), candidates


def tune(
    study: Study,
    directory: Path,
    *,
    device: str,
    workers: int,
    on_status: OnStatus | None = None,
    source: str = "study",
) -> dict[str, Any]:
    """Run the pilot below `directory` (it goes on where it was stopped) and choose every arm's rates.

    The winner is the smallest rate whose mean validation accuracy over the pilot's seeds (for regression,
    validation loss) is within one standard error of the best: differences below that are noise, and
    smaller rates are the more stable ones. A candidate that diverged under any seed cannot win.
    """
    plan, candidates = pilot_plan(study, source=source)
    samples = loading.describe(plan.runs[0].settings.data).validation
    execute(plan, directory, device=device, workers=workers, on_status=on_status)
    runs = store.load(directory).runs
    runs = runs[runs["run_id"].isin(list(candidates))]
    for name in ("arm", "lr", "output_lr"):
        runs[name] = [getattr(candidates[identity], name) for identity in runs["run_id"]]
    arms = [_winner(arm, group, samples) for arm, group in runs.groupby("arm", sort=True)]
    undecided = [arm["cell"] or "the base options" for arm in arms if arm["lr"] is None]
    if undecided:
        raise StudyError(
            f"{source}: every candidate rate diverged for {undecided[0]} (and {len(undecided) - 1} more "
            "arms). Add smaller rates to pilot.lr"
        )
    return {"format": RATES_FORMAT, "study": study.name, "pilot": pilot_options(study), "arms": arms}


def _winner(arm: Any, runs: pd.DataFrame, samples: int) -> dict[str, Any]:
    first, seeds = runs.iloc[0], runs["seed"].nunique()
    regression = runs["validation_accuracy"].isna().all()
    chosen: dict[str, Any] = {"arm": arm, "rule": first["rule"], "cell": first["cell"], "lr": None, "output_lr": None}
    grouped = runs.groupby(["lr", "output_lr"])
    mean = grouped[["validation_accuracy", "validation_loss", "diverged"]].mean()
    mean["loss_error"] = grouped["validation_loss"].std(ddof=1).fillna(0.0) / np.sqrt(seeds)
    mean = mean[mean["diverged"] == 0].reset_index()
    if mean.empty:
        return chosen
    if regression:
        best = mean.sort_values("validation_loss").iloc[0]
        as_good = mean["validation_loss"] <= best["validation_loss"] + best["loss_error"]
    else:
        accuracy = mean["validation_accuracy"].max()
        error = np.sqrt(accuracy * (1 - accuracy) / (samples * seeds))
        as_good = mean["validation_accuracy"] >= accuracy - error
    winner = mean[as_good].sort_values(["lr", "output_lr"]).iloc[0]
    tried = np.unique(runs["lr"])
    return {
        **chosen,
        "lr": float(winner["lr"]),
        "output_lr": float(winner["output_lr"]),
        "validation_accuracy": None if regression else round(float(winner["validation_accuracy"]), 4),
        "validation_loss": round(float(winner["validation_loss"]), 4),
        "at_edge": bool(len(tried) > 1 and winner["lr"] in (tried[0], tried[-1])),
    }


def pilot_options(study: Study) -> dict[str, Any]:
    """What an outcome depends on beside the arms: rates that were tuned otherwise do not serve."""
    return study.pilot.model_dump(mode="json", exclude={"rates"}) if study.pilot else {}


def rates_of(outcome: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The tuned (lr, output_lr) by arm, as `study.plan.expand` takes them."""
    return {arm["arm"]: (arm["lr"], arm["output_lr"]) for arm in outcome["arms"]}


def read_rates(path: Path) -> dict[str, Any]:
    """A stored outcome of a pilot."""
    try:
        if (kind := kind_of(path)) != "a file":
            raise StudyError(f"{path}: expected the outcome of a pilot, as JSON; got {kind}. Name another file")
        outcome = json.loads(path.read_text(encoding="utf-8"))
        rates = [rate for pair in rates_of(outcome).values() for rate in pair]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StudyError(
            f"{path}: expected the outcome of a pilot, as JSON; got something else. "
            "Keep what is yours: move it away, or name another file in [pilot] rates. Then: alignkit pilot STUDY"
        ) from None
    for rate in rates:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise StudyError(
                f"{path}: expected positive learning rates; got {quoted(rate)}. "
                "Move the file away and make it anew: alignkit pilot STUDY"
            )
    if outcome.get("format") != RATES_FORMAT:
        raise StudyError(
            f"{path}: expected rates of format {RATES_FORMAT}; got {outcome.get('format')!r}. "
            "Make them again: alignkit pilot STUDY"
        )
    return dict(outcome)


def rates_text(outcome: Mapping[str, Any]) -> str:
    """The outcome as JSON with one arm a line, so that a change of it reads well."""
    arms = ",\n  ".join(json.dumps(arm) for arm in outcome["arms"])
    head = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in outcome.items() if key != "arms")
    return f'{{{head}, "arms": [\n  {arms}\n]}}\n'


def serves(outcome: Mapping[str, Any], study: Study) -> bool:
    """Whether the outcome is that of the study's own pilot, and every arm of the study has its rates."""
    if outcome.get("pilot") != pilot_options(study):
        return False
    rates = rates_of(outcome)
    runs = expand(study, fingerprint=loading.fingerprint, seeds=study.seed_list[:1]).runs
    return all(arm_id(run.rule, run.settings, loading.fingerprint) in rates for run in runs)


def _refuse_rate_factors(study: Study, source: str) -> None:
    tuned = {"training.lr", "training.output_lr"}
    for name, factors in declared_factors(study, source).items():
        set_there = {path for factor in factors for path in factor.paths} | set(flat(study.designs[name].base))
        for path in sorted(tuned & set_there):
            raise StudyError(
                f"{source}: designs.{name} sets {path}, which the study's pilot tunes. Leave one of the two out"
            )
