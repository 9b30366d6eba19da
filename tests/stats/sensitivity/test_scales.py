"""Scales of alignment: identities, bounds, and what happens at them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.sensitivity.scales import bound_note, fisher_z, unit_share

COSINES = np.linspace(-0.99, 0.99, 41)


def test_the_logit_of_the_share_is_twice_fisher_s_transform_and_tests_alike() -> None:
    np.testing.assert_allclose(special.logit(unit_share(COSINES)), 2 * fisher_z(COSINES), atol=1e-12)
    z = fisher_z([0.1, 0.3, 0.2, 0.5, -0.1, 0.4])
    assert paired_test(2 * z).p == paired_test(z).p and paired_test(2 * z).p_t == pytest.approx(paired_test(z).p_t)


def test_at_the_bound_fisher_s_transform_is_refused_or_limited_openly() -> None:
    with pytest.raises(AnalysisError, match=r"got 2 of 3 at ±1, where atanh is infinite"):
        fisher_z([1.0, 0.2, -1.0 - 1e-12])
    np.testing.assert_allclose(fisher_z([1.0, 0.2, -1.0], limit=0.999), np.arctanh([0.999, 0.2, -0.999]))
    assert np.isnan(fisher_z([np.nan, 0.1])).tolist() == [True, False]
    with pytest.raises(AnalysisError, match="limit above 0"):
        fisher_z([0.1], limit=1.5)


def test_what_is_no_cosine_is_refused() -> None:
    with pytest.raises(AnalysisError, match=r"cosines within \[-1, 1\]; got 57.3 \(1 of 2 outside\)"):
        fisher_z([57.3, 0.2])
    assert unit_share([1 + 1e-12]) == 1.0  # rounding is no error


def test_bounds_are_noted_only_where_a_mean_is_near_one() -> None:
    means = pd.DataFrame({"a": [178.0, 176.0, 179.0], "b": [90.0, 95.0, 85.0]})
    assert "mean at a (177.7°)" in bound_note(means) and "180°" in bound_note(means) and "at b" not in bound_note(means)
    assert bound_note(means[["b"]]) == ""
    assert "100 points" in bound_note(pd.DataFrame({"x": [99.0, 98.0, 99.5]}), high=100.0, unit=" points")
