"""The learning rate as part of the experiment: grids, their growth, and what a plan makes of them."""

from __future__ import annotations

import pytest

from alignkit import Study
from alignkit.errors import StudyError
from alignkit.execution.run_study import study_plan
from alignkit.study.plan import grown, with_full_runs
from alignkit.study.tuning import Tried, at_edge, best_rates, next_rate

GRID = (0.1, 0.3, 1.0)
STUDY = {
    "name": "tuned", "seeds": 2, "rules": ["bp", "dfa"], "network": {"width": 8, "depth": 2},
    "tuning": {"lr": list(GRID), "rules": {"bp": [0.1, 0.3]}, "trajectory_lr": 0.3},
    "factors": {"network.norm": ["none", "batch"]},
}  # fmt: skip


def _tried(*scores: float | None, grid: tuple[float, ...] = GRID) -> list[Tried]:
    return [Tried(lr, score) for lr, score in zip(grid, scores, strict=True)]


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [((0.7, 0.8, 0.9), 3.33333), ((0.9, 0.8, 0.7), 0.0333333), ((0.7, 0.9, 0.8), None), ((0.7, 0.9, None), None),
     ((0.9, 0.9, 0.8), None), ((None, None, None), None), ((None, 0.7, 0.9), 3.33333)],
)  # fmt: skip
def test_a_grid_grows_at_the_edge_where_the_best_rate_lies(scores, wanted):
    assert next_rate(_tried(*scores), GRID, extend=4) == wanted
    assert at_edge(_tried(*scores)) == (wanted is not None)


def test_a_grid_grows_by_no_more_rates_than_it_may():
    tried = _tried(0.7, 0.8, 0.9, 0.95, grid=(*GRID, 3.33333))
    assert next_rate(tried, GRID, extend=1) is None
    assert next_rate(tried, GRID, extend=2) == pytest.approx(11.1111)
    assert next_rate(_tried(0.7, 0.8, 0.9), GRID, extend=0) is None


def test_a_rate_beyond_the_edge_that_diverged_makes_the_edge_an_inner_rate():
    assert next_rate(_tried(0.7, 0.8, 0.9, None, grid=(*GRID, 3.0)), GRID, extend=4) is None


def test_several_rates_may_be_best():
    assert best_rates(_tried(0.9, 0.9, 0.8)) == (0.1, 0.3)
    assert best_rates(_tried(None, None, None)) == ()


def test_every_arm_trains_at_every_rate_and_seeds_are_paired_at_each():
    runs = study_plan(STUDY).runs
    assert len(runs) == len({run.run_id for run in runs}) == 2 * 2 * (3 + 2)
    dfa = [run for run in runs if run.rule == "dfa"]
    assert len({run.replicate for run in dfa}) == 4
    for run in dfa:
        twins = [bp for bp in runs if bp.replicate == run.bp_replicate]
        assert {(bp.rule, bp.cell, bp.seed) for bp in twins} == {("bp", run.cell, run.seed)}
        rate = run.settings.training.lr
        assert run.bp_run_id == next((bp.run_id for bp in twins if bp.settings.training.lr == rate), "")


def test_only_the_named_rate_has_a_trajectory_and_the_replicate_does_not_depend_on_it():
    runs = study_plan(STUDY).runs
    assert {run.settings.training.lr for run in runs if run.settings.probe.every_epochs} == {0.3}
    assert not any(run.settings.probe.start for run in runs if run.settings.training.lr != 0.3)
    other = study_plan({**STUDY, "tuning": {**STUDY["tuning"], "trajectory_lr": 0.1}}).runs
    assert {run.replicate for run in runs} == {run.replicate for run in other}


def test_a_grown_plan_adds_one_run_for_each_replicate_at_an_edge():
    plan = study_plan(STUDY)
    dfa = [run for run in plan.runs if run.rule == "dfa"]
    first = dfa[0].replicate
    tried = {first: _tried(0.7, 0.8, 0.9), dfa[-1].replicate: _tried(0.7, 0.9, 0.8)}
    bigger = grown(plan, tried, str)
    (added,) = bigger.runs[len(plan.runs) :]
    assert (added.replicate, added.settings.training.lr, added.bp_run_id) == (first, 3.33333, "")
    assert grown(bigger, tried, str) is bigger
    assert grown(plan, {first: _tried(0.7, 0.9, 0.8)}, str) is plan


def test_a_short_grid_is_followed_by_a_run_in_full_at_the_best_rate():
    study = {**STUDY, "tuning": {"lr": list(GRID), "epochs": 1}, "training": {"epochs": 5}}
    plan = study_plan(study)
    assert all(run.tunes and run.settings.training.epochs == 1 and not run.settings.probe.groups for run in plan.runs)
    replicate = plan.runs[0].replicate
    bigger = with_full_runs(plan, {replicate: _tried(0.7, 0.9, 0.8)}, str)
    (added,) = bigger.runs[len(plan.runs) :]
    assert (added.settings.training.lr, added.settings.training.epochs, added.tunes) == (0.3, 5, False)
    assert added.settings.probe.groups
    assert added.replicate == replicate


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tuning": {"lr": [0.3]}}, "two or more learning rates"),
        ({"tuning": {"lr": [0.3, 0.1]}}, "each larger than the one before"),
        ({"tuning": {"lr": [0.1, 0.3], "trajectory_lr": 0.2}}, "a rate of every grid"),
        ({"tuning": {"lr": [0.1, 0.3], "rules": {"fa": [0.1, 0.3]}}}, "tuning.rules"),
        ({"tuning": {"lr": [0.1, 0.3]}, "pilot": {"lr": [0.1]}}, "both choose learning rates"),
        ({"tuning": {"lr": [0.1, 0.3]}, "factors": {"training.lr": [0.1, 0.2]}}, "which each seed tunes"),
        ({"held_out_rules": ["fa"]}, "held_out_rules"),
    ],
)
def test_what_a_tuned_study_cannot_ask(change, words):
    with pytest.raises(StudyError, match=words):
        study_plan({**STUDY, **change})


def test_held_out_seeds_may_be_those_of_some_rules_alone():
    study = Study(**{**STUDY, "held_out_seeds": [9], "held_out_rules": ["dfa"]})
    seeds = {rule: {run.seed for run in study_plan(study).runs if run.rule == rule} for rule in ("bp", "dfa")}
    assert seeds == {"bp": {0, 1}, "dfa": {0, 1, 9}}
    assert not any(run.bp_replicate for run in study_plan(study).runs if run.seed == 9)
