"""The fitted models, one simulated study at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from alignkit.calibration.rates import Tally, tally
from alignkit.calibration.scenarios import Scenario, factorial_runs, layered_runs, run_table
from alignkit.errors import AnalysisError
from alignkit.stats.factorial import fit_factorial
from alignkit.stats.linear import LinearFit
from alignkit.stats.marginal import fit_gee
from alignkit.stats.mixed import fit_mixed

ALPHA = 0.05
MODEL = "a + b"


def _within_seeds(table: pd.DataFrame) -> LinearFit:
    return fit_factorial(table, MODEL)


def _mixed(table: pd.DataFrame) -> LinearFit:
    return fit_mixed(table, MODEL)


def _marginal(table: pd.DataFrame) -> LinearFit:
    return fit_gee(table, MODEL)


# A model is a name and a fit of a table with columns seed, a (2 levels), b (4 levels) and value; its F
# tests of a and b are counted. What fits other tables has an evaluation of its own, as layers have.
MODELS: dict[str, Callable[[pd.DataFrame], LinearFit]] = {
    "factorial within seeds": _within_seeds,
    "mixed model": _mixed,
    "GEE": _marginal,
}
TERMS = {"a": "type I error, 2 levels", "b": "type I error, 4 levels"}


def evaluate_models(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Each model's rate of rejecting a factor of two and one of four levels, neither of which has an effect.

    Only over-rejection is an error here: Greenhouse and Geisser's correction, and Satterthwaite's df where
    a variance is estimated as 0, are known to be careful. An interval of the two-level effect misses
    exactly when its test rejects.
    """
    runs = factorial_runs(scenario, studies, generator)
    tables = [run_table(study, ("a", "b")) for study in runs]
    tallies = []
    for name, fit in MODELS.items():
        p = np.array([_p_values(fit, table) for table in tables])
        for column, quantity in enumerate(TERMS.values()):
            rejected, defined = p[:, column] < ALPHA, np.isfinite(p[:, column])
            tallies.append(tally("models", name, quantity, rejected, target=ALPHA, side="at most", defined=defined))
    return tallies


def evaluate_layers(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """The mixed model of layers nested in runs: a factor of the runs, one of the layers, neither with an effect."""
    values = layered_runs(scenario, studies, generator)
    p = np.array([_p_values(_layered, _layer_table(study), ("a", "layer")) for study in values])
    return [
        tally("models", "mixed model, layers in runs", quantity, p[:, column] < ALPHA, target=ALPHA, side="at most",
              defined=np.isfinite(p[:, column]))
        for column, quantity in enumerate(("type I error, 2 levels", "type I error, 3 layers"))
    ]  # fmt: skip


def _layered(table: pd.DataFrame) -> LinearFit:
    return fit_mixed(table, "a + layer")


def _layer_table(values: np.ndarray) -> pd.DataFrame:
    table = run_table(values, ("a", "cell", "layer"))
    return table.assign(run_id=np.arange(len(table)) // values.shape[-1])


def _p_values(
    fit: Callable[[pd.DataFrame], LinearFit], table: pd.DataFrame, terms: Sequence[str] = tuple(TERMS)
) -> list[float]:
    """The p of each term's F test; NaN for all where the fit is refused."""
    try:
        fitted = fit(table)
    except AnalysisError:
        return [np.nan] * len(terms)
    identity = np.eye(len(fitted.coefficients))
    return [fitted.f_test(identity[list(fitted.design.terms[term])]).p for term in terms]
