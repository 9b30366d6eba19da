"""Do the verdicts hold up? Without any one seed, and under other ways to analyse the same claim."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd

from alignkit.claims import Verdict, claim_factors, claim_table, without_seed
from alignkit.errors import AnalysisError
from alignkit.figures import row_label
from alignkit.figures.robustness import specification_strips
from alignkit.report.analysis import Analysis
from alignkit.report.charts import Chart
from alignkit.report.section import Section
from alignkit.report.tables import Table
from alignkit.report.words import change, count, listed, number, p_text
from alignkit.stats import in_design, run_summaries, seed_contrasts
from alignkit.stats.failures import failure_contrast
from alignkit.stats.influence import leave_one_seed_out
from alignkit.stats.robustness import SpecificationCurve, specification_curve
from alignkit.stats.transforms import alignment_scales, bound_note

ANGLE = "signal_angle_deg"


def robustness(analysis: Analysis) -> Section | None:
    """Each claim without each seed in turn, means near a bound of the scale, and runs that failed at one level."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.n_seeds >= 3]
    if not verdicts:
        return None
    rows, data, fragile, notes = [], [], [], []
    seeds = sorted({seed for verdict in verdicts for seed in verdict.seeds})
    apart = {seed: without_seed(analysis.records, analysis.verdicts, seed) for seed in seeds}
    for verdict in verdicts:
        position = analysis.verdicts.index(verdict)
        others = [apart[seed][position] for seed in verdict.seeds]
        stable = all(other.verdict == verdict.verdict for other in others)
        family = sum(other.claim.family == "confirmatory" for other in analysis.verdicts)
        claim, response = verdict.claim, verdict.claim.response
        found = leave_one_seed_out(
            verdict.differences,
            margin=claim.smallest_effect,
            family_size=family if claim.family == "confirmatory" else 1,
        )
        frame = found.frame
        if not stable:
            fragile.append(claim.name)
        rows.append(
            (
                row_label(claim.factor, verdict.levels),
                change(found.estimate, response),
                f"{change(frame['estimate'].min(), response)} to {change(frame['estimate'].max(), response)}",
                p_text(max((other.p_adjusted for other in others), default=float("nan"))),
                number(frame["cook"].max(), 2),
                "yes" if stable else "no",
            )
        )
        judged: dict[str, Any] = {
            "verdict": [other.verdict for other in others],
            "p_adjusted": [other.p_adjusted for other in others],
        }
        data.append(frame.assign(claim=claim.name, **judged))
        notes += [f"{claim.name}: {warning}." for warning in found.warnings]
        notes += _near_bound(analysis, verdict)
        notes += _failures(analysis, verdict)
    caption = (
        "Each claim's effect without each seed in turn: the range of the estimates, the largest adjusted p of a "
        "difference, the largest Cook's distance, and whether the verdict stays the same, all claims judged anew."
    )
    columns = ("claim", "effect", "without one seed", "largest p", "Cook's distance", "same verdict")
    frame = pd.concat(data, ignore_index=True)
    table = Table("robustness", caption, columns, tuple(rows), frame, frozenset(columns[1:5]))
    answer = (
        f"The verdict on {listed(fragile)} hangs on a single seed."
        if fragile
        else f"No verdict on {count(len(verdicts), 'claim')} hangs on a single seed."
    )
    return Section((answer,), (table,), notes=tuple(dict.fromkeys(notes)))


def _near_bound(analysis: Analysis, verdict: Verdict) -> list[str]:
    claim = verdict.claim
    if not claim.response.endswith("_deg"):
        return []
    table = claim_table(analysis.records, claim)
    within = claim_factors(analysis.records, claim)
    means = seed_contrasts(table, factor=claim.factor, levels=claim.levels, response="value", within=within).means
    note = bound_note(means)
    return [f"{claim.name}: {note}."] if note else []


def _failures(analysis: Analysis, verdict: Verdict) -> list[str]:
    """Whether runs fail more often at one level than at the other, where any fail."""
    claim = verdict.claim
    table = claim_table(analysis.records, claim)
    if not (table["missing"] != "").any():
        return []
    table = table.assign(failed=table["missing"] != "")
    try:
        found = failure_contrast(
            table, factor=claim.factor, levels=claim.levels, failed="failed",
            within=claim_factors(analysis.records, claim),
        )  # fmt: skip
    except AnalysisError as error:
        return [f"{claim.name}: {error}."]
    low, high = found.rates
    return [
        f"{claim.name}: {low:.1%} of the runs at {found.levels[0]} and {high:.1%} at {found.levels[1]} have no value "
        f"(p {p_text(found.p)} over seeds)."
    ]


