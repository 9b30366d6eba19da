"""The mixed model against R (lme4, lmerTest, emmeans), statsmodels, exact tests, and the traps of MixedLM."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.models.factorial import fit_factorial
from alignkit.stats.models.margins import marginal_contrasts, marginal_means
from alignkit.stats.models.mixed import MixedFit, fit_mixed

ORACLES = Path(__file__).parents[2] / "oracles"
R: dict[str, Any] = json.loads((ORACLES / "mixed.json").read_text())
MODELS: dict[str, dict[str, Any]] = {
    "balanced": {"formula_or_factors": "width * norm", "random": ["width", "norm"]},
    "unbalanced": {"formula_or_factors": "origin + width + norm"},
    "layers": {"formula_or_factors": "norm * layer + activation", "random": ["norm"]},
    "slopes": {"formula_or_factors": "norm * center(layer)", "random": ["center(layer)"]},
    "boundary": {"formula_or_factors": "norm + width", "random": ["norm"]},
    "few_rows": {"formula_or_factors": "a * b"},
}
INTERIOR = ["balanced", "unbalanced", "layers", "slopes", "few_rows"]
# What R calls the components of the slope model, and ours otherwise.
GROUPS = {"seed.1": "seed", "seed": "seed:center(layer)", "seed.run_id": "seed:run_id", "Residual": "residual"}


def dataset(name: str) -> pd.DataFrame:
    return pd.read_csv(ORACLES / f"mixed_{'layers' if name == 'slopes' else name}.csv")


def fitted(name: str, **options: Any) -> MixedFit:
    return fit_mixed(dataset(name), **(MODELS[name] | options))


def simulated(
    noise: int, *, seeds: int = 8, cells: int = 4, repeats: int = 2, seed_sd: float = 1.0, effect_sd: float = 0.0
) -> pd.DataFrame:
    """Rows of a factor `a` with `cells` levels and `repeats` rows a level in every seed; residual sd 1, no effect."""
    generator = np.random.default_rng(noise)
    table = pd.DataFrame(itertools.product(range(seeds), range(cells), range(repeats)), columns=["seed", "a", "copy"])
    value = generator.normal(0, seed_sd, seeds)[table["seed"]] + generator.normal(0, 1, len(table))
    value += generator.normal(0, effect_sd, (seeds, cells))[table["seed"], table["a"]]
    return table.assign(value=60 + value)


def nested(noise: int, *, seeds: int = 6, seed_sd: float = 1.0, run_sd: float = 0.7) -> pd.DataFrame:
    """Layers in runs in seeds."""
    generator = np.random.default_rng(noise)
    table = pd.DataFrame(itertools.product(range(seeds), range(4), range(3)), columns=["seed", "run_id", "layer"])
    table["a"] = table["run_id"] % 2
    value = generator.normal(0, seed_sd, seeds)[table["seed"]] + generator.normal(0, 1, len(table))
    value += generator.normal(0, run_sd, (seeds, 4))[table["seed"], table["run_id"]]
    return table.assign(value=60 + value)


def variances(fit: MixedFit) -> pd.Series:
    return fit.variance_components.set_index("component")["variance"]


def statsmodels_fit(table: pd.DataFrame, **options: Any) -> tuple[Any, list[str]]:
    """MixedLM of value on a, and the warnings that it gave."""
    model = {key: options.pop(key) for key in ("re_formula", "vc_formula") if key in options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = smf.mixedlm("value ~ C(a, Sum)", table, groups="seed", **model).fit(**options)
    return result, [str(item.message) for item in caught]


@pytest.mark.parametrize("name", MODELS)
def test_estimates_errors_and_variances_are_those_of_lme4(name: str) -> None:
    fit, oracle = fitted(name), R[name]
    frame = fit.to_frame()
    np.testing.assert_allclose(frame["estimate"], [row["Estimate"] for row in oracle["coefficients"]], rtol=1e-5)
    # With a variance of 0 lme4's errors take it as 0, as if it were known.
    assert fit.variance_components["at_boundary"].any() == (name == "boundary")
    se = np.sqrt(np.diag(np.tensordot(fit.variances, fit.derivatives, 1)))
    np.testing.assert_allclose(se, [row["Std. Error"] for row in oracle["coefficients"]], rtol=1e-5)
    if name in INTERIOR:
        np.testing.assert_allclose(frame["se"], se, rtol=1e-9)
    assert fit.log_likelihood == pytest.approx(oracle["log_likelihood"], abs=1e-6)
    names = GROUPS if name == "slopes" else {"Residual": "residual"}
    expected = {names.get(row["grp"], row["grp"]): row["vcov"] for row in oracle["variances"]}
    assert variances(fit).to_dict() == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", INTERIOR)
def test_degrees_of_freedom_and_p_are_those_of_lmertest(name: str) -> None:
    fit, oracle = fitted(name), R[name]
    assert not fit.variance_components["at_boundary"].any()
    frame = fit.to_frame()
    np.testing.assert_allclose(frame["df"], [row["df"] for row in oracle["coefficients"]], rtol=1e-5)
    np.testing.assert_allclose(frame["p"], [row["Pr(>|t|)"] for row in oracle["coefficients"]], rtol=1e-3)
    joint = {row["term"]: row for row in oracle["joint"]}
    default = {row["term"]: row for row in oracle["anova"]}
    for row in fit.anova().to_dict("records"):
        term = row["term"].replace("center(layer)", "depth")
        assert (row["df"], row["F"]) == pytest.approx((joint[term]["NumDF"], joint[term]["F value"]), rel=1e-5)
        assert (row["df_error"], row["p"]) == pytest.approx((joint[term]["DenDF"], joint[term]["Pr(>F)"]), rel=1e-4)
        # lmerTest's anova takes other combinations of the same term, which moves the df a little, or with few rows more.
        assert row["df_error"] == pytest.approx(default[term]["DenDF"], rel=2e-2 if name == "few_rows" else 1e-3)


@pytest.mark.parametrize(
    ("name", "means", "pairs"),
    [("balanced", "width", "width"), ("unbalanced", "norm", "norm"), ("layers", "layer", "norm")],
)
def test_marginal_means_and_contrasts_are_those_of_emmeans(name: str, means: str, pairs: str) -> None:
    fit = fitted(name)
    results = (marginal_means(fit, means, null=0), marginal_contrasts(fit, pairs, kind="pairwise"))
    for result, rows, estimate in zip(
        results, (R[name]["means"], R[name]["pairwise"]), ("emmean", "estimate"), strict=True
    ):
        for column, of_r in (("estimate", estimate), ("se", "SE"), ("df", "df"), ("low", "lower.CL"), ("p", "p.value")):
            found = getattr(result, column)
            np.testing.assert_allclose(found, [row[of_r] for row in rows], rtol=2e-3 if column == "p" else 1e-4)


def test_a_likelihood_that_is_largest_without_a_residual_is_refused() -> None:
    # Effects tell every row apart. lme4 ends at the same place, with t of 1,575 for an interaction.
    oracle = R["saturated"]
    of_r = {row["grp"]: row["vcov"] for row in oracle["variances"]}
    assert of_r["Residual"] < 1e-6 * sum(of_r.values())
    assert max(abs(row["t value"]) for row in oracle["coefficients"][4:]) > 1000
    with pytest.raises(AnalysisError, match=r"got no residual variance.*name fewer terms in random"):
        fit_mixed(dataset("saturated"), "a * b")


def small_unbalanced(noise: int) -> pd.DataFrame:
    """Three to seven seeds, two factors, variances of very different sizes, up to half of the rows missing."""
    generator = np.random.default_rng(noise)
    seeds, cells_a, cells_b = generator.integers(3, 8), generator.integers(2, 4), generator.integers(2, 5)
    table = pd.DataFrame(itertools.product(range(seeds), range(cells_a), range(cells_b)), columns=["seed", "a", "b"])
    sd = generator.choice([0.0, 0.3, 1.0, 3.0], 4)
    value = 50 + generator.normal(0, sd[0], seeds)[table["seed"]] + generator.normal(0, max(sd[3], 0.01), len(table))
    value += generator.normal(0, sd[1], (seeds, 4))[table["seed"], table["a"]]
    value += generator.normal(0, sd[2], (seeds, 4))[table["seed"], table["b"]]
    return table.assign(value=value).sample(frac=generator.uniform(0.5, 1), random_state=noise).sort_index()


@pytest.mark.parametrize("tables", [range(60), pytest.param(range(60, 500), marks=pytest.mark.slow)])
def test_small_unbalanced_tables_are_fitted_or_refused_in_words(tables: range) -> None:
    fitted_tables = 0
    for noise in tables:
        try:
            fit = fit_mixed(small_unbalanced(noise), "a * b")
        except AnalysisError as error:
            assert str(error).startswith("expected")
            continue
        fitted_tables += 1
        assert np.isfinite(fit.anova()[["F", "df_error", "p"]].to_numpy()).all()
        assert np.isfinite(fit.to_frame()[["estimate", "se", "df", "p"]].to_numpy()).all()
    assert fitted_tables > 0.7 * len(tables)


def test_the_likelihood_is_that_of_statsmodels() -> None:
    table = nested(5, seed_sd=2.0).sample(frac=0.8, random_state=0)
    result, _ = statsmodels_fit(
        table.sort_values("seed"), re_formula="1", vc_formula={"run": "0 + C(run_id)"}, method="powell"
    )
    fit = fit_mixed(table, "a", random=[])
    assert fit.log_likelihood == pytest.approx(result.llf, abs=1e-4)
    assert variances(fit).to_list() == pytest.approx(
        [float(result.cov_re.iloc[0, 0]), float(result.vcomp[0]), result.scale], rel=1e-2
    )


@pytest.mark.parametrize("noise", range(12))
def test_in_balanced_data_f_is_the_exact_one_of_repeated_measures(noise: int) -> None:
    table = simulated(noise, seeds=6, effect_sd=0.3 * (noise % 2))
    fit = fit_mixed(table, "a")
    test = fit.f_test(np.eye(4)[1:])
    exact = fit_factorial(table, "a").anova().iloc[0]
    assert (test.statistic, test.df, test.df_error) == pytest.approx(tuple(exact[["F", "df", "df_error"]]))
    assert test.p == pytest.approx(exact["p_spherical"])
    assert bool(fit.warnings) == fit.variance_components["at_boundary"].any()


def test_some_of_those_are_on_the_boundary_and_some_are_not() -> None:
    at = [
        bool(fit_mixed(simulated(k, seeds=6, effect_sd=0.3 * (k % 2)), "a").variance_components["at_boundary"].any())
        for k in range(12)
    ]
    assert any(at) and not all(at)


def test_a_contrast_of_two_levels_is_the_paired_t_test() -> None:
    table = simulated(3, cells=2, repeats=4, effect_sd=1.0)
    row = marginal_contrasts(fit_mixed(table, "a"), "a").to_frame().iloc[0]
    oracle = paired_test(
        seed_contrasts(table, factor="a", levels=(0, 1), response="value", within=["copy"]).differences
    )
    assert (row["estimate"], row["df"], row["p"]) == pytest.approx((oracle.estimate, oracle.df, oracle.p_t), rel=1e-6)
    assert (row["low"], row["high"]) == pytest.approx(oracle.interval, rel=1e-6)


def test_variances_and_their_uncertainty_are_those_simulated() -> None:
    table = simulated(7, seeds=300, seed_sd=1.5, effect_sd=0.8)
    fit = fit_mixed(table, "a")
    error = np.sqrt(np.diag(fit.variance_covariance))
    found = variances(fit)[["residual", "seed", "seed:a"]].to_numpy()
    assert (np.abs(found - [1.0, 2.25, 0.64]) < 4 * error).all()
    assert (error < 0.3).all()
    assert fit.icc["seed"] == pytest.approx(2.25 / 3.89, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "effect_sd"), [*itertools.product((6, 10, 20), (0.0, 0.5))])
def test_a_factor_without_effect_is_rejected_in_one_of_twenty(seeds: int, effect_sd: float) -> None:
    """Two and four levels, rows missing at random."""
    studies, rejected = 400, np.zeros(2)
    generator = np.random.default_rng([seeds, int(10 * effect_sd)])
    for study in range(studies):
        table = simulated(1000 * seeds + study, seeds=seeds, repeats=4, effect_sd=effect_sd)
        table["b"] = table["copy"] % 2
        table["value"] += generator.normal(0, effect_sd, (seeds, 2))[table["seed"], table["b"]]
        anova = fit_mixed(table[generator.random(len(table)) > 0.15], "a + b").anova()
        rejected += (anova["p"] < 0.05).to_numpy()
    assert (rejected <= stats.binom.ppf(0.999, studies, 0.05)).all()
    assert (rejected >= stats.binom.ppf(0.001, studies, 0.05)).all()


def test_the_search_ends_where_scoring_alone_would_crawl() -> None:
    """With a third of the rows missing, two hundred scoring steps do not reach this optimum."""
    table = simulated(1694, seeds=6)
    table = table[np.random.default_rng(1694).random(len(table)) > 0.3]
    fit = fit_mixed(table, "I(a)")
    assert fit.convergence.steps < 20 and fit.convergence.promised < 1e-9
    assert fit.convergence.log_likelihoods[0] == pytest.approx(fit.convergence.log_likelihoods[1], abs=1e-8)


def test_fixed_effects_that_take_up_the_seeds_are_refused() -> None:
    table = simulated(0, seeds=3).assign(origin=lambda rows: "site" + rows["seed"].map(str))
    with pytest.raises(AnalysisError, match="nothing to test against"):
        fit_mixed(table, "origin + a")


def test_one_row_a_seed_is_ordinary_least_squares() -> None:
    table = pd.DataFrame({"seed": range(8), "a": [0, 1] * 4, "value": [1.0, 3, 2, 5, 1, 4, 3, 2]})
    fit = fit_mixed(table, "a")
    oracle = stats.ttest_ind(table["value"][1::2], table["value"][::2])
    assert fit.not_separable == {"seed": ("residual",)}
    assert fit.anova()["p"].iloc[0] == pytest.approx(oracle.pvalue)
    assert fit.anova()["df_error"].iloc[0] == pytest.approx(6)


def test_units_do_not_matter() -> None:
    table = dataset("unbalanced")
    fit, scaled = fitted("unbalanced"), fit_mixed(table.assign(value=table["value"] * 1e6), "origin + width + norm")
    pd.testing.assert_frame_equal(fit.anova(), scaled.anova(), rtol=1e-7)
    np.testing.assert_allclose(scaled.coefficients, fit.coefficients * 1e6)
    np.testing.assert_allclose(variances(scaled), variances(fit) * 1e12, rtol=1e-6)
    assert fit.log_likelihood - scaled.log_likelihood == pytest.approx((len(fit.design.y) - 7) * np.log(1e6))
    slopes = dataset("slopes").assign(layer=lambda rows: rows["layer"] * 1000)
    moved = fit_mixed(slopes, "norm * center(layer)", random=["center(layer)"])
    np.testing.assert_allclose(moved.to_frame()["p"], fitted("slopes").to_frame()["p"], rtol=1e-6)
    assert variances(moved)["seed:center(layer)"] == pytest.approx(
        variances(fitted("slopes"))["seed:center(layer)"] / 1e6
    )


def test_the_order_of_rows_and_levels_and_the_names_of_seeds_do_not_matter() -> None:
    fit = fitted("layers")
    table = dataset("layers").iloc[::-1].reset_index(drop=True)
    table["seed"] = table["seed"].map(lambda seed: f"s{7 * seed % 11}")
    other = fit_mixed(table, **MODELS["layers"])
    assert other.design.factors["norm"] == fit.design.factors["norm"][::-1]
    pd.testing.assert_frame_equal(fit.anova(), other.anova(), rtol=1e-6)
    # Nor does which combinations say that a term is 0.
    turned = np.array([[1.0, 1, 0], [0, 1, -3], [2, 0, 1], [3, 1, 1]]) @ np.eye(9)[2:5]
    assert astuple(fit.f_test(turned)) == pytest.approx(astuple(fit.f_test(np.eye(9)[2:5])), rel=1e-6)


def test_rows_of_a_run_are_not_replicates() -> None:
    """Copying every row three times changes nothing but the run's share; without runs named it would."""
    table = simulated(4, seeds=6, repeats=1, effect_sd=0.5).drop(columns="copy")
    table["run_id"] = range(len(table))
    noise = np.random.default_rng(0).normal(0, 1e-3, (3, len(table)))
    layers = pd.concat([table.assign(value=table["value"] + noise[k] - noise.mean(axis=0)) for k in range(3)])
    one, three = fit_mixed(table, "a"), fit_mixed(layers, "a")
    assert three.n_runs == len(table) and three.n_seeds == 6
    assert three.anova()["p"].iloc[0] == pytest.approx(one.anova()["p"].iloc[0], rel=1e-5)
    assert three.icc["run"] == pytest.approx(1, abs=1e-5)
    assert fit_mixed(layers, "a", random=[], run=None).anova()["p"].iloc[0] < one.anova()["p"].iloc[0] / 2


