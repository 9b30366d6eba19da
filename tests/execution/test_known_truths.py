"""Studies whose answer is known before they run: what their verdicts and grades must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignkit import run_study
from alignkit.claims.panel import Panel
from alignkit.claims.verdict import Verdict
from alignkit.claims.verdicts import evaluate, panels_of
from alignkit.records.store import Records

PROBE = {
    "modes": ["batch", "eval"], "measures": ["signal", "delta", "gradient", "step"], "start": False, "log_steps": 0,
    "every_epochs": 0, "evaluation_samples": 100,
}  # fmt: skip


def _answers(
    tmp_path: Path, factor: str, levels: list[Any], *, rule: str = "dfa", seeds: int = 9, cells: dict[str, Any] | None = None,
    claim: dict[str, Any] | None = None, **study: Any,
) -> tuple[Records, Verdict, Panel]:  # fmt: skip
    """The records of a study that tunes itself, and what its one claim, that a factor raises an angle, comes to."""
    claims = [
        {"name": "truth", "statement": "known", "factor": factor.replace(".", "_"), "levels": levels, "rule": rule,
         "direction": "increase", "smallest_effect": 2.0, **(claim or {})}
    ]  # fmt: skip
    options = {
        "name": "truth", "rules": [rule], "seeds": seeds, "network": {"width": 16, "depth": 2},
        "training": {"epochs": 2}, "probe": PROBE, "tuning": {"lr": [0.125, 0.25, 0.5]}, "claims": claims,
        "designs": {"arms": {"kind": "grid", "factors": {factor: levels, **(cells or {})}}}, **study,
    }  # fmt: skip
    records = run_study(options, tmp_path / "truth", workers=1)
    (verdict,), (panel,) = evaluate(records), panels_of(records)
    return records, verdict, panel


def test_feedback_of_another_length_is_not_identifiable_and_is_another_hidden_rate_exactly(tmp_path: Path) -> None:
    records, verdict, _ = _answers(
        tmp_path, "feedback.scale", [1.0, 2.0], tuning={"lr": [0.125, 0.25, 0.5], "output_lr": 0.125, "extend": 0},
        seeds=2,
    )  # fmt: skip
    assert verdict.verdict == "not identifiable" and "another learning rate of the hidden layers" in verdict.reason
    ends = records.layers[records.layers["mode"] == "batch"].merge(
        records.runs[["run_id", "seed", "feedback_scale", "lr"]], on="run_id"
    )
    for measure in ("gradient_angle_deg", "delta_angle_deg", "signal_angle_deg"):
        by = ends.set_index(["feedback_scale", "lr", "seed", "layer"])[measure].sort_index()
        for short, long in ((0.25, 0.125), (0.5, 0.25)):  # powers of two: exact in floating point
            np.testing.assert_allclose(by[1.0, short], by[2.0, long], rtol=1e-6)
        assert np.abs(by[1.0, 0.5] - by[2.0, 0.5]).max() > 0.1


def test_an_imposed_angle_is_found_at_z_in_the_gradient_and_the_step_and_nowhere_at_h(tmp_path: Path) -> None:
    _, verdict, panel = _answers(tmp_path, "feedback.angle_deg", [30, 60], rule="imposed_angle")
    assert (verdict.verdict, verdict.grade) == ("supported", "conditional")
    assert verdict.estimate == pytest.approx(30, abs=0.01)
    by = {answer.question.key: answer for answer in panel.answers}
    for key in ("delta-batch", "delta-eval", "gradient-eval", "step", "best", "equal-step"):
        assert by[key].verdict == "supported" and by[key].estimate == pytest.approx(30, abs=0.01), key
    for key in ("signal-batch", "signal-eval"):  # true signals go down, whatever the weights move along
        assert by[key].verdict == "equivalent" and set(by[key].differences) == {0.0}
    assert verdict.grade_reason == "not shown: at h (batch statistics) and at h (evaluation mode)"


def test_what_is_zero_by_construction_is_equivalent_without_a_p(tmp_path: Path) -> None:
    _, verdict, panel = _answers(
        tmp_path, "feedback.angle_deg", [30, 60], rule="imposed_angle", claim={"response": "signal_angle_deg"}
    )
    assert (
        verdict.verdict == "equivalent" and verdict.reason.startswith("exactly 0") and np.isnan(verdict.p_equivalence)
    )
    assert verdict.grade == "contested" and "weight gradient" in verdict.grade_reason


@pytest.mark.slow
def test_a_sham_factor_is_equivalent_robustly(tmp_path: Path) -> None:
    """Both levels are the same networks, data and rates, under draws of their own."""
    cells = {
        "network.activation": ["relu", "tanh"], "network.initialisation": ["pytorch", "orthogonal"],
        "network.norm": ["none", "batch"],
    }  # fmt: skip
    probe, training, network = {**PROBE, "samples": 256}, {"epochs": 5}, {"width": 64, "depth": 2}
    _, verdict, _ = _answers(
        tmp_path, "streams.shift", [0, 1_000_000], cells=cells, seeds=20, probe=probe, training=training,
        network=network, tuning={"lr": [0.1, 0.3, 1.0]},
    )  # fmt: skip
    assert (verdict.verdict, verdict.grade) == ("equivalent", "robust")


def test_shifted_streams_are_those_of_another_seed(tmp_path: Path) -> None:
    records, _, _ = _answers(tmp_path, "streams.shift", [0, 1], seeds=[5, 6], tuning={"lr": [0.125, 0.25], "extend": 0})
    rows = records.layers[records.layers["mode"] == "batch"].merge(
        records.runs[["run_id", "seed", "streams_shift", "lr"]], on="run_id"
    )
    by = rows.set_index(["seed", "streams_shift", "lr", "layer"])["gradient_angle_deg"].sort_index()
    np.testing.assert_allclose(by[5, 1], by[6, 0], rtol=1e-5)
    assert (by[5, 0] != by[5, 1]).all()
