"""Do the verdicts hold up? Without any one seed, and under other ways to analyse the same claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import Any

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.reading import turning_seeds
from alignkit.claims.responses import scales_of
from alignkit.claims.verdict import Verdict
from alignkit.columns import EXCESS
from alignkit.errors import AnalysisError
from alignkit.figures.specifications import chart
from alignkit.report.section import Answer
from alignkit.report.sections.attempts import ModelEffect, attempted, claim_effect, first_fit
from alignkit.report.tables import Table
from alignkit.stats.contrasts.influence import leave_one_seed_out
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.models.gee import fit_gee
from alignkit.stats.models.linear import LinearFit
from alignkit.stats.models.mixed import fit_mixed
from alignkit.stats.sensitivity.failures import failure_contrast
from alignkit.stats.sensitivity.scales import bound_note
from alignkit.stats.sensitivity.specification_curve import CHECKPOINTS, SpecificationCurve, specification_curve
from alignkit.stats.tables.levels import level_order
from alignkit.text import bare_change, change, count, listed, number, p_text, row_label

NOT_EXAMINED = "not examined"
MODELS: dict[str, Callable[..., LinearFit]] = {"mixed": partial(fit_mixed, run=None), "gee": fit_gee}
"""Models of whole tables, one row per run, beside those of the per-seed contrasts."""


def robustness(analysis: Analysis) -> Answer | None:
    """Each claim without each seed in turn, means near a bound of the scale, and runs that failed at one level."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.n_seeds >= 3]
    if not verdicts:
        return None
    rows, data, notes = [], [], []
    fragile, unexamined, stable_ones = [], [], 0
    seeds, apart = analysis.study.seed_list, analysis.without_each_seed()
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
            family_size=analysis.family_size if claim.family == "confirmatory" else 1,
        )
        # A seed without a comparison has no estimate to move, but the worst case of its runs.
        frame = found.frame.set_index("seed").reindex(pd.Index(seeds, name="seed")).reset_index()
        if not stable:
            turning = len(turning_seeds(verdict, dict(zip(seeds, others, strict=True))))
            fragile.append((claim.name, turning, len(examined)))
        elif not whole:
            unexamined.append(claim.name)
        else:
            stable_ones += 1
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
    single = [name for name, turning, _ in fragile if turning == 1]
    if single:
        verdicts_hang = "verdict on {} hangs" if len(single) == 1 else "verdicts on {} each hang"
        answers.append(f"The {verdicts_hang.format(listed(single))} on a single seed.")
    answers += [
        f"The verdict on {name} is another without any one of {turning} of its {known} seeds: no seed carries it, but "
        "they are too few."
        for name, turning, known in fragile
        if turning > 1
    ]
    if stable_ones and not fragile:
        answers.append(f"No verdict on {count(stable_ones, 'claim')} hangs on a single seed.")
    if unexamined:
        answers.append(
            f"Without each seed, the verdict on {listed(unexamined)} was not examined: it could not be tested."
        )
    return Answer(tuple(answers), (table,), notes=tuple(dict.fromkeys(notes)))


def _near_bound(analysis: Analysis, verdict: Verdict) -> list[str]:
    claim = verdict.claim
    if not claim.response.endswith("_deg"):
        return []
    within = analysis.claim_factors(claim)
    means = seed_contrasts(
        analysis.claim_rows(claim), factor=claim.factor, levels=claim.levels, response="value", within=within
    ).means
    note = bound_note(means)
    return [f"{claim.name}: {note}."] if note else []


def _failures(analysis: Analysis, verdict: Verdict) -> list[str]:
    """Whether runs fail more often at one level than at the other, where any fail."""
    claim = verdict.claim
    table = analysis.claim_rows(claim)
    if not (table["missing"] != "").any():
        return []
    table = table.assign(failed=table["missing"] != "")
    try:
        found = failure_contrast(
            table, factor=claim.factor, levels=claim.levels, failed="failed",
            within=analysis.claim_factors(claim),
        )  # fmt: skip
    except AnalysisError as error:
        return [f"{claim.name}: {error}."]
    low, high = found.rates
    return [
        f"{claim.name}: {low:.1%} of the runs at {found.levels[0]} and {high:.1%} at {found.levels[1]} have no value "
        f"(p {p_text(found.p)} over seeds)."
    ]


