"""The joint family of difference and equivalence tests against closed testing, and families by the array."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm, holm_joint


def closed_testing(difference: np.ndarray, equivalence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A null's adjusted p is the largest Bonferroni p of the sets of nulls that hold it and can all be true."""
    k = len(difference)
    p = {("D", i): difference[i] for i in range(k)} | {("E", i): equivalence[i] for i in range(k)}
    adjusted = dict.fromkeys(p, 0.0)
    for choice in itertools.product(("", "D", "E"), repeat=k):  # at most one null of a claim is true
        members = [(kind, i) for i, kind in enumerate(choice) if kind]
        if members:
            bonferroni = min(1.0, len(members) * min(p[member] for member in members))
            for member in members:
                adjusted[member] = max(adjusted[member], bonferroni)
    return (np.array([adjusted["D", i] for i in range(k)]), np.array([adjusted["E", i] for i in range(k)]))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_joint_step_down_is_closed_testing(k: int) -> None:
    generator = np.random.default_rng(k)
    for _ in range(100):
        p = np.round(generator.beta(0.4, 1.0, (2, k)), 2)  # rounded: ties and zeros too
        for found, expected in zip(holm_joint(p[0], p[1]), closed_testing(p[0], p[1]), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_joint_family_lies_between_bonferroni_over_claims_and_holm_over_each_kind() -> None:
    p = np.random.default_rng(0).beta(0.5, 1.0, (200, 2, 10))
    for found, alone in zip(holm_joint(p[:, 0], p[:, 1]), (p[:, 0], p[:, 1]), strict=True):
        assert (found >= holm(alone) - 1e-12).all() and (found >= alone).all()
        assert (found <= np.minimum(1, 20 * alone) + 1e-12).all()


def test_a_smaller_p_never_raises_an_adjusted_one() -> None:
    generator = np.random.default_rng(1)
    p = generator.uniform(0, 0.2, (300, 2, 5))
    lower = p.copy()
    lower[np.arange(300), generator.integers(0, 2, 300), generator.integers(0, 5, 300)] *= 0.3
    before, after = holm_joint(p[:, 0], p[:, 1]), holm_joint(lower[:, 0], lower[:, 1])
    assert all((new <= old + 1e-12).all() for new, old in zip(after, before, strict=True))
    order = np.argsort(np.hstack([p[:, 0], p[:, 1]]), axis=1)
    assert (np.diff(np.take_along_axis(np.hstack(before), order, axis=1), axis=1) >= -1e-12).all()


def test_two_holm_families_side_by_side_err_twice_as_often_and_the_joint_one_does_not() -> None:
    """Half of the claims have no effect, half lie at the margin; what is false there is certain to be rejected."""
    generator = np.random.default_rng(2)
    uniform, certain = generator.uniform(size=(20_000, 10)), np.full((20_000, 10), 1e-9)
    at_margin = np.arange(10) >= 5
    difference = np.where(at_margin, certain, uniform)
    equivalence = np.where(at_margin, uniform, certain)

    def error(adjusted: tuple[np.ndarray, np.ndarray]) -> float:
        wrong = np.where(at_margin, adjusted[1], adjusted[0]) < 0.05
        return float(wrong.any(axis=1).mean())

    bound = 2.576 * np.sqrt(0.05 * 0.95 / 20_000)
    assert error(holm_joint(difference, equivalence)) < 0.05 + bound
    assert error((holm(difference), holm(equivalence))) > 0.09


def test_a_test_that_was_not_made_stays_missing_and_counts() -> None:
    difference, equivalence = holm_joint([0.01, np.nan, 0.04], [np.nan, np.nan, 0.5])
    np.testing.assert_allclose(difference, [0.03, np.nan, 0.12])
    np.testing.assert_allclose(equivalence, [np.nan, np.nan, 1.0])
    assert all(len(adjusted) == 0 for adjusted in holm_joint([], []))
    with pytest.raises(AnalysisError, match=r"got shapes \(2,\) and \(1,\)"):
        holm_joint([0.1, 0.2], [0.1])


@pytest.mark.parametrize(("adjust", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_many_families_are_adjusted_each_alone(adjust, method: str) -> None:
    p = np.random.default_rng(3).uniform(0, 0.2, (4, 3, 6))
    p[0, 0, 2] = p[1, 1, :] = np.nan
    found = adjust(p, count_missing=False)
    for index in np.ndindex(4, 3):
        defined = np.isfinite(p[index])
        assert (np.isfinite(found[index]) == defined).all()
        if defined.any():
            np.testing.assert_allclose(found[index][defined], multipletests(p[index][defined], method=method)[1])
