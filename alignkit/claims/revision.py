"""The notice above verdicts that another sensible question turns over."""

from __future__ import annotations

from collections.abc import Iterable

from alignkit.study.claim import Claim

FACTORS = frozenset({"activation", "feedback_normalised", "norm", "unit", "width"})
"""Factors whose verdicts hang on where the angle is taken, or at which learning rate."""

NOTICE = (
    "Verdicts on batch norm, tanh, feedback normalisation and width are under revision.",
    "They rest on one angle, taken after the activation under the statistics of the probe batch, at one tuned "
    "learning rate.",
    "At the weight gradient, in evaluation mode or at another rate some of them turn over: batch norm, called refuted "
    "here, then aligns better in ReLU networks and makes next to no difference in tanh networks.",
)
"""What is revised, and why in two sentences."""


def notice(claims: Iterable[Claim]) -> tuple[str, ...]:
    """The notice, where one of the claims is about such a factor and the angle at the layer's output; else nothing."""
    concerned = any(claim.factor in FACTORS and claim.response.startswith("signal_") for claim in claims)
    return NOTICE if concerned else ()
