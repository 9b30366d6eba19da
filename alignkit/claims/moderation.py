"""What was found of a claim at the levels of its moderators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignkit.study.hypotheses import Hypothesis

NAN = float("nan")


@dataclass(frozen=True)
class LevelEffect:
    """A claim's contrast at one level of a moderator, with its p for a difference and for equivalence.

    `differences` are its per-seed effects, in the order of `seeds`.
    """

    moderator: str
    level: str
    estimate: float = NAN
    interval: tuple[float, float] = (NAN, NAN)
    p: float = NAN
    p_equivalence: float = NAN
    n_seeds: int = 0
    seeds: tuple[Any, ...] = ()
    differences: tuple[float, ...] = ()


@dataclass(frozen=True)
class Moderation:
    """A hypothesis on a moderator, its p (the largest of its parts), and that adjusted within the family."""

    hypothesis: Hypothesis
    p: float
    p_adjusted: float = NAN
