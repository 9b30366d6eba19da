"""From the claims that a study declared to verdicts: supported, refuted, equivalent or undecided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal

import pandas as pd

from alignkit.designs import declared_factors
from alignkit.errors import AnalysisError, nearest
from alignkit.run_tables import summarised
from alignkit.stats import (
    benjamini_hochberg,
    contrast,
    equivalence_test,
    in_design,
    level_order,
    level_text,
    minimum_seeds,
    paired_test,
    rate_note,
    require_seeds,
    step_note,
    unit_of,
)
from alignkit.stats.attrition import response_bounds, worst_case_bounds
from alignkit.stats.multiplicity import holm_joint
from alignkit.store import Records
from alignkit.study import Claim

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
    `worst_case` bounds the t interval over all values that they could have had, and both p-values are the
    largest over those: a verdict does not rest on why runs failed. `claim.family` is the family that it was
    judged in: a claim that was not `declared` before the runs is exploratory, whatever it says of itself.
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

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return verdict_frame([self])


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


def evaluate(records: Records, *, alpha: float = ALPHA) -> list[Verdict]:
    """What the records say of each claim of their study, in the study's order.

    A claim is judged on one contrast per seed, averaged over the other factors of its design. It is
    "equivalent" where the effect lies within its smallest effect, "supported" or "refuted" where the
    exact sign-flip test rejects, and else "undecided"; all p-values are adjusted within the family, and
    every declared claim counts there whether it could be tested or not, was removed since or not. A claim that
    the study's analysis plan did not hold before the runs is judged as exploration. One that cannot be
    tested (too few seeds, a level without runs) is undecided, and `reason` says why: nothing is raised.
    """
    key = ("verdicts", alpha)
    if key not in records.memo:
        records.memo[key] = _evaluate(records, alpha)
    return list(records.memo[key])


def _evaluate(records: Records, alpha: float) -> list[Verdict]:
    claims = [_as_declared(records, claim) for claim in records.study.claims]
    removed = len(records.registration.removed(records.study)) if records.registration else 0
    family_size = removed + sum(claim.family == "confirmatory" for claim, _ in claims)
    measured = [
        replace(_measure(records, claim, family_size=family_size, alpha=alpha), declared=declared)
        for claim, declared in claims
    ]
    return _in_families(measured, removed=removed, alpha=alpha)


def without_seed(records: Records, verdicts: Sequence[Verdict], seed: Any, *, alpha: float = ALPHA) -> list[Verdict]:
    """What the verdicts of these records would be had one seed not run: estimate, p-values and judgement alone.

    Where the seeds that remain are too few for the exact test in its family, the t test's p stands in for it.
    A verdict that rests on the worst case of missing runs, or that could not be made, stays as it is.
    """
    removed = len(records.registration.removed(records.study)) if records.registration else 0
    family = removed + sum(verdict.claim.family == "confirmatory" for verdict in verdicts)
    remeasured = []
    for verdict in verdicts:
        left = [value for known, value in zip(verdict.seeds, verdict.differences, strict=True) if known != seed]
        if (verdict.reason and not isfinite(verdict.p)) or isfinite(verdict.worst_case[0]) or len(left) < 3:
            remeasured.append(verdict)
            continue
        test = paired_test(left)
        least = minimum_seeds(family if verdict.claim.family == "confirmatory" else 1, alpha)
        equivalence = equivalence_test(left, margin=verdict.claim.smallest_effect, alpha=alpha)
        remeasured.append(
            replace(
                verdict, estimate=test.estimate, interval=test.interval, reason="", verdict="undecided",
                p=test.p if len(left) >= least else test.p_t, p_equivalence=equivalence.p, n_seeds=test.n_seeds,
            )
        )  # fmt: skip
    return _in_families(remeasured, removed=removed, alpha=alpha)


def _in_families(measured: Sequence[Verdict], *, removed: int, alpha: float) -> list[Verdict]:
    """Adjusts the p-values within each family, and judges."""
    verdicts: dict[int, Verdict] = {}
    for family in ("confirmatory", "exploratory"):
        members = [index for index, verdict in enumerate(measured) if verdict.claim.family == family]
        p = [measured[index].p for index in members]
        p_equivalence = [measured[index].p_equivalence for index in members]
        if family == "confirmatory":
            untested = [NAN] * removed
            difference, equivalence = holm_joint([*p, *untested], [*p_equivalence, *untested])
        else:
            difference, equivalence = (benjamini_hochberg(values, count_missing=True) for values in (p, p_equivalence))
        for position, index in enumerate(members):
            own = float(difference[position]), float(equivalence[position])
            verdicts[index] = _judge(measured[index], *own, alpha)
    return [verdicts[index] for index in range(len(measured))]


def _as_declared(records: Records, claim: Claim) -> tuple[Claim, bool]:
    """The claim in the family that it may be judged in, and whether it was declared before the runs."""
    if records.registration is None or records.registration.status(claim) == "declared":
        return claim, True
    return claim.model_copy(update={"family": "exploratory"}), False


def claim_design(records: Records, claim: Claim) -> str | None:
    """The design that a claim is judged on: its own, else the first whose runs hold both its levels."""
    if claim.design is not None or claim.factor not in records.runs.columns:
        return claim.design
    wanted = {level_text(level) for level in claim.levels}
    runs = records.runs[records.runs["rule"] == claim.rule]
    for design in records.study.designs:
        if wanted <= set(level_order(runs.loc[in_design(runs, design), claim.factor])):
            return design
    return None


def claim_factors(records: Records, claim: Claim) -> tuple[str, ...]:
    """The factors that make a cell of the claim's design: those that it declares, or else the study's."""
    design = claim_design(records, claim)
    if design is None or design not in records.study.designs:
        return records.factors
    declared = declared_factors(records.study, records.study.name)[design]
    return tuple(dict.fromkeys([*(factor.name for factor in declared), claim.factor]))


def claim_table(
    records: Records, claim: Claim, *, response: str | None = None, summary: Literal["final", "auc"] | None = None
) -> pd.DataFrame:
    """One row per run under the claim's rule and in its design: the table that its contrast is taken on.

    Another `response` is taken over all layers at the end of training, unless `summary` says otherwise.
    """
    own = response is None
    table = summarised(
        records,
        response or claim.response,
        summary=summary or (claim.summary if own else "final"),
        layer=claim.layer if own else "mean",
    )
    table = table[table["rule"] == claim.rule]
    design = claim_design(records, claim)
    return table if design is None else table[in_design(table, design)]


def _measure(records: Records, claim: Claim, *, family_size: int, alpha: float) -> Verdict:
    """The contrast of a claim, not yet judged. `reason` is set where it cannot be tested."""
    levels = (level_text(claim.levels[0]) or "none", level_text(claim.levels[1]) or "none")
    blank = Verdict(claim, "undecided", "", levels, unit_of(claim.response), claim_design(records, claim))
    try:
        if claim.factor not in records.factors:
            raise AnalysisError(
                f'"{claim.factor}" is not a factor of this study; {nearest(claim.factor, records.factors)}'
            )
        if claim.rule not in set(records.runs["rule"]):
            ran = sorted(set(records.runs["rule"]))
            raise AnalysisError(f'no run has the rule "{claim.rule}"; {nearest(claim.rule, ran)}')
        if claim.design is not None and not in_design(records.runs, claim.design).any():
            raise AnalysisError(
                f'no run is of the design "{claim.design}"; {nearest(claim.design, records.study.designs)}'
            )
        table = claim_table(records, claim)
        within = claim_factors(records, claim)
        result = contrast(table, factor=claim.factor, levels=claim.levels, within=within)
    except AnalysisError as error:
        return replace(blank, reason=str(error))
    equivalence = equivalence_test(result.differences, margin=claim.smallest_effect, alpha=alpha)
    missing = _missing(table, claim, levels)
    notes = [*_step_length(records, claim), *result.warnings, *missing]
    if records.missing:
        notes.append(f"preliminary: {records.missing:,} planned runs have no records yet")
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
            table, factor=claim.factor, levels=claim.levels, tuned=records.study.pilot is not None
        ),
        method=result.method,
        warnings=tuple(notes),
    )
    if missing and not records.missing:
        measured = _worst_case(measured, table, within, alpha)
    try:
        require_seeds(result.n_seeds, family_size=family_size if claim.family == "confirmatory" else 1, alpha=alpha)
    except AnalysisError as error:
        # The estimate stands, the tests are not made.
        return replace(measured, reason=str(error), p=NAN, p_equivalence=NAN)
    return measured


def _worst_case(measured: Verdict, table: pd.DataFrame, within: Sequence[str], alpha: float) -> Verdict:
    """The claim's p-values, the largest over all values that runs without one could have had."""
    claim = measured.claim
    try:
        bounds = worst_case_bounds(
            table, factor=claim.factor, levels=claim.levels, bounds=response_bounds(claim.response), within=within,
            margin=claim.smallest_effect, alpha=alpha,
        )  # fmt: skip
    except AnalysisError as error:
        note = f"runs without a value are taken to be missing at random, since no bounds can be had ({error})"
        return replace(measured, warnings=(*measured.warnings, note))
    lowest, highest = (_sized(float(f"{bound:.3g}"), measured.unit) for bound in (bounds.lowest, bounds.highest))
    note = (
        f"whatever the runs without a value would have shown, the effect lies between {lowest} and {highest}; the "
        "p-values are the largest over all of that"
    )
    return replace(
        measured,
        worst_case=bounds.interval,
        p=max(measured.p, bounds.p),
        p_equivalence=measured.p_equivalence if bounds.verdict == "equivalent" else 1.0,
        warnings=(*measured.warnings, note),
    )


