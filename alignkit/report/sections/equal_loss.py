"""At the same training loss: whether a practice aligns, or only learns faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.verdict import Verdict
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer
from alignkit.report.sections.attempts import attempted, said_once
from alignkit.report.tables import Table
from alignkit.stats.contrasts.paired import PairedResult, paired_test
from alignkit.stats.curves.matched import MatchedComparison, matched_comparison
from alignkit.study.claim import Claim
from alignkit.text import change, change_interval, count, listed, number, p_text, row_label

MOST = 0.9
"""How many runs of a seed reach the last loss compared, where all of them are matched to each other: one that
hardly learns would else end the comparison for all."""
ALPHA = 0.05


@dataclass(frozen=True)
class AtEqualLoss:
    """A claim's effect at equal loss, beside that at equal steps over the same runs; `shift` is the former less the
    latter within seeds."""

    claim: Claim
    result: MatchedComparison
    shift: PairedResult


def equal_loss(analysis: Analysis) -> Answer | None:
    """For each claim about a measure of layers: its contrast at matched training loss, beside that at matched steps."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.claim.response in analysis.measures]
    if not verdicts:
        return None

    def at_all(verdict: Verdict) -> AtEqualLoss:
        if not verdict.n_seeds:
            raise AnalysisError(verdict.reason)
        return _compare(analysis, verdict.claim, reach=1.0)

    common, untested = attempted(verdicts, at_all)
    reached, unmatched = attempted(common, lambda made: (made, _compare(analysis, made.claim, reach=MOST)))
    most = [second for first, second in reached if second.result.n_unmatched > first.result.n_unmatched]
    failed = [*((verdict.claim, why) for verdict, why in untested), *((made.claim, why) for made, why in unmatched)]
    reasons = said_once((claim.name, why) for claim, why in failed)
    if not common:
        raise AnalysisError("; ".join(reasons))
    answers = [_answer(common, "the lowest training loss that all runs compared with each other reach")]
    tables = [_table(common, "matched", "to the lowest loss that all runs compared with each other reach")]
    notes = [f"{reason}." for reason in reasons]
    if most:
        where = f"the training loss that {MOST:.0%} of the runs of a seed reach"
        answers.append(_answer(most, where))
        tables.append(_table(most, "matched_most", f"to the loss that {MOST:.0%} of the runs of a seed reach"))
        notes.append(
            "In a fraction of a factorial no run has a counterpart that differs in one factor alone: all runs of a "
            "seed are matched to each other. Leaving out the slowest favours whatever goes with learning badly."
        )
    warned = [(made.claim.name, warning) for made in (*common, *most) for warning in made.result.warnings]
    # The table counts the runs that do not reach a loss.
    notes += [f"{line}." for line in said_once(pair for pair in warned if "does not reach" not in pair[1])]
    notes.append(
        "The loss comes after the practice: runs at equal loss are at different steps, so this is no effect of the "
        "practice. It says whether a difference at equal steps is one of speed. p-values are those of single tests."
    )
    return Answer(tuple(answers), tuple(tables), notes=tuple(dict.fromkeys(notes)))


def _compare(analysis: Analysis, claim: Claim, *, reach: float) -> AtEqualLoss:
    result = matched_comparison(
        analysis.claim_rows(claim)[list(analysis.runs.columns)],
        analysis.checkpoints,
        analysis.own_layers(claim.layer, claim.mode),
        factor=claim.factor,
        levels=claim.levels,
        response=claim.response,
        within=analysis.claim_factors(claim),
        summary="end" if claim.summary == "final" else "mean",
        reach=reach,
    )
    at_loss, at_step = (
        pd.Series(side.differences, index=list(side.seeds), dtype=float) for side in (result.at_loss, result.at_step)
    )
    return AtEqualLoss(claim, result, paired_test((at_loss - at_step).dropna()))


def _answer(found: Sequence[AtEqualLoss], where: str) -> str:
    """Which effects at equal steps are smaller, gone over, or larger at equal loss; all differences within seeds."""
    kinds: dict[str, list[str]] = {"turn round": [], "shrink": [], "grow": [], "are not shown to differ": []}
    for made in found:
        step, loss = made.result.at_step, made.result.at_loss
        text = f"{made.claim.name} {_both(made)}"
        if not made.shift.p < ALPHA:
            kinds["are not shown to differ"].append(text)
        elif loss.p < ALPHA and np.sign(loss.estimate) != np.sign(step.estimate):
            kinds["turn round"].append(text)
        else:
            kinds["shrink" if abs(loss.estimate) < abs(step.estimate) else "grow"].append(text)
    said = [f"{len(texts)} {_verb(kind, len(texts))} ({'; '.join(texts)})" for kind, texts in kinds.items() if texts]
    ends = [made.result.loss_range[1] for made in found]
    span = number(min(ends), 2) if min(ends) == max(ends) else f"{number(min(ends), 2)} to {number(max(ends), 2)}"
    return f"From equal steps to {where} ({span}), of {count(len(found), 'effect')} {listed(said)}."


def _both(made: AtEqualLoss) -> str:
    response = made.claim.response
    return f"{change(made.result.at_step.estimate, response)} to {change(made.result.estimate, response)}"


def _verb(kind: str, n: int) -> str:
    one = {"turn round": "turns round", "shrink": "shrinks", "grow": "grows"}
    return one.get(kind, kind.replace("are", "is")) if n == 1 else kind


def _table(found: Sequence[AtEqualLoss], name: str, where: str) -> Table:
    caption = (
        f"Effects at equal training loss, {where}, beside those at the last common step over the same runs; a claim on "
        "an average over training is averaged over losses, or steps on a log scale. Losses: the median range matched "
        "over. Difference, with its exact sign-flip p: within seeds. Left out: runs that do not reach their "
        "counterparts' losses."
    )
    data = pd.concat([_frame(made) for made in found], ignore_index=True)
    return Table.each(name, caption, found, data, words=3, columns=[
        ("claim", lambda made: made.claim.name),
        ("change", lambda made: row_label(made.claim.factor, made.result.levels)),
        ("losses", lambda made: " to ".join(number(loss, 2) for loss in made.result.loss_range)),
        ("at equal loss", lambda made: change(made.result.estimate, made.claim.response)),
        ("95% interval", lambda made: change_interval(made.result.interval, made.claim.response)),
        ("at equal steps", lambda made: change(made.result.at_step.estimate, made.claim.response)),
        ("95% interval", lambda made: change_interval(made.result.at_step.interval, made.claim.response)),
        ("difference", lambda made: change(made.shift.estimate, made.claim.response)),
        ("95% interval", lambda made: change_interval(made.shift.interval, made.claim.response)),
        ("p", lambda made: p_text(made.shift.p)),
        ("seeds", lambda made: str(made.result.n_seeds)),
        ("runs", lambda made: f"{made.result.n_runs:,}"),
        ("left out", lambda made: f"{made.result.n_unmatched:,}"),
    ])  # fmt: skip


def _frame(made: AtEqualLoss) -> pd.DataFrame:
    """The two contrasts and their difference: three rows."""
    frame = made.result.to_frame()
    shift = made.shift.to_frame().assign(matched="loss less step")
    both = pd.concat([frame, shift[["matched", "estimate", "low", "high", "p", "df", "n_seeds", "method", "warnings"]]])
    both.insert(0, "claim", made.claim.name)
    same = {"factor": made.claim.factor, "response": made.claim.response}
    return both.assign(**same, loss_from=made.result.loss_range[0], loss_to=made.result.loss_range[1])
