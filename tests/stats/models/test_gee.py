"""Generalised estimating equations against statsmodels, exact tests and a sandwich written out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.models.gee import MarginalFit, fit_gee
from alignkit.stats.models.margins import marginal_contrasts

TABLE = Path(__file__).parents[2] / "oracles" / "mixed_unbalanced.csv"


def simulated(noise: int, *, seeds: int = 8, cells: int = 3, repeats: int = 2, effect_sd: float = 0.7) -> pd.DataFrame:
    generator = np.random.default_rng(noise)
    table = pd.DataFrame(itertools.product(range(seeds), range(cells), range(repeats)), columns=["seed", "a", "b"])
    value = generator.normal(0, 1, seeds)[table["seed"]] + generator.normal(0, 1, len(table))
    return table.assign(value=60 + value + generator.normal(0, effect_sd, (seeds, cells))[table["seed"], table["a"]])


def mancl_derouen(fit: MarginalFit, seed: np.ndarray) -> np.ndarray:
    """The covariance of Mancl and DeRouen (2001), equation 4, written out for a normal response."""
    x, y = fit.design.x, fit.design.y
    bread, parts = np.zeros((x.shape[1],) * 2), []
    for s in np.unique(seed):
        xs, rs = x[seed == s], (y - x @ fit.coefficients)[seed == s]
        v = np.full((len(xs), len(xs)), fit.within_seed) + (1 - fit.within_seed) * np.eye(len(xs))
        weighted = np.linalg.solve(v, xs)
        bread += xs.T @ weighted
        parts.append((xs, weighted, rs))
    inverse = np.linalg.inv(bread)
    meat = np.zeros_like(bread)
    for xs, weighted, rs in parts:
        score = weighted.T @ np.linalg.solve(np.eye(len(xs)) - xs @ inverse @ weighted.T, rs)
        meat += np.outer(score, score)
    return inverse @ meat @ inverse


@pytest.mark.parametrize("correlation", ["exchangeable", "independence"])
def test_estimates_are_those_of_statsmodels_and_errors_those_of_the_formula(correlation: Any) -> None:
    table = pd.read_csv(TABLE).dropna()
    fit = fit_gee(table, "origin + width + norm", correlation=correlation)
    levels = {name: list(fit.design.factors[name]) for name in ("origin", "width", "norm")}
    table = table.assign(**{name: pd.Categorical(table[name].astype(str), texts) for name, texts in levels.items()})
    cov = sm.cov_struct.Exchangeable() if correlation == "exchangeable" else sm.cov_struct.Independence()
    formula = "value ~ C(origin, Sum) + C(width, Sum) + C(norm, Sum)"
    oracle = smf.gee(formula, "seed", table, cov_struct=cov).fit(cov_type="bias_reduced", ctol=1e-10, maxiter=300)
    np.testing.assert_allclose(fit.coefficients, oracle.params, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance)), oracle.bse, rtol=1e-5)
    np.testing.assert_allclose(fit.covariance, mancl_derouen(fit, table["seed"].to_numpy()), rtol=1e-6, atol=1e-9)
    if correlation == "exchangeable":
        assert fit.within_seed == pytest.approx(oracle.model.cov_struct.dep_params, rel=1e-4)


def test_in_balanced_data_it_is_the_paired_test_made_careful() -> None:
    table = simulated(1, cells=2, repeats=3)
    paired = paired_test(seed_contrasts(table, factor="a", levels=(0, 1), response="value", within=["b"]).differences)
    fit = fit_gee(table, "a + b")
    row = marginal_contrasts(fit, "a").to_frame().iloc[0]
    assert row["estimate"] == pytest.approx(paired.estimate) and row["df"] == paired.df == 7
    assert row["se"] ** 2 == pytest.approx(paired.sd**2 / 8 * 8 / 7)
    assert row["p"] > paired.p_t


def test_the_joint_test_is_that_of_hotelling() -> None:
    """Against T² of two contrasts per seed, whose covariance is as much too large as the variances."""
    table = simulated(2)
    means = table.pivot_table(index="seed", columns="a", values="value").to_numpy()
    differences = means[:, 1:] - means[:, :1]
    n, q = differences.shape
    mean = differences.mean(axis=0)
    t2 = (n - 1) / n * n * mean @ np.linalg.solve(np.cov(differences, rowvar=False), mean)
    f = t2 * (n - q) / (q * (n - 1))
    test = fit_gee(table, "a").f_test(np.eye(3)[1:])
    assert (test.statistic, test.df, test.df_error) == pytest.approx((f, q, n - q))
    assert test.p == pytest.approx(stats.f.sf(f, q, n - q))


def test_factors_between_seeds_cost_degrees_of_freedom() -> None:
    fit = fit_gee(pd.read_csv(TABLE), "origin + norm")
    assert fit.n_seeds == 9 and fit.residual_df == 7
    assert fit.warnings == ("6 of 97 rows left out: a value is missing",)
    assert fit_gee(pd.read_csv(TABLE), "norm").residual_df == 8


def test_units_and_the_order_of_rows_do_not_matter() -> None:
    table = pd.read_csv(TABLE)
    fit = fit_gee(table, "width + norm")
    other = fit_gee(table.assign(value=table["value"] * 1e6)[::-1], "width + norm")
    pd.testing.assert_frame_equal(fit.anova(), other.anova(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 10, 20])
def test_a_factor_without_effect_is_rejected_in_one_of_twenty_at_most(seeds: int) -> None:
    studies, rejected = 400, np.zeros(2)
    generator = np.random.default_rng(seeds)
    for study in range(studies):
        table = simulated(1000 * seeds + study, seeds=seeds)
        rejected += (fit_gee(table[generator.random(len(table)) > 0.1], "a + b").anova()["p"] < 0.05).to_numpy()
    assert (rejected <= stats.binom.ppf(0.999, studies, 0.05)).all()
    assert (rejected > 0).all()


@pytest.mark.parametrize(
    ("change", "model", "options", "message"),
    [
        (lambda rows: rows[rows["seed"] < 5], "a", {}, "≥ 6 seeds; got 5"),
        (lambda rows: rows[rows["seed"] < 6], "a * b", {}, "6 coefficients of a [*] b needs ≥ 7 seeds; got 6"),
        (lambda rows: rows.assign(value=5.0), "a", {}, "fits exactly"),
        (lambda rows: rows.assign(b=(rows["seed"] == 4) & (rows["b"] == 1)), "b", {}, "that only seed 4 identifies"),
        (lambda rows: rows, "a", {"correlation": "ar1"}, "summarise each run"),
        (lambda rows: rows.drop(columns="seed"), "a", {}, "expected a column"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(change: Any, model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        fit_gee(change(simulated(0)), model, **options)


def test_more_combinations_than_degrees_of_freedom_have_no_test() -> None:
    fit = fit_gee(simulated(0, seeds=6, cells=5), "a")
    assert np.isfinite(fit.f_test(np.eye(5)[1:]).p)
    assert np.isnan(fit.f_test(np.vstack([np.eye(5)[1:], np.eye(5)[1:3]])).p)
