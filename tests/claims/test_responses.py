"""Ranges and scales of responses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from alignkit.claims.responses import alignment_scales, log_odds, response_bounds, scales_of
from alignkit.errors import AnalysisError


def test_ranges_of_responses() -> None:
    assert response_bounds("delta_cosine") == (-1.0, 1.0) and response_bounds("test_accuracy") == (0.0, 100.0)
    assert response_bounds("signal_angle_deg_excess") == (-180.0, 180.0)
    with pytest.raises(AnalysisError, match="State its bounds yourself"):
        response_bounds("effective_rank")


def test_scales_agree_on_direction_through_their_orientation() -> None:
    sharper, blunter = 50.0, 70.0
    for scale in alignment_scales():
        values = [sharper, blunter] if scale.name == "degrees" else np.cos(np.radians([sharper, blunter]))
        first, second = scale.transform(values)
        assert np.sign(second - first) * scale.orientation == 1


def test_a_response_has_its_own_scale_first() -> None:
    for response in ("signal_angle_deg", "signal_cosine", "test_accuracy", "accuracy_gap", "effective_rank"):
        first = scales_of(response)[0]
        assert first.response == response and first.orientation == 1 and first.transform([7.0]) == 7.0


def test_log_odds_are_those_of_shares_and_refused_at_a_bound() -> None:
    np.testing.assert_allclose(log_odds([10.0, 50.0]), special.logit([0.1, 0.5]))
    with pytest.raises(AnalysisError, match="got 1 of 2 at a bound"):
        log_odds([100.0, 50.0])
