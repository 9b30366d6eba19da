"""From the claims that a study declared to verdicts: supported, refuted, equivalent or undecided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal

import pandas as pd

from alignkit.claims.responses import response_bounds
from alignkit.claims.tables import UNFINISHED, claim_design, claim_factors, claim_table, planned_runs, planned_table
from alignkit.columns import unit_of
from alignkit.display import block, effect_words, head_html, p_words, rows_html, seeds_words, tight
from alignkit.errors import AnalysisError, nearest
from alignkit.records.confounding import rate_note, step_note
from alignkit.records.rows import require_records
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm_joint
from alignkit.stats.contrasts.paired import minimum_seeds, paired_test, require_seeds
from alignkit.stats.sensitivity.attrition import worst_case_bounds
from alignkit.stats.tables.checks import require_alpha
from alignkit.stats.tables.levels import in_design, level_text
from alignkit.study.claim import Claim
from alignkit.text import ABSENT, count, p_relation, p_text, plural, sized

ALPHA = 0.05
NAN = float("nan")

VERDICTS = {
    "supported": "the effect has the claimed direction, beyond what random signs over seeds explain",
    "refuted": "the effect has the opposite direction, beyond what random signs over seeds explain",
    "equivalent": "the effect is smaller than the smallest that the claim says would matter",
    "undecided": "these seeds do not tell",
}


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
    """

    claim: Claim
    verdict: Literal["supported", "refuted", "equivalent", "undecided"]
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

    def __repr__(self) -> str:
        return f"Verdict({_words(self)})"

    def _repr_html_(self) -> str:
        return _html([self])

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return verdict_frame([self])


def _words(verdict: Verdict) -> str:
    parts = [f"{verdict.claim.name}: {verdict.verdict}", _effect(verdict), p_words(verdict), seeds_words(verdict)]
    return ", ".join(part for part in parts if part)


def _effect(verdict: Verdict) -> str:
    return effect_words(verdict.estimate, verdict.interval, verdict.claim.response) if verdict.n_seeds else ""


def _html(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (
            verdict.claim.statement, verdict.verdict, tight(_effect(verdict)) or ABSENT,
            p_text(verdict.p_equivalence_adjusted if verdict.verdict == "equivalent" else verdict.p_adjusted),
            str(verdict.n_seeds), verdict.reason,
        )
        for verdict in verdicts
    ]  # fmt: skip
    columns = ("claim", "verdict", "effect [95%]", "adjusted p", "seeds", "reason")
    table = rows_html(rows, head=columns, right=("adjusted p", "seeds"), badge="verdict")
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
    "claim", "statement", "verdict", "reason", "practice", "factor", "level_from", "level_to", "response", "unit",
    "direction", "smallest_effect", "family", "declared", "rule", "design", "estimate", "low", "high",
    "worst_low", "worst_high", "p", "p_adjusted", "p_equivalence", "p_equivalence_adjusted", "df", "n_seeds",
    "n_cells", "learning_rates", "method", "warnings",
)  # fmt: skip


