"""From the claims that a study declared to verdicts: supported, refuted, equivalent or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from alignkit.claims.measured import measure, worst_case
from alignkit.claims.moderators import Moderation, depends_on, level_effects, moderations
from alignkit.claims.panel import Panel, panels
from alignkit.claims.stakes import nil_stake
from alignkit.claims.tables import claim_factors, planned_table
from alignkit.claims.verdict import NAN, Verdict, Verdicts
from alignkit.errors import AnalysisError
from alignkit.records.rows import require_records
from alignkit.records.store import Records
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm_joint
from alignkit.stats.contrasts.paired import minimum_seeds, paired_test
from alignkit.stats.tables.checks import require_alpha
from alignkit.study.claim import Claim
from alignkit.study.hypotheses import moderator_hypotheses
from alignkit.study.panel import not_identifiable
from alignkit.text import p_relation, sized

ALPHA = 0.05


def evaluate(records: Records, *, alpha: float = ALPHA) -> Verdicts:
    """What the records say of each claim of their study, in the study's order.

    A claim is judged on one contrast per seed, averaged over the other factors of its design. It is
    "equivalent" where the effect lies within its smallest effect, "supported" or "refuted" where the
    exact sign-flip test rejects, and else "undecided"; all p-values are adjusted within the family, and
    every declared claim counts there (`family_size`). A claim that the study's analysis plan did not hold before
    the runs, or whose study changed since, is judged as exploration. One that cannot be tested (too few seeds, a
    level without runs) is undecided, and `reason` says why: nothing is raised.
    """
    require_records(records)
    require_alpha(alpha, below=0.5)
    key = ("verdicts", alpha)
    if key not in records.memo:
        records.memo[key] = _evaluate(records, alpha)
    return Verdicts(records.memo[key])


def family_size(records: Records) -> int:
    """How many claims the confirmatory family counts.

    It is every confirmatory claim of the plan that was in force when the first run finished, whether it stands
    as it was declared, was changed since (which leaves it untested) or removed; and every hypothesis on its
    moderators. Claims whose arms differ in a learning rate alone are in no family: that is known before any run.
    """
    study = records.study
    return _untested(records) + sum(
        1 + len(moderator_hypotheses(claim, study))
        for claim, _ in _as_declared(records)
        if claim.family == "confirmatory" and not not_identifiable(claim, study)
    )


def _untested(records: Records) -> int:
    return len(records.registration.untested(records.study)) if records.registration else 0


def _as_declared(records: Records) -> list[tuple[Claim, str]]:
    """Each claim in the family that it may be judged in, and why it does not count as declared; "" where it does."""
    study, registration = records.study, records.registration
    reasons = [registration.undeclared(study, claim) if registration else "" for claim in study.claims]
    return [
        (claim.model_copy(update={"family": "exploratory"}) if reason else claim, reason)
        for claim, reason in zip(study.claims, reasons, strict=True)
    ]


def _evaluate(records: Records, alpha: float) -> list[Verdict]:
    family = family_size(records)
    measured = []
    for claim, reason in _as_declared(records):
        verdict = measure(records, claim, family_size=family, alpha=alpha)
        warnings = (reason, *verdict.warnings) if reason else verdict.warnings
        effects = level_effects(records, claim, alpha=alpha) if isfinite(verdict.p) else []
        measured.append(
            replace(
                verdict,
                declared=not reason,
                warnings=warnings,
                level_effects=tuple(effects),
                moderations=tuple(moderations(claim, effects, records)) if effects else (),
            )
        )
    judged = in_families(measured, untested=_untested(records), alpha=alpha)
    graded = [
        replace(verdict, grade=panel.grade, grade_reason=panel.reason)
        for verdict, panel in zip(judged, panels(records, judged, alpha=alpha), strict=True)
    ]
    return [_with_stake(records, verdict) for verdict in graded]


def _with_stake(records: Records, verdict: Verdict) -> Verdict:
    """The verdict, which says so where the angle that it is about has no stake in accuracy."""
    note = nil_stake(records, verdict)
    return replace(verdict, warnings=(*verdict.warnings, note)) if note else verdict


def panels_of(records: Records, *, alpha: float = ALPHA) -> list[Panel]:
    """The panel of each claim of a study, with the grade that it gives the claim's verdict."""
    key = ("panels", alpha)
    if key not in records.memo:
        records.memo[key] = panels(records, evaluate(records, alpha=alpha), alpha=alpha)
    return list(records.memo[key])


def without_each_seed(records: Records, *, alpha: float = ALPHA) -> dict[Any, list[Verdict | None]]:
    """What `evaluate` would say had a seed not run, for each of the study's: see `without_seed`."""
    key = ("without each seed", alpha)
    if key not in records.memo:
        verdicts = evaluate(records, alpha=alpha)
        records.memo[key] = {
            seed: without_seed(records, verdicts, seed, alpha=alpha) for seed in records.study.seed_list
        }
    return dict(records.memo[key])


