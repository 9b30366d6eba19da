"""The section on mediation: known paths reach the page, with what they suppose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.analysis import analyse
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.report.section import Answer
from alignkit.report.sections.mediation import mediation

CLAIM = {"factor": "norm", "direction": "decrease", "smallest_effect": 1.0, "statement": "s"}
NORM = {**CLAIM, "name": "norm", "levels": ["none", "batch"]}
DESIGN = {"main": grid({"network.norm": ["none", "batch"], "network.dropout": [0.0, 0.1, 0.2]})}


def mediated(*, on_angle: float = -6.0, slope: float = -0.5, direct: float = 1.0, **options: Any) -> Records:
    """The practice moves the angle by `on_angle`; accuracy follows the angle by `slope` points a degree."""
    options = {
        "designs": DESIGN, "seeds": 10, "rules": ("dfa",), "steps": (0, 360), "study": {"claims": [NORM]},
        "angle_effects": {"network.norm": on_angle}, "seed_by_factor_sd": 0.2, "residual_sd": 2.0, **options,
    }  # fmt: skip
    records = synthetic_records(**options)
    layers = records.layers[records.layers["step"] == 360]
    angle = records.runs["run_id"].map(layers.groupby("run_id")["signal_angle_deg"].mean())
    noise = np.random.default_rng(2).normal(0, 0.2, len(angle))
    points = 80 + slope * (angle - 66) + direct * (records.runs["norm"] == "batch") + noise
    return replace(records, runs=records.runs.assign(test_accuracy=points / 100))


def section(records: Records) -> Answer:
    found = mediation(analyse(records))
    assert found is not None
    return found


def interval(text: str) -> tuple[float, ...]:
    return tuple(float(value.replace("\N{MINUS SIGN}", "-")) for value in text.strip("[]").split(", "))


def test_known_paths_reach_the_page() -> None:
    found = section(mediated())
    (row,) = found.tables[0].rows
    for truth, cell in ((4.0, row[3]), (3.0, row[5]), (1.0, row[8])):
        low, high = interval(cell)
        assert low <= truth <= high and high - low < 2
    assert row[9].startswith("\N{MINUS SIGN}0.9")
    assert "indirect effect through alignment is seen for norm (+" in found.sentences[0]
    assert "opposite ways" not in found.sentences[0]
    (slope,) = (note for note in found.notes if "slope of accuracy on alignment is" in note)
    assert "per degree" in slope and "\N{MINUS SIGN}0.5" in slope


def test_that_alignment_was_not_randomised_is_always_said() -> None:
    assert "was not randomised" in section(mediated()).sentences[1]
    assert "dose_response" in section(mediated(slope=0.0)).sentences[1]


def test_no_path_where_accuracy_ignores_alignment() -> None:
    answer = section(mediated(slope=0.0)).sentences[0]
    assert "No indirect effect through alignment" in answer and "1 changes test accuracy" in answer


def test_more_accurate_though_worse_aligned() -> None:
    assert (
        "1 of the 1 (norm) moves alignment and accuracy opposite ways"
        in section(mediated(on_angle=6.0, slope=0.0)).sentences[0]
    )


def test_diverged_runs_are_counted() -> None:
    records = mediated(diverge=(("network.norm", "batch"),))
    diverged = records.runs["diverged"].astype(bool)
    records = replace(records, runs=records.runs.assign(test_accuracy=records.runs["test_accuracy"].mask(diverged)))
    found = section(records)
    assert found.tables[0].rows[0][11:] == ("8", "48")
    assert any(note.startswith("norm: ") and "runs left out" in note for note in found.notes)


@pytest.mark.parametrize(
    "claims",
    [[], [{**NORM, "response": "test_accuracy"}], [{**NORM, "rule": "bp"}]],
    ids=["none", "accuracy", "untaught"],
)
def test_without_a_claim_on_taught_alignment_there_is_no_question(claims: list[dict[str, Any]]) -> None:
    assert mediation(analyse(mediated(rules=("bp", "dfa"), seeds=6, study={"claims": claims}))) is None


def test_claims_that_cannot_be_divided_say_why() -> None:
    with pytest.raises(AnalysisError, match=r"norm: .*6 seeds"):
        mediation(analyse(mediated(seeds=3)))
    lost = {**NORM, "name": "lost", "levels": ["none", "layer"]}
    found = section(mediated(study={"claims": [NORM, lost]}))
    assert len(found.tables[0].rows) == 1 and any(note.startswith("lost: ") for note in found.notes)
