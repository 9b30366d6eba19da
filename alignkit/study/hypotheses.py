"""What a study's confirmatory family counts: its claims, and the hypotheses on their moderators, before any run."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from alignkit.errors import StudyError, nearest
from alignkit.stats.contrasts.paired import minimum_seeds
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim
from alignkit.study.designs import Factor, declared_factors
from alignkit.study.panel import arms, not_identifiable, panel_of
from alignkit.study.study import Study
from alignkit.text import count, listed


@dataclass(frozen=True)
class Hypothesis:
    """How a claim may depend on a moderator: it turns over between two levels, or is supported (or refuted) at the
    first, equivalent at the second, and its effects at the two differ."""

    kind: Literal["turns over", "differs in size"]
    moderator: str
    levels: tuple[str, str]


def moderator_hypotheses(claim: Claim, study: Study) -> tuple[Hypothesis, ...]:
    """The hypotheses on a claim's moderators: for every two levels of each, one turn and two differences in size.

    All count in the family from the start, rejected or not: to look first, and count what was found, would find
    something in most studies.
    """
    found = []
    for name in claim.moderators:
        levels = [str(level_text(level.value)) for level in _factor(claim, study, name).levels]
        for first, second in itertools.combinations(levels, 2):
            found.append(Hypothesis("turns over", name, (first, second)))
            found.append(Hypothesis("differs in size", name, (first, second)))
            found.append(Hypothesis("differs in size", name, (second, first)))
    return tuple(found)


def _factor(claim: Claim, study: Study, name: str) -> Factor:
    declared = declared_factors(study, study.name)
    design = claim.design or next(
        (key for key, factors in declared.items() if claim.factor in {factor.name for factor in factors}), None
    )
    factors = {factor.name: factor for factor in declared.get(design or "", ())}
    if name not in factors or name == claim.factor:
        others = [factor for factor in factors if factor != claim.factor]
        raise StudyError(
            f'claim {claim.name}: expected moderators that vary in its design beside "{claim.factor}"; got "{name}"; '
            f"{nearest(name, others)}"
        )
    return factors[name]


def layers_note(claim: Claim, study: Study) -> str:
    """What a claim mixes that is asked of the mean over layers, where depth or the widths of some layers change.

    Empty for any other claim. A mean over two layers counts the last one for a half, one over four for a quarter.
    """
    if claim.layer != "mean" or claim.response in _WITHOUT_LAYERS:
        return ""
    low, high = (tuple(getattr(settings.network, "hidden_widths", ())) for settings in arms(claim, study))
    if len(low) != len(high):
        return (
            f'its layer is "mean", over {len(low)} layers in one arm and {len(high)} in the other: the effect mixes '
            'what depth does to a layer with how many layers of each kind there are; ask layer = "last", or "last-1"'
        )
    changed = sum(before != after for before, after in zip(low, high, strict=True))
    if 0 < changed < len(low):
        return (
            f'its layer is "mean", and {changed} of {len(low)} layers change their width: the effect mixes these '
            'with the others; ask one layer, as layer = "last"'
        )
    return ""


_WITHOUT_LAYERS = frozenset({"test_accuracy", "train_accuracy", "validation_accuracy", "accuracy_gap", "test_loss"})


def family_of(study: Study) -> tuple[int, int]:
    """The confirmatory claims that can be judged, and the hypotheses on their moderators."""
    claims = [claim for claim in study.claims if claim.family == "confirmatory" and not not_identifiable(claim, study)]
    return len(claims), sum(len(moderator_hypotheses(claim, study)) for claim in claims)


def seeds_for_panels(study: Study, alpha: float = 0.05) -> int:
    """The fewest seeds with which a verdict of the confirmatory family, and a contradiction in a panel, can be shown.

    0 where no claim is confirmatory. The exact test needs 2^(1 - n) < alpha / (claims and hypotheses), and a row of a
    panel that says the opposite 2^-n <= alpha / claims, one-sided.
    """
    claims, hypotheses = family_of(study)
    if not claims:
        return 0
    return max(minimum_seeds(claims + hypotheses, alpha), math.ceil(math.log2(claims / alpha)))


def panel_notes(study: Study) -> tuple[str, ...]:
    """What the panels of a study's claims will be, a line each, and what they need."""
    if not study.claims:
        return ()
    notes = []
    for claim in study.claims:
        same = not_identifiable(claim, study)
        if same:
            notes.append(f"Claim {claim.name} will be called not identifiable: {same}")
            continue
        questions = panel_of(claim, study)
        core, graded = ([q.label for q in questions if getattr(q, kind)] for kind in ("core", "graded"))
        other = [question.label for question in questions if not question.core]
        beside = f". Beside them: {listed(other)}" if other else ""
        mixes = layers_note(claim, study)
        if mixes:
            notes.append(f"Claim {claim.name}: {mixes}")
        notes.append(f"Claim {claim.name}: {count(len(graded), 'graded row')}. Core: {listed(core)}{beside}")
    claims, hypotheses = family_of(study)
    if claims:
        seeds = len(study.seed_list)
        with_moderators = f" and {count(hypotheses, 'hypothesis', 'hypotheses')} on moderators" if hypotheses else ""
        needed = seeds_for_panels(study)
        notes.append(
            f"The confirmatory family has {count(claims, 'claim')}{with_moderators}: verdicts and panels need "
            f"{count(needed, 'seed')} or more; the study has {seeds}"
        )
    return tuple(notes)