def verdict_frame(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """One row per verdict, in the order given."""
    rows = [
        (
            verdict.claim.name, verdict.claim.statement, verdict.verdict, verdict.reason, verdict.claim.practice,
            verdict.claim.factor, *verdict.levels, verdict.claim.response, verdict.unit, verdict.claim.direction,
            verdict.claim.smallest_effect, verdict.claim.family, verdict.declared, verdict.claim.rule,
            verdict.design or "", verdict.estimate, *verdict.interval, *verdict.worst_case, verdict.p,
            verdict.p_adjusted, verdict.p_equivalence, verdict.p_equivalence_adjusted, verdict.df, verdict.n_seeds,
            verdict.n_cells, verdict.learning_rates, verdict.method, "; ".join(verdict.warnings),
        )
        for verdict in verdicts
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))


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
    as it was declared, was changed since (which leaves it untested) or removed.
    """
    return sum(claim.family == "confirmatory" for claim, _ in _as_declared(records)) + _untested(records)


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
        found = _measure(records, claim, family_size=family, alpha=alpha)
        warnings = (reason, *found.warnings) if reason else found.warnings
        measured.append(replace(found, declared=not reason, warnings=warnings))
    return _in_families(measured, untested=_untested(records), alpha=alpha)


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
        found or replace(verdict, p=NAN, p_equivalence=NAN) for found, verdict in zip(remeasured, verdicts, strict=True)
    ]
    judged = _in_families(counted, untested=_untested(records), alpha=alpha)
    return [verdict if found else None for found, verdict in zip(remeasured, judged, strict=True)]


def _without(records: Records, verdict: Verdict, seed: Any, *, family_size: int, alpha: float) -> Verdict | None:
    claim = verdict.claim
    left = [value for known, value in zip(verdict.seeds, verdict.differences, strict=True) if known != seed]
    if not isfinite(verdict.p) or len(left) < 3:
        return None
    test = paired_test(left)
    exact = len(left) >= minimum_seeds(family_size if claim.family == "confirmatory" else 1, alpha)
    found = replace(
        verdict, estimate=test.estimate, interval=test.interval, reason="", verdict="undecided",
        p=test.p if exact else test.p_t, n_seeds=test.n_seeds,
        p_equivalence=equivalence_test(left, margin=claim.smallest_effect, alpha=alpha).p,
    )  # fmt: skip
    if not isfinite(verdict.worst_case[0]):
        return found
    table = planned_table(records, claim)
    try:
        return _worst_case(found, table[table["seed"] != seed], claim_factors(records, claim), alpha, exact=exact)
    except AnalysisError:
        return None


def _in_families(measured: Sequence[Verdict], *, untested: int, alpha: float) -> list[Verdict]:
    """Adjusts the p-values within each family, and judges."""
    verdicts: dict[int, Verdict] = {}
    for family in ("confirmatory", "exploratory"):
        members = [index for index, verdict in enumerate(measured) if verdict.claim.family == family]
        p = [measured[index].p for index in members]
        p_equivalence = [measured[index].p_equivalence for index in members]
        if family == "confirmatory":
            blank = [NAN] * untested
            difference, equivalence = holm_joint([*p, *blank], [*p_equivalence, *blank])
        else:
            difference, equivalence = (benjamini_hochberg(values, count_missing=True) for values in (p, p_equivalence))
        for position, index in enumerate(members):
            own = float(difference[position]), float(equivalence[position])
            verdicts[index] = _judge(measured[index], *own, alpha)
    return [verdicts[index] for index in range(len(measured))]


def _measure(records: Records, claim: Claim, *, family_size: int, alpha: float) -> Verdict:
    """The contrast of a claim, not yet judged. `reason` is set where it cannot be tested."""
    levels = (level_text(claim.levels[0]) or "none", level_text(claim.levels[1]) or "none")
    blank = Verdict(claim, "undecided", "", levels, unit_of(claim.response), claim_design(records, claim))
    try:
        if claim.factor not in records.factors:
            raise AnalysisError(
                f'"{claim.factor}" is not a factor of this study; {nearest(claim.factor, records.factors)}'
            )
        runs = planned_runs(records)
        if claim.rule not in set(runs["rule"]):
            raise AnalysisError(f'no run has the rule "{claim.rule}"; {nearest(claim.rule, sorted(set(runs["rule"])))}')
        if claim.design is not None and not in_design(runs, claim.design).any():
            raise AnalysisError(
                f'no run is of the design "{claim.design}"; {nearest(claim.design, records.study.designs)}'
            )
        table = planned_table(records, claim)
        within = claim_factors(records, claim)
        result = contrast(table, factor=claim.factor, levels=claim.levels, within=within)
    except AnalysisError as error:
        return replace(blank, reason=str(error))
    equivalence = equivalence_test(result.differences, margin=claim.smallest_effect, alpha=alpha)
    missing = _missing(table, claim, levels)
    notes = [*_step_length(records, claim), *result.warnings, *missing]
    if records.missing:
        notes.append(
            f"preliminary: {count(records.missing, 'planned run')} without records yet; verdicts take the worst case "
            "over what is still missing"
        )
    measured = replace(
        blank,
        estimate=result.estimate,
        interval=result.interval,
        p=result.p,
        p_equivalence=equivalence.p,
        df=result.df,
        n_seeds=result.n_seeds,
        n_cells=result.n_cells,
        pairing_correlation=result.pairing_correlation,
        seeds=result.seeds,
        differences=result.differences,
        learning_rates=rate_note(
            claim_table(records, claim),
            factor=claim.factor,
            levels=claim.levels,
            tuned=records.study.pilot is not None,
            within=within,
        ),
        method=result.method,
        warnings=tuple(notes),
    )
    size = family_size if claim.family == "confirmatory" else 1
    try:
        require_seeds(result.n_seeds, family_size=size, alpha=alpha)
    except AnalysisError as error:
        # The estimate stands, the tests are not made.
        waiting = int((table["missing"] == UNFINISHED).sum())
        reason = str(error)
        if waiting:
            reason = (
                f"too early to tell: {waiting:,} of its {count(len(table), 'run')} have no records yet, and of the "
                f"{minimum_seeds(size, alpha)} seeds that the exact test needs, {result.n_seeds} can be compared"
            )
        return replace(measured, reason=reason, p=NAN, p_equivalence=NAN)
    if missing:
        try:
            measured = _worst_case(measured, table, within, alpha)
        except AnalysisError as error:
            note = f"runs without a value are taken to be missing at random, since no bounds can be had ({error})"
            measured = replace(measured, warnings=(*measured.warnings, note))
    return measured


def _worst_case(
    measured: Verdict, table: pd.DataFrame, within: Sequence[str], alpha: float, *, exact: bool = True
) -> Verdict:
    """The claim's p-values, the largest over all values that runs without one could have had.

    `exact` takes the sign-flip p, else that of the t test. `AnalysisError` where the response has no bounds.
    """
    claim = measured.claim
    bounds = worst_case_bounds(
        table, factor=claim.factor, levels=claim.levels, bounds=response_bounds(claim.response), within=within,
        margin=claim.smallest_effect, alpha=alpha,
    )  # fmt: skip
    lowest, highest = (sized(float(f"{bound:.3g}"), measured.unit) for bound in (bounds.lowest, bounds.highest))
    note = (
        f"whatever the runs without a value could show, the effect lies between {lowest} and {highest}; the "
        "p-values are the largest over all of that"
    )
    # The bounds use runs without a counterpart, the estimate does not: their signs may differ.
    one_sign = bounds.lowest * measured.estimate > 0
    return replace(
        measured,
        worst_case=bounds.interval,
        p=max(measured.p, bounds.p if exact else bounds.p_t) if one_sign else 1.0,
        p_equivalence=max(measured.p_equivalence, bounds.p_equivalence),
        warnings=(*measured.warnings, note),
    )


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


def _step_length(records: Records, claim: Claim) -> list[str]:
    """What `step_note` says of the updates over training, where they were recorded."""
    table = claim_table(records, claim, response="update_ratio", summary="auc")
    note = step_note(table, factor=claim.factor, levels=claim.levels)
    return [note] if note else []


def _missing(table: pd.DataFrame, claim: Claim, levels: tuple[str, str]) -> list[str]:
    """How many runs at each level have no value, and why: diverging at one level alone biases what remains."""
    absent = table[table["missing"] != ""]
    at = absent[claim.factor].map(level_text)
    counts = {
        reason: [int(((absent["missing"] == reason) & (at == level)).sum()) for level in levels]
        for reason in sorted(absent["missing"].unique())
    }
    return [
        f"{reason}: {count(before, 'run')} at {levels[0]}, {after} at {levels[1]}"
        for reason, (before, after) in counts.items()
        if before or after
    ]
