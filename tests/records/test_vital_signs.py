"""Which cosines stand on solid ground, on records whose state is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records

from alignkit import Study, load
from alignkit.execution.run_study import run_study
from alignkit.records.store import Records
from alignkit.records.vital_signs import vital_signs

CELLS = {"cells": grid({"network.width": [16, 32], "feedback.normalised": [False, True]})}
HEALTHY = {"teaching_norm": 2.0, "gradient_norm": 0.1, "activation_norm": 5.0, "gradient_stability": 0.8}


def records_of(rules: tuple[str, ...] = ("bp", "dfa", "shallow"), **values: float) -> Records:
    found = synthetic_records(designs=CELLS, seeds=3, rules=rules)
    return dataclasses.replace(found, layers=found.layers.assign(**{**HEALTHY, "undefined": 0, **values}))


def of_dfa(records: Records) -> pd.DataFrame:
    signs = vital_signs(records)
    return signs[signs["rule"] == "dfa"]


def test_a_healthy_study_stands_on_solid_ground() -> None:
    records = records_of()
    signs = of_dfa(records)
    assert len(signs) == 4 * 2 and signs["ground"].eq("solid").all() and signs["runs"].eq(3).all()
    runs = records.runs.set_index("run_id")
    taught = runs[
        (runs["rule"] == "dfa") & (runs["width"] == 16) & ~runs["feedback_normalised"].fillna(True).astype(bool)
    ]
    frozen = runs[(runs["rule"] == "shallow") & (runs["width"] == 16)].set_index("seed")["test_accuracy"]
    wanted = 100 * (taught.set_index("seed")["test_accuracy"] - frozen).mean()
    assert signs["over_shallow"].iloc[0] == pytest.approx(wanted)
    width = 16
    assert signs["floor_ratio"].iloc[0] == pytest.approx(0.1 / (np.sqrt(width) * np.finfo(np.float32).tiny))


@pytest.mark.parametrize(
    ("values", "ground"),
    [
        ({"gradient_norm": 1e-33}, "norms near the floor of the number format"),
        ({"gradient_norm": 4e-9, "activation_norm": 4e8}, "BP signal lost in the rounding of the activations"),
        ({"gradient_stability": -0.58}, "halves of the probe disagree on the BP gradient"),
        ({"undefined": 64}, "samples without a direction"),
        ({"teaching_norm": 0.0}, "no teaching signal"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, float], ground: str) -> None:
    assert of_dfa(records_of(**values))["ground"].str.contains(ground).all()


def test_a_rule_that_does_no_better_than_frozen_layers_is_named() -> None:
    records = records_of()
    runs = records.runs.assign(test_accuracy=0.5)
    assert of_dfa(dataclasses.replace(records, runs=runs))["ground"].eq("not above frozen hidden layers").all()
    alone = records_of(rules=("bp", "dfa"))
    assert of_dfa(alone)["over_shallow"].isna().all() and of_dfa(alone)["ground"].eq("solid").all()


def test_it_reads_what_a_run_records(tmp_path) -> None:
    study = Study(
        name="signs", seeds=2, rules=("bp", "dfa", "shallow"), network={"width": 8}, training={"epochs": 1},
        probe={"samples": 32, "modes": ["batch", "eval"]}, factors={"network.depth": [1, 2]},
    )  # fmt: skip
    run_study(study, tmp_path / "signs", workers=1)
    signs = vital_signs(load(tmp_path / "signs"))
    assert len(signs) == 3 * 3 and signs["runs"].eq(2).all()  # a row per layer, not one per mode
    shallow = signs[signs["rule"] == "shallow"]
    assert shallow["ground"].str.contains("no teaching signal").all() and shallow["over_shallow"].isna().all()
    assert signs.loc[signs["rule"] == "dfa", ["teaching_norm", "floor_ratio", "over_shallow"]].notna().all(axis=None)
