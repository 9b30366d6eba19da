"""What an audit found, as tables, a line and a block of a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from alignkit.display import block, head_html, rows_html
from alignkit.study.claim import Claim
from alignkit.text import ABSENT, change, change_interval, count, listed, with_interval

ALPHA = 0.05
LEAST_QUESTIONS = 60
"""Below so many questions an audit says that the records allow few."""


@dataclass(frozen=True, eq=False)
class ClaimAudit:
    """A claim's verdict beside the answers to all questions that were asked of it.

    `questions` has a row per question (see `AXES`): its estimate and interval in its own unit, whether it has
    the verdict's sign (`side`), whether it is `comparable` and `tested`, and `p_opposite`, adjusted over all tested
    questions. For "equivalent", opposite is an estimate beyond the claim's smallest effect. `moderators` has the
    claim's effect at each level of every other factor. `coincide` counts the questions whose answers are those of
    another, and `lacks` says what the records did not allow to ask. `reason` says why nothing was asked.
    """

    claim: Claim
    verdict: str
    grade: str
    estimate: float
    interval: tuple[float, float]
    questions: pd.DataFrame = field(default_factory=pd.DataFrame)
    moderators: pd.DataFrame = field(default_factory=pd.DataFrame)
    coincide: int = 0
    lacks: tuple[str, ...] = ()
    reason: str = ""

    @property
    def asked(self) -> int:
        return len(self.questions)

    def on_side(self, side: str) -> pd.DataFrame:
        """The questions whose answers are on a side of the verdict: "same", "opposite" or "zero"."""
        return self.questions[self.questions["side"] == side] if self.asked else self.questions

    @property
    def contradictions(self) -> pd.DataFrame:
        """The tested questions whose answers are opposite to the verdict beyond chance, the surest first."""
        opposite = self.on_side("opposite")
        return opposite[opposite["p_opposite"] < ALPHA].sort_values("p_opposite") if len(opposite) else opposite

    @property
    def has_a_side(self) -> bool:
        """Whether the verdict is one that an answer can be opposite to."""
        return self.verdict in ("supported", "refuted", "equivalent")

    @property
    def contradicted(self) -> bool:
        """Whether a verdict that was graded robust meets an opposite answer beyond chance."""
        return self.grade == "robust" and self.has_a_side and len(self.contradictions) > 0


@dataclass(frozen=True, eq=False)
class Audit:
    """The audit of a study: one `ClaimAudit` for each of its claims, in the study's order."""

    study: str
    claims: tuple[ClaimAudit, ...]

    @property
    def contradicted(self) -> tuple[str, ...]:
        """The claims whose verdicts were graded robust and meet an opposite answer beyond chance."""
        return tuple(each.claim.name for each in self.claims if each.contradicted)

    def to_frame(self) -> pd.DataFrame:
        """One row per claim and question."""
        tables = [each.questions for each in self.claims if each.asked]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def summary(self) -> pd.DataFrame:
        """One row per claim: its verdict, how many questions were asked, and on which side the answers are."""
        return pd.DataFrame([_summary(each) for each in self.claims])

    def to_dict(self) -> dict[str, Any]:
        """What `audit.json` holds."""
        from alignkit import __version__

        return {
            "study": self.study,
            "alignkit": __version__,
            "contradicted": list(self.contradicted),
            "claims": [
                {
                    **_summary(each),
                    "statement": each.claim.statement,
                    "interval": list(each.interval),
                    "lacks": list(each.lacks),
                    "contradictions": _records(each.contradictions.drop(columns=["claim", "verdict"], errors="ignore")),
                    "moderators": _records(each.moderators),
                }
                for each in self.claims
            ],
        }

    def __repr__(self) -> str:
        return f"Audit({self.in_words()})"

    def in_words(self) -> str:
        asked = sum(each.asked for each in self.claims)
        head = f"{self.study!r}: {count(asked, 'question')} to {count(len(self.claims), 'claim')}"
        robust = sum(each.grade == "robust" for each in self.claims)
        if not robust:
            return f"{head}, none with a robust verdict"
        found = f"contradicted beyond chance: {listed(self.contradicted)}" if self.contradicted else "none contradicted"
        return f"{head}; of {count(robust, 'robust verdict')}, {found}"

    def _repr_html_(self) -> str:
        columns = ("claim", "verdict", "effect [95%]", "questions", "same sign", "opposite", "beyond chance")
        rows = [_row(each) for each in self.claims]
        table = rows_html(rows, head=columns, right=columns[3:], badge="verdict")
        notes = [f"{each.claim.name}: {each.reason}" for each in self.claims if each.reason]
        notes.append(
            "opposite: the sign of the estimate is against the verdict (equivalent: beyond the smallest effect); "
            "beyond chance: max-T over the questions asked of the claim, at 5%"
        )
        return block(head_html("Audit", self.in_words()), table, notes=notes)


def _row(each: ClaimAudit) -> tuple[str, ...]:
    response = each.claim.response
    effect = with_interval(change(each.estimate, response), change_interval(each.interval, response))
    beyond = f"{len(each.contradictions):,}" if each.has_a_side else ABSENT
    sides = (f"{len(each.on_side(side)):,}" if each.has_a_side else ABSENT for side in ("same", "opposite"))
    verdict = f"{each.verdict}, {each.grade}" if each.grade else each.verdict
    return each.claim.statement, verdict, effect, f"{each.asked:,}", *sides, beyond


def _summary(each: ClaimAudit) -> dict[str, Any]:
    return {
        "claim": each.claim.name,
        "verdict": each.verdict,
        "grade": each.grade,
        "estimate": _number(each.estimate),
        "questions": each.asked,
        "same": len(each.on_side("same")),
        "opposite": len(each.on_side("opposite")),
        "not_comparable": int((~each.questions["comparable"]).sum()) if each.asked else 0,
        "beyond_chance": len(each.contradictions) if each.has_a_side else 0,
        "contradicted": each.contradicted,
        "coincide": each.coincide,
        "reason": each.reason,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _number(value) for key, value in row.items()} for row in table.to_dict("records")]


def _number(value: Any) -> Any:
    """A value as JSON has it: six digits, and null for what is missing."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    return value.item() if hasattr(value, "item") else value


def words_of(row: Any) -> str:
    """A question in words: what it settles otherwise than most do is said, the rest left out."""
    parts: Iterable[str] = (
        row.place,
        row.mode,
        row.scale if row.scale not in ("degrees", "points", "own unit") else "",
        f"layer {row.layer}" if row.layer not in ("", "mean") else "",
        f"rates: {row.rates}" if row.rates != "as run" else "",
        row.when if row.when != "end" else "",
        f"cells: {row.cells}" if row.cells != "all" else "",
        f"seeds: {row.seeds}" if row.seeds != "all" else "",
        "failed runs left out" if row.failed == "left out" else "",
        "median over cells" if row.average == "median" else "",
    )
    return ", ".join(part for part in parts if part)
