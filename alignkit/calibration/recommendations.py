"""Recommendations, taken the whole way from records to what is said, one simulated study at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from alignkit.calibration.rates import Tally, tally
from alignkit.calibration.scenarios import ADVISED, Scenario, practice_levels, practice_runs
from alignkit.claims.recommendations import recommendations
from alignkit.claims.verdicts import evaluate
from alignkit.records.store import Records
from alignkit.study.study import Study

ALPHA = 0.05
MARGIN = 5.0
"""The smallest effect that matters, in standard errors of a contrast: as in the paired studies."""


def evaluate_advice(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Studies in which anything is said wrongly of ten practices: with no effects, and with half at the margin.

    No practice changes the accuracy, so that any word on it is false, and so is any advice for or against a
    practice without an effect. One whose effect is the smallest that matters is neither equivalent nor refuted.
    """
    margin = MARGIN * scenario.contrast_sd / np.sqrt(scenario.n_seeds)
    half = np.arange(ADVISED) >= ADVISED // 2
    angles, accuracies = practice_runs(scenario, studies, generator)
    tallies = []
    for truth, effects in (("no effects", np.zeros(ADVISED)), ("half at the margin", -margin * half)):
        mistakes = []
        for angle, accuracy in zip(angles + practice_levels() @ effects, accuracies, strict=True):
            records = practice_records(angle, accuracy, margin=margin)
            mistakes.append(_false(recommendations(records, evaluate(records)), effects != 0))
        wrong = np.array(mistakes)
        tallies += [
            tally("advice", "recommendations", f"{what}, {truth}", column, target=ALPHA, side="at most")
            for what, column in zip(("any false verdict", "any word on accuracy"), wrong.T, strict=True)
        ]
        tallies.append(tally("advice", "recommendations", f"anything false, {truth}", wrong[:, 0] | wrong[:, 1]))
    return tallies


def _false(entries: list[dict[str, Any]], has_effect: np.ndarray) -> tuple[bool, bool]:
    """Whether any verdict is false, and whether anything is said of the accuracy, which nothing changes."""
    wrong = {False: ("supported", "refuted"), True: ("equivalent", "refuted")}
    verdicts = any(entry["verdict"] in wrong[bool(at)] for entry, at in zip(entries, has_effect, strict=True))
    return verdicts, any(speaks_of_accuracy(entry) for entry in entries)


def speaks_of_accuracy(entry: dict[str, Any]) -> bool:
    """Whether a recommendation says that the practice changes test accuracy."""
    return entry["accuracy_p_adjusted"] is not None and entry["accuracy_p_adjusted"] < ALPHA


def practice_records(angle: np.ndarray, accuracy: np.ndarray, *, margin: float) -> Records:
    """Records of runs [seeds, cells], of which those without a value diverged, with a claim for each practice.

    Angles are in degrees about 90, accuracies in points about 80.
    """
    records = _template(angle.shape[0], float(margin))
    values, diverged = np.clip(90 + angle.ravel(), 0, 180), np.isnan(angle).ravel()
    runs = records.runs.assign(test_accuracy=np.clip(80 + accuracy.ravel(), 0, 100) / 100, diverged=diverged)
    return replace(records, runs=runs, layers=records.layers.assign(signal_angle_deg=values))


@lru_cache(maxsize=1)
def _template(n_seeds: int, margin: float) -> Records:
    levels = practice_levels()
    names = [f"practice{k}" for k in range(ADVISED)]
    claims = [
        {"name": name, "statement": name, "practice": name, "factor": name, "levels": [0, 1], "direction": "decrease",
         "response": "signal_angle_deg", "smallest_effect": margin}
        for name in names
    ]  # fmt: skip
    seed, cell = (axis.ravel() for axis in np.indices((n_seeds, len(levels))))
    run_id = [f"{s}/{c}" for s, c in zip(seed, cell, strict=True)]
    runs = pd.DataFrame({"run_id": run_id, "rule": "dfa", "cell": cell, "designs": "", "seed": seed})
    runs = runs.assign(replicate=run_id, **dict(zip(names, levels[cell].T.astype(int), strict=True)))
    layers = pd.DataFrame({"run_id": run_id, "step": 1, "epoch": 1.0, "layer": 1, "width": 64, "signal": "teaching"})
    study = Study.parse({"name": "practices", "seeds": n_seeds, "claims": claims})
    return Records(study, runs, runs.iloc[:0], layers.assign(update_ratio=1.0), tuple(names))
