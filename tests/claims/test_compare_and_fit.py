"""The user's two verbs against the claims, the paired tests and the factorial fit that they are made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import full_study, synthetic_records

from alignkit.claims.compare import compare
from alignkit.claims.fit import fit
from alignkit.claims.verdicts import evaluate
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.records.summaries import run_summaries
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.multiplicity import holm
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.models.factorial import fit_factorial
from alignkit.stats.models.margins import interaction_contrasts, marginal_contrasts, marginal_means
from alignkit.stats.tables.levels import in_design

ORACLES = Path(__file__).parents[1] / "oracles"


@pytest.fixture(scope="module")
def records() -> Records:
    return full_study()


def balanced() -> pd.DataFrame:
    """A table that alignkit did not make: other names, levels that are numbers, an index of its own."""
    table = pd.read_csv(ORACLES / "factorial_balanced.csv")
    table = table.rename(columns={"seed": "subject", "value": "score", "width": "dose"})
    return table.set_index(pd.Index([f"row {i}" for i in range(len(table))]))


def on_table(**options: Any) -> dict[str, Any]:
    return {"response": "score", "seed": "subject", "within": ["dose", "norm", "activation"], **options}


def test_a_comparison_is_the_one_that_a_claim_is_judged_on(records: Records) -> None:
    for verdict in evaluate(records)[3:]:
        claim = verdict.claim
        result = compare(
            records, factor=claim.factor, levels=claim.levels, response=claim.response, design=claim.design
        )
        assert (result.estimate, result.interval, result.p) == (verdict.estimate, verdict.interval, verdict.p)
        assert (result.df, result.n_seeds, result.unit, result.method) == (
            verdict.df, verdict.n_seeds, verdict.unit, verdict.method,
        )  # fmt: skip


def test_the_design_is_the_first_that_holds_the_levels(records: Records) -> None:
    assert compare(records, factor="width", levels=(32, 128)).design == "practices"
    curve = compare(records, factor="width", levels=(8, 256))
    assert curve.design == "width_curve" and curve.levels == ("8", "256")
    with pytest.raises(AnalysisError, match='no run here is of the design "width"; did you mean "width_curve"'):
        compare(records, factor="width", design="width")


def test_runs_without_a_value_and_unequal_learning_rates_are_said(records: Records) -> None:
    curve = compare(records, factor="width", levels=(128, 256), design="width_curve")
    assert curve.n_seeds == 8
    assert "diverged: runs without a value, 0 at 128, 2 at 256" in curve.warnings
    norm = compare(records, factor="norm")
    assert norm.warnings == ("confounded with the learning rate: lr 0.1 vs 0.03, each arm's own tuned rate",)


def test_more_levels_are_compared_with_the_first_in_one_family() -> None:
    table = balanced()
    result = compare(table, factor="dose", **on_table())
    assert result.levels == ("8", "32", "128") and len(result.to_frame()) == 2
    expected = [contrast(table, factor="dose", levels=pair, **on_table()) for pair in (("8", "32"), ("8", "128"))]
    assert [found.estimate for found in result.contrasts] == [found.estimate for found in expected]
    np.testing.assert_allclose([found.p_adjusted for found in result.contrasts], holm([found.p for found in expected]))
    with pytest.raises(AnalysisError, match=r"two levels for a single estimate; got 3 \(8, 32, 128\)"):
        _ = result.estimate
    turned = compare(table, factor="dose", levels=(128, 8), **on_table())
    assert turned.estimate == pytest.approx(-expected[1].estimate) and turned.omnibus is None


def test_the_omnibus_test_is_that_of_the_factorial_fit() -> None:
    table = balanced()
    result = compare(table, factor="dose", **on_table())
    model = fit_factorial(table, "dose * norm * activation", response="score", seed="subject")
    row = model.anova().set_index("term").loc["dose"]
    assert result.omnibus is not None
    assert (result.omnibus.statistic, result.omnibus.epsilon, result.omnibus.p) == pytest.approx(
        (row["F"], row["epsilon"], row["p"])
    )
    means = marginal_means(model, "dose")
    np.testing.assert_allclose(result.means["mean"], means.estimate)
    np.testing.assert_allclose(result.means[["low", "high"]], np.column_stack([means.low, means.high]))


def test_by_gives_simple_effects_and_their_differences_per_seed() -> None:
    table = balanced()
    result = compare(table, factor="norm", by="dose", **on_table())
    model = fit_factorial(table, "dose * norm * activation", response="score", seed="subject")
    effects = marginal_contrasts(model, "norm", by="dose").to_frame()
    found = [result.simple_effects[level][0] for level in ("8", "32", "128")]
    np.testing.assert_allclose([effect.estimate for effect in found], effects["estimate"])
    np.testing.assert_allclose([effect.interval for effect in found], effects[["low", "high"]])
    np.testing.assert_allclose([effect.p_adjusted for effect in found], holm([effect.p for effect in found]))
    changes = interaction_contrasts(model, "dose", "norm").to_frame()
    np.testing.assert_allclose(result.interactions[["estimate", "low", "high"]], changes[["estimate", "low", "high"]])
    np.testing.assert_allclose(result.interactions["p_adjusted"], holm(result.interactions["p"]))
    at = {level: np.array(result.simple_effects[level][0].differences) for level in ("8", "32")}
    assert result.interactions["p"].iloc[0] == paired_test(at["32"] - at["8"]).p
    assert list(result.to_frame()["dose"]) == ["all", "8", "32", "128"]


def test_seeds_that_lack_a_comparison_are_counted() -> None:
    table = balanced()
    table.loc[(table["subject"] == 3) & (table["dose"] == 128), "score"] = np.nan
    joint = compare(table, factor="dose", **on_table())
    assert joint.omnibus is not None and joint.omnibus.df_error == 2 * 4
    assert "1 seeds left out of the joint test: they lack a comparison" in joint.warnings
    changed = compare(table, factor="norm", by="dose", **on_table()).interactions.set_index("dose_to")
    assert changed["n_seeds"].to_dict() == {"32": 6, "128": 5}
    assert changed.loc["128", "warnings"] == "1 missing difference left out"


def test_means_are_over_the_cells_that_every_level_has() -> None:
    """Dose 128 loses the cells of one norm in most subjects: its mean must not rise or fall for that."""
    table = balanced()
    table["score"] = np.where(table["norm"] == "none", 10.0, 0.0) + table["subject"]  # no effect of the dose
    hard = (table["norm"] == "none") & (table["dose"] == 128) & (table["subject"] > 0)
    table.loc[hard, "score"] = np.nan
    result = compare(table, factor="dose", **on_table())
    np.testing.assert_allclose(result.means["mean"], result.means["mean"].iloc[0])
    cells = len(table) // 3
    assert f"level means are over {cells - hard.sum()} of {cells} cells by seed" in " ".join(result.warnings)
    assert not any("level means" in note for note in compare(balanced(), factor="dose", **on_table()).warnings)


def test_too_few_seeds_are_said() -> None:
    table = balanced()
    result = compare(table[table["subject"] < 6], factor="norm", **on_table())
    assert result.p == 2 / 2**5 and "5 seeds cannot reach p < .05" in result.warnings[-1]


def test_rules_can_be_compared_too(records: Records) -> None:
    result = compare(records, factor="rule", levels=("bp", "dfa"), rule=None, response="test_accuracy",
                     design="width_curve", within=["width"])  # fmt: skip
    table = run_summaries(records.runs, records.layers, "test_accuracy")
    table = table[in_design(table, "width_curve")]
    expected = contrast(table, factor="rule", levels=("bp", "dfa"), within=["width"])
    assert result.estimate == expected.estimate and result.unit == "points"


def test_several_rules_are_never_averaged_unsaid(records: Records) -> None:
    """In a half fraction BP cells have counterparts and DFA cells have none: the mean of all was that of BP."""
    for call in (lambda: compare(records, factor="norm", rule=None), lambda: fit(records, ["norm"], rule=None)):
        with pytest.raises(
            AnalysisError, match=r'those of bp, dfa\. Name one with rule=, or add "rule" to the factors'
        ):
            call()
    both = compare(records, factor="norm", rule=None, within=[*records.factors, "rule"])
    assert both.estimate == compare(records, factor="norm", rule="bp").estimate
    assert "64 cells without a counterpart" in both.warnings[-1] and both.warnings[-1].endswith("rule = dfa")
    apart = compare(records, factor="norm", by="rule", rule=None)
    for rule in ("bp", "dfa"):
        alone = compare(records, factor="norm", rule=rule)
        assert apart.simple_effects[rule][0].estimate == alone.estimate and not any(
            "aside" in n for n in alone.warnings
        )
    model = fit(records, ["rule", "norm"], rule=None, response="test_accuracy", interactions=1)
    assert len(model.design.y) == sum(in_design(records.runs, "practices"))


def test_rows_without_a_level_are_counted() -> None:
    table = balanced()
    table["norm"] = table["norm"].astype(object)
    table.loc[table.index[0], "norm"] = None
    assert f"1 of {len(table)} rows left out: no level of norm" in compare(table, factor="norm", **on_table()).warnings


def test_comparing_what_is_not_there_says_what_is(records: Records) -> None:
    for options, message in (
        ({"factor": "nrm"}, '"nrm" is no factor; did you mean "norm"'),
        ({"factor": "norm", "by": "widht"}, '"widht" is no factor; did you mean "width"'),
        ({"factor": "norm", "by": "norm"}, "a factor other than"),
        ({"factor": "norm", "rule": "fa"}, 'no run has the rule "fa"'),
        ({"factor": "norm", "levels": ("none",)}, r"at least two different levels; got 1 \(none\)"),
        ({"factor": "norm", "levels": ("none", "layer")}, "the level layer, which no run has"),
        ({"factor": "norm", "by": "width", "design": "width_curve"}, "at least two different levels; got 1"),
        ({"factor": "norm", "response": "angle"}, 'response "angle": no such measure'),
        ({"factor": "norm", "adjust": "tukey"}, '"holm" or "bh"; got \'tukey\''),
        ({"factor": "width", "by": "norm", "design": "width_curve", "levels": (8, 16)}, "norm"),
    ):
        with pytest.raises(AnalysisError, match=message):
            compare(records, **options)  # type: ignore[arg-type]  # what a slip would pass
    with pytest.raises(AnalysisError, match=r"records or a pandas table; got str. Read .* load\(...\)"):
        compare("reports/quick", factor="norm")  # type: ignore[arg-type]  # a path for records
    table = balanced()
    with pytest.raises(AnalysisError, match='a column "value"'):
        compare(table, factor="norm", seed="subject")
    with pytest.raises(AnalysisError, match="Name every factor that varies in `within`"):
        compare(table, factor="norm", response="score", seed="subject")
    with pytest.raises(AnalysisError, match="a table has no designs"):
        compare(table, factor="norm", design="practices", **on_table())


def test_a_fit_of_records_is_the_factorial_fit_of_their_summaries(records: Records) -> None:
    result = fit(records, "norm * log2(width) + activation")
    table = run_summaries(records.runs, records.layers, "signal_angle_deg")
    table = table[(table["rule"] == "dfa") & in_design(table, "practices")]
    expected = fit_factorial(table, "norm * log2(width) + activation")
    pd.testing.assert_frame_equal(result.to_frame(), expected.to_frame())
    assert dict(zip(result.design.names, result.coefficients, strict=True))["log2(width)"] == pytest.approx(
        -1.5, abs=0.3
    )
    # A response on the left of the formula is the same as one beside it.
    left = fit(records, "test_accuracy ~ norm + width", method="robust")
    beside = fit(records, ["norm", "width"], interactions=1, response="test_accuracy", method="robust")
    np.testing.assert_allclose(left.coefficients, beside.coefficients)


def test_a_fit_of_layers_has_a_row_per_run_and_hidden_layer(records: Records) -> None:
    """The synthetic angle rises by 3 degrees a layer, in nets of two and three."""
    result = fit(records, "norm + depth + layer", layers=True, method="seed", design="practices")
    runs = records.runs[(records.runs["rule"] == "dfa") & in_design(records.runs, "practices")]
    assert len(result.design.y) == int(runs["depth"].sum())
    linear = fit(records, "depth * I(layer)", layers=True, method="seed", design="practices")
    slope = dict(zip(linear.design.names, linear.coefficients, strict=True))["I(layer)"]
    assert slope == pytest.approx(3.0, abs=0.1)
    position = fit(records, "I(position)", layers=True, method="seed", design="practices").design.covariates["position"]
    # Layers 1/2, 1 and 1/3, 2/3, 1, the two depths being equally common.
    assert position == pytest.approx((1.5 + 2.0) / 5)
    with pytest.raises(AnalysisError, match="expected a measure of layers"):
        fit(records, "norm", layers=True, method="seed", response="test_accuracy")


def test_layers_are_fitted_by_the_mixed_model_with_runs_in_seeds(records: Records) -> None:
    result = fit(records, "norm + I(position)", layers=True, design="practices")
    assert "seed:run_id" in result.method and "design practices" in result.method
    within = fit(records, "norm + I(position)", layers=True, method="seed", design="practices")
    # Seeds are balanced, so that the estimates agree; only their errors are modelled differently.
    np.testing.assert_allclose(result.coefficients[1], within.coefficients[1], atol=1e-3)
    assert marginal_contrasts(result, "norm").df[0] == pytest.approx(9, abs=0.5)
    # One row per run: there is no run to nest in.
    assert "run_id" not in fit(records, "norm", method="mixed", design="practices").method


def test_runs_without_a_value_are_counted_by_reason(records: Records) -> None:
    result = fit(records, "log2(width)", design="width_curve")
    assert "2 of 60 rows left out: a value is missing" in result.warnings
    assert "diverged: 2 of 60 rows without a value" in result.warnings
    unfinished = synthetic_records(seeds=6)
    assert not any("preliminary" in warning for warning in fit(unfinished, "norm").warnings)
    object.__setattr__(unfinished, "missing", 3)
    assert "preliminary: 3 planned runs have no records yet" in fit(unfinished, "norm").warnings


def test_a_table_can_be_fitted_too() -> None:
    table = balanced()
    result = fit(table, ["dose", "norm"], response="score", seed="subject", method="pooled")
    expected = fit_factorial(table, "dose * norm", response="score", seed="subject", errors="pooled")
    pd.testing.assert_frame_equal(result.to_frame(), expected.to_frame())
    with pytest.raises(AnalysisError, match=r'"mixed" or "gee"; got .ols.'):
        fit(table, "dose", response="score", method="ols")  # type: ignore[arg-type]  # no such method
    with pytest.raises(AnalysisError, match='a column "doze"; did you mean "dose"'):
        fit(table, "doze", response="score", seed="subject")


def test_nothing_here_needs_torch_and_the_models_need_nothing_else_of_alignkit() -> None:
    script = (
        "import sys, alignkit.stats.models.factorial, alignkit.stats.models.margins, alignkit.stats.models.prediction\n"
        "own = {name for name in sys.modules if name.startswith('alignkit.')}\n"
        "few = ('alignkit.stats', 'alignkit.errors', 'alignkit.display', 'alignkit.text', 'alignkit.columns')\n"
        "assert all(name.startswith(few) for name in own), own\n"
        "import alignkit.claims.compare\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
