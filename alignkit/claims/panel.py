"""A claim asked again in every defensible way, and the grade of its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.claims.tables import claim_design, claim_factors, claim_table, question_table
from alignkit.claims.verdict import NAN, Verdict
from alignkit.columns import digits_of, unit_of
from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.joint_flips import joint_p_values
from alignkit.stats.contrasts.multiplicity import holm_joint
from alignkit.stats.tables.levels import cell_column, level_text
from alignkit.study.claim import Claim
from alignkit.study.panel import Question, panel_of
from alignkit.text import listed, number

LEAST_CORE = 3
"""Core rows without which no verdict is graded: it was asked in too few ways."""
GradeName = Literal["", "robust", "conditional", "contested"]


@dataclass(frozen=True)
class Answer:
    """What the records say to one question of a panel. `verdict` is unadjusted, `reason` why there is none."""

    question: Question
    estimate: float = NAN
    interval: tuple[float, float] = (NAN, NAN)
    p: float = NAN
    p_equivalence: float = NAN
    n_seeds: int = 0
    n_cells: int = 0
    seeds: tuple[Any, ...] = ()
    differences: tuple[float, ...] = ()
    verdict: str = ""
    reason: str = ""

    @property
    def answered(self) -> bool:
        return self.n_seeds > 1

    @property
    def exactly_zero(self) -> bool:
        """Whether every seed's contrast is 0: no test is made of that, or needed."""
        return self.answered and not any(self.differences)


@shown(words=lambda panel: panel.in_words(), table="short_frame")
@dataclass(frozen=True)
class Panel:
    """A claim's panel and the grade that it gives the verdict.

    `p_robust` is the largest p of the verdict's kind over the core rows, adjusted within the family. `opposite` names
    the graded rows that say the opposite, `fails` the core rows in which the verdict does not hold.
    """

    claim: Claim
    answers: tuple[Answer, ...]
    grade: GradeName = ""
    reason: str = ""
    p_robust: float = NAN
    opposite: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()

    @property
    def core(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.question.core and answer.answered)

    @property
    def graded(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.question.graded and answer.answered)

    def to_frame(self) -> pd.DataFrame:
        """One row per question."""
        return panel_frame([self])

    def short_frame(self) -> pd.DataFrame:
        """One row per question: what a notebook shows."""
        frame = self.to_frame()
        kinds = np.select([frame["core"], frame["graded"]], ["core", "graded"], "shown")
        columns = {"label": "question", "estimate": "effect", "verdict": "says", "n_seeds": "seeds"}
        short = frame[["label", "estimate", "low", "high", "p", "verdict", "n_seeds"]].rename(columns=columns)
        short.insert(1, "counts as", kinds)
        return short

    def in_words(self) -> str:
        """The claim, its grade, and what it hangs on."""
        asked = f"{sum(answer.answered for answer in self.answers)} rows answered"
        return f"{self.claim.name}: {', '.join(part for part in (self.grade, self.reason, asked) if part)}"


def panel_frame(panels: Sequence[Panel]) -> pd.DataFrame:
    """One row per claim and question."""
    return pd.DataFrame(
        {
            "claim": panel.claim.name, "question": answer.question.key, "label": answer.question.label,
            "response": answer.question.response, "mode": answer.question.mode or "",
            "layer": str(answer.question.layer), "rates": answer.question.rates, "graded": answer.question.graded,
            "core": answer.question.core, "comparable": answer.question.comparable, "estimate": answer.estimate,
            "low": answer.interval[0], "high": answer.interval[1], "p": answer.p,
            "p_equivalence": answer.p_equivalence, "verdict": answer.verdict, "n_seeds": answer.n_seeds,
            "n_cells": answer.n_cells, "reason": answer.reason or answer.question.why,
        }
        for panel in panels
        for answer in panel.answers
    )  # fmt: skip


def answer(records: Records, claim: Claim, question: Question, *, alpha: float) -> Answer:
    """The contrast of a claim as a question asks it."""
    try:
        within = claim_factors(records, claim)
        if question.equal_step:
            seeds, differences = at_equal_steps(records, claim, question)
            result_cells = 0
            if len(differences) < 2:
                raise AnalysisError("the step lengths of the two arms do not overlap in two seeds")
            table = pd.DataFrame({"seed": np.repeat(seeds, 2), claim.factor: list(claim.levels) * len(seeds)})
            table["value"] = np.column_stack([np.zeros(len(seeds)), differences]).ravel()
            result = contrast(table, factor=claim.factor, levels=claim.levels)
        else:
            table = question_table(records, claim, question)
            if question.cells == "learning":
                table = table[_learns(records, claim, table)]
                if table.empty:
                    raise AnalysisError("in no cell do both arms beat frozen hidden layers")
            result = contrast(table, factor=claim.factor, levels=claim.levels, within=within)
            result_cells = result.n_cells
    except AnalysisError as error:
        return Answer(question, reason=str(error))
    if result.n_seeds < 2:
        return Answer(question, reason="no value was recorded in two seeds")
    margin = _margin(claim, question)
    equivalence = equivalence_test(result.differences, margin=margin, alpha=alpha) if margin else None
    found = Answer(
        question, result.estimate, result.interval, result.p, equivalence.p if equivalence else NAN, result.n_seeds,
        result_cells, result.seeds, result.differences,
    )  # fmt: skip
    return replace(found, verdict=_says(claim, found, alpha))


