"""Practices, with what they change and where that was seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from synthetic import full_study, grid, synthetic_records

from alignkit.claims import evaluate
from alignkit.recommend import recommendations, to_json
from alignkit.store import Records


@pytest.fixture(scope="module")
def records() -> Records:
    return full_study()


def test_every_practice_has_its_effect_interval_verdict_and_scope(records: Records) -> None:
    entries = recommendations(records, evaluate(records))
    assert [entry["claim"] for entry in entries] == [
        "norm",
        "activation",
        "dropout",
        "feedback",
        "width",
    ]  # no practice, no entry
    for entry in entries:
        assert {"practice", "effect", "interval", "verdict", "scope"} <= set(entry)
    norm = entries[0]
    assert norm["effect"] == pytest.approx(-6.0, abs=0.6) and norm["interval"][0] < -6.0 < norm["interval"][1]
    assert norm["accuracy_effect"] == pytest.approx(1.0, abs=0.15) and norm["accuracy_p"] < 0.05
    assert norm["summary"].startswith("Recommended: the angle to the BP signal falls by 6.0°, and test accuracy rises")
    assert "confounded with the learning rate" in norm["caveats"][0]
    scope = norm["scope"]
    assert (scope["data"], scope["rule"], scope["seeds"], scope["widths"], scope["depths"]) == (
        "digits",
        "dfa",
        10,
        [32, 128],
        [2, 3],
    )
    assert "norm" not in scope["averaged_over"] and scope["averaged_over"]["activation"] == ["tanh", "relu"]
    assert entries[4]["summary"].endswith("but test accuracy rises by 0.61 points.")


def judged(**options: Any) -> dict[str, Any]:
    claim = {
        "name": "norm", "statement": "Normalisation aligns", "practice": "Normalise", "factor": "norm",
        "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0,
    }  # fmt: skip
    cells = {"cells": grid({"network.norm": ["none", "batch"], "network.width": [16, 32]})}
    found = synthetic_records(designs=cells, study={"claims": [claim]}, steps=(0, 360), **options)
    (entry,) = recommendations(found, evaluate(found))
    return entry


def test_no_evidence_is_said_in_so_many_words() -> None:
    entry = judged(seeds=4)
    assert entry["verdict"] == "no evidence" and entry["summary"].startswith("No evidence for or against")
    assert "needs ≥ 6 seeds" in entry["reason"] and entry["p"] is None and entry["effect"] is not None


def test_better_aligned_but_less_accurate_is_not_hidden() -> None:
    entry = judged(angle_effects={"network.norm": -6.0}, accuracy_effects={"network.norm": -2.0})
    assert entry["verdict"] == "supported"
    assert "for alignment alone" in entry["summary"] and "but test accuracy falls by" in entry["summary"]


def test_regression_has_no_accuracy() -> None:
    entry = judged(angle_effects={"network.norm": -6.0}, regression=True)
    assert entry["accuracy_effect"] is None and entry["accuracy_interval"] == [None, None]
    assert entry["summary"].startswith("Recommended: the angle") and "accuracy" not in entry["summary"]


def test_json_has_no_nan(records: Records) -> None:
    text = to_json(recommendations(records, evaluate(records)))
    assert json.loads(text) and "NaN" not in text and text.endswith("\n")