def _judge(verdict: Verdict, p: float, p_equivalence: float, alpha: float) -> Verdict:
    verdict = replace(verdict, p_adjusted=p, p_equivalence_adjusted=p_equivalence)
    if verdict.reason:
        return verdict
    claim, margin = verdict.claim, _sized(verdict.claim.smallest_effect, verdict.unit)
    claimed = verdict.estimate > 0 if claim.direction == "increase" else verdict.estimate < 0
    if p_equivalence < alpha:
        reason = f"smaller than {margin}, the smallest effect that matters (p {_p(p_equivalence)} for equivalence)"
        return replace(verdict, verdict="equivalent", reason=reason)
    if p < alpha and claimed:
        beyond = min(map(abs, verdict.interval)) >= claim.smallest_effect
        size = f"at least {margin}" if beyond else f"perhaps less than {margin}, the smallest effect that matters"
        return replace(verdict, verdict="supported", reason=f"{claim.direction}s as claimed, {size}")
    if p < alpha:
        opposite = "decreases" if claim.direction == "increase" else "increases"
        return replace(verdict, verdict="refuted", reason=f"{opposite}, where the claim says {claim.direction}s")
    return replace(verdict, reason=f"neither a difference nor its absence within {margin} can be shown")


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
        f"{reason}: {before} runs at {levels[0]}, {after} at {levels[1]}"
        for reason, (before, after) in counts.items()
        if before or after
    ]


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)


def _sized(value: float, unit: str) -> str:
    """A size with its unit: 2°, 1 point, 0.5 points."""
    if unit == "points" and value == 1:
        return "1 point"
    return f"{value:g}" + (f" {unit}" if unit and unit != "°" else unit)
