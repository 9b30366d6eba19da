"""The report's sections: the right numbers reach them, and odd studies leave them out instead of failing."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests
from synthetic import PRACTICES, grid, half_fraction, synthetic_records, unfinished_records

from alignkit.claims.analysis import Analysis, analyse
from alignkit.claims.verdicts import evaluate
from alignkit.records.registration import Entry, Registration, analysis_plan
from alignkit.records.store import Records
from alignkit.report.charts import charts
from alignkit.report.contents import ALWAYS, FULL, answered
from alignkit.report.method import facts
from alignkit.report.page import summary, write_report
from alignkit.report.sections.dose import dose
from alignkit.report.sections.model import model
from alignkit.report.sections.model_comparison import model_comparison
from alignkit.report.sections.power import power
from alignkit.report.sections.robustness import robustness, specifications
from alignkit.report.sections.variance import variance
from alignkit.stats.curves.dose import dose_response
from alignkit.stats.mechanisms.variance_components import variance_components

pytestmark = pytest.mark.usefixtures("without_pdf")

CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Normalisation aligns", "practice": "Normalise", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "designs": {"cells": grid({"network.norm": ["none", "batch"]})}, "rules": ("dfa",), "steps": (0, 360),
}  # fmt: skip
FACTORS = {path: PRACTICES[path] for path in ("network.norm", "network.activation", "network.width")}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    records = synthetic_records(
        designs={"cells": grid(FACTORS)},
        study={"claims": [CLAIM, {**CLAIM, "name": "activation", "factor": "activation", "levels": ["tanh", "relu"]}],
               "designs": {"cells": {"factors": FACTORS}}},
        angle_effects={"network.norm": -6.0}, seeds=8, steps=(0, 30, 90, 180, 360),
    )  # fmt: skip
    return analyse(records)


def test_the_model_finds_what_the_truth_depends_on(analysis: Analysis) -> None:
    section = model(analysis)
    assert section is not None
    (table,) = section.tables
    assert table.data["term"].iloc[0] == "norm" and table.data["p"].iloc[0] < 0.001
    assert len(table.data) == 6  # three factors and their pairs
    assert "comes from norm" in section.sentences[0]
    assert [chart.name for chart in section.charts] == ["model_terms", "model_means"]


def test_one_factor_alone_is_not_ranked() -> None:
    section = model(analyse(synthetic_records(**SMALL, seeds=8, angle_effects={"network.norm": -6.0})))
    assert section is not None and not section.charts
    (share,) = section.tables[0].data["generalised_r2"]
    assert share > 0.5 and section.sentences[0] == f"Under DFA, norm explains {share:.0%} of all variation."


def test_power_is_that_of_the_seeds_there_are(analysis: Analysis) -> None:
    section = power(analysis)
    assert section is not None
    frame = section.tables[0].data.set_index("claim")
    verdict = analysis.verdicts[0]
    assert frame.loc["norm", "sd"] == pytest.approx(np.std(verdict.differences, ddof=1))
    assert frame.loc["norm", "n_seeds"] == 8 and frame.loc["norm", "family_size"] == 2
    assert 0 < frame.loc["norm", "detectable"] < 6


def test_terms_count_by_their_adjusted_p() -> None:
    records = synthetic_records(
        designs={"cells": grid(FACTORS)}, study={"designs": {"cells": {"factors": FACTORS}}}, seeds=8, steps=(0, 360),
        noise=5,
    )  # fmt: skip
    section = model(analyse(records))
    assert section is not None
    terms = section.tables[0].data
    np.testing.assert_allclose(terms["p_adjusted"], multipletests(terms["p"], method="fdr_bh")[1])
    pairs = terms[terms["term"].str.contains(":")]
    by_chance, found = (int((pairs[name] < 0.05).sum()) for name in ("p", "p_adjusted"))
    assert by_chance == 1 and found == 0
    assert "0 of 3 have an adjusted p below .05" in section.sentences[0]
    assert "adjusted p" in section.tables[0].columns


def test_only_undecided_claims_are_said_to_hide_an_effect(analysis: Analysis) -> None:
    found = zip(analysis.verdicts, ("supported", "undecided"), strict=True)
    weak = [replace(of, verdict=said, differences=tuple(40 * d for d in of.differences)) for of, said in found]
    section = power(replace(analysis, verdicts=weak))
    assert section is not None and "For 2 claims" in section.sentences[0]
    assert "effect of activation, undecided, may well be there" in section.sentences[0]
    section = power(replace(analysis, verdicts=weak[:1]))
    assert section is not None and section.sentences[0].endswith("fewer than four cases of five.")


def test_a_finding_that_hangs_on_one_seed_is_named(analysis: Analysis) -> None:
    section = robustness(analysis)
    assert section is not None
    frame = section.tables[0].data
    assert len(frame) == 16 and set(frame["claim"]) == {"norm", "activation"}
    assert frame.loc[frame["claim"] == "norm", "estimate"].mean() == pytest.approx(analysis.verdicts[0].estimate)


def test_every_model_gives_the_balanced_effect(analysis: Analysis) -> None:
    section = model_comparison(analysis)
    assert section is not None
    effects = section.tables[0].data
    of_norm = effects[effects["claim"] == "norm"]
    assert len(of_norm) == 5
    # Balanced cells and one depth: all models estimate the same difference.
    assert of_norm["estimate"].to_numpy() == pytest.approx(of_norm["estimate"].iloc[0], abs=1e-6)
    assert set(section.tables[1].data["held"]) == {"seed", "cells"}
    assert (section.tables[1].data["r2"] > 0.5).all()


def test_the_declared_specification_is_the_verdict(analysis: Analysis) -> None:
    section = specifications(analysis)
    assert section is not None
    curve = section.tables[0].data
    first = curve[curve["claim"] == "norm"].iloc[0]
    assert first["estimate"] == pytest.approx(analysis.verdicts[0].estimate)
    assert first["p"] == pytest.approx(analysis.verdicts[0].p) and len(curve) == 2 * 66
    assert {"degrees", "fisher z", "beta"} == set(curve["scale"])
    # In balanced cells a mixed model and GEE estimate what the mean of the per-seed contrasts is.
    at = curve[(curve["claim"] == "norm") & (curve["scale"] == "fisher z")].set_index(
        ["summary", "checkpoint", "model"]
    )
    estimates = at["estimate"].unstack()
    assert not at["reason"].any() and set(estimates) == {"mean", "signed rank", "trimmed mean", "mixed", "gee"}
    for name in ("mixed", "gee"):
        np.testing.assert_allclose(estimates[name], estimates["mean"], rtol=1e-5)


OTHERWISE: dict[str, dict[str, Any]] = {
    "a_whole_training_in_one_layer": {"summary": "auc", "layer": 2},
    "a_cosine": {"response": "signal_cosine", "direction": "increase", "smallest_effect": 0.05},
    "another_cosine_in_one_layer": {"response": "weight_cosine", "direction": "increase", "layer": 1},
    "an_accuracy": {"response": "test_accuracy", "direction": "increase"},
    "a_gap": {"response": "accuracy_gap", "direction": "increase"},
    "an_excess": {"response": "signal_angle_deg_excess", "summary": "auc"},
}
SCALES = {
    "a_whole_training_in_one_layer": {"degrees", "fisher z", "beta"},
    "a_cosine": {"cosine", "degrees", "fisher z", "beta"},
    "another_cosine_in_one_layer": {"cosine", "fisher z", "beta"},
    "an_accuracy": {"points", "log odds", "beta"},
    "a_gap": {"points"},
    "an_excess": {"degrees"},
}


@pytest.mark.slow
def test_every_curve_begins_with_what_its_claim_declares() -> None:
    family = {"family": "exploratory"}  # six claims, six seeds
    claims = [{**CLAIM, **family, "name": name, **OTHERWISE[name]} for name in OTHERWISE]
    records = synthetic_records(
        designs={"cells": grid({path: FACTORS[path] for path in ("network.norm", "network.width")})},
        study={"claims": claims}, angle_effects={"network.norm": -6.0}, accuracy_effects={"network.norm": 1.0}, seeds=6,
        steps=(0, 360),
    )  # fmt: skip
    found = analyse(records)
    section = specifications(found)
    assert section is not None
    assert len({row[0] for row in section.tables[0].rows}) == len(claims)  # all on one change, told apart
    curve = section.tables[0].data
    for verdict, name in zip(found.verdicts, OTHERWISE, strict=True):
        own = curve[curve["claim"] == verdict.claim.name]
        first = own.iloc[0]
        assert (first["estimate"], first["p"]) == pytest.approx((verdict.estimate, verdict.p)), name
        assert (first["low"], first["high"]) == pytest.approx(verdict.interval)
        assert first["summary"] == verdict.claim.summary and set(own["scale"]) == SCALES[name]
        # Alike in sign on every scale, an angle turned about: what the orientation is for.
        assert own.loc[own["reason"] == "", "agrees"].all(), name
        assert own.loc[own["checkpoint"] == "end", "p"].notna().all()


def test_what_was_not_examined_is_said_so() -> None:
    options: dict[str, Any] = {**SMALL, "study": {"claims": [CLAIM]}}
    section = robustness(analyse(synthetic_records(seeds=5, **options)))  # too few for any test
    assert section is not None
    assert section.sentences == ("Without each seed, the verdict on norm was not examined: it could not be tested.",)
    assert section.tables[0].rows[0][-1] == "not examined" and set(section.tables[0].data["verdict"]) == {
        "not examined"
    }
    # A verdict on the worst case is judged without each seed: without the seed that lost a run it is another one.
    records = synthetic_records(seeds=10, angle_effects={"network.norm": -6.0}, **options)
    gone = (records.runs["seed"] == 3) & (records.runs["norm"] == "batch")
    found = analyse(unfinished_records(records, gone))
    assert found.verdicts[0].verdict == "undecided"
    assert "verdicts take the worst case over what is still missing" in " ".join(summary(found))
    section = robustness(found)
    assert section is not None and section.sentences == ("The verdict on norm hangs on a single seed.",)
    assert section.tables[0].data.set_index("seed").loc[3, "verdict"] == "supported"


def test_the_tests_are_described_as_they_are() -> None:
    declared = [CLAIM, {**CLAIM, "name": "gone"}, {**CLAIM, "name": "look", "family": "exploratory"}]
    options: dict[str, Any] = {**SMALL, "seeds": 8}
    records = synthetic_records(study={"claims": [declared[0], declared[2]]}, **options)
    whole = synthetic_records(study={"claims": declared}, **options).study
    history = Registration((Entry(analysis_plan(whole), 0), Entry(analysis_plan(records.study), 40)))
    text = dict(facts(analyse(replace(records, registration=history))))["Tests"]
    assert "over the difference and equivalence tests of the family of 2 confirmatory claims (1 of them changed" in text
    assert "at least 7 seeds" in text and "Benjamini-Hochberg's for exploratory claims" in text
    assert "have no value" not in text
    assert "a run that diverged counts as one that did not align" in text
    worst = {**CLAIM, "failed": "worst_case"}
    lost = synthetic_records(study={"claims": [worst]}, diverge=(("network.norm", "batch"),), **options)
    text = dict(facts(analyse(lost)))["Tests"]
    assert (
        "counts as" not in text
        and "have no value, the largest p over all that they could" in text
        and "Benjamini" not in text
    )
    assert "equivalence" not in dict(facts(analyse(synthetic_records(**options))))["Tests"]


def crossed_streams(noise: int = 0) -> Records:
    """Records in which the draws of two streams decide the angle; the study has one seed."""
    levels = {"streams.initialisation": list(range(5)), "streams.feedback": list(range(4))}
    records = synthetic_records(
        designs={"draws": grid(levels)}, study={"designs": {"draws": {"factors": levels}}}, seeds=1, rules=("bp", "dfa"),
        steps=(0, 360),
    )  # fmt: skip
    generator = np.random.default_rng(noise)
    effects = generator.normal(0, 3, 5), generator.normal(0, 1, 4)
    runs = records.runs.rename(columns={"initialisation": "streams_initialisation", "feedback": "streams_feedback"})
    angles = {
        run: 60 + effects[0][i] + effects[1][j] + generator.normal(0, 0.5)
        for run, i, j in runs[["run_id", "streams_initialisation", "streams_feedback"]].itertuples(index=False)
    }
    layers = records.layers.assign(signal_angle_deg=records.layers["run_id"].map(angles))
    factors = ("streams_initialisation", "streams_feedback")
    return Records(records.study, runs, records.checkpoints, layers, factors)


def test_the_decomposition_is_of_the_crossed_streams() -> None:
    records = crossed_streams()
    section = variance(analyse(records))
    assert section is not None
    table = next(table for table in section.tables if table.name == "variance_dfa_signal_angle_deg")
    rows = records.runs[records.runs["rule"] == "dfa"]
    last = records.layers[records.layers["step"] == 360].groupby("run_id")["signal_angle_deg"].mean()
    expected = variance_components(rows.assign(value=rows["run_id"].map(last)), factors=records.factors)
    pd.testing.assert_frame_equal(table.data, expected.to_frame())
    assert "initial weights" in section.sentences[0] and any("not seeds" in note for note in section.notes)
    assert variance(analyse(synthetic_records(designs={"cells": grid(FACTORS)}, seeds=3, steps=(0, 9)))) is None


def test_crossed_draws_replicate_though_there_is_one_seed() -> None:
    crossed = analyse(crossed_streams())
    alone, several = (analyse(synthetic_records(**SMALL, seeds=seeds)) for seeds in (1, 3))
    assert "every number is one draw" not in " ".join(summary(crossed))
    assert "every number is one draw" in " ".join(summary(alone))
    assert "what replicates are the draws of each stream" in " ".join(summary(crossed))
    drawn, absent = charts(crossed)
    assert not any("expected" in line for line in absent) and any(
        "no design varies a factor" in line for line in absent
    )
    assert not any("seeds" in chart.how for chart in drawn)
    captions = ["".join(chart.how for chart in charts(of)[0][:1]) for of in (crossed, alone, several)]
    assert [("bands" in caption) for caption in captions] == [False, False, True]


def imposed(seeds: int = 6) -> Records:
    """Runs whose accuracy falls by a tenth of a point a degree, and one rate design with a choice to make."""
    rows = []
    generator = np.random.default_rng(0)
    for rule, angle, lr, seed in itertools.product(("bp", "imposed_angle"), (0, 30, 60, 90), (0.1, 0.3), range(seeds)):
        if rule == "bp" and angle:
            continue
        best = lr == 0.3
        rows.append(
            {"run_id": f"{rule}{angle}{lr}{seed}", "study": "s", "rule": rule, "cell": f"{angle}-{lr}",
             "designs": "fixed+rates" if lr == 0.1 else "rates", "bp_run_id": f"bp0{lr}{seed}", "seed": seed,
             "held_out": False, "feedback_angle_deg": float(angle) if rule != "bp" else None, "lr": lr,
             "train_accuracy": 1.0, "validation_accuracy": 0.95 if best else 0.9,
             "test_accuracy": 0.95 - 0.001 * angle + 0.01 * best + generator.normal(0, 0.001), "train_loss": 0.1,
             "validation_loss": 0.1, "test_loss": 0.1, "output_lr": 0.1, "diverged": False, "diverged_step": pd.NA,
             "steps": 10, "parameters": 10}
        )  # fmt: skip
    base = synthetic_records(designs={"cells": grid(FACTORS)}, seeds=1, steps=(0, 9), rules=("bp", "imposed_angle"))
    runs = pd.DataFrame(rows)
    layers = pd.concat([base.layers.iloc[:1].assign(run_id=run) for run in runs["run_id"]], ignore_index=True)
    return Records(base.study, runs, base.checkpoints.iloc[:0], layers, ("feedback_angle_deg", "lr"))


def test_the_dose_response_is_of_the_imposed_angle_at_the_best_rate() -> None:
    records = imposed()
    section = dose(analyse(records))
    assert section is not None
    fixed, rates = section.tables
    assert (fixed.name, rates.name) == ("dose_fixed", "dose_rates")
    chosen = records.runs[(records.runs["rule"] == "imposed_angle") & (records.runs["lr"] == 0.3)]
    expected = dose_response(chosen.assign(value=100 * chosen["test_accuracy"]), dose="feedback_angle_deg")
    pd.testing.assert_frame_equal(rates.data, expected.to_frame())
    assert "a point is lost at 10°" in section.sentences[0]
    assert re.search(r"test accuracy goes from \d+\.\d\d% to \d+\.\d\d%", section.sentences[0])
    assert dose(analyse(synthetic_records(designs={"cells": grid(FACTORS)}, seeds=3, steps=(0, 9)))) is None


ODD: dict[str, dict[str, Any]] = {
    "one seed": {"seeds": 1},
    "two seeds": {"seeds": 2},
    "no BP": {"rules": ("dfa",)},
    "only BP": {"rules": ("bp",)},
    "one checkpoint": {"steps": (0,)},
    "regression": {"regression": True},
    "diverged": {"diverge": (("network.norm", "batch"),)},
    "no measures": {"measures": ()},
    "no factors": {"designs": {"one": [{"network.width": 16}]}, "study": {}},
    "a fraction": {"designs": {"cells": half_fraction(PRACTICES)}, "seeds": 3},
}
IN_FULL = ("one seed", "no BP", "regression", "one checkpoint")
QUICK = ("one seed", "no measures")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ODD])
def test_odd_studies_have_their_report(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "designs": {"cells": grid({"network.norm": ["none", "batch"], "network.width": [16, 32]})},
        "study": {"claims": [CLAIM]}, "seeds": 6, "steps": (0, 45, 360),
    }  # fmt: skip
    records = synthetic_records(**{**settings, **ODD[name]})
    page = write_report(records, tmp_path, full=name in IN_FULL)
    assert page.exists()
    evaluate(records)


@pytest.mark.slow
def test_names_belong_to_their_section(analysis: Analysis) -> None:
    found, _ = answered(analysis, full=True)
    assert {question.name for question, _ in found} >= {"model", "robustness", "power", "compared", "specifications"}
    for question, section in found:
        for part in (*section.tables, *section.charts):
            assert part.name.startswith(question.name), part.name
    assert len({question.name for question in (*ALWAYS, *FULL)}) == len((*ALWAYS, *FULL))
