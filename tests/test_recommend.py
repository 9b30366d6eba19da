"""Practices, with what they change and where that was seen."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from synthetic import full_study, grid, synthetic_records

from alignkit.claims import evaluate
from alignkit.recommend import recommendations, to_json, to_markdown
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


def test_held_out_seeds_confirm_or_do_not() -> None:
    claim = {
        "name": "norm", "statement": "Normalisation aligns", "practice": "Normalise", "factor": "norm",
        "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0,
    }  # fmt: skip
    cells = {"cells": grid({"network.norm": ["none", "batch"], "network.width": [16, 32]})}

    def entry(first: float, apart: float, *, seeds: int = 6) -> dict[str, Any]:
        options: dict[str, Any] = {"designs": cells, "study": {"claims": [claim]}, "steps": (0, 360)}
        judged = synthetic_records(angle_effects={"network.norm": first}, **options)
        other = synthetic_records(angle_effects={"network.norm": apart}, seeds=seeds, noise=1, **options)
        records = dataclasses.replace(judged, held_out=other)
        (found,) = recommendations(records, evaluate(records))
        return found

    same = entry(-6.0, -6.0)
    assert same["held_out"]["status"] == "confirmed" and same["held_out"]["n_seeds"] == 6
    assert same["held_out"]["shrinkage"] == pytest.approx(1.0, abs=0.2) and "held-out" not in same["summary"]
    opposite = entry(-6.0, 6.0)
    assert opposite["held_out"]["status"] == "contradicted"
    assert "6 held-out seeds contradict it: +5" in opposite["summary"]
    nothing = entry(-6.0, 0.0)
    assert nothing["held_out"]["status"] == "not confirmed" and "do not confirm it" in nothing["summary"]
    alone = entry(-6.0, -6.0, seeds=1)
    assert alone["held_out"]["status"] is None and alone["held_out"]["n_seeds"] == 1
    assert "confirmed on 6 held-out seeds" in to_markdown([same])


def test_the_better_level_and_what_following_costs() -> None:
    found = judged(angle_effects={"network.norm": -6.0}, accuracy_effects={"network.norm": -2.0})
    assert found["p_best"] > 0.99 and found["expected_regret"] < 0.01 and found["best_level"] == "batch"
    assert found["p_best_accuracy"] < 0.01 and found["expected_regret_accuracy"] == pytest.approx(2.0, abs=0.3)
    worse = judged(angle_effects={"network.norm": 6.0})
    assert worse["p_best"] < 0.01 and worse["expected_regret"] == pytest.approx(6.0, abs=0.8)


def test_the_markdown_has_a_line_for_each_number(records: Records) -> None:
    entries = recommendations(records, evaluate(records))
    text = to_markdown(entries)
    assert text.startswith("# Recommendations\n") and text.count("\n- **") == len(entries)
    assert "P(best) 1.00" in text and "Scope: digits, MLP, 2 to 3 hidden layers of 32 to 128 units" in text
    assert "None" not in text and "nan" not in text
