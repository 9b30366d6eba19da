"""Scales of alignment: identities, bounds, and what happens at them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.sensitivity.scales import alignment_scales, bound_note, cosine_of, degrees_of, fisher_z, unit_share

COSINES = np.linspace(-0.99, 0.99, 41)


def test_angles_and_cosines_are_inverses() -> None:
    np.testing.assert_allclose(cosine_of(degrees_of(COSINES)), COSINES, atol=1e-15)
    np.testing.assert_allclose(degrees_of([1.0, 0.5, 0.0, -1.0]), [0.0, 60.0, 90.0, 180.0], atol=1e-12)


def test_the_angle_of_a_mean_cosine_is_not_the_mean_angle() -> None:
    sharp, blunt = np.array([20.0, 80.0]), np.array([100.0, 160.0])
    assert degrees_of(cosine_of(sharp).mean()) > sharp.mean()
    assert degrees_of(cosine_of(blunt).mean()) < blunt.mean()


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


def test_what_is_no_cosine_or_angle_is_refused() -> None:
    with pytest.raises(AnalysisError, match=r"cosines within \[-1, 1\]; got 57.3 \(1 of 2 outside\)"):
        fisher_z([57.3, 0.2])
    with pytest.raises(AnalysisError, match=r"angles in degrees within \[0, 180\]; got -1"):
        cosine_of([-1.0])
    assert unit_share([1 + 1e-12]) == 1.0  # rounding is no error


def test_scales_agree_on_direction_through_their_orientation() -> None:
    sharper, blunter = 50.0, 70.0
    for scale in alignment_scales():
        values = [sharper, blunter] if scale.name == "degrees" else cosine_of([sharper, blunter])
        first, second = scale.transform(values)
        assert np.sign(second - first) * scale.orientation == 1


def test_bounds_are_noted_only_where_a_mean_is_near_one() -> None:
    means = pd.DataFrame({"a": [178.0, 176.0, 179.0], "b": [90.0, 95.0, 85.0]})
    assert "mean at a (177.7°)" in bound_note(means) and "180°" in bound_note(means) and "at b" not in bound_note(means)
    assert bound_note(means[["b"]]) == ""
    assert "100 points" in bound_note(pd.DataFrame({"x": [99.0, 98.0, 99.5]}), high=100.0, unit=" points")
