"""How a verdict is read: its grade, what it hangs on, and the floor of its p."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic import grid, synthetic_records

from alignkit.claims.moderation import LevelEffect
from alignkit.claims.reading import (
    floor_note,
    hangs_on,
    on_moderators,
    seed_note,
    simultaneous_interval,
)
from alignkit.claims.verdict import Verdict, Verdicts, grade_name
from alignkit.claims.verdicts import evaluate
from alignkit.claims.wording import advice

CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Normalisation aligns", "practice": "Normalise", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    designs = {"cells": grid({"network.norm": ["none", "batch"]})}
    options: dict[str, Any] = {"designs": designs, "steps": (0, 360), "angle_effects": {"network.norm": -6.0}}
    (one,) = evaluate(synthetic_records(study={"claims": [CLAIM]}, seeds=8, **options))
    assert one.verdict == "supported"
    return one


def graded(verdict: Verdict, grade: str, reason: str = "why") -> Verdict:
    return dataclasses.replace(verdict, grade=grade, grade_reason=reason)


def test_every_verdict_has_a_grade_or_none_to_have(verdict: Verdict) -> None:
    assert grade_name(verdict) == "ungraded" and grade_name(graded(verdict, "robust")) == "robust"
    for other in ("undecided", "not identifiable"):
        assert grade_name(dataclasses.replace(verdict, verdict=other)) == ""


def test_the_floor_of_p_is_named_there_alone(verdict: Verdict) -> None:
    assert verdict.p == 2.0**-7  # all eight seeds agree
    assert "with 8 seeds no smaller is possible" in floor_note(verdict)
    assert floor_note(dataclasses.replace(verdict, p=2.0**-6)) == ""
    assert floor_note(dataclasses.replace(verdict, p=float("nan"))) == ""
    assert floor_note(dataclasses.replace(verdict, n_seeds=20, p=1e-5)) == ""  # drawn, not enumerated


def test_one_seed_several_and_all_of_them_are_three_things(verdict: Verdict) -> None:
    other = dataclasses.replace(verdict, verdict="undecided")
    without = {seed: verdict for seed in range(8)}
    assert seed_note(verdict, without) == ""
    assert "hangs on a single seed: without seed 3" in seed_note(verdict, {**without, 3: other})
    assert "any one of 2 of its 8 (1 and 3)" in seed_note(verdict, {**without, 1: other, 3: other})
    every = seed_note(verdict, dict.fromkeys(range(8), other))
    assert "needs every seed" in every and "too few" in every and "single seed" not in every
    assert seed_note(verdict, dict.fromkeys(range(8), None)) == ""


def test_simultaneous_intervals_are_those_of_bonferroni(verdict: Verdict) -> None:
    differences = np.array(verdict.differences)
    level = 1 - 0.05 / 4
    half = stats.t.ppf(1 - (1 - level) / 2, 7) * differences.std(ddof=1) / np.sqrt(8)
    expected = (differences.mean() - half, differences.mean() + half)
    assert simultaneous_interval(verdict, family_size=4) == pytest.approx(expected)
    assert simultaneous_interval(verdict, family_size=1) == pytest.approx(verdict.interval)
    exploratory = dataclasses.replace(verdict, claim=verdict.claim.model_copy(update={"family": "exploratory"}))
    assert np.isnan(simultaneous_interval(exploratory, family_size=4)).all()
    bounded = dataclasses.replace(verdict, worst_case=(-9.0, -1.0))
    assert np.isnan(simultaneous_interval(bounded, family_size=4)).all()


def test_levels_of_a_moderator_are_named_whether_or_not_they_are_shown_to_differ(verdict: Verdict) -> None:
    effects = (
        LevelEffect("activation", "relu", -12.6, (-13.8, -11.4), 0.002, 1.0, 8),
        LevelEffect("activation", "tanh", 1.8, (0.3, 3.2), 0.03, 0.4, 8),
    )
    moderated = dataclasses.replace(graded(verdict, "robust", "holds in all 10 core rows"), level_effects=effects)
    text = hangs_on(moderated)
    assert text.startswith("Holds in all 10 core rows of the panel.")
    assert "\N{MINUS SIGN}12.6° at relu and +1.8° at tanh (that it turns over is not shown)" in text
    turned = dataclasses.replace(
        moderated, depends=("it turns over: a at activation = relu and b at activation = tanh",)
    )
    assert on_moderators(turned)[0].startswith("It turns over with activation:") and "not shown" not in hangs_on(turned)
    same_sign = dataclasses.replace(
        moderated, level_effects=(effects[0], dataclasses.replace(effects[1], estimate=-4.0))
    )
    assert "not shown" not in on_moderators(same_sign)[0]
    # what is said as advice names them too, once
    said = advice(moderated, "supported", None, changes=False)
    assert said.startswith("Recommended") and said.count("at tanh") == 1


@pytest.mark.parametrize(
    ("grade", "recommended"), [("robust", True), ("conditional", True), ("", False), ("contested", False)]
)
def test_only_what_is_robust_or_has_its_conditions_is_recommended(
    verdict: Verdict, grade: str, recommended: bool
) -> None:
    one = graded(verdict, grade, "not shown: at z")
    assert advice(one, "supported", None, changes=False).startswith("Recommended") == recommended
    contradicted = advice(one, "supported", None, changes=False, contradicted=True)
    assert not contradicted.startswith("Recommended")


def test_grades_are_in_the_notebook_and_in_one_line(verdict: Verdict) -> None:
    one = graded(verdict, "robust", "holds in all 10 core rows")
    assert repr(one).startswith("Verdict(norm: supported, robust")
    html = Verdicts([one, dataclasses.replace(verdict, verdict="undecided")])._repr_html_()
    assert html.count(">robust<") == 1 and "holds in all 10 core rows" in html
    assert html.count('class="alignkit-badge"') == 3  # of what is undecided there is no grade