def without_seed(
    records: Records, verdicts: Sequence[Verdict], seed: Any, *, alpha: float = ALPHA
) -> list[Verdict | None]:
    """What the verdicts of these records would be had one seed not run: estimate, p-values and judgement alone.

    Where the seeds that remain are too few for the exact test in its family, the t test's p stands in for it.
    None where there is nothing to examine: the claim could not be tested, or too few seeds remain.
    """
    family = family_size(records)
    remeasured = [_without(records, verdict, seed, family_size=family, alpha=alpha) for verdict in verdicts]
    # What cannot be examined still counts in its family.
    counted = [
        again or replace(verdict, p=NAN, p_equivalence=NAN) for again, verdict in zip(remeasured, verdicts, strict=True)
    ]
    judged = in_families(counted, untested=_untested(records), alpha=alpha)
    return [verdict if again else None for again, verdict in zip(remeasured, judged, strict=True)]


def _without(records: Records, verdict: Verdict, seed: Any, *, family_size: int, alpha: float) -> Verdict | None:
    claim = verdict.claim
    left = [value for known, value in zip(verdict.seeds, verdict.differences, strict=True) if known != seed]
    if not isfinite(verdict.p) or len(left) < 3:
        return None
    test = paired_test(left)
    exact = len(left) >= minimum_seeds(family_size if claim.family == "confirmatory" else 1, alpha)
    again = replace(
        verdict, estimate=test.estimate, interval=test.interval, reason="", verdict="undecided",
        p=test.p if exact else test.p_t, n_seeds=test.n_seeds,
        p_equivalence=equivalence_test(left, margin=claim.smallest_effect, alpha=alpha).p,
    )  # fmt: skip
    if not isfinite(verdict.worst_case[0]):
        return again
    table = planned_table(records, claim)
    try:
        return worst_case(again, table[table["seed"] != seed], claim_factors(records, claim), alpha, exact=exact)
    except AnalysisError:
        return None


def in_families(measured: Sequence[Verdict], *, untested: int, alpha: float) -> list[Verdict]:
    """Adjusts the p-values within each family, and judges."""
    verdicts: dict[int, Verdict] = {}
    for family in ("confirmatory", "exploratory"):
        members = [
            index for index, verdict in enumerate(measured)
            if verdict.claim.family == family and verdict.verdict != "not identifiable"
        ]  # fmt: skip
        hypotheses = [(index, one) for index in members for one in measured[index].moderations]
        p = [*(measured[index].p for index in members), *(one.p for _, one in hypotheses)]
        p_equivalence = [*(measured[index].p_equivalence for index in members), *(NAN for _ in hypotheses)]
        if family == "confirmatory":
            blank = [NAN] * untested
            difference, equivalence = holm_joint([*p, *blank], [*p_equivalence, *blank])
        else:
            difference, equivalence = (benjamini_hochberg(values, count_missing=True) for values in (p, p_equivalence))
        of_claim: dict[int, list[Moderation]] = {}
        for (index, one), adjusted in zip(hypotheses, difference[len(members) :], strict=False):
            of_claim.setdefault(index, []).append(replace(one, p_adjusted=float(adjusted)))
        for position, index in enumerate(members):
            own = float(difference[position]), float(equivalence[position])
            verdict = _judge(measured[index], *own, alpha)
            found = tuple(of_claim.get(index, ()))
            depends = depends_on(verdict.claim, verdict.level_effects, found, alpha)
            verdicts[index] = replace(verdict, moderations=found, depends=tuple(depends))
    return [verdicts.get(index, verdict) for index, verdict in enumerate(measured)]


def _judge(verdict: Verdict, p: float, p_equivalence: float, alpha: float) -> Verdict:
    verdict = replace(verdict, p_adjusted=p, p_equivalence_adjusted=p_equivalence)
    if verdict.reason:
        return verdict
    claim, margin = verdict.claim, sized(verdict.claim.smallest_effect, verdict.unit)
    claimed = verdict.estimate > 0 if claim.direction == "increase" else verdict.estimate < 0
    if p_equivalence < alpha:
        reason = (
            f"smaller than {margin}, the smallest effect that matters (p {p_relation(p_equivalence)} for equivalence)"
        )
        return replace(verdict, verdict="equivalent", reason=reason)
    if p < alpha:
        low, high = verdict.worst_case if isfinite(verdict.worst_case[0]) else verdict.interval
        least = low if verdict.estimate > 0 else -high
        beyond = least >= claim.smallest_effect
        size = f"at least {margin}" if beyond else f"perhaps less than {margin}, the smallest effect that matters"
        if claimed:
            return replace(verdict, verdict="supported", reason=f"{claim.direction}s as claimed, {size}")
        opposite = "decreases" if claim.direction == "increase" else "increases"
        reason = f"{opposite}, where the claim says {claim.direction}s, {size}"
        return replace(verdict, verdict="refuted", reason=reason)
    every = " for all that the runs without a value could show" if isfinite(verdict.worst_case[0]) else ""
    return replace(verdict, reason=f"neither a difference nor its absence within {margin} can be shown{every}")
