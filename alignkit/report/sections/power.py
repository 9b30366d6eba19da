"""What these seeds could have shown: for claims that stay undecided, the difference between no effect and no power."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.verdicts import Verdict
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
    rows, data, weak, undecided = [], [], [], []
    for verdict in tested:
        found = _power_of(verdict, analysis.family_size if verdict.claim.family == "confirmatory" else 1)
        if found is None:
            continue
        data.append(found)
        if found["power"] < CHANCE:
            weak.append(verdict.claim.name)
            if verdict.verdict == "undecided":
                undecided.append(verdict.claim.name)
        response = verdict.claim.response
        rows.append(
            (
                verdict.claim.name,
                row_label(verdict.claim.factor, verdict.levels),
                level(verdict.claim.smallest_effect, response),
                level(found["sd"], response),
                str(verdict.n_seeds),
                f"{found['power']:.0%}",
                f"{found['power_equivalence']:.0%}",
                level(found["detectable"], response),
                str(found["seeds_needed"] or ABSENT),
            )
        )
    if not rows:
        return None
    columns = (
        "claim", "change", "smallest effect", "sd over seeds", "seeds", "power", "power, no effect", "found with 80%",
        "seeds for 80%",
    )  # fmt: skip
    caption = (
        "Power of the exact test at the first step of its family, for the smallest effect that matters and for showing "
        "that there is none, by the sd of the contrast over seeds."
    )
    answer = (
        f"For {count(len(weak), 'claim')} ({listed(weak)}), these seeds would find the smallest effect that matters in "
        "fewer than four cases of five."
        + (f" The effect of {listed(undecided)}, undecided, may well be there." if undecided else "")
        if weak
        else "Every tested claim has the seeds to find the smallest effect that matters in at least four cases of five."
    )
    table = Table("power", caption, columns, tuple(rows), pd.DataFrame(data), frozenset(columns[2:]))
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
