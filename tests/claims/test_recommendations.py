"""Practices, with what they change and where that was seen."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats
from synthetic import PRACTICES, column, full_study, grid, synthetic_records, synthetic_study

from alignkit.claims.analysis import analyse
from alignkit.claims.recommendations import recommendations
from alignkit.claims.tables import claim_factors, claim_table
from alignkit.claims.verdicts import ALPHA, evaluate
from alignkit.claims.wording import ACCURACY, to_json, to_markdown
from alignkit.records.registration import Entry, Registration, analysis_plan
from alignkit.records.store import Records
from alignkit.report.page import render
from alignkit.report.results import recommendation_table
from alignkit.stats.contrasts.arrays import moments, sign_flip_p_values, tost_p
from alignkit.stats.contrasts.multiplicity import holm, holm_joint
from alignkit.stats.contrasts.per_seed import seed_contrasts

UNGRADED = "not graded: these records answer the claim in one way only"


@pytest.fixture(scope="module")
def records() -> Records:
    return full_study()


@pytest.fixture(scope="module")
def entries(records: Records) -> list[dict[str, Any]]:
    return recommendations(records, evaluate(records))


def test_every_practice_has_its_effect_interval_verdict_and_scope(entries: list[dict[str, Any]]) -> None:
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
    assert norm["summary"].startswith(
        "Suggests that it helps: the angle to the BP signal falls by 6.0°, and test accuracy rises"
    )
    assert norm["grade"] == "" and "not graded" in norm["caveats"][0]
    assert "confounded with the learning rate" in norm["caveats"][1]
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


NORM: dict[str, Any] = {
    "name": "norm", "statement": "Normalisation aligns", "practice": "Normalise", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0, "failed": "worst_case",
}  # fmt: skip
WIDE: dict[str, Any] = {**NORM, "name": "width", "practice": "Go wide", "factor": "width", "levels": [8, 256]}
TWO_BY_TWO = {"cells": grid({"network.norm": ["none", "batch"], "network.width": [16, 32]})}
WIDTHS = {"cells": grid({"network.width": [8, 64, 256]})}


def judged(claim: dict[str, Any] = NORM, **options: Any) -> dict[str, Any]:
    records = synthetic_records(
        **{"designs": TWO_BY_TWO, "study": {"claims": [claim]}, "steps": (0, 360), "rules": ("dfa",), **options}
    )
    (entry,) = recommendations(records, evaluate(records))
    return entry


def test_no_evidence_is_said_in_so_many_words() -> None:
    entry = judged(seeds=4)
    assert entry["verdict"] == "no evidence" and entry["summary"].startswith("No evidence for or against")
    assert "needs ≥ 6 seeds" in entry["reason"] and entry["p"] is None and entry["effect"] is not None


def test_better_aligned_but_less_accurate_is_not_hidden() -> None:
    entry = judged(angle_effects={"network.norm": -6.0}, accuracy_effects={"network.norm": -2.0})
    assert entry["verdict"] == "supported"
    assert "helps alignment alone" in entry["summary"] and "but test accuracy falls by" in entry["summary"]


def test_regression_has_no_accuracy() -> None:
    entry = judged(angle_effects={"network.norm": -6.0}, regression=True)
    assert entry["accuracy_effect"] is None and entry["accuracy_interval"] == [None, None]
    assert entry["summary"].startswith("Suggests that it helps: the angle") and "accuracy" not in entry["summary"]


def test_json_has_no_nan(entries: list[dict[str, Any]]) -> None:
    text = to_json(entries)
    assert json.loads(text) and "NaN" not in text and text.endswith("\n")


def test_a_number_is_rounded_once(records: Records) -> None:
    """From the verdict to a text, not by way of the six digits of the JSON: 5.4250001 is 5.43 and not 5.42."""
    verdict = next(verdict for verdict in evaluate(records) if verdict.claim.name == "norm")
    halfway = dataclasses.replace(verdict, estimate=-5.2500001)
    (entry,) = recommendations(records, [halfway])
    assert "falls by 5.3°" in entry["summary"] and "BP signal \N{MINUS SIGN}5.3°" in to_markdown([entry])
    assert '"effect": -5.25,' in to_json([entry])


def test_held_out_seeds_confirm_or_do_not() -> None:
    def entry(first: float, apart: float, *, seeds: int = 6) -> dict[str, Any]:
        options: dict[str, Any] = {"designs": TWO_BY_TWO, "study": {"claims": [NORM]}, "steps": (0, 360)}
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
    assert found["p_better"] > 0.99 and found["expected_regret"] < 0.01 and found["best_level"] == "batch"
    assert found["p_better_accuracy"] < 0.01 and found["expected_regret_accuracy"] == pytest.approx(2.0, abs=0.3)
    worse = judged(angle_effects={"network.norm": 6.0})
    assert worse["p_better"] < 0.01 and worse["expected_regret"] == pytest.approx(6.0, abs=0.8)


def test_the_markdown_has_a_line_for_each_number(entries: list[dict[str, Any]]) -> None:
    text = to_markdown(entries)
    assert text.startswith("# Recommendations\n") and text.count("\n- **") == len(entries)
    adjusted = [f"], adjusted p {entry['accuracy_p_adjusted']:.3f}." for entry in entries]
    assert all(p in text for p in adjusted) and len(set(adjusted)) > 1
    assert (
        "P(better) >0.99 (batch against none)" in text
        and "Scope: digits, MLP, 2 and 3 hidden layers of 32 and 128 units" in text
    )
    assert "None" not in text and "nan" not in text


def test_words_of_a_study_are_neither_tags_nor_links_nor_lines_in_markdown(entries: list[dict[str, Any]]) -> None:
    practice = (
        "Use <script>alert(1)</script>\n# A heading\n[here](javascript:alert(1)) \\[or](x) when p <.001 [1, 2] (3)"
    )
    text = to_markdown([entries[0] | {"practice": practice}])
    assert text.count("\n") == to_markdown([entries[0]]).count("\n")
    assert (
        r"- **Use \<script>alert(1)\</script> # A heading [here\](javascript:alert(1)) \\[or\](x) when p <.001 [1, 2] (3)**"
        in text
    )


def bent(records: Records, width: int, by: float) -> Records:
    """The same, but for the angles at one width."""
    runs = records.runs.loc[records.runs["width"] == width, "run_id"]
    layers = records.layers.copy()
    layers.loc[layers["run_id"].isin(runs), "signal_angle_deg"] += by
    return dataclasses.replace(records, layers=layers)


def test_the_better_of_two_is_not_called_the_best_of_all() -> None:
    """256 beats 8 by 5 degrees, and 64 beats both."""
    options: dict[str, Any] = {"designs": WIDTHS, "study": {"claims": [WIDE]}, "steps": (0, 360), "rules": ("dfa",)}
    records = bent(synthetic_records(angle_effects={"network.width": -1.0}, **options), 64, -6.0)
    analysis = analyse(records)
    (entry,) = analysis.recommendations
    assert entry["verdict"] == "supported" and entry["p_better"] > 0.99 and entry["expected_regret"] < 0.05
    assert entry["best_level"] == "64" and entry["p_best_level"] > 0.99 and entry["p_best_of_all"] < 0.01
    means = claim_table(records, records.study.claims[0]).groupby("width")["value"].mean()
    assert entry["expected_regret_of_all"] == pytest.approx(means[256] - means[64], abs=0.05)
    assert (
        "256 is better than 8; of all 3 levels of width 64 looks best (P(best) >0.99; 256: <0.01)" in entry["summary"]
    )
    regret = f"{entry['expected_regret_of_all']:.1f}°"
    page = render(analysis, [], [], {}, [])
    assert f"<dt>P(best of all)</dt><dd>&lt;0.01 (regret {regret}); best of 3 levels: 64, &gt;0.99</dd>" in page
    assert f"P(best of all 3 levels) <0.01, expected regret {regret}; best level 64" in to_markdown([entry])
    latex = recommendation_table([entry]).to_latex()
    assert "P(better)" in latex and "$<$0.01 & 64 ($>$0.99)" in latex
    two = judged(angle_effects={"network.norm": -6.0})
    assert two["p_best_of_all"] == two["p_better"] and "of all" not in two["summary"] + to_markdown([two])


def test_what_was_not_declared_is_a_suggestion_in_every_format() -> None:
    effect = {"angle_effects": {"network.norm": -6.0}}
    records = synthetic_records(designs=TWO_BY_TWO, study={"claims": [NORM]}, steps=(0, 360), rules=("dfa",), **effect)
    before = Entry(analysis_plan(synthetic_study(claims=[], seeds=10)), 0)
    late = dataclasses.replace(records, registration=Registration((before, Entry(analysis_plan(records.study), 40))))
    doubtful = records.study.claims[0].model_copy(update={"family": "exploratory"})
    explored = dataclasses.replace(records, study=records.study.model_copy(update={"claims": (doubtful,)}))
    for given, words in ((late, "not declared before the runs"), (explored, "exploratory")):
        analysis = analyse(given)
        (entry,) = analysis.recommendations
        table = recommendation_table([entry])
        for text in (to_markdown([entry]), render(analysis, [], [], {}, []), table.to_latex() + table.to_csv()):
            assert "Recommended" not in text and "Suggests that it helps alignment: the angle" in text
            assert words in text and "a suggestion to be tested, not advice" in text
    (plain,) = analyse(records).recommendations
    assert plain["summary"].startswith("Suggests that it helps") and len(plain["caveats"]) == 1
    against = judged({**NORM, "family": "exploratory"}, angle_effects={"network.norm": 6.0})
    assert against["summary"].startswith("Suggests that it harms alignment")


@pytest.mark.parametrize(
    ("grade", "reason", "depends", "words"),
    [
        ("robust", "holds in all 9 core rows", (), "Recommended for alignment: the angle to the BP signal falls by"),
        ("robust", "", ("it turns over: 3° at a = b",), "Recommended for alignment: .* It turns over: 3° at a = b"),
        ("conditional", "not shown: step", (), "Recommended for alignment: .* Not shown: step"),
        ("contested", "the opposite holds step", (), "No recommendation: supported as declared, but the opposite"),
        ("", "", (), "Suggests that it helps alignment: "),
    ],
)
def test_advice_is_as_sure_as_the_panel(grade: str, reason: str, depends: tuple[str, ...], words: str) -> None:
    records = synthetic_records(
        designs=TWO_BY_TWO,
        study={"claims": [NORM]},
        steps=(0, 360),
        rules=("dfa",),
        angle_effects={"network.norm": -6.0},
    )
    (verdict,) = evaluate(records)
    graded = dataclasses.replace(verdict, grade=grade, grade_reason=reason, depends=depends)
    (entry,) = recommendations(records, [graded])
    assert re.match(words, entry["summary"]), entry["summary"]
    assert (entry["grade"], entry["grade_reason"]) == (grade, reason)
    assert bool(entry["conditions"]) == bool(depends or grade == "conditional")


def test_accuracy_is_judged_in_one_family_of_all_recommendations() -> None:
    claims = [{**NORM, "name": f"claim{index}", "layer": index % 2 + 1} for index in range(8)]
    records = synthetic_records(
        designs=TWO_BY_TWO,
        study={"claims": claims},
        steps=(0, 360),
        rules=("dfa",),
        accuracy_effects={"network.norm": 0.3},
    )
    entries = recommendations(records, evaluate(records))
    p = [entry["accuracy_p"] for entry in entries]
    assert [entry["accuracy_p_adjusted"] for entry in entries] == pytest.approx(list(holm(p)), rel=1e-5)
    assert 0.05 / 8 < p[0] < 0.05 and entries[0]["accuracy_interval"][0] > 0  # alone it would be called a rise
    assert not any("accuracy rises" in entry["summary"] for entry in entries)
    (alone,) = recommendations(records, evaluate(records)[:1])
    assert "test accuracy rises" in alone["summary"]


def test_runs_that_diverged_may_be_what_accuracy_hides() -> None:
    """A rise of 2 points over the survivors: two seeds without one level's runs could hold any fall."""
    options: dict[str, Any] = {"accuracy_effects": {"network.norm": 2.0}, "angle_effects": {"network.norm": -6.0}}
    entry = judged(diverge=(("network.norm", "batch"),), **options)
    assert entry["accuracy_interval"][0] > 1 and entry["accuracy_p_adjusted"] > 0.05
    assert "accuracy rises" not in entry["summary"]
    assert entry["p_better"] is entry["p_better_accuracy"] is entry["p_best_of_all"] is entry["best_level"] is None
    text = " ".join(entry["caveats"])
    assert "4 of 40 runs have no test accuracy: whatever it would have been" in text
    assert "no P(better): 4 of 40 runs have no angle to the BP signal" in text
    whole = judged(**options)
    assert "accuracy rises" in whole["summary"] and whole["p_better"] > 0.99 and whole["caveats"] == [UNGRADED]


