"""How a verdict is to be read: how sure it is, what it hangs on, and what its p and its interval can say."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from alignkit.claims.moderation import LevelEffect
from alignkit.claims.verdict import NAN, Verdict
from alignkit.stats.contrasts.arrays import EXACT_UP_TO
from alignkit.stats.contrasts.paired import paired_test
from alignkit.text import change, count, listed, p_relation, sentence


def hangs_on(verdict: Verdict) -> str:
    """What a verdict hangs on, for one cell of a table: its panel first, then the levels of its moderators."""
    return " ".join(part for part in (_on_the_panel(verdict), *on_moderators(verdict)) if part)


def _on_the_panel(verdict: Verdict) -> str:
    if verdict.verdict == "not identifiable":
        return f"{sentence(verdict.reason)}."
    if verdict.verdict == "undecided":
        return f"Undecided: {verdict.reason}."
    if verdict.grade == "robust":
        return f"{sentence(verdict.grade_reason)} of the panel."
    if verdict.grade == "contested":
        return f"On how it is asked: {verdict.grade_reason}."
    if verdict.grade_reason:
        return f"{sentence(verdict.grade_reason)}."
    return "Not graded: it was asked in one way only."


def on_moderators(verdict: Verdict) -> list[str]:
    """The effect at each level of each moderator, a sentence for each, and what was shown to differ.

    Sizes that were not shown to differ stand there too: an average hides them.
    """
    by_moderator: dict[str, list[LevelEffect]] = {}
    for effect in verdict.level_effects:
        if isfinite(effect.estimate):
            by_moderator.setdefault(effect.moderator, []).append(effect)
    sentences = []
    for moderator, effects in by_moderator.items():
        sizes = [f"{change(effect.estimate, verdict.claim.response)} at {effect.level}" for effect in effects]
        name = moderator.replace("_", " ")
        shown = any(f"at {moderator} = " in text for text in verdict.depends)
        kinds = [text.split(":")[0].removeprefix("it ") for text in verdict.depends if f"at {moderator} = " in text]
        says = f"It {kinds[0]} with {name}" if shown else f"By {name}"
        sentences.append(f"{says}: {listed(sizes)}{'' if shown else _not_shown(effects)}.")
    return sentences


def _not_shown(effects: list[LevelEffect]) -> str:
    if len(effects) < 2:
        return ""
    signs = {effect.estimate > 0 for effect in effects}
    return " (that it turns over is not shown)" if len(signs) > 1 else ""


def turning_seeds(verdict: Verdict, without: Mapping[Any, Verdict | None]) -> list[Any]:
    """The seeds without any one of which the verdict would be another; `without` is by the seed that is left out."""
    return [seed for seed, other in without.items() if other is not None and other.verdict != verdict.verdict]


def seed_note(verdict: Verdict, without: Mapping[Any, Verdict | None]) -> str:
    """Whether a verdict hangs on one seed, or on their number; empty where it stands without each.

    One seed that carries a verdict is suspect. A verdict that falls with any of them has too few.
    """
    turning = turning_seeds(verdict, without)
    known = sum(other is not None for other in without.values())
    if len(turning) == 1 and known > 1:
        return f"the verdict hangs on a single seed: without seed {turning[0]} it is another"
    if turning and len(turning) == known:
        return f"the verdict needs every seed: without any one of its {known} it is another, so there are too few"
    if turning:
        named = listed(map(str, turning))
        return (
            f"the verdict hangs on several seeds: without any one of {len(turning)} of its {known} ({named}) it is "
            "another"
        )
    return ""


def floor_note(verdict: Verdict) -> str:
    """That the p of a verdict is the smallest that so many seeds can give; empty where it is not.

    The exact test has 2^n patterns of signs: p says then that all seeds agree, and nothing of how far.
    """
    n = verdict.n_seeds
    if not 2 <= n <= EXACT_UP_TO or not isfinite(verdict.p) or verdict.p > 2.0 ** (1 - n) * (1 + 1e-9):
        return ""
    return f"p at its floor: with {count(n, 'seed')} no smaller is possible (unadjusted p {p_relation(verdict.p)})"


def simultaneous_interval(verdict: Verdict, *, family_size: int, alpha: float = 0.05) -> tuple[float, float]:
    """A t interval of the effect that holds together with those of the whole confirmatory family (Bonferroni).

    Missing for an exploratory claim, whose p is adjusted for the rate of false discoveries, and where runs have no
    value: there the worst case bounds the effect.
    """
    if verdict.claim.family != "confirmatory" or verdict.n_seeds < 2 or isfinite(verdict.worst_case[0]):
        return NAN, NAN
    if not isfinite(verdict.p_adjusted):
        return NAN, NAN
    return paired_test(verdict.differences, level=1 - alpha / max(family_size, 1)).interval
