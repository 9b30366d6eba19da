"""Whether the conclusions depend on the model: each claim's effect by every model, and held-out error."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from alignkit.claims.fit import Method, fit
from alignkit.claims.tables import claim_design, claim_factors, claim_table
from alignkit.claims.verdicts import Verdict
from alignkit.columns import MEASURE_COLUMNS
from alignkit.errors import AnalysisError
from alignkit.report.analysis import Analysis
from alignkit.report.section import Section
from alignkit.report.sections.model import alignment_model
from alignkit.report.tables import Table
from alignkit.stats.models.design import LinearFit
from alignkit.stats.models.margins import marginal_contrasts
from alignkit.stats.models.prediction import Held, prediction_error
from alignkit.stats.tables.levels import level_order, level_text
from alignkit.text import ABSENT, change, change_interval, count, level, listed, number, p_text

MODELS: dict[Method, str] = {
    "seed": "factorial model within seeds",
    "robust": "pooled least squares, HC3 errors",
    "gee": "marginal model (GEE), bias-reduced errors",
    "mixed": "mixed model, layers in runs in seeds",
}
"""The models beside the contrast of the verdict, by the method of `fit`."""


HELD_OUT: tuple[tuple[Held, str], ...] = (("seed", "new seeds"), ("cells", "cells never fitted"))


def compared(analysis: Analysis) -> Section | None:
    """Each claim's effect on a measure of layers, by the contrast that judged it and by four models."""
    verdicts = [verdict for verdict in analysis.verdicts if _is_of_layers(verdict) and verdict.n_seeds > 1]
    if not verdicts:
        return None
    fits: dict[tuple[str, ...], LinearFit | str] = {}
    rows, data, disagreeing = [], [], []
    notes: list[str] = []
    for verdict in verdicts:
        found = list(_effects(analysis, verdict, fits, notes))
        for name, estimate, interval, df, p in found:
            response = verdict.claim.response
            label = verdict.claim.name if name == found[0][0] else ""
            df_text = number(df, 0 if float(df).is_integer() else 1)
            effect = (change(estimate, response), change_interval(interval, response))
            rows.append((label, name, *effect, df_text, p_text(p)))
            data.append(
                {"claim": verdict.claim.name, "model": name, "estimate": estimate, "low": interval[0],
                 "high": interval[1], "df": df, "p": p}
            )  # fmt: skip
        signs = {(estimate > 0) for _, estimate, _, _, p in found if p < 0.05}
        if len(signs) > 1 or len({p < 0.05 for *_, p in found}) > 1:
            disagreeing.append(verdict.claim.name)
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
    held_out = _held_out_error(analysis, notes)
    answers = [answer, *([_error_answer(held_out)] if held_out else [])]
    return Section(tuple(answers), (table, *([held_out] if held_out else [])), notes=tuple(dict.fromkeys(notes)))


def _is_of_layers(verdict: Verdict) -> bool:
    claim = verdict.claim
    return claim.response in MEASURE_COLUMNS and claim.summary == "final" and claim.layer == "mean"


Effect = tuple[str, float, tuple[float, float], float, float]


def _effects(
    analysis: Analysis, verdict: Verdict, fits: dict[tuple[str, ...], LinearFit | str], notes: list[str]
) -> Iterator[Effect]:
    yield "contrast per seed", verdict.estimate, verdict.interval, float(verdict.df), verdict.p
    claim, records = verdict.claim, analysis.records
    design = claim_design(records, claim)
    table = claim_table(records, claim)
    factors = [name for name in claim_factors(records, claim) if len(level_order(table[name])) > 1]
    for method, name in MODELS.items():
        key = (method, claim.rule, str(design), claim.response)
        if key not in fits:
            fits[key] = _fitted(analysis, method, factors, claim.rule, design, claim.response)
        fitted = fits[key]
        if isinstance(fitted, str):
            notes.append(f"{MODELS[method][0].upper()}{MODELS[method][1:]}, design {design}: {fitted}.")
            continue
        before, after = (level_text(level) for level in claim.levels)
        contrasts = marginal_contrasts(fitted, claim.factor, reference=before, adjust="none").to_frame()
        row = contrasts[contrasts["level_to"] == after].iloc[0]
        yield name, row["estimate"], (row["low"], row["high"]), row["df"], row["p"]


def _fitted(
    analysis: Analysis, method: Method, factors: list[str], rule: str, design: str | None, response: str
) -> LinearFit | str:
    """The model with all pairs of factors (and, of layers, their position), or why there is none."""
    layers = method == "mixed"
    terms = [*factors, *(["center(position)"] if layers and _depth(analysis) > 1 else [])]
    formulas = [f"({' + '.join(terms)})**2", " + ".join(terms)] if len(terms) > 1 else terms
    reason = ""
    for formula in formulas:  # pairs of factors that the cells cannot tell apart leave main effects
        try:
            return fit(
                analysis.records, formula, response=response, rule=rule, design=design, layers=layers, method=method
            )
        except AnalysisError as error:
            reason = str(error)
    return reason


def _depth(analysis: Analysis) -> int:
    return int(analysis.records.layers["layer"].max())


def _held_out_error(analysis: Analysis, notes: list[str]) -> Table | None:
    """How well main effects, and pairs of factors, predict seeds and cells that had no part in the fit."""
    rule = next((rule for rule in analysis.rules if rule != "bp"), None)
    model = alignment_model(analysis, rule) if rule is not None else None
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
