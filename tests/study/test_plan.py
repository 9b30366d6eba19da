"""Run ids, shared BP runs and tuned rates."""

from __future__ import annotations

import pytest
from plans import plan

from alignkit.errors import StudyError
from alignkit.study.identities import arm_id, run_id
from alignkit.study.plan import expand
from alignkit.study.study import Study


def test_bp_cells_that_differ_in_feedback_alone_are_one_run():
    found = plan(
        {
            "factors": {
                "feedback.normalised": [True, False],
                "feedback.law": ["gaussian", "uniform"],
                "network.norm": ["none", "batch"],
            }
        },
        rules=["bp", "dfa", "shallow"],
    )
    by_rule = {rule: [run for run in found.runs if run.rule == rule] for rule in ("bp", "dfa", "shallow")}
    assert {rule: len(runs) for rule, runs in by_rule.items()} == {"bp": 2, "dfa": 8, "shallow": 2}
    assert all(
        run.levels["feedback_law"] is None and run.levels["feedback_normalised"] is None for run in by_rule["bp"]
    )
    ids = {run.run_id: run for run in by_rule["bp"]}
    for run in by_rule["dfa"]:
        assert ids[run.bp_run_id].levels["norm"] == run.levels["norm"]
    assert all(run.bp_run_id == run.run_id for run in by_rule["bp"])


def test_run_ids_leave_defaults_out_and_know_everything_else():
    base = plan({}).runs[0].run_id
    assert plan({}, network={"width": 64, "activation": "tanh"}, training={"momentum": 0.0}).runs[0].run_id == base
    assert plan({}, title="another", claims=[]).runs[0].run_id == base
    changed = [
        {"network": {"width": 65}}, {"training": {"lr": 0.2}}, {"feedback": {"scale": 2.0}}, {"streams": {"order": 3}},
        {"probe": {"samples": 64}}, {"data": {"name": "digits", "shuffle_labels": True}}, {"rules": ["fa"]}, {"seeds": [9]},
    ]  # fmt: skip
    ids = [plan({}, **change).runs[0].run_id for change in changed]
    assert len({base, *ids}) == 9


def test_the_seeds_of_an_arm_share_their_settings_and_have_the_ids_that_each_has_alone():
    def fingerprint(section):
        return section.model_dump_json()

    study = Study.parse(
        {"name": "t", "seeds": 3, "designs": {"d": {"factors": {"feedback.law": ["gaussian", "uniform"]}}}}
    )
    runs = expand(study, fingerprint=fingerprint).runs
    assert [run.run_id for run in runs] == [run_id(run.rule, run.settings, run.seed, fingerprint) for run in runs]
    assert len({id(run.settings) for run in runs}) == 3  # one of BP, two of DFA
    assert {run.run_id for run in runs if run.rule == "bp"} == {run.bp_run_id for run in runs}


def test_tuned_rates_enter_the_id_and_must_cover_every_arm():
    raw = {"name": "t", "seeds": 2, "designs": {"d": {"factors": {"network.width": [8, 16]}}}}
    study = Study.parse(raw)
    untuned = expand(study, fingerprint=lambda section: "x")
    rates = {arm_id(run.rule, run.settings, lambda section: "x"): (0.3, 0.03) for run in untuned.runs}
    assert len(rates) == 4
    tuned = expand(study, fingerprint=lambda section: "x", rates=rates)
    assert {(run.settings.training.lr, run.settings.training.output_lr) for run in tuned.runs} == {(0.3, 0.03)}
    assert not {run.run_id for run in tuned.runs} & {run.run_id for run in untuned.runs}
    rates.popitem()
    with pytest.raises(StudyError, match=r"no tuned rate for rule .* alignkit pilot"):
        expand(study, fingerprint=lambda section: "x", rates=rates)


def test_the_bystander_is_the_feedback_of_the_design_s_base():
    found = plan(
        {"base": {"feedback.law": "orthogonal", "streams.feedback": 7}, "factors": {"feedback.scale": [1.0, 2.0]}},
        rules=["bp", "dfa"],
    )
    (bp,) = [run for run in found.runs if run.rule == "bp"]
    assert bp.settings.feedback.law == "orthogonal" and bp.settings.streams.feedback == 7


def test_the_bystander_keeps_its_own_feedback_where_the_base_s_would_not_fit():
    """Points that the base chose among its own layers say nothing of a network with other layers; a rank that its
    outputs allow may exceed another data set's."""
    deeper = plan(
        {"base": {"feedback.points": [3]}, "factors": {"depth": {
            "2": {"network.depth": 2, "feedback.points": [1]}, "3": {"network.depth": 3}}}},
        rules=["bp", "dfa"],
    )  # fmt: skip
    assert {run.levels["depth"]: run.settings.feedback.points for run in deeper.runs if run.rule == "bp"} == {
        "2": (1,),
        "3": (3,),
    }
    found = plan(
        {"base": {"feedback.rank": 8}, "factors": {"classes": {
            "few": {"data.name": "teacher", "data.outputs": 2, "feedback.rank": 2}, "many": {}}}},
        rules=["bp", "dfa"],
    )  # fmt: skip
    assert {run.levels["classes"]: run.settings.feedback.rank for run in found.runs if run.rule == "bp"} == {
        "few": 2,
        "many": 8,
    }


def test_a_rule_of_the_user_s_own_is_known_by_its_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    ids = []
    for code in ("first = 1\n", "second = 2\n", "first = 1\n"):
        (tmp_path / "some_rule.py").write_text(code)
        ids.append(plan({}, rules=["some_rule:Own"]).runs[0].run_id)
    assert ids[0] == ids[2] != ids[1]


def test_a_claim_on_accuracy_has_neither_layers_nor_a_course():
    design = {"factors": {"network.width": [8, 16]}}
    claim = {
        "name": "w", "statement": "s", "factor": "width", "levels": [8, 16], "direction": "increase",
        "smallest_effect": 1.0, "response": "test_accuracy",
    }  # fmt: skip
    assert plan(design, claims=[claim]).study.claims[0].layer == "mean"
    for options in ({"layer": 1}, {"summary": "auc"}, {"response": "accuracy_gap", "layer": 2}):
        with pytest.raises(StudyError, match=r"claim w: .* one number per run.*Leave summary and layer out"):
            plan(design, claims=[claim | options])
    assert plan(design, claims=[claim | {"response": "signal_cosine", "layer": 1, "summary": "auc"}]).study.claims


@pytest.mark.parametrize(
    "response,harmful",
    [
        ("signal_angle_deg", "increase"),
        ("test_accuracy", "decrease"),
        ("accuracy_gap", "decrease"),
        ("signal_cosine_excess", "decrease"),
        ("test_loss", "increase"),
    ],
)
def test_a_practice_is_what_is_claimed_to_help(response, harmful):
    """A recommendation takes the claimed direction for the better one: it must be."""
    helpful = {"increase": "decrease", "decrease": "increase"}[harmful]
    claim = {
        "name": "c",
        "statement": "c",
        "factor": "width",
        "levels": [8, 16],
        "response": response,
        "smallest_effect": 1,
    }
    raw = {"name": "x", "designs": {"d": {"factors": {"network": {"width": [8, 16]}}}}}

    def planned(direction, practice):
        study = Study.parse({**raw, "claims": [{**claim, "direction": direction, "practice": practice}]})
        return expand(study, fingerprint=lambda data: "")

    planned(helpful, "Be wide")
    planned(harmful, "")
    with pytest.raises(StudyError, match=rf"makes {response} worse. Turn it round \(levels = \[16, 8\]"):
        planned(harmful, "Be wide")
