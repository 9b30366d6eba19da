"""What a change of an angle is worth by a dose-response curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.curves.stakes import decrease_worth, worth

DOSES = np.array([0.0, 30, 60, 75, 90])


def curves(generator: np.random.Generator, *, seeds: int = 8, noise: float = 0.5) -> pd.DataFrame:
    """Flat up to 60°, then a point per three degrees."""
    truth = 96 - np.maximum(DOSES - 60, 0) / 3
    return pd.DataFrame(truth + generator.normal(0, noise, (seeds, len(DOSES))), columns=DOSES)


def test_the_curve_is_read_cell_by_cell() -> None:
    exact = curves(np.random.default_rng(0), noise=0)
    before = np.tile([[40.0, 84.0]], (3, 1))
    found = worth(exact, before, np.full((3, 2), 62.0))
    assert found.estimate == pytest.approx(((0 - 2 / 3) + (24 / 3 - 2 / 3)) / 2)
    assert found.interval == pytest.approx((found.estimate, found.estimate))
    assert worth(exact, before, before).estimate == 0


def test_without_spread_in_the_angles_the_interval_is_that_of_the_curves_seeds() -> None:
    some = curves(np.random.default_rng(1))
    found = worth(some, np.full((4, 1), 90.0), np.full((4, 1), 75.0))
    test = paired_test(some[75.0] - some[90.0])
    assert (found.estimate, *found.interval) == pytest.approx((test.estimate, *test.interval))


def test_without_spread_in_the_curves_it_is_that_of_the_studys_seeds() -> None:
    generator = np.random.default_rng(2)
    exact = curves(generator, noise=0)
    angles = generator.uniform(61, 89, (6, 1))
    found = worth(exact, np.full((6, 1), 90.0), angles)
    test = paired_test((90 - angles[:, 0]) / 3)
    assert (found.estimate, *found.interval) == pytest.approx((test.estimate, *test.interval))


def test_the_interval_holds_both_uncertainties() -> None:
    generator, n = np.random.default_rng(3), 300
    inside = 0
    for _ in range(n):
        before = 84 + generator.normal(0, 1, (8, 4))
        after = 70 + generator.normal(0, 1, (8, 4))
        found = worth(curves(generator), before, after)
        inside += found.interval[0] <= 14 / 3 <= found.interval[1]
    assert inside / n >= 0.95 - 3 * (0.95 * 0.05 / n) ** 0.5


def test_angles_beyond_the_ends_are_read_there_and_counted() -> None:
    exact = curves(np.random.default_rng(0), noise=0)
    found = worth(exact, [[95.0, 80.0]] * 2, [[90.0, 80.0]] * 2)
    assert (found.estimate, found.clipped) == (0, 0.25)


def test_the_decrease_that_gains_a_point() -> None:
    exact = curves(np.random.default_rng(0), noise=0)
    assert decrease_worth(exact, angle=84, gain=1.0) == pytest.approx(3)
    assert decrease_worth(exact, angle=90, gain=4.0) == pytest.approx(12)
    assert decrease_worth(exact, angle=95, gain=4.0) == pytest.approx(12)
    assert np.isnan(decrease_worth(exact, angle=62, gain=1.0))
    assert np.isnan(decrease_worth(exact, angle=20, gain=0.1))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], "two seeds or more"),
        ([[1.0], [2.0]], [[1.0], [np.nan]], "missing"),
        ([[1.0], [2.0]], [[1.0, 2.0], [2.0, 3.0]], "the same before and after"),
    ],
)
def test_bad_angles_are_refused(before: list, after: list, words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        worth(curves(np.random.default_rng(0)), before, after)


def test_one_curve_is_too_few() -> None:
    with pytest.raises(AnalysisError, match="curves of two seeds"):
        worth(curves(np.random.default_rng(0), seeds=1), [[1.0], [2.0]], [[1.0], [2.0]])
