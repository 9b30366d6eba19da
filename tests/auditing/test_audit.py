"""Audits of records whose truth is known, and against the claims' own estimates, which other code makes."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import CLAIM, planted_records, turned
from synthetic import full_study, unfinished_records

import alignkit
from alignkit.auditing.arms import arms_of, choices
from alignkit.auditing.asking import AXES
from alignkit.auditing.measured import measured, over_layers, time_average
from alignkit.auditing.page import render, write_audit
from alignkit.auditing.result import Audit, ClaimAudit, words_of
from alignkit.claims.verdicts import evaluate
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.records.summaries import run_summaries
from alignkit.records.tuning import chosen_rates
from alignkit.study.study import Study

ROOT = Path(__file__).parents[2]
TUNED = """
name = "tuned"
rules = ["bp", "dfa", "shallow"]
seeds = 6
[network]
width = 8
depth = 2
[training]
epochs = 1
batch_size = 64
[probe]
samples = 32
modes = ["batch", "eval"]
measures = ["signal", "delta", "gradient", "step"]
log_steps = 1
every_epochs = 1
[tuning]
lr = [0.1, 1.0, 1e15]
rules = { bp = [0.1, 1.0], shallow = [0.3, 1.0] }
trajectory_lr = 1.0
[designs.d.factors]
network.norm = ["none", "batch"]
network.activation = ["relu", "tanh"]
feedback.scale = [0.5, 1.0, 2.0]
"""
CLAIMS = [
    {},
    {"response": "signal_angle_deg", "mode": "eval", "layer": "last"},
    {"response": "delta_cosine", "layer": 1, "failed": "worst_case"},
    {"response": "signal_angle_deg", "layer": "last-1"},
    {"response": "gradient_angle_deg_excess"},
    {"response": "step_angle_deg", "factor": "activation", "levels": ["relu", "tanh"]},
    {"response": "test_accuracy", "factor": "feedback_scale", "levels": [0.5, 2.0]},
    {"response": "accuracy_gap", "factor": "activation", "levels": ["relu", "tanh"]},
]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """A study that tunes itself, run on digits for an epoch, with a rate at which some runs diverge."""
    folder = tmp_path_factory.mktemp("tuned")
    claims = [
        {"name": f"c{i}", "statement": "It aligns", "factor": "norm", "levels": ["none", "batch"],
         "direction": "decrease", "smallest_effect": 1.0, **claim}
        for i, claim in enumerate(CLAIMS)
    ]  # fmt: skip
    lines = [TUNED]
    for claim in claims:
        lines += ["[[claims]]", *(f"{key} = {json.dumps(value)}" for key, value in claim.items())]
    (folder / "tuned.toml").write_text("\n".join(lines))
    return alignkit.run_study(folder / "tuned.toml", folder / "out", workers=1)


@pytest.fixture(scope="module")
def found(tuned: Records) -> Audit:
    return alignkit.audit(tuned)


def of_place(audit: ClaimAudit) -> pd.DataFrame:
    """The declared question at every place."""
    first = audit.questions.iloc[0]
    same = [audit.questions[axis] == first[axis] for axis in AXES if axis not in ("place", "mode")]
    return audit.questions[np.logical_and.reduce(same)]


def test_the_declared_question_has_the_verdicts_own_estimate(tuned: Records, found: Audit) -> None:
    verdicts = evaluate(tuned)
    assert tuned.runs["diverged"].any() and len(verdicts) == len(CLAIMS)
    for verdict, each in zip(verdicts, found.claims, strict=True):
        assert each.asked, each.reason
        declared = each.questions.iloc[0]
        assert declared["declared"] and declared["n_seeds"] == verdict.n_seeds
        assert declared["estimate"] == pytest.approx(verdict.estimate, abs=1e-9), verdict.claim
        assert (declared["low"], declared["high"]) == pytest.approx(verdict.interval, abs=1e-9)


def test_rates_and_layers_are_chosen_as_other_code_chooses_them(tuned: Records) -> None:
    arms, measures = arms_of(tuned, tuned.study.claims[0]), measured(tuned)
    there = arms.rows >= 0
    for choice, rates in zip(choices(tuned, arms), ("within", "best", "common"), strict=False):
        other = chosen_rates(tuned.runs, rates).to_numpy()
        assert np.array_equal(choice.counts & there, other[np.maximum(arms.rows, 0)] & there), rates
    for column, layer in (("delta_angle_deg", "mean"), ("signal_cosine", "last"), ("step_angle_deg", "first")):
        options = {"layer": layer, "rates": "every"}
        end = run_summaries(tuned.runs, tuned.layers, column, **options)["value"]
        assert np.allclose(over_layers(measures.end(column)[:, 0], measures.depth, layer), end, equal_nan=True)
        course = over_layers(measures.course(column), measures.depth, layer)
        average = run_summaries(tuned.runs, tuned.layers, column, summary="auc", **options)["value"]
        assert np.allclose(time_average(course, measures.epochs), average, equal_nan=True)


def test_the_best_checkpoint_is_that_of_the_best_validation_accuracy_after_the_start() -> None:
    records = full_study()
    steps = records.checkpoints["step"]
    accuracy = 0.5 + 0.1 * (steps == 90) + 0.3 * (steps == 0)
    measures = measured(
        dataclasses.replace(records, checkpoints=records.checkpoints.assign(validation_accuracy=accuracy))
    )
    assert set(measures.best_place) == {sorted(set(steps)).index(90)}


def test_the_panels_answers_are_among_the_audits(tuned: Records, found: Audit) -> None:
    """Every row of every panel, asked by both pieces of code: places, modes, layers, rates, steps and cells."""
    from alignkit.claims.verdicts import panels_of

    compared = 0
    for panel, each in zip(panels_of(tuned), found.claims, strict=True):
        for answer in panel.answers:
            twins = panel.claim.response.endswith(("_excess", "_gap"))
            if answer.answered and not (twins and answer.question.equal_step):  # which the audit does not ask
                near = np.abs(each.questions["estimate"] - answer.estimate) < 1e-9
                assert near.any(), (panel.claim, answer.question)
                compared += 1
    assert compared > 40


def test_claims_of_a_study_that_was_not_tuned_and_of_a_fraction() -> None:
    records = full_study()
    verdicts, found = evaluate(records), alignkit.audit(records)
    for verdict, each in zip(verdicts, found.claims, strict=True):
        assert each.questions["estimate"].iloc[0] == pytest.approx(verdict.estimate, abs=1e-9)
        assert set(each.questions["rates"]) == {"as run"}
        assert "one learning rate for each run" in each.lacks[0]


def test_a_study_that_tunes_itself_is_asked_at_least_sixty_questions(found: Audit) -> None:
    for each in found.claims:
        assert each.asked >= 60
        assert not each.questions[list(AXES)].duplicated().any()
    first = found.claims[0].questions
    rates = {"within one standard error", "own best", "common to the seeds", "lr 1"}
    assert rates <= set(first["rates"])
    assert {"without activation relu", "without feedback_scale 0.5", "only feedback_scale 0.5"} <= set(first["cells"])
    assert {"without 0", "first of each two"} <= set(first["seeds"])
    assert set(first["scale"]) == {"degrees", "cosine", "log", "rank"}
    assert {"end", "average over training"} <= set(first["when"])


def test_h_in_batch_statistics_is_not_comparable_across_norms_and_never_contradicts(found: Audit) -> None:
    of_norm, of_activation = (found.claims[index] for index in (0, 5))
    at_h = of_norm.questions.query("place == 'at h'")
    assert set(at_h[at_h["mode"] == "batch statistics"]["comparable"]) == {False}
    assert set(at_h[at_h["mode"] == "evaluation mode"]["comparable"]) == {True}
    assert not of_norm.questions.query("not comparable")["tested"].any()
    assert of_activation.questions["comparable"].all()


def test_no_opposite_where_the_effect_is_the_same_everywhere() -> None:
    found = alignkit.audit(planted_records({}))
    (each,) = found.claims
    assert (each.verdict, each.grade) == ("supported", "robust") and each.asked >= 60
    assert each.on_side("opposite").empty and not found.contradicted


def test_an_effect_planted_at_one_place_is_found_there_and_nowhere_else() -> None:
    (each,) = alignkit.audit(planted_records({"delta": turned(11)})).claims
    assert set(each.contradictions["place"]) == {"at z"} == set(each.on_side("opposite")["place"])
    assert of_place(each).set_index("place")["estimate"]["at z"] == pytest.approx(5, abs=0.7)
    assert each.grade == "contested" and not each.contradicted


def test_a_contradiction_that_no_panel_asks_about_is_found() -> None:
    """In the middle of three layers the effect is the opposite; first, last and mean agree with the claim."""
    found = alignkit.audit(planted_records({"": turned(9, layer=2)}))
    (each,) = found.claims
    assert (each.verdict, each.grade) == ("supported", "robust")
    assert set(each.contradictions["layer"]) == {"last-1"}
    assert found.contradicted == ("width",) and "contradicted beyond chance: width" in repr(found)


def test_few_seeds_of_opposite_sign_are_listed_and_contradict_nothing() -> None:
    records = planted_records({})
    layers = records.layers.merge(records.runs[["run_id", "seed"]], on="run_id")
    odd = (layers["seed"] % 2 == 1) & (layers["width"] == 64)
    columns = [name for name in layers if name.endswith("angle_deg")]
    layers.loc[odd, columns] += 7.0
    (each,) = alignkit.audit(dataclasses.replace(records, layers=layers)).claims
    opposite = each.on_side("opposite")
    assert set(opposite["seeds"]) == {"second of each two"} and not opposite["tested"].any()


def test_an_equivalent_verdict_is_contradicted_by_a_difference_beyond_the_margin() -> None:
    claim = {**CLAIM, "smallest_effect": 2.0}
    same = planted_records({"": turned(6)}, claim)
    (each,) = alignkit.audit(same).claims
    assert each.verdict == "equivalent" and each.on_side("opposite").empty
    assert set(each.questions.loc[each.questions["scale"] != "degrees", "side"]) == {"zero"}
    (each,) = alignkit.audit(planted_records({"": turned(6), "step": turned(1)}, claim)).claims
    assert set(each.contradictions["place"]) == {"step"} and set(each.contradictions["scale"]) == {"degrees"}


def test_a_moderator_at_which_the_claim_turns_over_is_named() -> None:
    def relu(rows: pd.DataFrame) -> np.ndarray:
        return 12.0 * ((rows["width"] == 64) & (rows["activation"] == "relu")).to_numpy(float)

    (each,) = alignkit.audit(planted_records({"": relu})).claims
    table = each.moderators.set_index("level")
    assert table["turns_over"].all() and set(table["factor"]) == {"activation"}
    assert table["estimate"]["tanh"] == pytest.approx(-6, abs=0.7)
    assert table["estimate"]["relu"] == pytest.approx(6, abs=0.7)


def test_runs_that_failed_count_as_not_aligned_or_are_left_out() -> None:
    records = planted_records({})
    lost = records.runs[(records.runs["width"] == 64) & (records.runs["seed"] == 3) & (records.runs["rule"] == "dfa")]
    runs = records.runs.assign(diverged=records.runs["run_id"].isin(lost["run_id"]))
    measures = [name for name in records.layers if name.endswith(("_deg", "_cosine"))]
    layers = records.layers.copy()
    layers.loc[layers["run_id"].isin(lost["run_id"]), measures] = np.nan
    (each,) = alignkit.audit(dataclasses.replace(records, runs=runs, layers=layers)).claims
    first = each.questions[(each.questions["seeds"] == "all") & (each.questions["average"] == "mean")]
    by = first[first["place"] == "weight gradient"].drop_duplicates("failed").set_index("failed")
    assert by["n_seeds"].to_dict() == {"not aligned": 10, "left out": 9}
    assert by["estimate"]["not aligned"] - by["estimate"]["left out"] == pytest.approx(26 / 10, abs=0.3)


def test_runs_that_have_not_finished_are_not_counted() -> None:
    records = planted_records({})
    gone = (records.runs["seed"] == 4) & (records.runs["rule"] == "dfa")
    (each,) = alignkit.audit(unfinished_records(records, gone)).claims
    assert each.questions["n_seeds"].max() == 9


def test_what_cannot_be_asked_says_why() -> None:
    claims = [
        {**CLAIM, "name": "a", "factor": "norm", "levels": ["none", "batch"]},
        {**CLAIM, "name": "b", "response": "gradient_stability"},
    ]
    found = alignkit.audit(planted_records({}, *claims))
    assert "not a factor" in found.claims[0].reason and not found.claims[0].asked
    assert "was not recorded" in found.claims[1].reason
    assert "not a factor" in render(found) and "not a factor" in found._repr_html_()


def test_bad_input() -> None:
    with pytest.raises(AnalysisError, match="expected records; got str"):
        alignkit.audit("reports/quick")  # type: ignore[arg-type]
    bare = full_study()
    with pytest.raises(AnalysisError, match="expected a study with claims"):
        alignkit.audit(dataclasses.replace(bare, study=bare.study.model_copy(update={"claims": ()})))


def test_page_table_and_json(tmp_path: Path) -> None:
    found = alignkit.audit(planted_records({"delta": turned(11)}))
    page = write_audit(found, tmp_path, title="Planted <b>")
    text = page.read_text(encoding="utf-8")
    assert (
        "Planted &lt;b&gt;" in text and "<script" not in text and "http://" not in text.replace("http://www.w3.org", "")
    )
    table = pd.read_csv(tmp_path / "audit.csv")
    (each,) = found.claims
    assert len(table) == each.asked and table["claim"].eq("width").all()
    opposite = each.on_side("opposite")
    assert text.count('<td class="number">all') == 0
    assert all(words_of(row) in text for row in opposite.itertuples(index=False))
    written = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert written["claims"][0]["opposite"] == len(opposite) and written["contradicted"] == []
    assert len(written["claims"][0]["contradictions"]) == len(each.contradictions) > 0
    before = page.read_bytes()
    write_audit(alignkit.audit(planted_records({"delta": turned(11)})), tmp_path, title="Planted <b>")
    assert page.read_bytes() == before


@pytest.mark.slow
def test_a_place_without_an_effect_contradicts_a_verdict_in_five_of_a_hundred_studies_at_most() -> None:
    """The verdict rests on an effect at all places but the step, whose is exactly 0: the hardest null for max-T."""
    studies, wrong = 60, 0
    for noise in range(studies):
        (each,) = alignkit.audit(planted_records({"step": turned(6)}, depth=2, noise=noise)).claims
        assert each.verdict == "supported" and each.questions.query("place == 'step'")["tested"].any()
        wrong += len(each.contradictions) > 0
    assert wrong <= studies * 0.05 + 3 * np.sqrt(studies * 0.05 * 0.95)


@pytest.mark.slow
def test_the_quick_study_in_small(tmp_path: Path) -> None:
    """All its designs, claims and rules, for one epoch at two rates: every claim is asked more than sixty questions."""
    raw = tomllib.loads((ROOT / "studies" / "quick.toml").read_text(encoding="utf-8"))
    raw |= {"seeds": [200, 201, 202], "held_out_seeds": []}
    raw["training"] |= {"epochs": 1}
    raw["probe"] |= {"samples": 32, "log_steps": 0}
    raw["tuning"] = {"lr": [0.1, 0.3], "rules": {"bp": [0.1, 0.3]}, "trajectory_lr": 0.3, "extend": 0}
    records = alignkit.run_study(Study.parse(raw), tmp_path / "out", workers=1)
    found = alignkit.audit(records)
    for verdict, each in zip(evaluate(records), found.claims, strict=True):
        assert each.asked > 60, each.reason
        assert each.questions["estimate"].iloc[0] == pytest.approx(verdict.estimate, abs=1e-9)
    assert found.contradicted == () and write_audit(found, tmp_path).is_file()


def _audit_of(folder: Path) -> Audit:
    return alignkit.audit(alignkit.load(folder))


@pytest.mark.slow
def test_the_records_that_are_at_hand(tmp_path: Path) -> None:
    """Of quick, where it has been run, and of a study whose records come with the repository."""
    folders = [
        folder
        for folder in (ROOT / "reports" / "quick", ROOT / "reports/launay2019/corrected_fc")
        if (folder / "records").is_dir()
    ]
    if not folders:
        pytest.skip("no records at hand: run `alignkit reproduce`")
    for folder in folders:
        found, verdicts = _audit_of(folder), evaluate(alignkit.load(folder))
        for verdict, each in zip(verdicts, found.claims, strict=True):
            if each.asked and np.isfinite(verdict.estimate):
                assert each.questions["estimate"].iloc[0] == pytest.approx(verdict.estimate, abs=1e-8)
        assert write_audit(found, tmp_path).is_file()
