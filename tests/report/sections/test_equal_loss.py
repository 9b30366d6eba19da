"""The section on matched loss: a difference of speed goes at equal loss, a difference of alignment stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, half_fraction, synthetic_records

from alignkit.claims.analysis import Analysis, analyse
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.report.section import Answer
from alignkit.report.sections.equal_loss import equal_loss

STEPS = (0, 4, 8, 16, 32, 64, 128, 256)
FACTORS: dict[str, list[Any]] = {
    "network.norm": ["none", "batch"], "network.activation": ["tanh", "relu"], "network.dropout": [0.0, 0.1],
}  # fmt: skip
CLAIM = {"direction": "decrease", "smallest_effect": 1.0, "statement": "s"}
CLAIMS = [
    {"name": "fast", "factor": "norm", "levels": ["none", "batch"], **CLAIM},
    {"name": "aligned", "factor": "activation", "levels": ["tanh", "relu"], **CLAIM},
]


def trained(
    *, claims: list[dict[str, Any]] = CLAIMS, stuck: bool = False, fraction: bool = False, **options: Any
) -> Records:
    """Batch norm makes every run twice as fast; ReLU takes six degrees off at any loss. `stuck`: one never learns."""
    designs = {"main": half_fraction(FACTORS) if fraction else grid(FACTORS)}
    options = {
        "designs": designs,
        "seeds": 6,
        "steps": STEPS,
        "rules": ("dfa",),
        "study": {"claims": claims},
        **options,
    }
    records = synthetic_records(**options)
    runs = records.runs.set_index("run_id")
    rate = pd.Series(np.where(runs["norm"] == "batch", 2.0, 1.0), runs.index)
    noise = pd.Series(np.random.default_rng(1).normal(0, 0.1, len(runs)), runs.index)
    start = pd.Series(np.where(runs["activation"] == "relu", -6.0, 0.0), runs.index) + noise

    def fall(table: pd.DataFrame) -> np.ndarray:
        return np.log2(1 + table["step"].to_numpy() * table["run_id"].map(rate).to_numpy()) / 10

    loss = 2.3 * np.exp(-3 * fall(records.checkpoints))
    if stuck:
        loss = np.where(records.checkpoints["run_id"] == runs.index[0], 2.2 - 0.01 * fall(records.checkpoints), loss)
    angle = 85 - 30 * fall(records.layers) + records.layers["run_id"].map(start)
    defined = records.layers["signal_angle_deg"].notna()
    return replace(
        records,
        layers=records.layers.assign(signal_angle_deg=angle.where(defined)),
        checkpoints=records.checkpoints.assign(train_loss=loss),
    )


def section(records: Records) -> Answer:
    found = equal_loss(analyse(records))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(trained())


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-").rstrip("°"))


def test_speed_goes_and_alignment_stays(analysis: Analysis) -> None:
    found = equal_loss(analysis)
    assert found is not None
    fast, aligned = found.tables[0].rows
    # At the last step the fast runs have log2(1 + 512) doublings behind them, the others log2(1 + 256).
    assert number(fast[5]) == pytest.approx(-30 * np.log2(513 / 257) / 10, abs=0.15)
    assert number(fast[3]) == pytest.approx(0, abs=0.15)
    assert number(aligned[3]) == pytest.approx(-6, abs=0.15) == pytest.approx(number(aligned[5]), abs=0.15)
    assert number(fast[7]) == pytest.approx(number(fast[3]) - number(fast[5]), abs=0.11)
    assert fast[9] == ".031" and fast[11:] == ("48", "0")
    assert "1 shrinks (fast" in found.sentences[0] and "1 is not shown to differ (aligned" in found.sentences[0]
    assert len(found.tables) == 1


def test_the_step_side_is_the_claims_own_estimate(analysis: Analysis) -> None:
    found = equal_loss(analysis)
    assert found is not None
    data = found.tables[0].data
    assert set(data["response"]) == {"signal_angle_deg"} and list(data["matched"][:3]) == [
        "loss",
        "step",
        "loss less step",
    ]
    for verdict in analysis.verdicts:
        at_step = data[(data["claim"] == verdict.claim.name) & (data["matched"] == "step")]["estimate"].item()
        assert at_step == pytest.approx(verdict.estimate)


def test_the_slowest_run_of_a_fraction_is_let_go_of_and_counted() -> None:
    factors = {**FACTORS, "network.depth": [2, 3], "feedback.normalised": [False, True]}
    records = trained(stuck=True, fraction=True, designs={"main": half_fraction(factors)}, seeds=6)
    found = section(records)
    assert [table.name for table in found.tables] == ["matched", "matched_most"]
    everyone, most = (table.rows[1] for table in found.tables)
    assert everyone[12] == "0" and most[12] == "1"
    assert number(most[3]) == pytest.approx(-6, abs=0.2)
    assert any("favours whatever goes with learning badly" in note for note in found.notes)


def test_accuracy_claims_are_not_the_question() -> None:
    claim = {**CLAIMS[0], "response": "test_accuracy"}
    assert equal_loss(analyse(trained(claims=[claim]))) is None
    assert equal_loss(analyse(trained(claims=[]))) is None


def test_runs_that_share_no_loss_are_a_reason_not_a_crash() -> None:
    records = trained(claims=CLAIMS[:1])
    fast = set(records.runs.loc[records.runs["norm"] == "batch", "run_id"])
    low = records.checkpoints["train_loss"].where(~records.checkpoints["run_id"].isin(fast), 0.001)
    with pytest.raises(AnalysisError, match=r"fast: .*common loss"):
        equal_loss(analyse(replace(records, checkpoints=records.checkpoints.assign(train_loss=low))))


def test_one_claim_that_cannot_be_matched_is_named() -> None:
    claims = [*CLAIMS, {**CLAIMS[0], "name": "absent", "factor": "norm", "levels": ["none", "layer"]}]
    found = section(trained(claims=claims))
    assert len(found.tables[0].rows) == 2 and any(note.startswith("absent: ") for note in found.notes)
