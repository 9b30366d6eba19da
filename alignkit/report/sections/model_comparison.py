"""Whether the conclusions depend on the model: each claim's effect by every model, and held-out error."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.fit import Method
from alignkit.claims.verdict import Verdict
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer
from alignkit.report.sections.attempts import ModelEffect, claim_effect, first_fit
from alignkit.report.sections.model import alignment_model
from alignkit.report.tables import Table
from alignkit.stats.models.linear import LinearFit
from alignkit.stats.models.prediction import Held, prediction_error
from alignkit.stats.tables.levels import level_order
from alignkit.text import ABSENT, change, change_interval, count, level, listed, number, p_text, sentence

MODELS: dict[Method, str] = {
    "seed": "factorial model within seeds",
    "robust": "pooled least squares, HC3 errors",
    "gee": "marginal model (GEE), bias-reduced errors",
    "mixed": "mixed model, layers in runs in seeds",
}
"""The models beside the contrast of the verdict, by the method of `fit`."""
HELD_OUT: tuple[tuple[Held, str], ...] = (("seed", "new seeds"), ("cells", "cells never fitted"))


def model_comparison(analysis: Analysis) -> Answer | None:
    """Each claim's effect on a measure of layers, by the contrast that judged it and by four models."""
    verdicts = [verdict for verdict in analysis.verdicts if _is_of_layers(analysis, verdict) and verdict.n_seeds > 1]
    if not verdicts:
        return None
    fits: dict[tuple[str, ...], LinearFit | str] = {}
    rows, data, disagreeing = [], [], []
    notes: list[str] = []
    for verdict in verdicts:
        claim, found = verdict.claim, dict(_effects(analysis, verdict, fits, notes))
        for name, (estimate, interval, df, p) in found.items():
            label = claim.name if name == next(iter(found)) else ""
            effect = (change(estimate, claim.response), change_interval(interval, claim.response))
            rows.append((label, name, *effect, number(df, 0 if float(df).is_integer() else 1), p_text(p)))
            data.append(
                {"claim": claim.name, "model": name, "estimate": estimate, "low": interval[0], "high": interval[1],
                 "df": df, "p": p}
            )  # fmt: skip
        signs = {effect.estimate > 0 for effect in found.values() if effect.p < 0.05}
        if len(signs) > 1 or len({effect.p < 0.05 for effect in found.values()}) > 1:
            disagreeing.append(claim.name)
    if disagreeing:
        answer = (
            f"The models disagree on {listed(disagreeing)}: there the finding depends on how layers and seeds are "
            "modelled."
        )
    else:
        answer = f"All models agree on the direction and on the evidence for {count(len(verdicts), 'claim')}."
    caption = (
        "Each claim's effect by every model. The first line is the contrast that the verdict rests on; the others "
        "describe. None is adjusted for the number of claims."
    )
    columns = ("claim", "model", "effect", "95% interval", "df", "p")
    table = Table("compared", caption, columns, tuple(rows), pd.DataFrame(data), frozenset(columns[2:]))
    if _depth(analysis) > 1:
        notes.append(
            "The mixed model has a layer's position (its number over the depth) as a covariate: it compares layers at "
            "the same position, so that a change of depth has another effect there than on the mean over layers."
        )
    if any("untruncated" in fit.method for fit in fits.values() if not isinstance(fit, str)):
        notes.append(
            "In a mixed model some variance is estimated as 0. Its standard errors take that variance untruncated, and "
            "its degrees of freedom count it as unknown. That is exact where no cell is missing. Where cells are "
            "missing, tests of interactions reject somewhat too often."
        )
    held_out = _held_out_error(analysis, notes)
    answers = [answer, *([_error_answer(held_out)] if held_out else [])]
    return Answer(tuple(answers), (table, *([held_out] if held_out else [])), notes=tuple(dict.fromkeys(notes)))


