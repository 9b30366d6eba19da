"""Do the verdicts hold up? Without any one seed, and under other ways to analyse the same claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from math import isfinite
from typing import Any, Literal, NamedTuple

import pandas as pd

from alignkit.claims.tables import claim_factors, claim_table
from alignkit.claims.verdicts import Verdict, family_size, without_each_seed
from alignkit.columns import EXCESS, MEASURE_COLUMNS
from alignkit.errors import AnalysisError
from alignkit.figures.robustness import specification_strips
from alignkit.records.summaries import run_summaries
from alignkit.report.analysis import Analysis
from alignkit.report.charts import Chart
from alignkit.report.section import Section
from alignkit.report.tables import Table
from alignkit.stats.contrasts.influence import leave_one_seed_out
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.models.design import LinearFit
from alignkit.stats.models.gee import fit_gee
from alignkit.stats.models.margins import marginal_contrasts
from alignkit.stats.models.mixed import fit_mixed
from alignkit.stats.sensitivity.failures import failure_contrast
from alignkit.stats.sensitivity.scales import bound_note, scales_of
from alignkit.stats.sensitivity.specification_curve import CHECKPOINTS, Effect, SpecificationCurve, specification_curve
from alignkit.stats.tables.levels import in_design, level_order, level_text
from alignkit.text import bare_change, change, count, listed, number, p_text, row_label

NOT_EXAMINED = "not examined"
MODELS: dict[str, Callable[..., LinearFit]] = {"mixed": partial(fit_mixed, run=None), "gee": fit_gee}
"""Models of whole tables, one row per run, beside those of the per-seed contrasts."""


def robustness(analysis: Analysis) -> Section | None:
    """Each claim without each seed in turn, means near a bound of the scale, and runs that failed at one level."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.n_seeds >= 3]
    if not verdicts:
        return None
    rows, data, notes = [], [], []
    fragile, unexamined = [], []
    family = family_size(analysis.records)
    seeds = analysis.records.study.seed_list
    apart = without_each_seed(analysis.records)
    for verdict in verdicts:
        position = analysis.verdicts.index(verdict)
        others = [apart[seed][position] for seed in seeds]
        examined = [other for other in others if other is not None]
        whole = len(examined) == len(others)
        stable = all(other.verdict == verdict.verdict for other in examined)
        claim, response = verdict.claim, verdict.claim.response
        found = leave_one_seed_out(
            pd.Series(verdict.differences, index=list(verdict.seeds)),
            margin=claim.smallest_effect,
            family_size=family if claim.family == "confirmatory" else 1,
        )
        # A seed without a comparison has no estimate to move, but the worst case of its runs.
        frame = found.frame.set_index("seed").reindex(pd.Index(seeds, name="seed")).reset_index()
        if not stable:
            fragile.append(claim.name)
        elif not whole:
            unexamined.append(claim.name)
        rows.append(
            (
                claim.name,
                row_label(claim.factor, verdict.levels),
                change(found.estimate, response),
                f"{bare_change(frame['estimate'].min(), response)} to {change(frame['estimate'].max(), response)}",
                p_text(max((other.p_adjusted for other in examined), default=float("nan"))),
                number(frame["cook"].max(), 2),
                "no" if not stable else "yes" if whole else NOT_EXAMINED,
            )
        )
        judged: dict[str, Any] = {
            "verdict": [other.verdict if other else NOT_EXAMINED for other in others],
            "p_adjusted": [other.p_adjusted if other else float("nan") for other in others],
        }
        data.append(frame.assign(claim=claim.name, **judged))
        notes += [f"{claim.name}: {warning}." for warning in found.warnings]
        notes += _near_bound(analysis, verdict)
        notes += _failures(analysis, verdict)
    caption = (
        "Each claim's effect without each seed in turn: the range of the estimates, the largest adjusted p of a "
        "difference, the largest Cook's distance, and whether the verdict stays the same, all claims judged anew "
        "(where runs have no value, on their worst case)."
    )
    columns = ("claim", "change", "effect", "without one seed", "largest p", "Cook's distance", "same verdict")
    frame = pd.concat(data, ignore_index=True)
    table = Table("robustness", caption, columns, tuple(rows), frame, frozenset(columns[2:6]))
    answers = []
    known = len(verdicts) - len(unexamined)
    if fragile:
        verdicts_hang = "verdict on {} hangs" if len(fragile) == 1 else "verdicts on {} each hang"
        answers.append(f"The {verdicts_hang.format(listed(fragile))} on a single seed.")
    elif known:
        answers.append(f"No verdict on {count(known, 'claim')} hangs on a single seed.")
    if unexamined:
        answers.append(
            f"Without each seed, the verdict on {listed(unexamined)} was not examined: it could not be tested."
        )
    return Section(tuple(answers), (table,), notes=tuple(dict.fromkeys(notes)))


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
    """A specification curve for each claim: scale, summary, checkpoint and model, in all combinations."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.n_seeds > 1]
    if not verdicts:
        return None
    records = analysis.records
    curves: dict[str, tuple[Verdict, SpecificationCurve]] = {}
    notes: list[str] = []

    @cache
    def summaries(
        response: str, summary: Literal["final", "auc"], checkpoint: str, layer: int | Literal["mean"]
    ) -> pd.DataFrame:
        layers = records.layers[_until(records.layers, checkpoint)] if checkpoint != "end" else records.layers
        return run_summaries(records.runs, layers, response, summary=summary, layer=layer)

    fits: dict[Any, LinearFit | str] = {}
    for verdict in verdicts:
        claim = verdict.claim

        def table_of(*, response: str, summary: str, checkpoint: str, verdict: Verdict = verdict) -> pd.DataFrame:
            table = summaries(response, summary, checkpoint, verdict.claim.layer)
            table = table[table["rule"] == verdict.claim.rule]
            return table if verdict.design is None else table[in_design(table, verdict.design)]

        within = claim_factors(records, claim)
        of_layers = claim.response.removesuffix(EXCESS) in MEASURE_COLUMNS
        # The first of each list is what the claim declares.
        summary_names = [claim.summary, *({"final", "auc"} - {claim.summary})] if of_layers else ["final"]
        try:
            curves[claim.name] = (
                verdict,
                specification_curve(
                    table_of,
                    factor=claim.factor,
                    levels=claim.levels,
                    within=within,
                    scales=scales_of(claim.response),
                    summaries=summary_names,
                    checkpoints=CHECKPOINTS if of_layers else CHECKPOINTS[:1],
                    other_models={name: partial(_model_effect, name, verdict, within, fits) for name in MODELS},
                ),
            )
        except AnalysisError as error:
            notes.append(f"{claim.name}: {error}.")
    if not curves:
        return Section((), notes=tuple(notes))
    changes = {name: row_label(curve.factor, curve.levels) for name, (_, curve) in curves.items()}
    labels = {  # claims on one change of different responses need their names
        name: label if list(changes.values()).count(label) == 1 else f"{label} ({name})"
        for name, label in changes.items()
    }
    rows = tuple(
        (
            labels[name],
            f"{len([one for one in curve.specifications if not one.reason])} of {len(curve.specifications)}",
            f"{curve.sign_agreement:.0%}",
            f"{curve.share_significant:.0%}",
            p_text(curve.p_joint),
            curve.conclusion,
        )
        for name, (_, curve) in curves.items()
    )
    worst = any(isfinite(verdict.worst_case[0]) for verdict, _ in curves.values())
    columns = ("claim", "estimable", "same sign", "p below .05", "joint p", "specifications")
    caption = (
        "Each claim under every combination of scale (as declared, Fisher's z of a cosine, log odds of an accuracy, a "
        "Beta model of either), summary (end value, average over training), checkpoint (end, half-way, first epoch) "
        "and model (mean, signed rank, trimmed mean of the per-seed contrasts, a mixed model of runs in seeds, GEE). "
        "An accuracy has neither summary nor checkpoint to choose. The first, as declared, alone decides"
        + (", on the worst case of runs without a value, which no specification takes." if worst else ".")
    )
    data = pd.concat([curve.to_frame().assign(claim=name) for name, (_, curve) in curves.items()], ignore_index=True)
    table = Table("specifications", caption, columns, rows, data, frozenset(columns[1:5]))
    doubtful = [name for name, (_, curve) in curves.items() if curve.conclusion == "disagree"]
    answer = (
        f"The sign of {listed(doubtful)} depends on how it is analysed."
        if doubtful
        else f"The sign of {count(len(curves), 'claim')} is the same in every way to analyse the data."
    )
    figure = specification_strips({labels[name]: curve.to_frame() for name, (_, curve) in curves.items()})
    chart = Chart(
        "specifications_strips",
        "Each claim under every way to analyse it",
        answer,
        "A dot is one specification: its effect over the sd of the per-seed effects on that scale, turned so that "
        "right is more of what the claim measures. Specifications share their seeds, so many that agree are not many "
        "pieces of evidence.",
        figure,
    )
    notes += [f"{name}: {curve.statement}." for name, (_, curve) in curves.items()]
    return Section((answer,), (table,), (chart,), tuple(notes))


def _model_effect(
    model: str, verdict: Verdict, within: Sequence[str], fits: dict[Any, LinearFit | str], table: pd.DataFrame
) -> Effect:
    """The claim's effect by a model of all runs: pairs of factors, or main effects where those cannot be fitted."""
    claim = verdict.claim
    key = (model, claim.rule, verdict.design, tuple(within), table["value"].to_numpy().tobytes())
    if key not in fits:  # claims on the same numbers of the same runs share a fit
        factors = [name for name in within if len(level_order(table[name])) > 1]
        fits[key] = "no factor varies"
        for formula in dict.fromkeys((f"({' + '.join(factors)})**2", " + ".join(factors))):
            try:
                fits[key] = MODELS[model](table, formula)
                break
            except AnalysisError as error:
                fits[key] = str(error)
    fitted = fits[key]
    if isinstance(fitted, str):
        raise AnalysisError(fitted)
    before, after = (level_text(level) for level in claim.levels)
    found = marginal_contrasts(fitted, claim.factor, reference=before, adjust="none").to_frame()
    row = found[found["level_to"] == after].iloc[0]
    return _Effect(float(row["estimate"]), (float(row["low"]), float(row["high"])), float(row["p"]))


class _Effect(NamedTuple):
    estimate: float
    interval: tuple[float, float]
    p: float


def _until(layers: pd.DataFrame, checkpoint: str) -> pd.Series:
    """The rows up to a checkpoint, named as in `specification_curve`; `AnalysisError` where there is none."""
    end = float(layers["epoch"].max())
    limit = {"half-way": end / 2, "first epoch": 1.0}[checkpoint]
    if limit > end or not (layers["epoch"] > 0).any():
        raise AnalysisError(f"the runs are shorter than the checkpoint {checkpoint}")
    reached = layers["epoch"] <= limit + 1e-9
    if not (layers.loc[reached, "epoch"] > 0).any():
        raise AnalysisError(f"no checkpoint between the start and {checkpoint}: ask for more in [probe]")
    return reached