def test_missing_runs_that_could_change_nothing_leave_a_bound() -> None:
    """One angle missing of forty, at either end of its range: the effect of 60 degrees stays, and P is the lower one."""
    records = synthetic_records(
        designs=TWO_BY_TWO, study={"claims": [NORM]}, steps=(0, 360), rules=("dfa",), angle_effects={"network.norm": -60.0},
        seed_by_factor_sd=0.1, residual_sd=0.1,
    )  # fmt: skip
    run = records.runs.loc[(records.runs["norm"] == "batch") & (records.runs["seed"] == 0), "run_id"].iloc[0]
    layers = records.layers.copy()
    layers.loc[(layers["run_id"] == run) & (layers["step"] == 360), "signal_angle_deg"] = np.nan
    lost = dataclasses.replace(records, layers=layers)
    (entry,) = recommendations(lost, evaluate(lost))
    # As if the run had turned to 180 degrees, worked out by hand.
    claim = records.study.claims[0]
    table = claim_table(lost, claim)
    filled = table.assign(value=table["value"].fillna(180.0))
    worst = seed_contrasts(
        filled, factor="norm", levels=("none", "batch"), response="value", within=claim_factors(lost, claim)
    ).differences
    t = scipy_stats.t(len(worst) - 1, loc=worst.mean(), scale=worst.sem())
    assert entry["p_better"] == pytest.approx(t.cdf(0), abs=0.005) and 0.95 < entry["p_better"] < 1
    assert "worst case for the practice: 1 of 40 runs have no angle" in " ".join(entry["caveats"])


