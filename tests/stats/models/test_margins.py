"""Marginal means and their contrasts against R's emmeans, and what they equal in balanced data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.multiplicity import holm
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.models.factorial import FactorialFit, fit_factorial
from alignkit.stats.models.margins import (
    Margins,
    interaction_contrasts,
    marginal_contrasts,
    marginal_means,
    polynomial_contrasts,
    simple_effects,
)
from alignkit.stats.tables.levels import level_text

ORACLES = Path(__file__).parents[2] / "oracles"
R: dict[str, Any] = json.loads((ORACLES / "factorial.json").read_text())
MODELS = {
    "balanced": "width * norm * activation",
    "unbalanced": "width * norm",
    "covariate": "activation * log10(lr) + norm + depth + dropout",
}
FITS = [
    ("balanced", "pooled"),
    ("balanced", "within"),
    ("unbalanced", "pooled"),
    ("unbalanced", "robust"),
    ("covariate", "pooled"),
]
COLUMNS = {
    "estimate": "estimate",
    "se": "SE",
    "df": "df",
    "low": "lower.CL",
    "high": "upper.CL",
    "t": "t.ratio",
    "p": "p.value",
}


def fitted(name: str, kind: str) -> FactorialFit:
    table = pd.read_csv(ORACLES / f"factorial_{name}.csv")
    return fit_factorial(table, MODELS[name], errors="seed" if kind == "within" else kind)  # type: ignore[arg-type]


def main_factor(name: str) -> str:
    return {"balanced": "width", "unbalanced": "norm", "covariate": "activation"}[name]


def assert_same(
    margins: Margins, oracle: list[dict[str, Any]], keys: list[str], *, ignore: tuple[str, ...] = ()
) -> None:
    """Every row of R's frame is found by its labels, and agrees in every column to six digits."""
    frame = margins.to_frame()
    assert len(frame) == len(oracle)
    for row in oracle:
        levels = pair_of(row["contrast"]) if "contrast" in row and " - " in row["contrast"] else {}
        wanted = {**row, **levels}
        match = frame
        for key in keys:
            match = match[match[key] == level_text(wanted[key])]
        assert len(match) == 1
        for own, theirs in COLUMNS.items():
            if own not in ignore:
                assert float(match[own].iloc[0]) == pytest.approx(row[theirs], rel=1e-6, abs=1e-12), (row, own)


def pair_of(text: str) -> dict[str, str]:
    """The levels of "width32 - width8", or of "layer - none"."""
    high, low = (re.sub(r"^(width)(?=\d)", "", side) for side in text.split(" - "))
    return {"level_from": low, "level_to": high}


@pytest.mark.parametrize(("name", "kind"), FITS)
def test_marginal_means_are_those_of_emmeans(name: str, kind: str) -> None:
    fit, oracle = fitted(name, kind), R[name][kind]
    factor = main_factor(name)
    assert_same(marginal_means(fit, factor, null=0), oracle["means"], [factor])
    if "means_by" in oracle:
        crossed = [key for key in oracle["means_by"][0] if key in fit.design.factors]
        assert_same(marginal_means(fit, crossed[0], by=crossed[1], null=0), oracle["means_by"], crossed)


@pytest.mark.parametrize(("name", "kind"), FITS)
def test_pairwise_contrasts_are_those_of_emmeans(name: str, kind: str) -> None:
    fit = fitted(name, kind)
    margins = marginal_contrasts(fit, main_factor(name), kind="pairwise")
    assert_same(margins, R[name][kind]["pairwise"], ["level_from", "level_to"])
    np.testing.assert_allclose(margins.p_adjusted, holm(margins.p))


def test_simple_effects_are_those_of_emmeans() -> None:
    fit = fitted("balanced", "pooled")
    margins = simple_effects(fit, "width", by="norm")
    assert_same(margins, R["balanced"]["pooled"]["reference_by"], ["norm", "level_from", "level_to"])
    assert "holm over 4" in margins.method


@pytest.mark.parametrize(("name", "kind"), [("balanced", "pooled"), ("balanced", "within"), ("unbalanced", "pooled")])
def test_interaction_contrasts_are_those_of_emmeans(name: str, kind: str) -> None:
    oracle = [
        {
            **row,
            "width_level_from": row["width_trt.vs.ctrl1"].split(" - ")[1],
            "width_level_to": row["width_trt.vs.ctrl1"].split(" - ")[0],
            "norm_level_to": row["norm_trt.vs.ctrl1"].split(" - ")[0],
        }
        for row in R[name][kind]["interaction"]
    ]
    margins = interaction_contrasts(fitted(name, kind), "width", "norm")
    assert_same(margins, oracle, ["width_level_from", "width_level_to", "norm_level_to"])


@pytest.mark.parametrize(("name", "kind"), [("balanced", "pooled"), ("balanced", "within"), ("unbalanced", "pooled")])
def test_polynomial_trends_are_those_of_emmeans_but_for_their_scale(name: str, kind: str) -> None:
    margins = marginal_contrasts(fitted(name, kind), "width", kind="polynomial")
    assert_same(margins, R[name][kind]["polynomial"], ["contrast"], ignore=("estimate", "se", "low", "high"))


def test_the_linear_trend_is_the_least_squares_slope_of_the_means() -> None:
    fit = fitted("unbalanced", "pooled")
    means = marginal_means(fit, "width").estimate
    for scores in ([0.0, 1, 2, 3], [16.0, 32, 64, 128]):
        trend = marginal_contrasts(fit, "width", kind="polynomial", scores=scores)
        assert trend.estimate[0] == pytest.approx(np.polyfit(scores, means, 1)[0])
    assert trend.estimate[2] == pytest.approx(np.polyfit(scores, means, 3)[0])
    contrasts = polynomial_contrasts([0, 1, 2, 5], 3)
    products = contrasts @ contrasts.T
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-12)


