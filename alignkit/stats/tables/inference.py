"""What a result takes over from the test that it rests on."""

from __future__ import annotations

from typing import Any

INFERENCE = ("estimate", "interval", "p", "df", "n_seeds")


def inference_of(test: Any) -> dict[str, Any]:
    """Estimate, interval, p, df and number of seeds of a test, by the names that all results give them.

    >>> from alignkit.stats.contrasts.paired import paired_test
    >>> inference_of(paired_test([1.0, 2.0, 4.0]))["p"]
    0.25
    """
    return {name: getattr(test, name) for name in INFERENCE}