def _margin(claim: Claim, question: Question) -> float:
    """The claim's smallest effect where the question has its unit; else none."""
    return claim.smallest_effect if unit_of(question.response) == unit_of(claim.response) else 0.0


def _says(claim: Claim, answer: Answer, alpha: float) -> str:
    if answer.p_equivalence < alpha or answer.exactly_zero:
        return "equivalent"
    if answer.p < alpha:
        return "supported" if (answer.estimate > 0) == (claim.direction == "increase") else "refuted"
    return "undecided"


def at_equal_steps(records: Records, claim: Claim, question: Question) -> tuple[list[Any], np.ndarray]:
    """Per seed, the difference of a claim's arms where both take steps of the same length.

    In each cell and seed the response of either arm is interpolated over log |dW|/|W|, along its rates; the
    difference is averaged over the lengths that both arms reach, then over cells. Cells without a common range are
    left out, and seeds without a cell.
    """
    tables = [question_table(records, claim, question, every_rate=True)]
    of_step = replace(question, response="update_ratio", mode=None)
    tables.append(question_table(records, claim, of_step, every_rate=True))
    value, step = (table["value"].to_numpy(float) for table in tables)
    rows = tables[0].assign(step=np.log(np.where(step > 0, step, np.nan)), value=value)
    rows["cell_"] = cell_column(rows, [name for name in claim_factors(records, claim) if name != claim.factor])
    rows["at_"] = rows[claim.factor].map(level_text)
    rows = rows.dropna(subset=["value", "step"]).sort_values("step")
    low, high = (level_text(level) for level in claim.levels)
    groups = {key: part for key, part in rows.groupby(["seed", "cell_", "at_"], sort=False)}
    by_seed: dict[Any, list[float]] = {}
    for seed, cell in dict.fromkeys((seed, cell) for seed, cell, _ in groups):
        before, after = groups.get((seed, cell, low)), groups.get((seed, cell, high))
        if before is None or after is None:
            continue
        difference = _over_overlap(before, after)
        if isfinite(difference):
            by_seed.setdefault(seed, []).append(difference)
    seeds = sorted(by_seed)
    return seeds, np.array([np.mean(by_seed[seed]) for seed in seeds])


def _over_overlap(before: pd.DataFrame, after: pd.DataFrame, points: int = 33) -> float:
    start = max(before["step"].iloc[0], after["step"].iloc[0])
    end = min(before["step"].iloc[-1], after["step"].iloc[-1])
    if not end > start:
        return NAN
    steps = np.linspace(start, end, points)
    before_at, after_at = (np.interp(steps, part["step"], part["value"]) for part in (before, after))
    return float(np.mean(after_at - before_at))


def _learns(records: Records, claim: Claim, table: pd.DataFrame) -> pd.Series:
    """Whether a run's cell is one in which both arms of the claim beat frozen hidden layers in test accuracy."""
    response = "test_accuracy" if records.runs["test_accuracy"].notna().any() else "test_loss"
    sign = 1 if response == "test_accuracy" else -1
    own = claim_table(records, claim, response=response)
    frozen = claim_table(records, claim.model_copy(update={"rule": "shallow"}), response=response)
    factors = claim_factors(records, claim)
    read = [name for name in factors if name in frozen and frozen[name].notna().any()]
    others = [name for name in factors if name != claim.factor]
    floor = frozen.groupby(cell_column(frozen, read).tolist())["value"].mean()
    mean = own.groupby(cell_column(own, factors).tolist())["value"].transform("mean")
    beats = sign * (mean - pd.Series(cell_column(own, read).tolist(), own.index).map(floor)) > 0
    at = own[claim.factor].map(level_text)
    of_pair = beats.groupby([cell_column(own, others).tolist(), at]).all().unstack()
    wanted = [str(level_text(level)) for level in claim.levels]
    both = of_pair.reindex(columns=wanted)
    matched = both.notna().all(axis=1).any()
    good = both.fillna(not matched).astype(bool).all(axis=1)
    cells = pd.Series(cell_column(table, others).tolist(), table.index)
    return cells.map(good).fillna(False).astype(bool)