def specifications(analysis: Analysis) -> Answer | None:
    """A specification curve for each claim: scale, summary, checkpoint and model, in all combinations."""
    verdicts = [verdict for verdict in analysis.verdicts if verdict.n_seeds > 1]
    if not verdicts:
        return None
    fits: dict[Any, LinearFit | str] = {}
    found, failed = attempted(verdicts, lambda verdict: (verdict, _specification_curve(analysis, verdict, fits)))
    curves = {verdict.claim.name: curve for verdict, curve in found}
    notes = [f"{verdict.claim.name}: {why}." for verdict, why in failed]
    if not curves:
        return Answer((), notes=tuple(notes))
    changes = {name: row_label(curve.factor, curve.levels) for name, curve in curves.items()}
    labels = {  # claims on one change of different responses need their names
        name: label if list(changes.values()).count(label) == 1 else f"{label} ({name})"
        for name, label in changes.items()
    }
    rows = tuple(
        (
            labels[name], f"{sum(not one.reason for one in curve.specifications)} of {len(curve.specifications)}",
            f"{curve.sign_agreement:.0%}", f"{curve.share_significant:.0%}", p_text(curve.p_joint), curve.conclusion,
        )
        for name, curve in curves.items()
    )  # fmt: skip
    worst = any(isfinite(verdict.worst_case[0]) for verdict, _ in found)
    columns = ("claim", "estimable", "same sign", "p below .05", "joint p", "specifications")
    caption = (
        "Each claim under every combination of scale (as declared, Fisher's z of a cosine, log odds of an accuracy, a "
        "Beta model of either), summary (end value, average over training), checkpoint (end, half-way, first epoch) "
        "and model (mean, signed rank, trimmed mean of the per-seed contrasts, a mixed model of runs in seeds, GEE). "
        "An accuracy has neither summary nor checkpoint to choose. The first, as declared, alone decides"
        + (", on the worst case of runs without a value, which no specification takes." if worst else ".")
    )
    frames = {name: curve.to_frame() for name, curve in curves.items()}
    data = pd.concat([frame.assign(claim=name) for name, frame in frames.items()], ignore_index=True)
    table = Table("specifications", caption, columns, rows, data, frozenset(columns[1:5]))
    doubtful = [name for name, curve in curves.items() if curve.conclusion == "disagree"]
    answer = (
        f"The sign of {listed(doubtful)} depends on how it is analysed."
        if doubtful
        else f"The sign of {count(len(curves), 'claim')} is the same in every way to analyse the data."
    )
    drawn = chart(pd.concat([frame.assign(label=labels[name]) for name, frame in frames.items()]), see=answer)
    notes += [f"{name}: {curve.statement}." for name, curve in curves.items()]
    return Answer((answer,), (table,), (drawn,), tuple(notes))


def _specification_curve(analysis: Analysis, verdict: Verdict, fits: dict[Any, LinearFit | str]) -> SpecificationCurve:
    claim = verdict.claim
    within = analysis.claim_factors(claim)
    of_layers = claim.response.removesuffix(EXCESS) in analysis.measures
    # The first of each list is what the claim declares.
    summaries = [claim.summary, *({"final", "auc"} - {claim.summary})] if of_layers else ["final"]
    return specification_curve(
        partial(analysis.final, rule=claim.rule, design=verdict.design, layer=claim.layer, mode=claim.mode),
        factor=claim.factor,
        levels=claim.levels,
        within=within,
        scales=scales_of(claim.response),
        summaries=summaries,
        checkpoints=CHECKPOINTS if of_layers else CHECKPOINTS[:1],
        other_models={name: partial(_model_effect, name, verdict, within, fits) for name in MODELS},
    )


def _model_effect(
    model: str, verdict: Verdict, within: Sequence[str], fits: dict[Any, LinearFit | str], table: pd.DataFrame
) -> ModelEffect:
    """The claim's effect by a model of all runs: pairs of factors, or main effects where those cannot be fitted."""
    key = (model, verdict.claim.rule, verdict.design, tuple(within), table["value"].to_numpy().tobytes())
    if key not in fits:  # claims on the same numbers of the same runs share a fit
        factors = [name for name in within if len(level_order(table[name])) > 1]
        formulas = (f"({' + '.join(factors)})**2", " + ".join(factors))
        fits[key] = first_fit(formulas, partial(MODELS[model], table))
    fitted = fits[key]
    if isinstance(fitted, str):
        raise AnalysisError(fitted)
    return claim_effect(fitted, verdict.claim)
