"""How a pilot chooses rates."""

from __future__ import annotations

import pandas as pd
import pytest

from alignkit.errors import StudyError
from alignkit.execution.pilot import _winner, pilot_options, pilot_plan, rates_of, rates_text, read_rates, serves
from alignkit.study.study import Study


def runs(candidates, *, seeds=2, accuracy=True):
    """One arm's runs from {(lr, output_lr): (accuracy, loss, diverged)}, the same under every seed."""
    rows = [
        {
            "rule": "dfa", "cell": "", "seed": seed, "lr": lr, "output_lr": output_lr,
            "validation_accuracy": values[0] if accuracy else float("nan"), "validation_loss": values[1] + 0.001 * seed,
            "diverged": values[2],
        }
        for (lr, output_lr), values in candidates.items()
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def chosen(candidates, **kind):
    winner = _winner("arm", runs(candidates, **kind), 300)
    return winner["lr"], winner["output_lr"]


def test_the_smallest_rate_within_one_standard_error_wins():
    # at .95 over 600 samples the standard error is .0089
    candidates = {(0.01, 0.1): (0.935, 0.3, False), (0.1, 0.1): (0.945, 0.25, False), (0.3, 0.1): (0.95, 0.2, False)}
    assert chosen(candidates) == (0.1, 0.1)
    assert chosen(candidates, seeds=600) == (0.3, 0.1)


def test_a_candidate_that_diverged_cannot_win():
    assert chosen({(0.1, 0.1): (0.9, 0.4, False), (1.0, 0.1): (0.99, 0.1, True)}) == (0.1, 0.1)
    assert chosen({(1.0, 0.1): (0.99, 0.1, True)}) == (None, None)


def test_regression_goes_by_loss():
    candidates = {(0.01, 0.1): (0, 0.5, False), (0.1, 0.1): (0, 0.2003, False), (0.3, 0.1): (0, 0.2, False)}
    assert chosen(candidates, accuracy=False) == (0.1, 0.1)


def test_a_pilot_runs_every_candidate_of_every_arm_once():
    raw = {
        "name": "t", "seeds": 2, "rules": ["bp", "dfa"], "pilot": {"lr": [0.1, 0.3], "output_lr": [0.1], "seeds": [9]},
        "designs": {"d": {"factors": {"network.width": [8, 16], "feedback.normalised": [True, False]}}},
    }  # fmt: skip
    plan, candidates = pilot_plan(Study.parse(raw))
    assert len(plan.runs) == (2 + 4) * 2 and {run.seed for run in plan.runs} == {9}
    assert len({candidate.arm for candidate in candidates.values()}) == 6
    assert all(not run.settings.probe.groups for run in plan.runs)


def test_a_rate_cannot_be_a_factor_and_tuned():
    raw = {"name": "t", "pilot": {"lr": [0.1]}, "designs": {"d": {"factors": {"training.lr": [0.1, 0.2]}}}}
    with pytest.raises(StudyError, match=r"designs\.d sets training\.lr, which the study\'s pilot tunes"):
        pilot_plan(Study.parse(raw))


def test_a_rate_inside_a_named_factor_is_found_too():
    named = {"rate": {"low": {"training.lr": 0.1}, "high": {"training.lr": 0.2}}}
    with pytest.raises(StudyError, match=r"designs\.d sets training\.lr"):
        pilot_plan(Study.parse({"name": "t", "pilot": {"lr": [0.1]}, "designs": {"d": {"factors": named}}}))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"format": 1, "arms": [{"arm": "a", "lr": "fast", "output_lr": 1}]}',
        '{"format": 1, "arms": [{"arm": "a", "lr": -1, "output_lr": 1}]}',
    ],
)
def test_rates_that_are_no_rates(tmp_path, text):
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(StudyError, match=r"rates\.json: expected"):
        read_rates(tmp_path / "rates.json")


def test_outcomes_survive_their_file(tmp_path):
    outcome = {"format": 1, "study": "t", "seeds": [9], "arms": [{"arm": "a", "lr": 0.1, "output_lr": 0.3}]}
    (tmp_path / "rates.json").write_text(rates_text(outcome))
    assert read_rates(tmp_path / "rates.json") == outcome
    assert rates_of(outcome) == {"a": (0.1, 0.3)}


def test_rates_that_were_tuned_otherwise_do_not_serve():
    raw = {"name": "t", "seeds": 2, "pilot": {"lr": [0.1], "seeds": [9]}}
    study = Study.parse(raw)
    plan, candidates = pilot_plan(study)
    arms = [{"arm": c.arm, "lr": c.lr, "output_lr": c.output_lr} for c in candidates.values()]
    outcome = {"format": 1, "pilot": pilot_options(study), "arms": arms}
    assert serves(outcome, study)
    assert not serves(outcome, Study.parse({**raw, "pilot": {"lr": [0.1, 0.3], "seeds": [9]}}))
    assert not serves({**outcome, "arms": arms[:1]}, study)


def test_the_output_layer_s_own_rate_is_kept_unless_it_is_tuned():
    raw = {"name": "t", "seeds": 1, "training": {"output_lr": 5e-4}, "pilot": {"lr": [0.1, 0.3], "seeds": [9]}}
    _, candidates = pilot_plan(Study.parse(raw))
    assert {(c.lr, c.output_lr) for c in candidates.values()} == {(0.1, 5e-4), (0.3, 5e-4)}