def test_covariates_are_held_where_they_are_put() -> None:
    fit = fitted("covariate", "pooled")
    margins = marginal_contrasts(fit, "activation", at={"lr": 0.01})
    assert_same(margins, R["covariate"]["pooled"]["at"], ["level_from", "level_to"])
    assert margins.estimate != pytest.approx(marginal_contrasts(fit, "activation").estimate)


def test_the_contrast_of_a_stratum_is_that_of_aov() -> None:
    """With two levels the stratum factor by seed has one contrast, so aov and the per-seed fit agree."""
    margins = marginal_contrasts(fitted("balanced", "within"), "norm")
    assert_same(margins, R["balanced"]["stratum_contrast"], ["level_from", "level_to"])


def test_a_simple_effect_is_exactly_the_per_seed_contrast_at_that_level() -> None:
    table = pd.read_csv(ORACLES / "factorial_balanced.csv")
    effects = simple_effects(fitted("balanced", "within"), "norm", by="width").to_frame().set_index("width")
    for width, rows in table.groupby("width"):
        per_seed = seed_contrasts(
            rows, factor="norm", levels=("none", "batch"), response="value", within=["activation"]
        )
        oracle = paired_test(per_seed.differences)
        row = effects.loc[level_text(width)]
        assert (row["estimate"], row["low"], row["high"]) == pytest.approx((oracle.estimate, *oracle.interval))
        assert row["p"] == pytest.approx(oracle.p_t)


def test_balanced_marginal_means_are_means_of_rows_and_equal_weights_when_not() -> None:
    table = pd.read_csv(ORACLES / "factorial_balanced.csv")
    fit = fitted("balanced", "within")
    rows = table.groupby("norm", sort=False)["value"].mean()
    np.testing.assert_allclose(marginal_means(fit, "norm").estimate, rows)
    lopsided = pd.concat([table, table[(table["width"] == 8) & (table["norm"] == "batch")]])
    again = fit_factorial(lopsided, MODELS["balanced"])
    np.testing.assert_allclose(marginal_means(again, "norm").estimate, rows)


def test_means_are_tested_against_the_null_that_is_asked_for() -> None:
    fit = fitted("balanced", "within")
    means = marginal_means(fit, "norm", null=90, level=0.9)
    np.testing.assert_allclose(means.t, (means.estimate - 90) / means.se)
    untested = marginal_means(fit, "norm")
    assert (means.high - means.low < untested.high - untested.low).all()
    assert {"t", "p", "p_adjusted"} == set(means.to_frame()) - set(untested.to_frame())


def test_a_reference_level_can_be_chosen_and_adjustment_be_left_out() -> None:
    fit = fitted("balanced", "within")
    chosen = marginal_contrasts(fit, "width", reference=128, adjust="none").to_frame()
    assert list(chosen["level_from"]) == ["128", "128"] and list(chosen["level_to"]) == ["8", "32"]
    np.testing.assert_array_equal(chosen["p"], chosen["p_adjusted"])
    default = marginal_contrasts(fit, "width", adjust="bh").to_frame()
    assert chosen["estimate"].iloc[0] == pytest.approx(-default["estimate"].iloc[1])


def test_cells_that_no_row_has_are_counted() -> None:
    """The half fraction has 8 of 16 cells; a full grid has none to warn of."""
    means = marginal_means(fitted("covariate", "pooled"), "activation")
    assert any(warning.startswith("8 of 16 cells") for warning in means.warnings)
    assert not marginal_means(fitted("balanced", "within"), "norm").warnings


def test_what_a_model_cannot_say_is_refused() -> None:
    fit = fitted("covariate", "pooled")
    with pytest.raises(AnalysisError, match='"lr": a covariate'):
        marginal_means(fit, "lr")
    with pytest.raises(AnalysisError, match='"nrm": not in the model; did you mean "norm"'):
        marginal_means(fit, "nrm")
    with pytest.raises(AnalysisError, match="expected different factors; got norm, norm"):
        marginal_means(fit, "norm", by="norm")
    with pytest.raises(AnalysisError, match='at: "depth" is no covariate'):
        marginal_means(fit, "norm", at={"depth": 3})
    with pytest.raises(AnalysisError, match='Add "norm:depth"'):
        interaction_contrasts(fit, "norm", "depth")
    with pytest.raises(AnalysisError, match="two different factors"):
        interaction_contrasts(fit, "norm", "norm")
    with pytest.raises(AnalysisError, match="a reference among none, batch; got layer"):
        marginal_contrasts(fit, "norm", reference="layer")
    with pytest.raises(AnalysisError, match="2 different scores"):
        marginal_contrasts(fit, "norm", kind="polynomial", scores=[1, 1])
    with pytest.raises(AnalysisError, match="scores are for"):
        marginal_contrasts(fit, "norm", scores=[1, 2])
    with pytest.raises(AnalysisError, match="a reference level is for"):
        marginal_contrasts(fit, "norm", kind="pairwise", reference="none")
    with pytest.raises(AnalysisError, match='"pairwise" or "polynomial"; got \'tukey\''):
        marginal_contrasts(fit, "norm", kind="tukey")  # type: ignore[arg-type]
    with pytest.raises(AnalysisError, match='"holm", "bh" or "none"; got \'tukey\''):
        marginal_contrasts(fit, "norm", adjust="tukey")  # type: ignore[arg-type]
