"""What these seeds could have shown: for claims that stay undecided, the difference between no effect and no power."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.verdict import Verdict
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.stats.contrasts.power import detectable_effect, difference_power, equivalence_power, seeds_needed
from alignkit.text import ABSENT, count, level, listed, row_label

CHANCE = 0.8


def power(analysis: Analysis) -> Answer | None:
    """For each claim that could be tested, the power of its seeds for the smallest effect that matters."""
    tested = [verdict for verdict in analysis.verdicts if math.isfinite(verdict.p)]
    if not tested:
        return None
    found: list[tuple[Verdict, dict[str, Any]]] = []
    for verdict in tested:
        powers = _power_of(verdict, analysis.family_size if verdict.claim.family == "confirmatory" else 1)
        if powers is not None:
            found.append((verdict, powers))
    if not found:
        return None
    weak = [verdict for verdict, powers in found if powers["power"] < CHANCE]
    names, undecided = (
        listed(verdict.claim.name for verdict in verdicts)
        for verdicts in (weak, [verdict for verdict in weak if verdict.verdict == "undecided"])
    )
    caption = (
        "Power of the exact test at the first step of its family, for the smallest effect that matters and for showing "
        "that there is none, by the sd of the contrast over seeds."
    )
    answer = (
        f"For {count(len(weak), 'claim')} ({names}), these seeds would find the smallest effect that matters in "
        "fewer than four cases of five."
        + (f" The effect of {undecided}, undecided, may well be there." if undecided else "")
        if weak
        else "Every tested claim has the seeds to find the smallest effect that matters in at least four cases of five."
    )
    data = pd.DataFrame([powers for _, powers in found])
    table = Table.each("power", caption, found, data, words=2, columns=[
        ("claim", lambda of: of[0].claim.name),
        ("change", lambda of: row_label(of[0].claim.factor, of[0].levels)),
        ("smallest effect", lambda of: level(of[0].claim.smallest_effect, of[0].claim.response)),
        ("sd over seeds", lambda of: level(of[1]["sd"], of[0].claim.response)),
        ("seeds", lambda of: str(of[0].n_seeds)),
        ("power", lambda of: f"{of[1]['power']:.0%}"),
        ("power, no effect", lambda of: f"{of[1]['power_equivalence']:.0%}"),
        ("found with 80%", lambda of: level(of[1]["detectable"], of[0].claim.response)),
        ("seeds for 80%", lambda of: str(of[1]["seeds_needed"] or ABSENT)),
    ])  # fmt: skip
    return Answer((answer,), (table,))


def _power_of(verdict: Verdict, family_size: int) -> dict[str, Any] | None:
    sd = float(pd.Series(verdict.differences).std(ddof=1))
    if not sd > 0:
        return None
    claim, n = verdict.claim, verdict.n_seeds
    options: Any = {"sd": sd, "family_size": family_size}
    try:
        needed: int | None = seeds_needed(effect=claim.smallest_effect, power=CHANCE, **options).n_seeds
    except AnalysisError:
        needed = None
    return {
        "claim": claim.name,
        "smallest_effect": claim.smallest_effect,
        "sd": sd,
        "n_seeds": n,
        "family_size": family_size,
        "power": difference_power(n, effect=claim.smallest_effect, **options).power,
        "power_equivalence": equivalence_power(n, margin=claim.smallest_effect, **options).power,
        "detectable": detectable_effect(n, power=CHANCE, **options).effect,
        "seeds_needed": needed,
    }
