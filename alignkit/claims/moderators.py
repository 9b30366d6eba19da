"""On what a claim depends: whether it turns over, or differs in size, between two levels of a moderator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from alignkit.claims.moderation import LevelEffect, Moderation
from alignkit.claims.tables import claim_factors, planned_table
from alignkit.columns import digits_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import Contrast, contrast
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import sign_flip_p
from alignkit.stats.tables.levels import level_column
from alignkit.study.claim import Claim
from alignkit.study.hypotheses import Hypothesis, moderator_hypotheses
from alignkit.text import after_number


def level_effects(records: Records, claim: Claim, *, alpha: float) -> list[LevelEffect]:
    """The claim's contrast at every level of its moderators, on the same rows as its verdict."""
    if not claim.moderators:
        return []
    table, within = planned_table(records, claim), claim_factors(records, claim)
    found: list[LevelEffect] = []
    for hypothesis in moderator_hypotheses(claim, records.study):
        for level in hypothesis.levels:
            if any((one.moderator, one.level) == (hypothesis.moderator, level) for one in found):
                continue
            rows = table[level_column(table[hypothesis.moderator]) == level]
            found.append(_at(rows, claim, within, hypothesis.moderator, level, alpha))
    return found


def _at(
    rows: pd.DataFrame, claim: Claim, within: Sequence[str], moderator: str, level: str, alpha: float
) -> LevelEffect:
    try:
        result: Contrast = contrast(rows, factor=claim.factor, levels=claim.levels, within=within)
    except AnalysisError:
        return LevelEffect(moderator, level)
    if result.n_seeds < 2 or rows["value"].isna().any():
        return LevelEffect(moderator, level, result.estimate, result.interval, n_seeds=result.n_seeds)
    equivalence = equivalence_test(result.differences, margin=claim.smallest_effect, alpha=alpha)
    return LevelEffect(
        moderator, level, result.estimate, result.interval, result.p, equivalence.p, result.n_seeds, result.seeds,
        result.differences,
    )  # fmt: skip


def moderations(claim: Claim, effects: Sequence[LevelEffect], records: Records) -> list[Moderation]:
    """Every hypothesis on a claim's moderators with its p, rejected or not."""
    return [Moderation(each, moderation_p(each, effects)) for each in moderator_hypotheses(claim, records.study)]


def moderation_p(hypothesis: Hypothesis, effects: Sequence[LevelEffect]) -> float:
    """The largest p of a hypothesis's parts; 1 where they point another way, NaN where one was not tested.

    To turn over, both levels' effects must differ from 0. To differ in size, the first must, the second be equivalent,
    and the two differ from each other: of an effect of half the margin, both levels can be supported and equivalent.
    """
    at = {(effect.moderator, effect.level): effect for effect in effects}
    first, second = (at[hypothesis.moderator, level] for level in hypothesis.levels)
    if hypothesis.kind == "turns over":
        parts = [first.p, second.p] if first.estimate * second.estimate < 0 else [1.0]
    else:
        parts = [first.p, second.p_equivalence, _p_between(first, second)]
    return float(np.max(parts))  # NaN where any part is


def _p_between(first: LevelEffect, second: LevelEffect) -> float:
    """The p of no difference between a claim's effects at two levels, over the seeds that have both."""
    other = dict(zip(second.seeds, second.differences, strict=True))
    between = [value - other[seed] for seed, value in zip(first.seeds, first.differences, strict=True) if seed in other]
    return sign_flip_p(between) if len(between) > 1 else float("nan")


def depends_on(claim: Claim, effects: Sequence[LevelEffect], found: Sequence[Moderation], alpha: float) -> list[str]:
    """What a claim was shown to depend on, a sentence each: the levels with their effects."""
    sentences = []
    for one in found:
        if not one.p_adjusted < alpha:
            continue
        pair = [e for level in one.hypothesis.levels for e in effects
                if (e.moderator, e.level) == (one.hypothesis.moderator, level)]  # fmt: skip
        sizes = " and ".join(
            f"{_size(effect.estimate, claim)} at {effect.moderator} = {effect.level}" for effect in pair
        )
        says = "turns over" if one.hypothesis.kind == "turns over" else "differs in size"
        sentences.append(f"it {says}: {sizes}")
    return sentences


def _size(estimate: float, claim: Claim) -> str:
    return f"{estimate:+.{digits_of(claim.response)}f}{after_number(unit_of(claim.response))}".replace(
        "-", "\N{MINUS SIGN}"
    )
