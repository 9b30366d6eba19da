"""Adjusted p-values against closed testing written out, and what holds of every family."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm, holm_joint

TIED = st.sampled_from([0.0, 0.01, 0.02, 0.025, 0.04, 0.05, 0.5, 1.0])
P_VALUES = st.one_of(st.floats(0, 1), TIED, st.just(float("nan")))
FAMILIES = st.lists(P_VALUES, min_size=1, max_size=6)
JOINT = st.lists(st.tuples(P_VALUES, P_VALUES), min_size=1, max_size=4)


def closed(p: Sequence[float], may_be_true: Callable[[Sequence[int]], bool] = lambda nulls: True) -> np.ndarray:
    """A null's adjusted p: the largest Bonferroni p of the sets of nulls that hold it and can all be true."""
    counted = np.where(np.isnan(p), 1.0, p)
    adjusted = np.zeros(len(counted))
    for size in range(1, len(counted) + 1):
        for nulls in itertools.combinations(range(len(counted)), size):
            if may_be_true(nulls):
                of_set = min(1.0, size * min(counted[null] for null in nulls))
                adjusted[list(nulls)] = np.maximum(adjusted[list(nulls)], of_set)
    return np.where(np.isnan(p), np.nan, adjusted)


def joint(p: Sequence[tuple[float, float]]) -> np.ndarray:
    """Both kinds of a joint family, one after the other."""
    return np.concatenate(holm_joint(*np.array(p).T))


def rises_with(p: np.ndarray, adjusted: np.ndarray) -> bool:
    order = np.argsort(p[~np.isnan(p)], kind="stable")
    return bool((np.diff(adjusted[~np.isnan(p)][order]) >= 0).all())


@given(FAMILIES)
def test_holm_is_closed_testing(p: list[float]) -> None:
    np.testing.assert_allclose(holm(p), closed(p), rtol=1e-12, atol=0)
    made = [value for value in p if not np.isnan(value)]
    np.testing.assert_allclose(holm(p, count_missing=False)[~np.isnan(p)], closed(made), rtol=1e-12, atol=0)


@given(JOINT)
def test_the_joint_family_is_closed_testing_where_a_claim_has_one_true_null(p: list[tuple[float, float]]) -> None:
    k = len(p)
    both = np.array(p).T.ravel()
    expected = closed(both, lambda nulls: len({null % k for null in nulls}) == len(nulls))
    np.testing.assert_allclose(joint(p), expected, rtol=1e-12, atol=0)


@given(FAMILIES)
def test_false_discoveries_by_their_definition(p: list[float]) -> None:
    """The smallest rate q at which a test is among the discoveries: j tests lie below j q / m, and it is one of them."""
    made = [value for value in p if not np.isnan(value)]
    expected = [
        min(1.0, *(len(made) * other / sum(third <= other for third in made) for other in made if other >= value), 1.0)
        for value in made
    ]
    np.testing.assert_allclose(benjamini_hochberg(p)[~np.isnan(p)], expected, rtol=1e-12, atol=0)


@given(FAMILIES, JOINT)
def test_no_adjusted_p_is_below_its_own_and_their_order_is_kept(
    p: list[float], pairs: list[tuple[float, float]]
) -> None:
    both = np.array(pairs).T.ravel()
    for raw, adjusted in ((p, holm(p)), (p, benjamini_hochberg(p)), (both, joint(pairs))):
        raw = np.array(raw)
        assert (np.isnan(adjusted) == np.isnan(raw)).all() and (adjusted[~np.isnan(raw)] <= 1).all()
        assert (adjusted >= raw * (1 - 1e-15))[~np.isnan(raw)].all() and rises_with(raw, adjusted)


@given(FAMILIES, JOINT, st.randoms(use_true_random=False))
def test_the_order_in_which_tests_are_named_does_not_matter(
    p: list[float], pairs: list[tuple[float, float]], random
) -> None:
    order = random.sample(range(len(p)), len(p))
    for adjust in (holm, benjamini_hochberg):
        np.testing.assert_array_equal(adjust([p[i] for i in order]), adjust(p)[order])
    order = random.sample(range(len(pairs)), len(pairs))
    np.testing.assert_array_equal(joint([pairs[i] for i in order]), joint(pairs).reshape(2, -1)[:, order].ravel())


@given(FAMILIES, st.integers(0, 5), st.floats(0, 1))
def test_a_smaller_p_raises_no_adjusted_one(p: list[float], which: int, share: float) -> None:
    lower = list(p)
    lower[which % len(p)] *= share
    for adjust in (holm, benjamini_hochberg):
        before, after = adjust(p), adjust(lower)
        assert (np.isnan(before) | (after <= before)).all()
