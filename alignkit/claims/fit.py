"""One call for the statistical models: `fit`, on records or on any tidy table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd

from alignkit.errors import AnalysisError
from alignkit.records.rows import analysis_rows, require_records_or_table
from alignkit.records.store import Records
from alignkit.stats.models.factorial import fit_factorial
from alignkit.stats.models.formula import formula_text, left_hand_side, parse_formula, predictor
from alignkit.stats.models.linear import LinearFit
from alignkit.stats.tables.checks import require_choice

Method = Literal["seed", "pooled", "robust", "mixed", "gee"]
METHODS = ("seed", "pooled", "robust", "mixed", "gee")


def fit(
    records_or_table: Records | pd.DataFrame,
    model: str | Sequence[str],
    *,
    response: str | None = None,
    rule: str | None = "dfa",
    design: str | None = None,
    summary: Literal["final", "auc"] = "final",
    layers: bool = False,
    method: Method | None = None,
    interactions: int | Literal["all"] | None = None,
    seed: str = "seed",
) -> LinearFit:
    """A model of a response on several factors and their interactions.

    `model` is a formula ("norm * log2(width)") or a list of factors with `interactions` up to an order (2
    by default); a column named plainly is categorical. Records and tables are taken as in `compare`;
    without `design` it is the first in which every factor of the model varies.

    layers : of records, one row per run and hidden layer instead of the mean over them, with `layer` (1, 2,
        ...) and `position`, the layer over the number of hidden layers, to be used as in "norm * I(position)".
    method : "seed" (the model within every seed, their mean over seeds; the default for runs, refused where
        more than a fifth of the seeds lack cells that the model needs: see `fit_factorial`), "pooled" or
        "robust" (least squares with the seed as a block, to describe), "mixed" (layers in runs in seeds; the
        default for layers), "gee" (marginal, clustered by seed).

    Marginal means, simple effects and contrasts of the result: `marginal_means`, `marginal_contrasts`.
    """
    method = method or ("mixed" if layers else "seed")
    require_choice("method", method, METHODS)
    require_records_or_table(records_or_table)
    columns = records_or_table.runs if isinstance(records_or_table, Records) else records_or_table
    formula = formula_text(columns, model, interactions)
    parsed = parse_formula(formula)
    if parsed.lhs_termlist:
        response = left_hand_side(parsed, response)
        formula = formula.split("~", 1)[1].strip()
    analysed = analysis_rows(records_or_table, response, rule=rule, summary=summary, layer="each" if layers else "mean")
    atoms = {atom for term in parsed.rhs_termlist for atom in term.factors}
    predictors = [predictor(atom, analysed.table) for atom in atoms]
    used = [name for name, numbers in predictors if numbers is None]
    analysed.require_one_rule(used)
    if analysed.records is None:
        _require_different_rows(analysed.table)
    analysed = analysed.in_design(design, dict.fromkeys(name for name in used if name in analysed.factors))
    table, value = analysed.table, analysed.value
    result: LinearFit
    if method == "mixed":
        from alignkit.stats.models.mixed import fit_mixed

        run = "run_id" if "run_id" in table.columns and table["run_id"].duplicated().any() else None
        result = fit_mixed(table, formula, response=value, seed=seed, run=run)
    elif method == "gee":
        from alignkit.stats.models.gee import fit_gee

        result = fit_gee(table, formula, response=value, seed=seed)
    else:
        result = fit_factorial(table, formula, response=value, seed=seed, errors=method)
    of_design = f"; runs of the design {analysed.design}" if analysed.design is not None else ""
    return replace(result, method=result.method + of_design, warnings=(*result.warnings, *analysed.notes()))


def _require_different_rows(table: pd.DataFrame) -> None:
    """A row that is there twice is one observation."""
    repeated = int(table.map(_as_text).duplicated().sum()) if len(table.columns) else 0
    if repeated:
        raise AnalysisError(
            f"expected rows that differ; got {repeated:,} that repeat another in every column. Drop them with "
            "drop_duplicates(), or add a column that tells replicates apart"
        )


def _as_text(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # a number of more digits than Python writes; what reads its column says so
        return str(id(value))
