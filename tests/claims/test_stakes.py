"""What claims on angles are worth in accuracy, by the curve that ships or another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.recommendations import recommendations
from alignkit.claims.stakes import curve_of, nil_stake, shipped_curve, stake, stake_entry
from alignkit.claims.verdicts import evaluate
from alignkit.claims.wording import to_markdown
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.curves.dose import dose_response

REPORT = Path(__file__).parents[2] / "reports" / "dose_response" / "tables" / "dose_rates.csv"
CELLS = grid({
    "network.activation": ["relu", "tanh"], "network.norm": ["none", "batch"], "network.depth": [2, 3],
})  # fmt: skip
CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Batch norm aligns", "practice": "Use batch norm", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0, "response": "gradient_angle_deg",
}  # fmt: skip


def at_gradient(shift: float = 0.0, effect: float = -6.0, **study: Any) -> Records:
    """Angles of the weight gradients near 66° + shift, batch norm `effect` better."""
    claim = {**CLAIM, **study.pop("claim", {})}
    records = synthetic_records(
        designs={"practices": CELLS}, study={"claims": [claim], **study}, seeds=8,
        angle_effects={"network.norm": effect},
    )  # fmt: skip
    records.layers["gradient_angle_deg"] = records.layers["signal_angle_deg"] + shift
    return records


def test_the_curve_that_ships_is_the_committed_studys() -> None:
    """After the study ran anew: write files/dose_curve.csv from `curve_of(load(...), design="rates").stack()`."""
    rows = shipped_curve().stack().rename("value").reset_index()
    rows.columns = pd.Index(["seed", "feedback_angle_deg", "value"])
    found = dose_response(rows, dose="feedback_angle_deg").to_frame()
    committed = pd.read_csv(REPORT)
    assert list(found) == list(committed)
    np.testing.assert_allclose(found, committed, atol=2e-4)


def test_where_the_curve_is_flat_a_large_difference_has_no_stake() -> None:
    records = at_gradient()
    (verdict,) = evaluate(records)
    found = stake(records, verdict.claim)
    assert verdict.verdict == "supported"
    assert found.nil and np.isnan(found.degrees)
    assert found.angles == pytest.approx((66.0, 60.0), abs=1.5)
    assert any("no stake in accuracy" in warning for warning in verdict.warnings)
    assert "less than a point either way" in repr(found) and "three hidden layers" in found._repr_html_()


def test_near_a_right_angle_it_has_one_and_degrees_can_be_said() -> None:
    records = at_gradient(shift=22.0)
    (verdict,) = evaluate(records)
    found = stake(records, verdict.claim)
    assert found.worth.interval[0] > 1
    assert not found.nil and 0 < found.degrees < 6
    assert nil_stake(records, verdict) == ""
    assert not any("stake" in warning for warning in verdict.warnings)


def test_recommendations_carry_it() -> None:
    (entry,) = recommendations(at_gradient())
    assert entry["stake"]["nil"] is True and entry["stake"]["degrees_for_a_point"] is None
    assert abs(entry["stake"]["points"]) < 1
    assert "By the dose\N{EN DASH}response curve (three hidden layers of 64 tanh units on digits" in to_markdown(
        [entry]
    )
    assert entry["summary"].endswith("curve that angle is worth less than a point of accuracy, whichever way.")
    assert not any("stake" in caveat for caveat in entry["caveats"])
    (other,) = recommendations(at_gradient(shift=22.0))
    assert other["stake"]["degrees_for_a_point"] > 0 and "is worth" not in other["summary"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"claim": {"response": "signal_angle_deg"}}, "the claim is about signal_angle_deg"),
        ({"claim": {"layer": "last"}}, "one angle in all hidden layers"),
        ({"data": {"name": "digits", "shuffle_labels": True}}, "no dose\N{EN DASH}response curve of a like network"),
    ],
)
def test_where_the_curve_does_not_speak_there_is_none(options: dict[str, Any], words: str) -> None:
    records = at_gradient(**options)
    with pytest.raises(AnalysisError, match=words):
        stake(records, records.study.claims[0])
    assert stake_entry(records, records.study.claims[0]) is None
    assert not any("stake" in warning for warning in evaluate(records)[0].warnings)


def test_another_curve_may_be_given() -> None:
    records = at_gradient()
    steep = pd.DataFrame([[100.0, 10.0], [101.0, 11.0]], columns=[0.0, 90.0])
    found = stake(records, records.study.claims[0], curve=steep, of="another network")
    assert found.worth.estimate == pytest.approx(found.angles[0] - found.angles[1])
    assert found.curve == "another network"
    assert found.degrees == pytest.approx(1)


def test_the_curve_of_a_studys_records() -> None:
    """Every angle at two rates: the one with the better validation accuracy counts, whatever its test accuracy."""
    cells = grid({"network.width": [10, 60, 90], "network.initialisation": ["pytorch", "orthogonal"]})
    records = synthetic_records(designs={"rates": cells}, rules=("imposed_angle",), seeds=3)
    runs = records.runs
    runs["feedback_angle_deg"] = runs["width"]
    second = runs["initialisation"] == "orthogonal"
    runs["lr"] = np.where(second, 0.3, 0.1)
    runs["validation_accuracy"] = np.where(second, 0.9, 0.8)
    curve = curve_of(records)
    assert list(curve.columns) == [10, 60, 90]
    best = 100 * runs[second].pivot(index="seed", columns="width", values="test_accuracy")
    np.testing.assert_allclose(curve, best)
    with pytest.raises(AnalysisError, match="three angles"):
        curve_of(at_gradient())
