"""The model matrix: what a formula means, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from alignkit.errors import AnalysisError
from alignkit.stats.models.design import Design, independent_columns
from alignkit.stats.models.linear import LinearFit


def grid_table(seeds: int = 3) -> pd.DataFrame:
    """A full 3 x 2 x 2 grid within seeds, with a position that is a number."""
    generator = np.random.default_rng(0)
    rows = [
        {"seed": seed, "width": width, "norm": norm, "dropout": dropout, "value": generator.normal()}
        for seed, width, norm, dropout in itertools.product(range(seeds), (8, 16, 64), ("none", "batch"), (0.0, 0.1))
    ]
    return pd.DataFrame(rows).assign(position=generator.random(len(rows)))


@pytest.mark.parametrize(
    ("model", "oracle"),
    [
        ("width * norm", "value ~ C(width, Sum) * C(norm, Sum, levels=['none', 'batch'])"),
        ("value ~ norm * log2(width)", "value ~ C(norm, Sum, levels=['none', 'batch']) * np.log2(width)"),
        ("I(position) + dropout", "value ~ position + C(dropout, Sum)"),
        ("norm + np.maximum(log2(width) - 4, 0)", "value ~ C(norm, Sum) + np.maximum(np.log2(width) - 4, 0)"),
        (["width", "norm", "dropout"], "value ~ (C(width, Sum) + C(norm, Sum) + C(dropout, Sum))**2"),
    ],
)
def test_the_columns_span_what_statsmodels_fits(model: Any, oracle: str) -> None:
    table = grid_table()
    design = Design.of(table, model)
    expected = smf.ols(oracle, table).fit()
    fitted = design.x @ np.linalg.lstsq(design.x, design.y, rcond=None)[0]
    np.testing.assert_allclose(fitted, expected.fittedvalues, atol=1e-10)
    assert design.x.shape == (len(table), len(design.names)) == (len(table), len(expected.params))
    assert sorted(column for columns in design.terms.values() for column in columns) == list(range(len(design.names)))


def test_factors_are_deviations_that_sum_to_zero_over_the_levels() -> None:
    design = Design.of(grid_table(), ["width", "norm"])
    np.testing.assert_allclose(design.x[:, 1:].sum(axis=0), 0)
    assert design.names[:4] == ("Intercept", "width[8]", "width[16]", "norm[none]")
    assert design.terms["width:norm"] == (4, 5) and design.factors["width"] == ("8", "16", "64")


def test_a_column_named_plainly_is_a_factor_whatever_its_type() -> None:
    table = grid_table()
    expected = Design.of(table, "width").x
    for column in (table["width"].astype(float), table["width"].astype(str), table["width"].astype(object)):
        np.testing.assert_array_equal(Design.of(table.assign(width=column), "width").x, expected)
    flags = Design.of(table.assign(on=table["norm"] == "batch"), "on")
    assert flags.factors == {"on": ("false", "true")}


def test_rows_of_a_grid_are_those_of_the_table() -> None:
    table = grid_table().assign(**{"my factor": lambda t: t["norm"]})
    for model in ("width * norm", "norm * center(log2(width))", 'Q("my factor") * I(position ** 2)', ["my factor"]):
        design = Design.of(table, model)
        np.testing.assert_allclose(design.rows(table), design.x)
    design = Design.of(table, "width + norm")
    np.testing.assert_allclose(design.rows(pd.DataFrame({"width": ["64"], "norm": ["batch"]})), [[1, -1, -1, -1]])
    with pytest.raises(AnalysisError, match="one of 8, 16, 64; got 32"):
        design.rows(pd.DataFrame({"width": [32], "norm": ["batch"]}))
    with pytest.raises(AnalysisError, match='the grid to have a column "norm"'):
        design.rows(pd.DataFrame({"width": [8]}))


def test_missing_values_are_left_out_and_counted() -> None:
    table = grid_table()
    table.loc[[0, 5], "value"] = np.nan
    table.loc[7, "position"] = np.nan
    table.loc[9, "norm"] = None
    design = Design.of(table, "norm + I(position)")
    assert design.dropped == 4 and list(design.index) == [row for row in table.index if row not in (0, 5, 7, 9)]
    assert "4 of 36 rows left out" in design.missing_note[0]
    assert design.covariates["position"] == pytest.approx(table.loc[design.index, "position"].mean())
    repeated = pd.concat([table, table])
    np.testing.assert_array_equal(
        repeated["value"].to_numpy()[Design.of(repeated, "norm").used], Design.of(repeated, "norm").y
    )


def test_a_column_may_have_any_name() -> None:
    table = grid_table()
    expected = Design.of(table, ["norm", "width"]).x
    for name in ("C", "Q", "I", "log2", "lambda", 'the "norm"', "feedback.norm's", "norm_as_factor"):
        design = Design.of(table.rename(columns={"norm": name}), [name, "width"])
        np.testing.assert_array_equal(design.x, expected)
        assert design.names[1] == f"{name}[none]" and f"{name}:width" in design.terms
    with pytest.raises(AnalysisError, match='one column "norm"; got 2'):
        Design.of(pd.concat([table, table[["norm"]]], axis="columns"), "norm")


def test_aliased_terms_are_named() -> None:
    table = grid_table().query("width != 64")
    fraction = table.assign(c=((table["width"] == 8) == (table["norm"] == "none")))
    with pytest.raises(AnalysisError, match=r"width:norm is aliased with c.*Drop width:norm"):
        Design.of(fraction, ["width", "norm", "c"])
    assert Design.of(fraction, ["width", "norm", "c"], interactions=1).x.shape[1] == 4
    mirrored = table.assign(mirror=table["norm"])
    with pytest.raises(AnalysisError, match="mirror is aliased with norm"):
        Design.of(mirrored, "norm + mirror")
    with pytest.raises(AnalysisError, match=r"log2\(width\) is aliased with width"):
        Design.of(grid_table(), "width + log2(width)")
    hole = grid_table().query("not (width == 64 and norm == 'batch')")
    with pytest.raises(AnalysisError, match="width:norm is aliased with"):
        Design.of(hole, "width * norm")


def test_independent_columns_are_found_whatever_their_scale() -> None:
    x = np.random.default_rng(1).normal(size=(20, 4))
    dependent = np.column_stack([x[:, 0], 1e6 * x[:, 1], x[:, 0] - x[:, 1], np.zeros(20), 1e-6 * x[:, 2]])
    assert independent_columns(dependent) == [0, 1, 4]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("widht", 'a column "widht"; did you mean "width"'),
        ("norm + log2(widht)", '"widht" is no column; did you mean "width"'),
        ("norm +", "expected a model formula"),
        ("0 + norm", "with an intercept"),
        ("1", "at least one predictor"),
        ("log(value) ~ norm", "one column as the response"),
        ("value ~ norm + value", '"value" is the response'),
        ("position", r'write "I\(position\)"'),
        ("log2(norm)", '"norm": expected numbers'),
        ("C(norm, Treatment)", "a factor named plainly"),
        ("log2(dropout)", "not a finite number in every row"),
        ([], "a formula or a list of factors; got none"),
        (["norm", "norm"], "expected different names"),
        ("same", "at least two levels; got x alone"),
        ("nothing", "got 48 rows, none complete"),
    ],
)
def test_bad_models_are_refused(model: Any, message: str) -> None:
    table = grid_table(4).assign(same="x", nothing=np.nan)
    with pytest.raises(AnalysisError, match=message):
        Design.of(table, model)


def test_options_that_contradict_each_other_are_refused() -> None:
    table = grid_table()
    with pytest.raises(AnalysisError, match="interactions within the formula"):
        Design.of(table, "width * norm", interactions=1)
    with pytest.raises(AnalysisError, match='"all" or an order of at least 1; got 0'):
        Design.of(table, ["width", "norm"], interactions=0)
    with pytest.raises(AnalysisError, match='"value" in the formula and "position" beside it'):
        Design.of(table, "value ~ norm", response="position")
    with pytest.raises(AnalysisError, match='a column "angle"'):
        Design.of(table, "norm", response="angle")


def test_a_linear_fit_needs_coefficients_and_covariance_alone() -> None:
    """Any fit of a design gets tests and a frame from the base class; here ordinary least squares."""
    table = grid_table()
    design = Design.of(table, "width * norm")
    oracle = smf.ols("value ~ C(width, Sum) * C(norm, Sum, levels=['none', 'batch'])", table).fit()
    fit = LinearFit(
        design=design,
        coefficients=oracle.params.to_numpy(),
        covariance=oracle.cov_params().to_numpy(),
        n_seeds=3,
        method="least squares",
        residual_df=oracle.df_resid,
    )
    frame = fit.to_frame(level=0.9)
    np.testing.assert_allclose(frame[["low", "high"]], oracle.conf_int(alpha=0.1))
    np.testing.assert_allclose(frame["p"], oracle.pvalues)
    weights = np.eye(6)[list(design.terms["width:norm"])]
    expected = oracle.f_test(weights)
    test = fit.f_test(weights)
    assert (test.statistic, test.p, test.df, test.df_error) == pytest.approx((expected.fvalue, expected.pvalue, 2, 30))
    assert fit.anova().set_index("term").loc["width:norm", "p"] == pytest.approx(test.p)