def test_a_level_tried_in_easy_cells_alone_is_not_the_best() -> None:
    """Norms that do nothing; wide layers align better, and batch norm was never tried there."""
    cells = [{"network.width": width, "network.norm": norm} for norm in ("none", "batch", "layer") for width in (8, 64)]
    designs = {"cells": [cell for cell in cells if cell != {"network.width": 64, "network.norm": "batch"}]}
    entry = judged(designs=designs, angle_effects={"network.width": -3.0}, seed_by_factor_sd=0.0)
    assert entry["all_levels"] == ["none", "batch", "layer"] and entry["p_best_level"] < 0.9
    assert "P(best of all): level means are over 10 of 20 cells by seed" in " ".join(entry["caveats"])


def test_effects_that_may_be_small_and_verdicts_of_one_seed_say_so() -> None:
    small = judged(angle_effects={"network.norm": -1.2}, seed_by_factor_sd=0.2)
    assert small["verdict"] == "supported" and small["interval"][1] > -1.0
    assert "(perhaps by less than 1°, the smallest effect that matters)" in small["summary"]
    opposite = judged(angle_effects={"network.norm": 1.2}, seed_by_factor_sd=0.2)
    assert opposite["verdict"] == "refuted" and "perhaps by less than 1°" in opposite["summary"]
    assert "perhaps" not in judged(angle_effects={"network.norm": -6.0})["summary"]
    # Of six seeds each is needed; five fall by hardly anything, so that the effect is that of the sixth.
    records = synthetic_records(
        designs=TWO_BY_TWO, study={"claims": [NORM]}, steps=(0, 360), rules=("dfa",), seeds=6,
        angle_effects={"network.norm": -6.0},
    )  # fmt: skip
    verdicts = evaluate(records)
    (entry,) = recommendations(records, verdicts)
    assert entry["verdict"] == "supported" and entry["caveats"] == [UNGRADED]
    frail = [dataclasses.replace(verdicts[0], differences=(-0.1, -0.1, -0.1, -0.1, -0.1, -8.0), interval=(-5.0, 0.1))]
    records.memo.clear()
    records.memo["verdicts", ALPHA] = frail
    (entry,) = recommendations(records, frail)
    assert re.match(
        r"the verdict (hangs on a single seed: without seed \d|needs every seed: without any one of its 6)",
        entry["caveats"][1],
    )


