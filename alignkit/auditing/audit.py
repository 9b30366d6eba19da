"""The audit of a study's claims."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.auditing.arms import Arms, arms_of, choices
from alignkit.auditing.asking import LEFT_OUT, NOT_ALIGNED, Tuned, answers, ask, balanced, contrast
from alignkit.auditing.flips import chances
from alignkit.auditing.measured import Measured, measured
from alignkit.auditing.places import ACCURACIES, Place, places_of
from alignkit.auditing.result import ALPHA, LEAST_QUESTIONS, Audit, ClaimAudit
from alignkit.claims.verdict import Verdict
from alignkit.claims.verdicts import evaluate
from alignkit.columns import EXCESS, GAP
from alignkit.errors import AnalysisError
from alignkit.records.rows import require_records
from alignkit.records.store import Records
from alignkit.text import count, listed


def audit(records: Records) -> Audit:
    """Whether the verdicts of a study hold in every defensible way to ask its claims.

    Each claim is asked again at every place, mode, layer and scale that was recorded, under every rule for the rates,
    at the end and over training, without each level of each other factor, without each seed, with failed runs and
    without them, by means and by medians over cells. Nothing of this shares code with the panels that grade verdicts:
    the records' tables are read anew, and the verdicts of `evaluate` are only compared with what is found.

    A verdict graded robust is contradicted where a comparable question has the opposite answer beyond chance: at 5%,
    by max-T over joint sign flips of the seeds over all the questions asked of the claim.

    >>> found = audit(alignkit.load("reports/norms"))
    >>> found.to_frame()["claim"].nunique() == len(found.claims)
    True
    """
    require_records(records)
    if not records.study.claims:
        raise AnalysisError("expected a study with claims; got one without. Declare [[claims]], and audit its verdicts")
    found = measured(records)
    return Audit(records.study.name, tuple(_claim_audit(records, found, verdict) for verdict in evaluate(records)))


def _claim_audit(records: Records, measures: Measured, verdict: Verdict) -> ClaimAudit:
    claim = verdict.claim
    blank = ClaimAudit(claim, verdict.verdict, verdict.grade, verdict.estimate, verdict.interval)
    try:
        accuracy = claim.response in (*ACCURACIES, GAP) and (records.runs["rule"] == "bp").any()
        arms = arms_of(records, claim, twins=claim.response.endswith(EXCESS) or bool(accuracy))
        places = places_of(records, arms, measures)
        if not places or not places[0].declared:
            raise AnalysisError(f"{claim.response} was not recorded as the claim asks for it")
        if len(arms.seeds) < 2:
            raise AnalysisError("one seed has no replicate: nothing can be told from chance")
        asked = ask(records, arms, places, measures)
        declared = asked.differences[0]
        if np.isfinite(declared).sum() < 2:
            raise AnalysisError("no value was recorded in two seeds")
        equivalent = verdict.verdict == "equivalent"
        direction = 0.0 if equivalent else float(np.sign(np.nanmean(declared)) or 1.0)
        questions, coincide = answers(
            asked, verdict=verdict.verdict, direction=direction, margin=claim.smallest_effect, unit=places[0].scale
        )
    except AnalysisError as error:
        return ClaimAudit(claim, verdict.verdict, verdict.grade, verdict.estimate, verdict.interval, reason=str(error))
    return ClaimAudit(
        claim, blank.verdict, blank.grade, blank.estimate, blank.interval, questions,
        moderators(records, arms, places[0]), coincide, tuple(_lacks(records, measures, questions)),
    )  # fmt: skip


def moderators(records: Records, arms: Arms, place: Place) -> pd.DataFrame:
    """The effect of a claim, as it declares it, at each level of every other factor.

    In a fraction, at those levels alone at which the other factors stay balanced. `p` is two-sided and adjusted over
    all rows. A factor `turns_over` where two of its levels have effects of opposite signs, both beyond chance.
    """
    failed = NOT_ALIGNED if arms.claim.failed == "not_aligned" else LEFT_OUT
    columns = ["factor", "level", "estimate", "low", "high", "p", "n_seeds", "n_cells", "turns_over"]
    values = Tuned(records, arms, [place], choices(records, arms)[0]).with_failed(failed)
    rows, differences = [], []
    for factor in arms.others:
        for level in arms.levels(factor):
            kept = arms.at(factor, level)
            if not (arms.paired or balanced(arms, kept)):
                continue
            found, cells = contrast(values[:, kept], paired=arms.paired)
            if np.isfinite(found).sum() >= 2:
                rows.append((factor, level, int(cells[0])))
                differences.append(found[0])
    if not rows:
        return pd.DataFrame(columns=columns)
    effects = np.stack(differences)
    n, estimate = np.isfinite(effects).sum(axis=1), np.nanmean(effects, axis=1)
    half = stats.t.ppf(0.975, n - 1) * np.nanstd(effects, axis=1, ddof=1) / np.sqrt(n)
    above, below = chances(np.concatenate([effects, -effects])).reshape(2, -1)
    table = pd.DataFrame(rows, columns=["factor", "level", "n_cells"])
    table["estimate"], table["low"], table["high"] = estimate, estimate - half, estimate + half
    table["p"], table["n_seeds"] = np.fmin(above, below), n
    certain = table["p"] < ALPHA
    signs = np.sign(table["estimate"]).where(certain)
    table["turns_over"] = signs.groupby(table["factor"]).transform("nunique") > 1
    return table[columns]


def _lacks(records: Records, measures: Measured, questions: pd.DataFrame) -> list[str]:
    """What these records did not allow to ask."""
    tuned = bool(records.runs["replicate"].duplicated().any())
    few = len(questions) < LEAST_QUESTIONS
    absent = [
        "one learning rate for each run: rules for the rates could not be asked" if not tuned else "",
        f"one mode of measurement ({measures.modes[0]})" if len(measures.modes) == 1 else "",
        "" if (questions["when"] != "end").any() else "no course over training",
        ""
        if (records.runs["rule"] == "shallow").any()
        else "no frozen hidden layers (shallow) to compare accuracy with",
    ]
    known = [part for part in absent if part]
    lines = [f"The records have {listed(known)}."] if known else []
    if few:
        lines.append(f"They allow {count(len(questions), 'question')}, fewer than {LEAST_QUESTIONS}.")
    return lines
