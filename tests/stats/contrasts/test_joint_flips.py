"""Questions asked of the same seeds, judged together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import sign_flip_p_values
from alignkit.stats.contrasts.joint_flips import joint_p_values, simultaneous_intervals


def _t(values: np.ndarray) -> float:
    return values.mean() / (values.std(ddof=1) / np.sqrt(len(values)))


def test_one_question_has_the_exact_sign_flip_p():
    values = np.random.default_rng(1).normal(0.5, 1.0, size=(9, 1))
    assert joint_p_values(values)[0] == pytest.approx(sign_flip_p_values(values[:, 0][None])[0])


def test_several_questions_are_a_step_down_over_the_largest_t():
    values = np.random.default_rng(2).normal([1.2, 0.6, 0.0], 1.0, size=(7, 3))
    patterns = [np.array(signs) for signs in itertools.product([1, -1], repeat=7)]
    t = np.array([[abs(_t(signs * values[:, row])) for row in range(3)] for signs in patterns])
    observed = t[0]
    order, wanted, before = np.argsort(-observed), np.empty(3), 0.0
    for step, row in enumerate(order):
        share = np.mean(t[:, order[step:]].max(axis=1) >= observed[row] - 1e-9)
        before = wanted[row] = max(before, share)
    assert joint_p_values(values) == pytest.approx(wanted)


def test_a_side_asks_for_its_sign_alone():
    values = np.abs(np.random.default_rng(3).normal(2.0, 0.5, size=(8, 2)))
    above, below = joint_p_values(values, side=1), joint_p_values(values, side=-1)
    assert above.max() <= 0.01
    assert below.min() == 1.0


def test_the_same_question_asked_twice_costs_nothing_and_another_scale_changes_nothing():
    values = np.random.default_rng(4).normal(0.8, 1.0, size=(10, 1))
    once = joint_p_values(values)[0]
    assert joint_p_values(np.hstack([values, 1e6 * values])) == pytest.approx([once, once])


def test_rows_that_say_nothing_have_no_p_and_missing_seeds_are_left_out():
    values = np.random.default_rng(5).normal(1.0, 0.3, size=(8, 4))
    values[2:, 1] = np.nan  # two seeds
    values[:, 2] = 0.0
    values[0, 3] = np.nan
    p = joint_p_values(values)
    assert np.isnan(p[[1, 2]]).all()
    assert p[[0, 3]] == pytest.approx(joint_p_values(values[:, [0, 3]]))
    assert np.isnan(joint_p_values(np.full((5, 2), np.nan))).all()


def test_many_seeds_are_drawn_and_agree_with_the_t_test():
    values = np.random.default_rng(6).normal(0.55, 1.0, size=(25, 1))
    p = joint_p_values(values)[0]
    assert p == joint_p_values(values)[0]
    assert p == pytest.approx(sign_flip_p_values(values[:, 0][None])[0], abs=0.01)


def test_an_array_of_other_dimensions_is_refused():
    with pytest.raises(AnalysisError, match=r"\[seeds, rows\]"):
        joint_p_values(np.ones(4))


def test_correlated_nulls_are_rejected_no_more_often_than_they_may_be():
    generator, wrong, studies = np.random.default_rng(7), 0, 400
    for _ in range(studies):
        values = generator.normal(size=(8, 1)) + 0.7 * generator.normal(size=(8, 6))
        wrong += bool((joint_p_values(values) <= 0.05).any())
    assert wrong <= 35  # 99.9% bound of a binomial with p = .05


def test_simultaneous_intervals_are_wider_than_one_at_a_time_and_cover():
    generator, studies, covered = np.random.default_rng(8), 300, 0
    for _ in range(studies):
        values = generator.normal([1.0, -2.0, 0.5, 0.0], [1, 3, 0.5, 2], size=(10, 4))
        low, high = simultaneous_intervals(values)
        covered += bool(((low <= [1.0, -2.0, 0.5, 0.0]) & (high >= [1.0, -2.0, 0.5, 0.0])).all())
    assert covered >= 268  # 95% less 3 standard errors
    assert np.isnan(simultaneous_intervals(np.full((2, 1), 1.0))[0]).all()