def null_study() -> Records:
    """Seven practices, one factor at a time, none of which does anything to angle or accuracy."""
    claims = [
        {
            **NORM,
            "name": column(path),
            "practice": path,
            "factor": column(path),
            "levels": levels,
            "smallest_effect": 2.0,
        }
        for path, levels in PRACTICES.items()
    ]
    base = {path: levels[0] for path, levels in PRACTICES.items()}
    cells = [base, *({**base, path: levels[1]} for path, levels in PRACTICES.items())]
    return synthetic_records(
        designs={"cells": cells}, study={"claims": claims}, rules=("dfa",), steps=(360,),
        measures=("signal_angle_deg",),
    )  # fmt: skip


def advice_given(
    differences: np.ndarray, accuracy_differences: np.ndarray, *, margin: float, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Which practices [..., practices] `recommendations` would advise for or against, and of which it would say that
    accuracy changes: its rule for many studies at once, on complete differences [..., practices, seeds]."""
    p_equivalence = tost_p(moments(differences), margin=margin)
    difference, equivalence = holm_joint(sign_flip_p_values(differences), p_equivalence)
    accuracy = holm(sign_flip_p_values(accuracy_differences))
    return (difference < alpha) & ~(equivalence < alpha), accuracy < alpha


def test_without_any_effect_false_advice_is_as_rare_as_promised() -> None:
    """Seven practices, ten seeds, no effects: at most 5% of studies advise, and at most 5% speak of accuracy."""
    studies = 1500
    generator = np.random.default_rng(5)
    effects, accuracies = generator.normal(size=(2, studies, 7, 10)) * [[[[1.0]]], [[[0.4]]]]
    advised, changed = advice_given(effects, accuracies, margin=0.5)
    bound = scipy_stats.binom.ppf(0.995, studies, 0.05)
    for given in (advised, changed):
        assert 0 < given.any(axis=-1).sum() <= bound
    assert (advised.any(axis=-1) | changed.any(axis=-1)).sum() <= scipy_stats.binom.ppf(0.995, studies, 0.1)
    # An interval of its own for each practice, as it is printed beside, would be wrong in three studies of ten.
    low, high = scipy_stats.ttest_1samp(accuracies, 0, axis=-1).confidence_interval()
    assert ((low > 0) | (high < 0)).any(axis=-1).mean() > 0.25


def test_recommendations_speak_by_the_rule_that_is_calibrated() -> None:
    """The words of a report against the arrays' answer for the same contrasts: one practice of seven has effects."""
    records = bent(null_study(), 128, -6.0)
    runs = records.runs.copy()
    runs.loc[runs["width"] == 128, "test_accuracy"] += 0.015
    records = dataclasses.replace(records, runs=runs)
    verdicts = evaluate(records)
    entries = recommendations(records, verdicts)
    accuracy = [
        seed_contrasts(
            claim_table(records, verdict.claim, response=ACCURACY), factor=verdict.claim.factor, levels=verdict.levels,
            response="value", within=claim_factors(records, verdict.claim),
        ).differences
        for verdict in verdicts
    ]  # fmt: skip
    advised, changed = advice_given(
        np.array([verdict.differences for verdict in verdicts]), np.array(accuracy), margin=2.0
    )
    assert [entry["verdict"] in ("supported", "refuted") for entry in entries] == advised.tolist()
    said = ["accuracy rises" in entry["summary"] or "accuracy falls" in entry["summary"] for entry in entries]
    assert said == changed.tolist() and sum(said) == 1 and sum(advised) == 1
