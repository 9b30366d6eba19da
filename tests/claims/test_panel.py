"""A claim asked again in every defensible way: which rows grade it, and what they make of its verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignkit.calibration.tuned import tuned_study
from alignkit.claims.panel import Answer, Panel, grade
from alignkit.claims.verdict import Verdict
from alignkit.stats.contrasts.arrays import moments, tost_p
from alignkit.stats.contrasts.paired import paired_test
from alignkit.study.panel import panel_of

STUDY = tuned_study(10, 2.0)
CLAIM = STUDY.claims[2]
QUESTIONS = panel_of(CLAIM, STUDY)
NOISE = np.random.default_rng(0).normal(size=(len(QUESTIONS), 10))


def _answer(row: int, mean: float, *, spread: float = 0.2) -> Answer:
    differences = mean + spread * (NOISE[row] - NOISE[row].mean())
    test = paired_test(differences)
    p = float(tost_p(moments(differences), margin=2.0))
    return Answer(
        QUESTIONS[row], test.estimate, test.interval, test.p, p, 10, 4, tuple(range(10)), tuple(differences)
    )  # fmt: skip


def _graded(means: dict[str, float], *, elsewhere: float, verdict: str, spread: float = 0.2) -> Panel:
    answers = tuple(
        _answer(row, means.get(question.key, elsewhere), spread=0.0 if question.key in means else spread)
        for row, question in enumerate(QUESTIONS)
    )
    made = Verdict(CLAIM, verdict, "", ("0", "0.1"), "°", "practices", estimate=elsewhere)  # type: ignore[arg-type]
    (panel,) = grade([Panel(CLAIM, answers)], [made], alpha=0.05)
    return panel


def test_one_rate_for_all_seeds_is_shown_and_grades_nothing() -> None:
    by = {question.key: question for question in QUESTIONS}
    assert not by["common"].graded and not by["common"].core and "no interval" in by["common"].why
    assert all(by[key].core for key in ("declared", "best", "equal-step", "step", "delta-eval"))
    assert not by["layer-first"].core and by["layer-first"].graded
    against = _graded({"common": 5.0}, elsewhere=-5.0, verdict="supported")
    assert against.grade == "robust" and "common" not in {answer.question.key for answer in against.core}


@pytest.mark.parametrize(("key", "grade"), [("delta-eval", "contested"), ("layer-last", "contested")])
def test_a_graded_row_that_opposes_contests_a_verdict(key: str, grade: str) -> None:
    panel = _graded({key: 5.0}, elsewhere=-5.0, verdict="supported")
    assert panel.grade == grade and len(panel.opposite) == 1


def test_a_row_that_is_exactly_zero_is_equivalent_without_a_test() -> None:
    zero = _answer(1, 0.0, spread=0.0)
    assert zero.exactly_zero and np.isnan(zero.p_equivalence)
    assert _graded({"delta-batch": 0.0}, elsewhere=0.1, verdict="equivalent").grade == "robust"
    assert _graded({"delta-batch": 0.0}, elsewhere=-5.0, verdict="supported").grade == "conditional"


def test_a_core_row_without_a_test_of_equivalence_is_in_no_robust_verdict() -> None:
    answers = [_answer(row, 0.1) for row in range(len(QUESTIONS))]
    answers[3] = replace(answers[3], p_equivalence=float("nan"))
    made = Verdict(CLAIM, "equivalent", "", ("0", "0.1"), "°", "practices", estimate=0.1)
    (panel,) = grade([Panel(CLAIM, tuple(answers))], [made], alpha=0.05)
    assert panel.grade == "conditional"
