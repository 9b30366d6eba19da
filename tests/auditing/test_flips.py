"""Max-T of the audit against that of the panels, which is another piece of code, and against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from alignkit.auditing.flips import chances
from alignkit.stats.contrasts.joint_flips import joint_p_values


def answers(questions: int, seeds: int, *, shift: float = 0.0, noise: int = 0) -> np.ndarray:
    generator = np.random.default_rng(noise)
    return shift + generator.normal(0, 1, (1, seeds)) + generator.normal(0, 0.7, (questions, seeds))


@pytest.mark.parametrize("shift", [-0.6, 0.0, 0.8])
@pytest.mark.parametrize("seeds", [6, 10])
def test_the_surest_question_has_the_p_of_the_step_down_procedure_and_no_other_has_less(
    shift: float, seeds: int
) -> None:
    values = answers(12, seeds, shift=shift)
    own, other = chances(values), joint_p_values(values.T, side=1)
    surest = int(np.argmin(own))
    assert own[surest] == pytest.approx(other[surest]) and other[surest] == other.min()
    assert (own >= other - 1e-12).all()


def test_of_one_question_it_is_the_exact_sign_flip_test() -> None:
    values = answers(1, 8, shift=0.5)
    means = [np.mean(values[0] * signs) for signs in itertools.product((1, -1), repeat=8)]
    assert chances(values)[0] == pytest.approx(np.mean(np.array(means) >= np.mean(values[0]) - 1e-12))


def test_seeds_without_an_answer_take_no_part() -> None:
    values = answers(1, 9, shift=0.7)
    lost = np.hstack([values, [[np.nan]]])
    assert chances(lost)[0] == pytest.approx(chances(values)[0])
    assert np.isnan(chances(np.vstack([lost[0], np.full(10, np.nan), np.zeros(10)]))[1:]).all()


def test_beyond_sixteen_seeds_signs_are_drawn() -> None:
    values = answers(3, 24, shift=0.9)
    assert (chances(values) <= 0.01).all() and (chances(-values) > 0.9).all()
    assert np.array_equal(chances(values), chances(values))


def test_questions_with_fewer_seeds_do_not_decide_what_is_extreme() -> None:
    """By t alone, five seeds that agree closely would be matched by every pattern under which they agree again."""
    values = answers(1, 10, shift=3.0)
    few = np.full((1, 10), np.nan)
    few[0, :5] = -3 + 0.05 * np.arange(5)
    assert chances(np.vstack([values, few]))[0] < 0.05


@pytest.mark.slow
def test_the_chance_of_any_false_contradiction_is_at_most_five_percent() -> None:
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(600):
        scale = np.exp(generator.normal(0, 1, (40, 1)))
        values = scale * (generator.normal(0, 1, (1, 10)) + generator.normal(0, 1, (40, 10)))
        wrong += bool((chances(values) < 0.05).any())
    assert wrong <= 600 * 0.05 + 3 * np.sqrt(600 * 0.05 * 0.95)
