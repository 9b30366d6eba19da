"""The factorial model against R (lm, aov, car, sandwich), statsmodels and the per-seed contrasts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.diagnostic import het_breuschpagan

from alignkit.claims.fit import fit
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.models.factorial import FactorialFit, fit_factorial, repeated_measures_f
from alignkit.stats.models.margins import marginal_contrasts, marginal_means
from alignkit.stats.models.prediction import prediction_error

HELD: tuple[Any, ...] = ("seed", "cells")
ORACLES = Path(__file__).parents[2] / "oracles"
R: dict[str, Any] = json.loads((ORACLES / "factorial.json").read_text())
MODELS = {
    "balanced": "width * norm * activation",
    "unbalanced": "width * norm",
    "covariate": "activation * log10(lr) + norm + depth + dropout",
}


def dataset(name: str) -> pd.DataFrame:
    return pd.read_csv(ORACLES / f"factorial_{name}.csv")


def fitted(name: str, **options: Any) -> FactorialFit:
    return fit_factorial(dataset(name), MODELS[name], **options)


def by_term(rows: list[dict[str, Any]]) -> dict[frozenset[str], dict[str, Any]]:
    """R and patsy write the factors of a term in different orders."""
    return {frozenset(row["term"].split(":")): row for row in rows}


@pytest.mark.parametrize("name", MODELS)
def test_pooled_coefficients_and_type_three_tests_are_those_of_r(name: str) -> None:
    fit = fitted(name, errors="pooled")
    expected = {row["name"]: row for row in R[name]["pooled"]["coefficients"] if not row["name"].startswith("seed")}
    frame = fit.to_frame()
    assert len(frame) == len(expected)
    for column, oracle in (("estimate", "Estimate"), ("se", "Std. Error"), ("t", "t value"), ("p", "Pr(>|t|)")):
        # Only the order of the columns differs.
        np.testing.assert_allclose(sorted(frame[column]), sorted(row[oracle] for row in expected.values()), rtol=1e-6)
    tests = by_term(R[name]["pooled"]["anova"])
    for row in fit.anova().to_dict("records"):
        oracle_row = tests[frozenset(row["term"].split(":"))]
        assert row["F"] == pytest.approx(oracle_row["F value"], rel=1e-6)
        assert row["p"] == pytest.approx(oracle_row["Pr(>F)"], rel=1e-6)
        assert (row["ss"], row["df"]) == pytest.approx((oracle_row["Sum Sq"], oracle_row["Df"]), rel=1e-6)
        residual = tests[frozenset(["Residuals"])]
        assert (row["ss_error"], row["df_error"]) == pytest.approx((residual["Sum Sq"], residual["Df"]), rel=1e-6)
        assert row["partial_r2"] == pytest.approx(row["ss"] / (row["ss"] + residual["Sum Sq"]))


def test_robust_errors_are_those_of_sandwich() -> None:
    fit = fitted("unbalanced", errors="robust")
    tests = by_term(R["unbalanced"]["robust"]["anova"])
    for row in fit.anova().to_dict("records"):
        oracle = tests[frozenset(row["term"].split(":"))]
        assert (row["F"], row["p"]) == pytest.approx((oracle["F"], oracle["Pr(>F)"]), rel=1e-6)
    assert "HC3" in fit.method


def test_f_tests_within_seeds_are_those_of_the_strata_of_aov() -> None:
    anova = fitted("balanced").anova()
    expected = by_term(R["balanced"]["strata"])
    assert len(anova) == len(expected) == 7
    for row in anova.to_dict("records"):
        oracle = expected[frozenset(row["term"].split(":"))]
        for column in ("df", "df_error", "ss", "ss_error", "F"):
            assert row[column] == pytest.approx(oracle[column], rel=1e-6), (row["term"], column)
        assert row["p_spherical"] == pytest.approx(oracle["p"], rel=1e-6)


def test_the_sphericity_correction_is_that_of_car_and_of_anova_mlm() -> None:
    anova = fitted("balanced").anova().set_index("term")
    corrected = by_term(R["balanced"]["sphericity"])
    assert len(corrected) == 4  # the terms with more than one df
    for term, row in anova.iterrows():
        oracle = corrected.get(frozenset(str(term).split(":")))
        if oracle is None:
            assert row["epsilon"] == 1 and row["p"] == row["p_spherical"]
        else:
            assert (row["epsilon"], row["p"]) == pytest.approx((oracle["epsilon"], oracle["p"]), rel=1e-6)
    mlm = R["balanced"]["anova_mlm"]
    assert anova.loc["width", "p"] == pytest.approx(mlm["p"], rel=1e-6)
    assert anova.loc["width", "epsilon"] == pytest.approx(mlm["epsilon"], abs=5e-5)  # R prints four digits


def test_unbalanced_seeds_are_fitted_each_and_averaged() -> None:
    fit = fit_factorial(dataset("unbalanced"), "width + norm")
    expected = R["unbalanced"]["within"]
    for column in ("estimate", "se", "p"):
        np.testing.assert_allclose(fit.to_frame()[column], [row[column] for row in expected], rtol=1e-6)
    assert fit.residual_df == expected[0]["df"] == 6
    assert any("4 of 79 rows left out" in warning for warning in fit.warnings)


def test_a_contrast_is_exactly_that_of_the_per_seed_contrasts() -> None:
    table = dataset("balanced")
    fit = fit_factorial(table, ["width", "norm", "activation"], interactions="all")
    names = fit.design.names
    per_seed = seed_contrasts(
        table, factor="norm", levels=("none", "batch"), response="value", within=["width", "activation"]
    )
    oracle = paired_test(per_seed.differences)
    weights = np.zeros(len(names))
    weights[names.index("norm[none]")] = -2.0
    assert fit.per_seed is not None
    np.testing.assert_allclose(fit.per_seed @ weights, per_seed.differences, atol=1e-10)
    test = fit.f_test(weights)
    assert weights @ fit.coefficients == pytest.approx(oracle.estimate)
    assert test.p == pytest.approx(oracle.p_t) and fit.df(weights) == oracle.df


def test_generalised_r2_leaves_out_what_the_other_terms_explain() -> None:
    """By hand from marginal means, which is what a balanced design allows."""
    table = dataset("balanced")
    anova = fit_factorial(table, "norm + activation").anova().set_index("term")
    y = table["value"]
    squares = {
        name: float(((table.groupby(name)["value"].transform("mean") - y.mean()) ** 2).sum()) for name in anova.index
    }
    rest = float(((y - y.mean()) ** 2).sum()) - sum(squares.values())
    for name, ss in squares.items():
        assert anova.loc[name, "generalised_r2"] == pytest.approx(ss / (ss + rest))
        assert anova.loc[name, "generalised_r2"] < anova.loc[name, "partial_r2"]


def test_breusch_pagan_is_that_of_statsmodels() -> None:
    table = dataset("unbalanced").dropna()
    diagnostics = fit_factorial(table, "width + norm").diagnostics()
    residuals = smf.ols("value ~ C(width) + C(norm) + C(seed)", table).fit().resid
    x = smf.ols("value ~ C(width) + C(norm)", table).fit().model.exog
    lm, p, *_ = het_breuschpagan(residuals, x)
    assert (diagnostics.breusch_pagan, diagnostics.breusch_pagan_p) == pytest.approx((lm, p))
    assert len(diagnostics.to_frame()) == 3


@pytest.mark.parametrize("errors", ["seed", "pooled"])
def test_influence_is_the_change_on_refitting_without_a_seed(errors: Any) -> None:
    table = dataset("unbalanced").sort_values("norm")  # so that the levels keep their order without any seed
    fit = fit_factorial(table, "width + norm", errors=errors)
    influence = fit.diagnostics().influence
    assert len(influence) == 7 * len(fit.design.names)
    for seed, rows in influence.groupby("seed"):
        again = fit_factorial(table[table["seed"] != seed], "width + norm", errors=errors)
        np.testing.assert_allclose(rows["without"], again.coefficients, atol=1e-9)
        np.testing.assert_allclose(rows["change"], again.coefficients - fit.coefficients, atol=1e-9)


def test_a_seed_that_cannot_identify_the_model_is_left_out_and_counted() -> None:
    table = dataset("balanced")
    torn = table[~((table["seed"] == 2) & (table["width"] == 128))]
    fit = fit_factorial(torn, "width * norm")
    assert fit.n_seeds == 5 and 2 not in fit.seeds and fit.residual_df == 4
    assert any("1 of 6 seeds left out" in warning for warning in fit.warnings)
    without = fit_factorial(table[table["seed"] != 2], "width * norm")
    np.testing.assert_allclose(fit.covariance, without.covariance, atol=1e-12)
    pd.testing.assert_frame_equal(fit.anova(), without.anova())
    assert len(fit.design.y) == 60
    # Nor do seeds that were left out move what a covariate is centred on.
    quadratic = "norm + center(log2(width)) + I(center(log2(width)) ** 2)"
    expected = fit_factorial(table[table["seed"] != 2], quadratic)
    np.testing.assert_allclose(fit_factorial(torn, quadratic).coefficients, expected.coefficients, atol=1e-9)
    assert fit_factorial(torn, quadratic).design.covariates == expected.design.covariates
    with pytest.raises(AnalysisError, match=r"at least two seeds .*got 1 of 2"):
        fit_factorial(torn[torn["seed"].isin([1, 2])], "width * norm")


def test_a_fit_that_would_leave_out_most_seeds_is_refused() -> None:
    table = pd.DataFrame(itertools.product(range(12), "ab", (1, 2, 3)), columns=["seed", "norm", "width"])
    table["value"] = np.random.default_rng(0).normal(60, 1, len(table))

    def lacking(seeds: int) -> pd.DataFrame:
        return table[~((table["seed"] < seeds) & (table["width"] == 3) & (table["norm"] == "b"))]

    assert fit(lacking(2), "norm * width").n_seeds == 10  # a sixth
    for seeds in (3, 10):
        with pytest.raises(AnalysisError, match=rf"at most a fifth of the seeds .*got {seeds} of 12.*mixed"):
            fit(lacking(seeds), "norm * width")
    assert fit(lacking(10), "norm * width", method="mixed").n_seeds == 12
    assert fit(lacking(10), "norm + width").n_seeds == 12  # whose own rows are enough for fewer terms


def test_a_factor_that_never_varies_within_a_seed_is_refused() -> None:
    table = dataset("balanced").assign(site=lambda t: np.where(t["seed"] > 3, "north", "south"))
    with pytest.raises(AnalysisError, match="at least two seeds whose own rows identify"):
        fit_factorial(table, "norm + site")
    with pytest.raises(AnalysisError, match="site is aliased with seed"):
        fit_factorial(table, "norm + site", errors="pooled")


def test_bad_input_is_refused() -> None:
    table = dataset("balanced")
    with pytest.raises(AnalysisError, match='"seed", "pooled" or "robust"; got \'hc1\''):
        fit_factorial(table, "norm", errors="hc1")  # type: ignore[arg-type]
    with pytest.raises(AnalysisError, match="a model without the seed"):
        fit_factorial(table, "norm + seed")
    with pytest.raises(AnalysisError, match='a column "block"'):
        fit_factorial(table, "norm", seed="block")
    with pytest.raises(AnalysisError, match="a seed in every row; got 12 rows"):
        fit_factorial(table.assign(seed=table["seed"].where(table["seed"] > 1)), "norm")
    one_each = table[table["seed"] == 1]
    with pytest.raises(AnalysisError, match="more rows than the 12 coefficients"):
        fit_factorial(one_each, "width * norm * activation", errors="pooled")
    alone = table[(table["seed"] < 3) & (table["width"] > 8) | (table.index == 0)]
    with pytest.raises(AnalysisError, match="others beside it for HC3 errors; got 1 rows"):
        fit_factorial(alone, "width + norm", errors="robust")


def test_without_variance_there_is_no_test() -> None:
    table = dataset("balanced").assign(value=lambda t: t["width"] / 8 + (t["norm"] == "batch") + 0.1 * t["seed"])
    fit = fit_factorial(table, "width + norm + activation")
    # The seeds differ in level alone, so nothing but the intercept has an error; activation has no effect either.
    assert fit.anova()[["F", "p"]].isna().all(axis=None)
    frame = fit.to_frame().set_index("coefficient")
    assert frame["p"].isna().tolist() == [False, True, True, True, True]
    assert fit.anova().set_index("term").loc["norm", "partial_r2"] == pytest.approx(1)
    assert np.isnan(fit.diagnostics().breusch_pagan)
    constant = table.assign(value=3.0)
    assert "all seeds agree exactly" in fit_factorial(constant, "width + norm").warnings[-1]
    for errors in ("seed", "pooled", "robust"):
        flat = fit_factorial(constant, "width + norm", errors=errors)
        assert flat.to_frame()["p"].isna().all() and flat.anova()["p"].isna().all()
        # No sum of squares to have a share of, but for rounding.
        assert flat.anova()[["partial_r2", "generalised_r2"]].isna().all(axis=None)


def test_units_do_not_matter() -> None:
    """Degrees or microradians, an offset or none: the same tests."""
    table = dataset("balanced")
    anova = fit_factorial(table, "width * norm").anova()
    scaled = fit_factorial(table.assign(value=1e-6 * table["value"] + 3), "width * norm").anova()
    for column in ("F", "epsilon", "p", "partial_r2", "generalised_r2"):
        np.testing.assert_allclose(scaled[column], anova[column], rtol=1e-6)


def in_units(*, offset: float = 0.0, unit: float = 1.0, flops: float = 1.0) -> pd.DataFrame:
    """Rows of two norms and three widths, whose flops and response come in any unit."""
    generator = np.random.default_rng(3)
    cells = list(itertools.product(range(8), ("none", "batch"), (1.0, 2.5, 4.0)))
    table = pd.DataFrame(cells, columns=["seed", "norm", "flops"])
    value = generator.normal(60, 3, 8)[table["seed"]] + table["flops"] * generator.normal(0.4, 0.2, 8)[table["seed"]]
    # Steps of 1/8 survive an offset of 1e12, so that the tests ought to be the same to the last digits.
    value = np.round(8 * (value + generator.normal(0, 1, len(table)))) / 8
    return table.assign(value=unit * value + offset, flops=flops * table["flops"])


UNITS = [{"offset": 1e12}, {"offset": -1e14, "unit": 64.0}, {"flops": 1e11}, {"flops": 1e-11}, {"unit": 1e9},
         {"unit": 1e-9}, {"unit": 1e-9, "flops": 1e15}, {"offset": 1e12, "flops": 1e11}]  # fmt: skip


@pytest.mark.parametrize("units", UNITS, ids=str)
@pytest.mark.parametrize("method", ["seed", "pooled", "robust", "mixed", "gee"])
def test_tolerances_do_not_depend_on_units(method: Any, units: dict[str, float]) -> None:
    for formula in ("norm + I(flops)", "norm * center(flops)"):
        reference, found = (fit(table, formula, method=method) for table in (in_units(), in_units(**units)))
        expected = reference.anova()
        assert np.isfinite(expected[["F", "p"]].to_numpy()).all()
        pd.testing.assert_frame_equal(
            found.anova().drop(columns=["ss", "ss_error"], errors="ignore"),
            expected.drop(columns=["ss", "ss_error"], errors="ignore"), rtol=1e-6,
        )  # fmt: skip
        effects = slice(1, None)
        for column in ("t", "df", "p"):
            np.testing.assert_allclose(
                found.to_frame()[column][effects], reference.to_frame()[column][effects], rtol=1e-6
            )
        ratio = marginal_contrasts(found, "norm").estimate / marginal_contrasts(reference, "norm").estimate
        assert ratio == pytest.approx(units.get("unit", 1.0), rel=1e-6)
        assert np.isfinite(marginal_means(found, "norm").se).all() and (marginal_means(found, "norm").se > 0).all()


@pytest.mark.parametrize("units", UNITS, ids=str)
def test_diagnostics_and_prediction_do_not_depend_on_units(units: dict[str, float]) -> None:
    reference, found = (fit_factorial(table, "norm + I(flops)") for table in (in_units(), in_units(**units)))
    expected, frame = reference.diagnostics(), found.diagnostics()
    pd.testing.assert_frame_equal(frame.to_frame(), expected.to_frame(), rtol=1e-5)
    # An intercept of 1e12 has no more digits than its own.
    effects = expected.influence["coefficient"] != "Intercept"
    changes = (of.influence.loc[effects, "change_in_se"] for of in (frame, expected))
    np.testing.assert_allclose(*changes, rtol=1e-6, atol=1e-9)
    for held in HELD:
        errors = [prediction_error(table, "norm + I(flops)", held=held) for table in (in_units(), in_units(**units))]
        assert errors[1].r2 == pytest.approx(errors[0].r2, rel=1e-6)


def test_a_response_that_varies_by_rounding_alone_has_no_test_in_any_unit() -> None:
    table = in_units()
    for offset, flops in ((0.1, 1.0), (1e12, 1.0), (0.1, 1e11), (1e12 / 3, 1e11)):
        effect = (
            offset * (1 + 1e-3 * (table["norm"] == "batch")) + 1e-3 * offset * table["flops"] + offset * table["seed"]
        )
        exact = fit_factorial(table.assign(value=effect, flops=flops * table["flops"]), "norm + I(flops)")
        assert exact.anova()[["F", "p"]].isna().all(axis=None)


def test_within_seeds_holds_its_level_where_pooling_does_not() -> None:
    """Effects that vary from seed to seed (sd .5 of the residual's), 10 seeds, 3 x 2 cells by four: no true effect."""
    generator = np.random.default_rng(11)
    cells = pd.DataFrame(list(itertools.product(range(10), (8, 16, 32), ("none", "batch"), range(4))))
    cells.columns = pd.Index(["seed", "width", "norm", "repeat"])
    reference = fit_factorial(cells.assign(value=generator.normal(size=len(cells))), "width + norm")
    x, seed_of_row = reference.design.x, reference.seed_of_row
    weights = np.eye(4)[1:3]
    studies = 2000
    within = 0
    inverse = np.linalg.inv(x[seed_of_row == 0].T @ x[seed_of_row == 0])
    for _ in range(studies):
        by_seed = generator.normal(0, 0.5, (10, 4))
        y = (x * by_seed[seed_of_row]).sum(axis=1) + generator.normal(size=len(x))
        per_seed = (x * y[:, None]).reshape(10, -1, 4).sum(axis=1) @ inverse
        within += repeated_measures_f(per_seed @ weights.T, weights @ inverse @ weights.T)[0].p < 0.05
    # Greenhouse and Geisser's correction may be a little conservative, never liberal.
    assert 0.025 < within / studies < 0.05 + 2.576 * np.sqrt(0.05 * 0.95 / studies)
    pooled = [
        fit_factorial(
            cells.assign(value=(x * generator.normal(0, 0.5, (10, 4))[seed_of_row]).sum(axis=1) + generator.normal(size=len(x))),
            "width + norm", errors="pooled",
        ).f_test(weights).p
        for _ in range(60)
    ]  # fmt: skip
    assert np.mean(np.array(pooled) < 0.05) > 0.2