def specifications(analysis: Analysis) -> Section | None:
    """A specification curve for each claim on alignment: scale, summary, checkpoint and model, in all combinations."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.claim.response == ANGLE and verdict.n_seeds > 1]
    if not verdicts:
        return None
    records = analysis.records
    curves: dict[str, tuple[Verdict, SpecificationCurve]] = {}
    notes: list[str] = []

    @cache
    def summaries(response: str, summary: str, checkpoint: str) -> pd.DataFrame:
        layers = records.layers[_until(records.layers, checkpoint)]
        return run_summaries(records.runs, layers, response, summary=summary)  # type: ignore[arg-type]

    for verdict in verdicts:
        claim = verdict.claim

        def table_of(*, response: str, summary: str, checkpoint: str, verdict: Verdict = verdict) -> pd.DataFrame:
            table = summaries(response, summary, checkpoint)
            table = table[table["rule"] == verdict.claim.rule]
            return table if verdict.design is None else table[in_design(table, verdict.design)]

        options: dict[str, Any] = {"within": claim_factors(records, claim), "scales": alignment_scales()}
        try:
            curves[claim.name] = (
                verdict,
                specification_curve(table_of, factor=claim.factor, levels=claim.levels, **options),
            )
        except AnalysisError as error:
            notes.append(f"{claim.name}: {error}.")
    if not curves:
        return Section((), notes=tuple(notes))
    rows = tuple(
        (
            row_label(curve.factor, curve.levels),
            f"{len([one for one in curve.specifications if not one.reason])} of {len(curve.specifications)}",
            f"{curve.sign_agreement:.0%}",
            f"{curve.share_significant:.0%}",
            p_text(curve.p_joint),
            curve.conclusion,
        )
        for _, curve in curves.values()
    )
    columns = ("claim", "estimable", "same sign", "p below .05", "joint p", "specifications")
    caption = (
        "Each claim on alignment under every combination of scale (degrees, Fisher's z of the cosine, a Beta model of "
        "it), summary (end value, average over training), checkpoint (end, half-way, first epoch) and model of the "
        "per-seed contrasts (mean, signed rank, trimmed mean). The declared one alone decides."
    )
    data = pd.concat([curve.to_frame().assign(claim=name) for name, (_, curve) in curves.items()], ignore_index=True)
    table = Table("specifications", caption, columns, rows, data, frozenset(columns[1:5]))
    doubtful = [name for name, (_, curve) in curves.items() if curve.conclusion == "disagree"]
    answer = (
        f"The sign of {listed(doubtful)} depends on how it is analysed."
        if doubtful
        else f"The sign of {count(len(curves), 'claim')} is the same in every way to analyse the data."
    )
    figure = specification_strips(
        {row_label(curve.factor, curve.levels): curve.to_frame() for _, curve in curves.values()}
    )
    chart = Chart(
        "specifications_strips",
        "Each claim under every way to analyse it",
        answer,
        "A dot is one specification: its effect over the sd of the per-seed effects on that scale, turned so that left "
        "is a smaller angle. Specifications share their seeds, so many that agree are not many pieces of evidence.",
        figure,
    )
    notes += [f"{name}: {curve.statement}." for name, (_, curve) in curves.items()]
    return Section((answer,), (table,), (chart,), tuple(notes))


def _until(layers: pd.DataFrame, checkpoint: str) -> pd.Series:
    """The rows up to a checkpoint, named as in `specification_curve`; `AnalysisError` where there is none."""
    end = float(layers["epoch"].max())
    limit = {"end": end, "half-way": end / 2, "first epoch": 1.0}[checkpoint]
    if limit > end or not (layers["epoch"] > 0).any():
        raise AnalysisError(f"the runs are shorter than the checkpoint {checkpoint}")
    reached = layers["epoch"] <= limit + 1e-9
    if not (layers.loc[reached, "epoch"] > 0).any():
        raise AnalysisError(f"no checkpoint between the start and {checkpoint}: ask for more in [probe]")
    return reached