def panels(records: Records, verdicts: Sequence[Verdict], *, alpha: float) -> list[Panel]:
    """The graded panel of each verdict's claim, the claims of a family judged together."""
    found = []
    for verdict in verdicts:
        questions = (
            panel_of(verdict.claim, records.study)
            if claim_design(records, verdict.claim) or not (records.study.designs)
            else ()
        )
        found.append(
            Panel(verdict.claim, tuple(answer(records, verdict.claim, each, alpha=alpha) for each in questions))
        )
    return grade(found, verdicts, alpha=alpha)


def grade(panels: Sequence[Panel], verdicts: Sequence[Verdict], *, alpha: float) -> list[Panel]:
    """Panels with the grades of their verdicts, within each family.

    Robust: the largest p of the verdict's kind over the core rows, all of one sign, stays below alpha after the
    family's step-down over these maxima. Contested: some graded row says the opposite, by step-down max-T over joint
    sign flips of the seeds, alpha shared among the family's claims.
    """
    graded: dict[int, Panel] = {}
    for family in ("confirmatory", "exploratory"):
        of = [index for index, verdict in enumerate(verdicts) if verdict.claim.family == family]
        difference, equivalence = (np.array([_largest(panels[i], kind) for i in of]) for kind in ("p", "p_equivalence"))
        if of:
            difference, equivalence = holm_joint(difference, equivalence)
        for position, index in enumerate(of):
            largest = {"equivalent": equivalence[position]}.get(verdicts[index].verdict, difference[position])
            graded[index] = _graded(panels[index], verdicts[index], float(largest), alpha=alpha, share=alpha / len(of))
    return [graded[index] for index in range(len(panels))]


def _largest(panel: Panel, kind: str) -> float:
    """The largest p over the core rows; 1 where they are not of one sign, or one was not answered.

    A row that is exactly 0 is equivalent without a test."""
    rows = [answer for answer in panel.answers if answer.question.core]
    if not rows or any(not answer.answered for answer in rows):
        return 1.0
    if kind == "p" and len({answer.estimate > 0 for answer in rows}) > 1:
        return 1.0
    if kind == "p_equivalence":
        rows = [answer for answer in rows if not answer.exactly_zero]
        if not rows:
            return 0.0
    largest = float(np.max([getattr(answer, kind) for answer in rows]))
    return largest if isfinite(largest) else 1.0


def _graded(panel: Panel, verdict: Verdict, p: float, *, alpha: float, share: float) -> Panel:
    if verdict.verdict not in ("supported", "refuted", "equivalent"):
        return panel
    core = panel.core
    if len(core) < LEAST_CORE:
        few = "one way" if len(core) <= 1 else f"{len(core)} ways"
        return replace(panel, reason=f"not graded: these records answer the claim in {few} only")
    opposite = tuple(_opposite(panel, verdict, share))
    fails = tuple(
        answer.question.label for answer in panel.answers
        if answer.question.core and answer.verdict != verdict.verdict
    )  # fmt: skip
    if opposite:
        reason = f"the opposite holds in another row: {listed(opposite)}"
        return replace(panel, grade="contested", reason=reason, p_robust=p, opposite=opposite, fails=fails)
    if p < alpha:
        return replace(panel, grade="robust", reason=f"holds in all {len(core)} core rows", p_robust=p)
    where = f"not shown: {listed(fails)}" if fails else f"in every core row, the largest adjusted p {number(p, 2)}"
    return replace(panel, grade="conditional", reason=where, p_robust=p, fails=fails)


def _opposite(panel: Panel, verdict: Verdict, alpha: float) -> list[str]:
    """The graded rows that say the opposite of a verdict, beyond what random signs of the seeds explain."""
    rows = panel.graded
    seeds = sorted({seed for answer in rows for seed in answer.seeds})
    place = {seed: index for index, seed in enumerate(seeds)}
    table = np.full((len(seeds), len(rows)), np.nan)
    for column, row in enumerate(rows):
        table[[place[seed] for seed in row.seeds], column] = row.differences
    if not table.size:
        return []
    claim = verdict.claim
    if verdict.verdict == "equivalent":
        margins = np.array([_margin(claim, row.question) for row in rows])
        usable = margins > 0
        both = np.concatenate([table - margins, -table - margins], axis=1)
        p = joint_p_values(both, side=1)
        p = np.nanmin(np.where(np.isnan(p), 1.0, p).reshape(2, -1), axis=0)
        p = np.where(usable, p, 1.0)
    else:
        p = joint_p_values(table, side=-1 if verdict.estimate > 0 else 1)
    return [row.question.label for row, each in zip(rows, p, strict=True) if each < alpha]


def row_text(answer: Answer) -> str:
    """An answer's estimate and interval, in words for a table."""
    digits = digits_of(answer.question.response)
    low, high = answer.interval
    return f"{answer.estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
