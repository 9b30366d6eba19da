"""The fitted models, one simulated study at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from alignkit.calibration.paired import known_power
from alignkit.calibration.rates import Tally, tally
from alignkit.calibration.scenarios import Scenario, factorial_runs, layered_runs, run_table
from alignkit.errors import AnalysisError
from alignkit.stats.models.factorial import FactorialFit, fit_factorial
from alignkit.stats.models.gee import fit_gee
from alignkit.stats.models.linear import LinearFit
from alignkit.stats.models.mixed import fit_mixed

ALPHA = 0.05
MODEL = "a + b"


# A model is a name and a fit of a table with columns seed, a (2 levels), b (4 levels) and value; its F
# tests of a and b are counted. What fits other tables has an evaluation of its own, as layers have.
MODELS: dict[str, Callable[[pd.DataFrame], LinearFit]] = {
    "factorial within seeds": partial(fit_factorial, formula_or_factors=MODEL),
    "mixed model": partial(fit_mixed, formula_or_factors=MODEL),
    "GEE": partial(fit_gee, formula_or_factors=MODEL),
}
TERMS = {"a": "2 levels", "b": "4 levels"}
EFFECT = 1.0
"""The effect that power is given for, in residual sds of a run."""


def evaluate_models(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Each model's rate of rejecting a factor of two and one of four levels, without an effect and with one.

    Only over-rejection is an error here: Greenhouse and Geisser's correction, and Satterthwaite's df where
    a variance is estimated as 0, are known to be careful. An interval of the two-level effect misses
    exactly when its test rejects. Power is that for an effect of `EFFECT` from the first level to the last.
    """
    tables = [run_table(study, ("a", "b")) for study in factorial_runs(scenario, studies, generator)]
    rates = [one for name, fit in MODELS.items() for one in _error_and_power(name, fit, tables, TERMS)]
    # With two levels, the F within seeds is the square of the paired t.
    known = known_power(scenario, EFFECT / scenario.factorial_sd)
    exact = ("power", "factorial within seeds", _power_at(TERMS["a"]))
    return [replace(one, **known) if (one.section, one.method, one.quantity) == exact else one for one in rates]


def evaluate_layers(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """The mixed model of layers nested in runs: a factor of the runs, one of the layers, as in `evaluate_models`."""
    tables = [layer_table(study) for study in layered_runs(scenario, studies, generator)]
    return _error_and_power("mixed model, layers in runs", _layered, tables, {"a": "2 levels", "layer": "3 layers"})


def _layered(table: pd.DataFrame) -> LinearFit:
    return fit_mixed(table, "a + layer")


def layer_table(values: np.ndarray) -> pd.DataFrame:
    """One study's layers [seeds, 2, cells, layers] as a tidy table, with the run that each belongs to."""
    table = run_table(values, ("a", "cell", "layer"))
    return table.assign(run_id=np.arange(len(table)) // values.shape[-1])


def _error_and_power(
    name: str, fit: Callable[[pd.DataFrame], LinearFit], tables: Sequence[pd.DataFrame], terms: Mapping[str, str]
) -> list[Tally]:
    """How often each term's F test rejects without an effect, and with one."""
    p = np.array([_p_values(fit, table, tuple(terms)) for table in tables])  # [study, (null, effect), term]
    tallies = []
    for column, what in enumerate(terms.values()):
        null, effect = p[:, 0, column], p[:, 1, column]
        tallies += [
            tally("models", name, f"type I error, {what}", null < ALPHA, target=ALPHA, side="at most",
                  defined=np.isfinite(null)),
            tally("power", name, _power_at(what), effect < ALPHA),
        ]  # fmt: skip
    return tallies


def _power_at(what: str) -> str:
    return f"power at {EFFECT:g} residual sd, {what}"


def _p_values(fit: Callable[[pd.DataFrame], LinearFit], table: pd.DataFrame, terms: Sequence[str]) -> np.ndarray:
    """The p of each term's F test, without an effect and with one [2, terms]; NaN for all where the fit is refused."""
    try:
        fitted = fit(table)
    except AnalysisError:
        return np.full((2, len(terms)), np.nan)
    identity = np.eye(len(fitted.coefficients))
    weights = [identity[list(fitted.design.terms[term])] for term in terms]
    moved = [with_effect(fitted, table, term) for term in terms]
    return np.array(
        [
            [fitted.f_test(rows).p for rows in weights],
            [of.f_test(rows).p for of, rows in zip(moved, weights, strict=True)],
        ]
    )


def with_effect(fitted: LinearFit, table: pd.DataFrame, term: str, effect: float = EFFECT) -> LinearFit:
    """What the same fit finds had the response an `effect` more at the term's last level (numbered from 0).

    The model's columns hold such an effect, so that residuals, and all variances with them, stay as they are.
    """
    last = (table.loc[fitted.design.index, term] == table[term].max()).to_numpy(float)
    shift = np.linalg.lstsq(fitted.design.x, effect * last, rcond=None)[0]
    changes: dict[str, Any] = {"coefficients": fitted.coefficients + shift}
    if isinstance(fitted, FactorialFit) and fitted.per_seed is not None:
        changes["per_seed"] = fitted.per_seed + shift
    return replace(fitted, **changes)
