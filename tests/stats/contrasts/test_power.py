"""Power against R, statsmodels, closed forms and simulation with the public tests."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import sign_flip_p
from alignkit.stats.contrasts.power import (
    detectable_effect,
    difference_power,
    equivalence_power,
    nested_power,
    seeds_for_equivalence,
    seeds_needed,
)

R: dict[str, Any] = json.loads((Path(__file__).parents[2] / "oracles" / "power.json").read_text())


@pytest.mark.parametrize("case", R["difference"])
def test_many_seeds_have_the_power_of_r_and_statsmodels(case: dict[str, float]) -> None:
    n, effect, alpha = int(case["n"]), case["effect"], case["alpha"]
    result = difference_power(n, effect=3 * effect, sd=3.0, alpha=alpha)
    assert result.power == pytest.approx(case["power"], abs=1e-9) and result.simulation_error == 0
    assert result.power == pytest.approx(TTestPower().power(effect, n, alpha / 2, alternative="larger"), abs=1e-9)
    in_family = difference_power(n, effect=effect, sd=1.0, alpha=5 * alpha, family_size=5)
    assert in_family.power == pytest.approx(result.power)


@pytest.mark.parametrize("case", R["seeds"])
def test_many_seeds_are_as_many_as_r_asks_for(case: dict[str, float]) -> None:
    result = seeds_needed(effect=case["effect"], sd=1.0, alpha=case["alpha"], power=case["power"])
    assert result.n_seeds == math.ceil(case["n"]) and result.power >= case["power"]


@pytest.mark.parametrize("case", R["equivalence"])
def test_equivalence_power_is_that_of_r(case: dict[str, float]) -> None:
    options = {name: case[name] for name in ("margin", "effect", "alpha")}
    assert equivalence_power(int(case["n"]), sd=1.0, **options).power == pytest.approx(case["power"], abs=1e-6)


@pytest.mark.parametrize(("n", "family"), [(6, 1), (9, 10)])
def test_at_the_fewest_seeds_all_signs_must_agree(n: int, family: int) -> None:
    for effect in (0.5, 1.0, 2.0):
        result = difference_power(n, effect=effect, sd=1.0, family_size=family)
        closed = scipy_stats.norm.cdf(effect) ** n
        assert abs(result.power - closed) < 4 * result.simulation_error + 1e-4
    # What the t test's formula would promise is far more.
    assert TTestPower().power(1.5, n, 0.05 / family / 2, alternative="larger") > closed_power(1.5, n) + 0.1


def closed_power(effect: float, n: int) -> float:
    return float(scipy_stats.norm.cdf(effect) ** n)


@pytest.mark.parametrize(("n", "family"), [(7, 1), (10, 4)])
def test_few_seeds_have_the_power_that_the_public_test_shows(n: int, family: int) -> None:
    differences = np.random.default_rng(11).normal(1.2, 1.0, (2000, n))
    found = np.mean([sign_flip_p(row) < 0.05 / family and row.mean() > 0 for row in differences])
    result = difference_power(n, effect=-1.2, sd=1.0, family_size=family)  # the sign of the effect is no matter
    error = np.hypot(np.sqrt(found * (1 - found) / 2000), result.simulation_error)
    assert abs(result.power - found) < 3.5 * error


def test_equivalence_is_declared_as_often_as_the_public_test_does() -> None:
    differences = np.random.default_rng(5).normal(0.3, 1.0, (2000, 9))
    found = np.mean([equivalence_test(row, margin=1.2, alpha=0.025).equivalent for row in differences])
    power = equivalence_power(9, margin=1.2, sd=1.0, effect=0.3, family_size=2).power
    assert abs(power - found) < 3.5 * np.sqrt(power * (1 - power) / 2000)


@pytest.mark.parametrize("family", [1, 3])
def test_no_fewer_seeds_would_do(family: int) -> None:
    enough = seeds_needed(effect=1.1, sd=1.0, family_size=family)
    assert enough.power >= 0.8
    assert difference_power(enough.n_seeds - 1, effect=1.1, sd=1.0, family_size=family).power < 0.8
    # An enormous effect still needs as many seeds as the smallest attainable p asks for.
    assert seeds_needed(effect=50.0, sd=1.0, family_size=family).n_seeds == {1: 6, 3: 7}[family]
    within = seeds_for_equivalence(margin=1.0, sd=1.0, family_size=family)
    assert within.power >= 0.8
    assert equivalence_power(within.n_seeds - 1, margin=1.0, sd=1.0, family_size=family).power < 0.8
    assert seeds_for_equivalence(margin=50.0, sd=1.0, family_size=family).n_seeds == {1: 6, 3: 7}[family]


def test_a_detectable_effect_is_the_one_that_needs_these_seeds() -> None:
    for n, family in ((6, 1), (9, 5), (30, 1)):
        result = detectable_effect(n, sd=2.0, family_size=family)
        assert result.power == pytest.approx(0.8, abs=0.005)
        assert seeds_needed(effect=1.01 * result.effect, sd=2.0, family_size=family).n_seeds <= n
    # Six seeds: all signs agree with the chance that is asked for.
    exact = scipy_stats.norm.ppf(0.8 ** (1 / 6))
    assert detectable_effect(6, sd=1.0).effect == pytest.approx(exact, rel=0.01)
    assert detectable_effect(6, sd=1.0).standardised == pytest.approx(exact, rel=0.01)


def test_a_nested_design_without_losses_has_the_power_of_its_contrast() -> None:
    design = {"seed_by_factor_sd": 0.6, "run_sd": 1.0, "cells": 8, "layer_sd": 0.8, "layers": 4}
    sd = np.sqrt(0.6**2 + 2 * (1.0 + 0.8**2 / 4) / 8)
    for n in (8, 20):
        whole = nested_power(n, effect=0.8, **design)
        assert whole.sd == pytest.approx(sd)
        expected = difference_power(n, effect=0.8, sd=sd).power
        assert abs(whole.power - expected) < 3.5 * whole.simulation_error + 0.01


def test_lost_seeds_leave_the_test_of_those_that_remain() -> None:
    """With one cell and no noise of seeds, n is binomial and the power a mixture over it."""
    n, missing = 9, 0.2
    result = nested_power(n, effect=2.0, seed_by_factor_sd=0.0, run_sd=1.0, cells=1, missing=missing)
    kept = scipy_stats.binom.pmf(np.arange(n + 1), n, (1 - missing) ** 2)
    expected = sum(
        share * difference_power(k, effect=2.0, sd=np.sqrt(2)).power for k, share in enumerate(kept) if k >= 6
    )
    assert abs(result.power - expected) < 3.5 * result.simulation_error + 0.005


def test_power_is_repeatable_and_makes_a_row() -> None:
    first, second = (difference_power(8, effect=1.0, sd=1.0, seed=3) for _ in range(2))
    assert first.power == second.power != difference_power(8, effect=1.0, sd=1.0, seed=4).power
    row = first.to_frame().iloc[0]
    assert (row["n_seeds"], row["test"], row["power"]) == (8, "difference", first.power)


def test_questions_without_an_answer_are_refused() -> None:
    with pytest.raises(AnalysisError, match=r"family of 10 needs ≥ 9 seeds.*got 8"):
        difference_power(8, effect=1.0, sd=1.0, family_size=10)
    with pytest.raises(AnalysisError, match="effect other than 0; got 0"):
        seeds_needed(effect=0.0, sd=1.0)
    with pytest.raises(AnalysisError, match="margin above 0; got -1"):
        seeds_for_equivalence(margin=-1.0, sd=1.0)
    with pytest.raises(AnalysisError, match="effect inside the margin of 1; got 1"):
        seeds_for_equivalence(margin=1.0, sd=1.0, effect=1.0)
    with pytest.raises(AnalysisError, match="sd of the per-seed contrast above 0; got nan"):
        detectable_effect(10, sd=float("nan"))
    with pytest.raises(AnalysisError, match="power between alpha and 1; got 80"):
        seeds_needed(effect=1.0, sd=1.0, power=80)
    with pytest.raises(AnalysisError, match="100,000 seeds or fewer"):
        seeds_needed(effect=1e-4, sd=1.0)
    with pytest.raises(AnalysisError, match="cells=0"):
        nested_power(10, effect=1.0, seed_by_factor_sd=1.0, run_sd=0.0, cells=0)