def _is_of_layers(analysis: Analysis, verdict: Verdict) -> bool:
    claim = verdict.claim
    return (
        claim.response in analysis.measures and claim.summary == "final" and (claim.layer, claim.mode) == ("mean", None)
    )


def _effects(
    analysis: Analysis, verdict: Verdict, fits: dict[tuple[str, ...], LinearFit | str], notes: list[str]
) -> Iterator[tuple[str, ModelEffect]]:
    yield "contrast per seed", ModelEffect(verdict.estimate, verdict.interval, float(verdict.df), verdict.p)
    claim, design = verdict.claim, verdict.design
    table = analysis.claim_rows(claim)
    factors = [name for name in analysis.claim_factors(claim) if len(level_order(table[name])) > 1]
    for method, name in MODELS.items():
        key = (method, claim.rule, str(design), claim.response)
        if key not in fits:
            layers = method == "mixed"
            terms = [*factors, *(["center(position)"] if layers and _depth(analysis) > 1 else [])]
            # Pairs of factors that the cells cannot tell apart leave main effects.
            formulas = [f"({' + '.join(terms)})**2", " + ".join(terms)] if len(terms) > 1 else terms
            of: Any = {
                "response": claim.response,
                "rule": claim.rule,
                "design": design,
                "method": method,
                "layers": layers,
            }
            fits[key] = first_fit(formulas, partial(analysis.fit, **of))
        fitted = fits[key]
        if isinstance(fitted, str):
            notes.append(f"{sentence(MODELS[method])}, design {design}: {fitted}.")
        else:
            yield name, claim_effect(fitted, claim)


def _depth(analysis: Analysis) -> int:
    return int(analysis.layers["layer"].max())


def _held_out_error(analysis: Analysis, notes: list[str]) -> Table | None:
    """How well main effects, and pairs of factors, predict seeds and cells that had no part in the fit."""
    rule = next((rule for rule in analysis.rules if rule != "bp"), None)
    try:
        model = alignment_model(analysis, rule) if rule is not None else None
    except AnalysisError as error:
        notes.append(f"Held-out error: {error}.")
        return None
    if model is None or analysis.alignment is None:
        return None
    rows, frames = [], []
    for interactions, terms in ((1, "main effects"), (2, "main effects and pairs of factors")):
        for held, what in HELD_OUT:
            try:
                found = prediction_error(model.table, model.factors, held=held, interactions=interactions)
            except AnalysisError as error:
                notes.append(f"Held-out error, {terms}, {what}: {error}.")
                continue
            response = analysis.alignment
            rows.append(
                (
                    terms, what, level(found.rmse, response), level(found.rmse_mean, response), number(found.r2, 2),
                    f"[{number(found.r2_interval[0], 2)}, {number(found.r2_interval[1], 2)}]",
                    number(found.r2_cell_mean, 2) if found.r2_cell_mean == found.r2_cell_mean else ABSENT,
                )
            )  # fmt: skip
            frames.append(found.to_frame().assign(terms=terms))
    if not rows:
        return None
    columns = ("model", "predicted", "RMS error", "RMS error of the mean", "R²", "95% interval", "R² of cells' means")
    caption = (
        f"Held-out error of the factorial model of the {rule} runs, design {model.design}: each prediction is of a "
        "seed, or of whole cells, that the fit never saw."
    )
    return Table(
        "compared_prediction",
        caption,
        columns,
        tuple(rows),
        pd.concat(frames, ignore_index=True),
        frozenset(columns[2:]),
    )


def _error_answer(table: Table) -> str:
    frame = table.data
    cells = frame[frame["held"] == "cells"]
    if cells.empty:
        return ""
    best = cells.iloc[int(cells["rmse"].argmin())]
    return f"For cells that were never fitted, {best['terms']} predict with an R² of {number(best['r2'], 2)}: " + (
        "the factors carry over to new combinations." if best["r2"] > 0.5 else "do not read it into new combinations."
    )
