"""Simulated studies that tune themselves: arrays and records agree, grades and moderators are in bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignkit.calibration import grades
from alignkit.calibration.grades import (
    LARGE,
    MARGIN,
    Family,
    contrast_sd,
    evaluate_grades,
    evaluate_tuned,
    true_contrasts,
)
from alignkit.calibration.run import EVALUATIONS
from alignkit.calibration.scenarios import DIVERGING, GRID, SKEWED, Scenario
from alignkit.calibration.tuned import (
    CLAIMS,
    LEVELS,
    NOT_ALIGNED,
    RATES,
    contrasts,
    counting_rates,
    mean_over_rates,
    tuned_records,
    tuned_studies,
    tuned_study,
)
from alignkit.claims.verdicts import evaluate, panels_of
from alignkit.records.tuning import chosen_rates

VARYING = Scenario(10, effect_sd=0.5)
MOST_OF_100 = 12
"""A binomial of 100 at 5% is above this in .15% of samples."""


@pytest.fixture(scope="module")
def family() -> Family:
    margin = MARGIN * contrast_sd(VARYING) / np.sqrt(10)
    return Family(tuned_studies(VARYING, 100, np.random.default_rng(1)), tuned_study(10, margin))


def test_what_was_found_on_arrays_is_what_the_records_say() -> None:
    study = tuned_study(10, 2.0)
    of = tuned_studies(VARYING, 1, np.random.default_rng(0)).shifted(np.array([-4.0, 0.0, 2.5]))
    family = Family(of, study)
    found = family.judged(family.rows, family.levels)
    records = tuned_records(of, 0, study)
    panels = panels_of(records)
    rows = [[answer.differences for answer in panel.answers] for panel in panels]
    np.testing.assert_allclose(rows, family.rows[0], rtol=1e-9, atol=1e-9)
    assert [verdict.verdict for verdict in evaluate(records)] == list(found.verdicts[0])
    assert [panel.grade for panel in panels] == list(found.grades[0])
    for question in family.questions:
        counts = chosen_rates(records.runs, question.rates).to_numpy()
        np.testing.assert_array_equal(counts, counting_rates(of, question.rates)[0].ravel())
    assert set(found.verdicts.ravel()) == {"supported", "equivalent", "refuted"}


def test_an_effect_is_found_where_it_was_put() -> None:
    effects = np.array([-4.0, 1.0, 0.5])
    of = tuned_studies(replace(VARYING, n_seeds=400), 1, np.random.default_rng(0)).shifted(effects)
    for how in ("within", "best"):
        found = contrasts(mean_over_rates(of.angle[0], counting_rates(of, how)))[0].mean(axis=-1)
        np.testing.assert_allclose(found, effects, atol=0.2)  # some three standard errors
    assert LEVELS.shape == (8, len(CLAIMS)) and (LEVELS.mean(axis=0) == 0.5).all()


def test_grades_and_moderators_are_in_bounds_and_are_given_where_they_are_true(family: Family) -> None:
    sd, margin = contrast_sd(VARYING), family.study.claims[0].smallest_effect
    elsewhere_nothing = family.with_effects(at={"declared": -LARGE * sd})
    assert elsewhere_nothing.any_grade("contested").sum() <= MOST_OF_100
    hidden = [{key: 0.0} for key in family.core[-len(CLAIMS) :]]
    assert family.with_effects(-LARGE * sd, at=hidden).any_grade("robust").sum() <= MOST_OF_100
    opposed = family.with_effects(-LARGE * sd, at={family.core[1]: 3 * sd})
    assert (opposed.grades == "contested").mean() > 0.9
    assert (family.with_effects(-LARGE * sd).grades == "robust").mean() > 0.9
    wide = family.with_margin(3 * margin)
    assert wide.with_effects(-1.5 * margin, grades=False).depends.sum() <= MOST_OF_100
    assert family.with_effects(levels=(-4 * sd, 4 * sd), grades=False).depends.mean() > 0.9


def test_every_figure_of_a_batch_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grades, "TRUE_OVER", 500)
    scenario = Scenario(10, effect_sd=0.25)  # no other test's: true values are kept
    found = [
        *evaluate_grades(scenario, 3, np.random.default_rng(0)),
        *evaluate_tuned(scenario, 3, np.random.default_rng(0)),
    ]
    by = {(of.method, of.quantity): of for of in found}
    assert len(by) == len(found) and {of.section for of in found} == {"tuned", "power of grades", "comparison"}
    same = by["records to grades", "same numbers"]
    assert (same.hits, same.trials, same.target, same.side) == (2, 2, 1.0, "equal")


def test_rates_that_are_shared_miss_the_truth_and_own_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grades, "TRUE_OVER", 5_000)
    scenario = Scenario(10, effect_sd=0.4)
    found = {of.method: of for of in grades._coverage(scenario, 400, np.random.default_rng(2))}
    own = found["tuned contrast, each seed its own rates"]
    pilot = found["tuned contrast, one rate for all, by a pilot of 3 seeds"]
    assert own.hits / own.trials > 0.91 and pilot.hits / pilot.trials < 0.8
    assert (own.section, pilot.section) == ("tuned", "comparison")
    assert 1 < true_contrasts(scenario)["each seed its own rates"] < 3  # two degrees a rate, and rates one apart


def test_a_rate_that_diverged_is_left_out_and_an_arm_that_diverged_everywhere_did_not_align() -> None:
    of = tuned_studies(VARYING, 1, np.random.default_rng(0))
    alive = of.alive.copy()
    best = of.accuracy[0, 0, 0].argmax()
    alive[0, 0, 0, best] = alive[0, 0, 1] = False
    broken = replace(of, alive=alive)
    counts = counting_rates(broken, "within")[0, 0]
    assert counting_rates(of, "within")[0, 0, 0, best] and not counts[0, best] and counts[0].any()
    assert mean_over_rates(broken.angle[0], counting_rates(broken, "within"))[0, 0, 1] == NOT_ALIGNED
    study = tuned_study(10, 2.0)
    records = tuned_records(broken, 0, study)
    assert records.runs["diverged"].sum() == len(RATES) + 1
    declared = [panel.answers[0].differences for panel in panels_of(records)]
    np.testing.assert_allclose(declared, Family(broken, study).rows[0, :, 0], rtol=1e-9, atol=1e-9)


def test_tuned_studies_are_complete_and_of_ten_or_twenty_seeds() -> None:
    every = (*GRID, *DIVERGING, *SKEWED)
    for name in ("tuned", "grades"):
        assert [of for of in every if EVALUATIONS[name].applies(of)] == [Scenario(10), VARYING]
    assert [of for of in every if EVALUATIONS["tuned, many seeds"].applies(of)] == [Scenario(20, 0.5)]
