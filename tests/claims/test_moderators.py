"""On what a claim depends: each hypothesis has the largest p of its parts."""

from __future__ import annotations

import numpy as np
import pytest

from alignkit.claims.moderation import LevelEffect
from alignkit.claims.moderators import moderation_p
from alignkit.stats.contrasts.arrays import moments, tost_p
from alignkit.stats.contrasts.paired import paired_test, sign_flip_p
from alignkit.study.hypotheses import Hypothesis

SIZES = Hypothesis("differs in size", "norm", ("none", "batch"))
TURNS = Hypothesis("turns over", "norm", ("none", "batch"))


def _effect(level: str, differences: np.ndarray, *, margin: float = 10.0) -> LevelEffect:
    test = paired_test(differences)
    equivalence = float(tost_p(moments(differences), margin=margin))
    return LevelEffect(
        "norm", level, test.estimate, test.interval, test.p, equivalence, len(differences), tuple(range(10)),
        tuple(differences),
    )  # fmt: skip


def _pair(first: float, second: float) -> list[LevelEffect]:
    noise = np.random.default_rng(0).normal(size=(2, 10))
    return [_effect("none", first + noise[0]), _effect("batch", second + noise[1])]


def test_the_same_effect_at_both_levels_differs_in_no_size_though_both_are_supported_and_equivalent() -> None:
    first, second = _pair(5.0, 5.0)
    assert max(first.p, first.p_equivalence, second.p, second.p_equivalence) < 0.01
    between = np.subtract(first.differences, second.differences)
    assert moderation_p(SIZES, [first, second]) == sign_flip_p(between) > 0.1


def test_a_size_differs_where_one_level_is_supported_the_other_equivalent_and_the_two_differ() -> None:
    assert moderation_p(SIZES, _pair(15.0, 0.0)) < 0.01
    assert moderation_p(SIZES, _pair(15.0, 12.0)) > 0.9  # the second is not equivalent
    assert moderation_p(SIZES, _pair(0.0, 0.0)) > 0.1  # the first is not supported


def test_what_turns_over_has_two_signs() -> None:
    first, second = _pair(5.0, -5.0)
    assert moderation_p(TURNS, [first, second]) == max(first.p, second.p) < 0.01
    assert moderation_p(TURNS, _pair(5.0, 5.0)) == 1.0


@pytest.mark.parametrize("untested", [0, 1])
@pytest.mark.parametrize("hypothesis", [SIZES, TURNS], ids=["sizes", "turns"])
def test_a_level_that_was_not_tested_leaves_no_p(hypothesis: Hypothesis, untested: int) -> None:
    pair = _pair(5.0, -5.0)
    pair[untested] = LevelEffect("norm", pair[untested].level, estimate=pair[untested].estimate)
    assert np.isnan(moderation_p(hypothesis, pair))