def test_effects_that_vary_over_seeds_are_components_by_default() -> None:
    table = dataset("layers")
    fit = fit_mixed(table, "norm * activation + norm * I(layer)")
    assert list(fit.variance_components["component"]) == [
        "seed", "seed:run_id", "seed:norm", "seed:activation", "seed:I(layer)", "seed:norm:I(layer)", "residual",
    ]  # fmt: skip
    # A run is a cell of norm and activation: the rows cannot say which of the two varies.
    assert fit.not_separable == {"seed:norm:activation": ("seed:run_id",)}
    assert fit.variance_components["share"].sum() == pytest.approx(1)
    assert 0 < fit.icc["seed"] < fit.icc["run"] < 1
    between = fit_mixed(dataset("unbalanced"), "origin + norm")
    assert list(between.variance_components["component"]) == ["seed", "seed:norm", "residual"]
    assert between.n_runs == len(between.design.y) == 91


def test_levels_agree_however_they_are_written() -> None:
    table = dataset("balanced")
    as_text = table.assign(width=table["width"].map(float), norm=table["norm"].astype("string"))
    pd.testing.assert_frame_equal(fitted("balanced").anova(), fit_mixed(as_text, **MODELS["balanced"]).anova())


# The traps of statsmodels' MixedLM


def test_trap_1_no_intercept_of_zero_where_seeds_do_not_vary() -> None:
    generator = np.random.default_rng(1)
    table = pd.DataFrame(itertools.product(range(10), range(64)), columns=["seed", "cell"])
    table = table.assign(a=table["cell"] % 2, value=generator.normal(0, 1, len(table)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trapped = smf.mixedlm("value ~ C(a)", table, groups="seed").fit(method="lbfgs")
    assert trapped.converged and trapped.params["Intercept"] == 0
    fit = fit_mixed(table, "a", random=[])
    assert abs(fit.coefficients[0] - table["value"].mean()) < 1e-9


def test_trap_2_the_boundary_is_reached_from_every_start() -> None:
    failed = 0
    for noise in range(4):
        table = simulated(noise, seeds=10, cells=2, repeats=4, seed_sd=0.0)
        fit = fit_mixed(table, "a", random=[])
        assert fit.convergence.promised < 1e-8
        assert max(fit.convergence.log_likelihoods) - min(fit.convergence.log_likelihoods) < 1e-6
        try:
            default, _ = statsmodels_fit(table)
            failed += not default.converged
        except np.linalg.LinAlgError:
            failed += 1
        powell, _ = statsmodels_fit(table, method="powell")
        assert fit.log_likelihood > powell.llf - 1e-3
    assert failed


def test_trap_3_the_boundary_is_a_ratio() -> None:
    table = simulated(3, seed_sd=2.0).assign(value=lambda rows: rows["value"] / 1000)
    _, caught = statsmodels_fit(table, method="powell")
    assert any("boundary" in message for message in caught)
    fit = fit_mixed(table, "a", random=[])
    assert fit.warnings == () and not fit.variance_components["at_boundary"].any()
    none = fit_mixed(simulated(9, seed_sd=0.0).assign(value=lambda rows: rows["value"] * 1e6), "a", random=[])
    assert none.variance_components.set_index("component").loc["seed", "at_boundary"]


def test_trap_4_the_seed_intercept_is_always_there() -> None:
    table = nested(3, seed_sd=2.0)
    trapped, _ = statsmodels_fit(table, vc_formula={"run": "0 + C(run_id)"}, method="powell")
    assert trapped.cov_re.size == 0
    fit = fit_mixed(table, "a", random=[])
    assert list(fit.variance_components["component"]) == ["seed", "seed:run_id", "residual"]
    assert fit.log_likelihood > trapped.llf + 3


def test_trap_5_tests_are_t_and_not_z() -> None:
    table = simulated(2, seeds=6, cells=2, repeats=1)
    table["value"] += 1.0 * (table["a"] == 1)
    trapped, _ = statsmodels_fit(table, method="powell")
    t = paired_test(seed_contrasts(table, factor="a", levels=(0, 1), response="value").differences)
    fit = fit_mixed(table, "a")
    assert fit.to_frame()["p"].iloc[1] == pytest.approx(t.p_t, rel=1e-6)
    assert trapped.pvalues.iloc[1] < 0.8 * t.p_t


@pytest.mark.parametrize(
    ("errors", "mend"), [("robust", "fit_gee"), ("HC3", "fit_gee"), ("AR(1)", "Summarise each run")]
)
def test_trap_6_errors_that_a_mixed_model_does_not_have_are_refused(errors: str, mend: str) -> None:
    table = simulated(0, seed_sd=2.0)
    plain, _ = statsmodels_fit(table, method="powell")
    trapped, _ = statsmodels_fit(table, method="powell", cov_type="robust")
    assert trapped.bse.equals(plain.bse)  # taken without a word, and ignored
    with pytest.raises(AnalysisError, match=mend):
        fit_mixed(table, "a", errors=errors)


def test_trap_7_whatever_is_to_be_said_is_in_the_result() -> None:
    """Warnings are errors in these tests, so that none can be raised beside the result."""
    table = simulated(9, seed_sd=0.0)
    table.loc[3, "value"] = np.nan
    fit = fit_mixed(table, "a", random=[])
    assert fit.warnings == (
        "1 of 64 rows left out: a value is missing",
        "variance estimated as 0: seed; standard errors take it untruncated",
    )
    assert marginal_means(fit, "a").warnings == fit.warnings


def test_the_method_says_how_a_variance_of_0_is_taken() -> None:
    at_zero, inside = (fit_mixed(simulated(9, seed_sd=sd), "a", random=[]) for sd in (0.0, 2.0))
    assert at_zero.method.endswith("Satterthwaite t and F, errors with variances at 0 untruncated")
    assert inside.method.endswith("Satterthwaite t and F")


@pytest.mark.slow
def test_where_cells_are_missing_an_interaction_is_rejected_somewhat_too_often() -> None:
    """What `fit_mixed` says of itself: 6 seeds, a fifth of 2 x 3 cells missing, variances at 0 in most tables."""
    generator = np.random.default_rng(12)
    p = []
    for noise in range(600):
        table = pd.DataFrame(itertools.product(range(6), "xy", "pqr"), columns=["seed", "a", "b"])
        table["value"] = generator.normal(0, 1, 6)[table["seed"]] + generator.normal(0, 1, len(table))
        anova = fit_mixed(table.sample(frac=0.8, random_state=noise).sort_index(), "a * b").anova()
        p.append(anova.set_index("term")["p"])
    rates = (pd.DataFrame(p) < 0.05).mean()
    # Within simultaneous 99% Monte Carlo bounds (2.9 standard errors) of what the docstring says.
    assert rates["a"] < 0.09 and rates["b"] < 0.09 and rates["a:b"] < 0.115
    assert rates.min() > 0.015


# What is refused


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows[rows["seed"] < 2], {}, "needs ≥ 3 seeds; got 2"),
        (lambda rows: rows.assign(value=7.0), {}, "the same in every row"),
        (lambda rows: rows.assign(value=rows["a"] * 3.0), {}, "follows a exactly"),
        (lambda rows: rows.assign(b=rows["a"] >= 2), {"formula_or_factors": "a + b"}, "b is aliased with a"),
        (lambda rows: rows.assign(b=rows["seed"] % 2), {"random": ["b"]}, "one level within every seed"),
        (lambda rows: rows, {"random": ["a:copy"]}, "cannot tell from residual"),
        (lambda rows: rows, {"random": ["nothing"]}, "expected a column"),
        (lambda rows: rows, {"run": "nothing"}, "expected a column"),
        (lambda rows: rows.assign(run_id=[None, *range(1, len(rows))]), {}, "1 rows without one"),
        (lambda rows: rows.assign(seed=[None, *rows["seed"][1:]]), {}, "a seed in every row"),
        (lambda rows: rows.drop(columns="seed"), {}, "expected a column"),
        (lambda rows: rows.assign(value=rows["value"].where(rows["a"] < 1)), {}, "at least two levels"),
        (lambda rows: pd.concat([rows.assign(run_id=range(len(rows)))] * 2), {}, "same value, keep one row per run"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(change: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        fit_mixed(change(simulated(0)), **({"formula_or_factors": "a"} | options))


def test_it_needs_more_rows_than_coefficients() -> None:
    table = pd.DataFrame({"seed": [1, 2, 3], "a": [1, 2, 3], "value": [1.0, 2, 4]})
    with pytest.raises(AnalysisError, match="more rows than the 3 coefficients"):
        fit_mixed(table, "a")
