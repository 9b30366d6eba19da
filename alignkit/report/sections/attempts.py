"""What sections do alike: a result for each claim or rule, with a line for each that has none, and models of claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from alignkit.errors import AnalysisError
from alignkit.stats.models.linear import LinearFit
from alignkit.stats.models.margins import marginal_contrasts
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim
from alignkit.text import listed

T = TypeVar("T")
R = TypeVar("R")


def attempted(things: Iterable[T], make: Callable[[T], R]) -> tuple[list[R], list[tuple[T, str]]]:
    """What can be made of these, and the others with why nothing can."""
    found: list[R] = []
    failed: list[tuple[T, str]] = []
    for thing in things:
        try:
            found.append(make(thing))
        except AnalysisError as error:
            failed.append((thing, str(error)))
    return found, failed


def said_once(texts: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each text, after all the names that it is said of.

    >>> said_once([("norm", "few seeds"), ("width", "few seeds"), ("depth", "no runs")])
    ['norm and width: few seeds', 'depth: no runs']
    """
    names: dict[str, list[str]] = {}
    for name, text in texts:
        names.setdefault(text, []).append(name)
    return [f"{listed(dict.fromkeys(found))}: {text}" for text, found in names.items()]


class ModelEffect(NamedTuple):
    """A claim's effect, by a model."""

    estimate: float
    interval: tuple[float, float]
    df: float
    p: float


def first_fit(formulas: Iterable[str], make: Callable[[str], LinearFit]) -> LinearFit | str:
    """The first of these models that can be fitted, or why the last cannot."""
    reason = "no factor varies"
    for formula in dict.fromkeys(formulas):
        try:
            return make(formula)
        except AnalysisError as error:
            reason = str(error)
    return reason


def claim_effect(fitted: LinearFit, claim: Claim) -> ModelEffect:
    """What a model says of a claim's change, the other factors averaged."""
    before, after = (level_text(level) for level in claim.levels)
    contrasts = marginal_contrasts(fitted, claim.factor, reference=before, adjust="none").to_frame()
    row = contrasts[contrasts["level_to"] == after].iloc[0]
    return ModelEffect(row["estimate"], (row["low"], row["high"]), row["df"], row["p"])
