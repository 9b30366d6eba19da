"""What the records say of one claim, as a row of a table, a line and a block of a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from alignkit.claims.moderation import LevelEffect, Moderation
from alignkit.display import block, effect_words, head_html, p_words, rows_html, seeds_words, tight
from alignkit.study.claim import Claim
from alignkit.text import ABSENT, count, p_text, plural

NAN = float("nan")

VERDICTS = {
    "supported": "the effect has the claimed direction, beyond what random signs over seeds explain",
    "refuted": "the effect has the opposite direction, beyond what random signs over seeds explain",
    "equivalent": "the effect is smaller than the smallest that the claim says would matter",
    "undecided": "these seeds do not tell",
    "not identifiable": "the two arms differ in a learning rate alone: nothing else of them can be told apart",
}
GRADES = {
    "robust": "the verdict holds in every core row of the panel",
    "conditional": "the verdict holds as declared, and not in every core row; no graded row says the opposite",
    "contested": "a graded row of the panel says the opposite, beyond chance",
}


UNGRADED = "ungraded"
GRADED_VERDICTS = ("supported", "refuted", "equivalent")


@dataclass(frozen=True)
class Verdict:
    """What the records say of one claim.

    `estimate` is in `unit`, from the first level to the second. `p` is the exact sign-flip p, and
    `p_equivalence` that of two one-sided t tests against the claim's smallest effect; the adjusted ones
    hold within the family (`holm_joint` for confirmatory claims, so that the chance of any false verdict among
    them is at most alpha; Benjamini-Hochberg for exploratory ones). Where runs at the two levels have no value,
    because they failed or have not finished, `worst_case` bounds the t interval over all values that they could
    have, and both p-values are the largest over those: a verdict does not rest on why runs failed, nor on what is
    still to come. `claim.family` is the family that it was judged in: a claim that was not `declared` before the
    runs is exploratory, whatever it says of itself, and `warnings` say why.

    `level_effects` are the claim's effects at each level of its moderators, `moderations` the hypotheses on them, and
    `depends` says of which it was shown that the claim depends on them.

    `grade` says what the claim's panel makes of the verdict, and `grade_reason` what it hangs on (`claims/panel.py`).
    """

    claim: Claim
    verdict: Literal["supported", "refuted", "equivalent", "undecided", "not identifiable"]
    reason: str
    levels: tuple[str, str]
    unit: str
    design: str | None
    declared: bool = True
    estimate: float = NAN
    interval: tuple[float, float] = (NAN, NAN)
    worst_case: tuple[float, float] = (NAN, NAN)
    p: float = NAN
    p_adjusted: float = NAN
    p_equivalence: float = NAN
    p_equivalence_adjusted: float = NAN
    df: int = 0
    n_seeds: int = 0
    n_cells: int = 0
    pairing_correlation: float = NAN
    seeds: tuple[Any, ...] = ()
    differences: tuple[float, ...] = ()
    learning_rates: str = ""
    method: str = ""
    warnings: tuple[str, ...] = field(default=())
    grade: str = ""
    grade_reason: str = ""
    level_effects: tuple[LevelEffect, ...] = ()
    moderations: tuple[Moderation, ...] = ()
    depends: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Verdict({_words(self)})"

    def _repr_html_(self) -> str:
        return _html([self])

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return verdict_frame([self])


def grade_name(verdict: Verdict) -> str:
    """The grade of a verdict, "ungraded" where its panel gave none; empty where there is no verdict to grade."""
    return (verdict.grade or UNGRADED) if verdict.verdict in GRADED_VERDICTS else ""


def _words(verdict: Verdict) -> str:
    says = ", ".join(part for part in (verdict.verdict, verdict.grade) if part)
    parts = [f"{verdict.claim.name}: {says}", _effect(verdict), p_words(verdict), seeds_words(verdict)]
    return ", ".join(part for part in parts if part)


def _effect(verdict: Verdict) -> str:
    return effect_words(verdict.estimate, verdict.interval, verdict.claim.response) if verdict.n_seeds else ""


def _html(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (
            verdict.claim.statement, verdict.verdict, grade_name(verdict) or ABSENT, tight(_effect(verdict)) or ABSENT,
            p_text(verdict.p_equivalence_adjusted if verdict.verdict == "equivalent" else verdict.p_adjusted),
            str(verdict.n_seeds),
            "; ".join(part for part in (verdict.reason, verdict.grade_reason, *verdict.depends) if part),
        )
        for verdict in verdicts
    ]  # fmt: skip
    columns = ("claim", "verdict", "grade", "effect [95%]", "adjusted p", "seeds", "reason")
    table = rows_html(rows, head=columns, right=("adjusted p", "seeds"), badge=("verdict", "grade"))
    notes = [f"{verdict.claim.name}: {note}" for verdict in verdicts for note in verdict.warnings]
    return block(head_html(plural(len(verdicts), "Verdict"), count(len(verdicts), "claim")), table, notes=notes)


class Verdicts(list[Verdict]):
    """The verdicts of a study's claims, in the study's order: a list that a notebook shows as a table."""

    def to_frame(self) -> pd.DataFrame:
        """One row per verdict."""
        return verdict_frame(self)

    def _repr_html_(self) -> str:
        return _html(self)


VERDICT_COLUMNS = (
    "claim", "statement", "verdict", "grade", "grade_reason", "reason", "practice", "factor", "level_from",
    "level_to", "response", "unit", "direction", "smallest_effect", "family", "declared", "rule", "design",
    "estimate", "low", "high",
    "worst_low", "worst_high", "p", "p_adjusted", "p_equivalence", "p_equivalence_adjusted", "df", "n_seeds",
    "n_cells", "learning_rates", "method", "warnings",
)  # fmt: skip


def verdict_frame(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """One row per verdict, in the order given."""
    rows = [
        (
            verdict.claim.name, verdict.claim.statement, verdict.verdict, verdict.grade, verdict.grade_reason,
            verdict.reason, verdict.claim.practice,
            verdict.claim.factor, *verdict.levels, verdict.claim.response, verdict.unit, verdict.claim.direction,
            verdict.claim.smallest_effect, verdict.claim.family, verdict.declared, verdict.claim.rule,
            verdict.design or "", verdict.estimate, *verdict.interval, *verdict.worst_case, verdict.p,
            verdict.p_adjusted, verdict.p_equivalence, verdict.p_equivalence_adjusted, verdict.df, verdict.n_seeds,
            verdict.n_cells, verdict.learning_rates, verdict.method, "; ".join(verdict.warnings),
        )
        for verdict in verdicts
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
