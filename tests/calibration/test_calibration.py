"""The calibration at a size for every day: its methods are in bounds, a bad one is caught, the truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import typer
from scipy import stats as scipy_stats
from typer.testing import CliRunner

from alignkit.calibration.curves_and_mediation import evaluate_mediation, evaluate_thresholds
from alignkit.calibration.models import MODELS, evaluate_layers, evaluate_models, layer_table, with_effect
from alignkit.calibration.paired import attainable_size, bootstrap_intervals, evaluate_paired, pooled_t
from alignkit.calibration.rates import Calibration, Tally, rates_of
from alignkit.calibration.recommendations import evaluate_advice, practice_records, speaks_of_accuracy
from alignkit.calibration.report import write_calibration
from alignkit.calibration.run import EVALUATIONS, calibrate
from alignkit.calibration.scenarios import (
    DIVERGING,
    GRID,
    SKEWED,
    Scenario,
    factorial_runs,
    layered_runs,
    paired_runs,
    practice_levels,
    practice_runs,
    run_table,
)
from alignkit.claims.recommendations import recommendations
from alignkit.claims.verdicts import evaluate
from alignkit.cli.bench import bench
from alignkit.errors import AlignkitError, AnalysisError
from alignkit.stats.contrasts.paired import minimum_seeds
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.curves.thresholds import Threshold, threshold
from alignkit.stats.models.factorial import fit_factorial
from alignkit.stats.models.gee import fit_gee
from alignkit.stats.models.linear import f_p
from alignkit.stats.models.mixed import fit_mixed

EVERY_KIND = tuple(scenario for scenario in GRID if scenario.n_seeds < 20)
VARYING = Scenario(10, effect_sd=0.5)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """All kinds of scenario with 6 and 10 seeds, one with 20, and a stress test."""
    twenty = Scenario(20, 0.5, 3.0, 0.1)
    return calibrate(replicates=400, model_replicates=0, scenarios=(*EVERY_KIND, twenty), stress=SKEWED[1:2])


def test_every_required_figure_is_in_bounds(calibration: Calibration) -> None:
    assert calibration.tested > 60
    assert not calibration.outside


def test_a_method_that_errs_is_caught(calibration: Calibration) -> None:
    """A pooled regression where effects vary over seeds, and bootstraps over ten seeds, are out of bounds."""
    outside = {(rate.scenario, rate.method) for rate in calibration.rates if rate.inside is False and not rate.required}
    assert (VARYING, "pooled OLS + C(seed)") in outside
    assert {method for _, method in outside} >= {"percentile bootstrap", "BCa bootstrap"}


def test_a_family_that_cannot_reject_is_refused(calibration: Calibration) -> None:
    families = [rate for rate in calibration.rates if rate.section == "family"]
    needed = minimum_seeds(10)
    for rate in families:
        refused = rate.scenario.n_seeds < needed
        assert (rate.note == f"refused: needs ≥ {needed} seeds") == refused and (rate.trials == 0) == refused
        assert (rate.inside is None) == refused
    assert {rate.scenario.n_seeds for rate in families if rate.trials} == {10, 20}


def test_power_is_that_of_the_noncentral_t(calibration: Calibration) -> None:
    """Where nothing is missing; elsewhere it is lower, and there is no closed form."""
    power = {rate.scenario: rate for rate in calibration.rates if (rate.method, rate.section) == ("t test", "power")}
    assert all((rate.inside is None) == bool(scenario.missing or scenario.skewed) for scenario, rate in power.items())
    complete, holed = power[Scenario(10)], power[Scenario(10, missing=0.1)]
    assert complete.target == pytest.approx(0.803, abs=1e-3) and holed.rate < complete.target


def test_stress_is_reported_and_not_required(calibration: Calibration) -> None:
    skewed = [rate for rate in calibration.rates if rate.scenario.skewed]
    assert skewed and not any(rate.required for rate in skewed)


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_the_workers() -> None:
    options = {"replicates": 700, "model_replicates": 3, "scenarios": (Scenario(6), VARYING), "stress": ()}
    shares: list[float] = []
    alone = calibrate(**options, on_progress=lambda share, what: shares.append(share))
    pd.testing.assert_frame_equal(calibrate(**options, workers=2).to_frame(), alone.to_frame())
    assert [rate.hits for rate in calibrate(**options, seed=1).rates] != [rate.hits for rate in alone.rates]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert {rate.trials for rate in alone.rates if rate.method == "pooled OLS + C(seed)"} == {700}


def test_simulated_runs_have_the_variances_that_they_are_said_to_have() -> None:
    scenario = Scenario(20, effect_sd=0.5, sd_ratio=3.0, missing=0.1)
    runs = paired_runs(scenario, 400, 2, np.random.default_rng(0))
    assert np.isnan(runs).mean() == pytest.approx(0.1, abs=0.003)
    for skewed in (False, True):
        complete = paired_runs(Scenario(20, 0.5, 3.0, skewed=skewed), 800, 2, np.random.default_rng(1))
        contrasts = np.diff(complete.mean(axis=-1), axis=-1).ravel()
        assert contrasts.mean() == pytest.approx(0, abs=0.03)
        assert contrasts.std() == pytest.approx(scenario.contrast_sd, rel=0.03)
        assert abs(scipy_stats.skew(contrasts)) > 0.2 or not skewed
        residuals = complete - complete.mean(axis=-1, keepdims=True) - np.linspace(-3, 3, 8)
        ratio = residuals[..., 1, :].std() / residuals[..., 0, :].std()
        assert ratio == pytest.approx(3.0, rel=0.03)
    layered = layered_runs(Scenario(10, effect_sd=2.0), 2000, np.random.default_rng(3))
    a = np.diff(layered.mean(axis=(3, 4)), axis=2)
    layer = np.diff(layered.mean(axis=(2, 3))[:, :, :2], axis=2)
    assert a.var() == pytest.approx(4 + 2 * (1 + 0.25 / 3) / 4, rel=0.04)
    assert layer.var() == pytest.approx(4 + 2 * 0.25 / 8, rel=0.04)
    factorial = factorial_runs(Scenario(10, effect_sd=2.0), 2000, np.random.default_rng(2))
    a = np.diff(factorial.mean(axis=3), axis=2)
    b = factorial.mean(axis=2)[:, :, 3] - factorial.mean(axis=2)[:, :, 0]
    assert a.var() == pytest.approx(4 + 2 / 4, rel=0.04) and b.var() == pytest.approx(4 + 2 / 2, rel=0.04)


def test_a_table_of_runs_keeps_every_run_at_its_place() -> None:
    runs = paired_runs(Scenario(6, missing=0.3), 1, 1, np.random.default_rng(3))[0, 0]
    table = run_table(runs, ("level", "cell"))
    at = tuple(table[name].to_numpy() for name in ("seed", "level", "cell"))
    np.testing.assert_array_equal(table["value"], runs[at])
    found = seed_contrasts(table, factor="level", levels=(0, 1), response="value", within=["cell"]).differences
    np.testing.assert_allclose(found, np.nanmean(runs[:, 1] - runs[:, 0], axis=1))


def test_arrays_that_stray_from_the_functions_for_one_study_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def agreement() -> Tally:
        found = evaluate_paired(Scenario(6, missing=0.3), 4, np.random.default_rng(4))
        return next(tally for tally in found if tally.method == "functions for one study")

    assert agreement().hits == agreement().trials == 3
    monkeypatch.setattr(
        "alignkit.calibration.paired.matched_differences", lambda b, a: np.nanmean(a, -1) - np.nanmean(b, -1)
    )
    assert agreement().hits == 0


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_pooled_regression_is_that_of_statsmodels(missing: float) -> None:
    runs = paired_runs(Scenario(6, 0.5, missing=missing), 3, 1, np.random.default_rng(5))[:, 0]
    t, df = pooled_t(runs)
    for row in range(3):
        table = run_table(runs[row], ("level", "cell")).dropna()
        oracle = smf.ols("value ~ level + C(cell) + C(seed)", table).fit()
        assert (t[row], df[row]) == (pytest.approx(oracle.tvalues["level"]), oracle.df_resid)
        assert fit_factorial(table, "level + cell", errors="pooled").residual_df == df[row]


def test_bootstrap_intervals_are_those_of_scipy() -> None:
    differences = np.random.default_rng(6).exponential(size=(2, 12))
    found = bootstrap_intervals(differences, np.random.default_rng(7), resamples=50_000)
    for ends, method in zip(found, ("percentile", "bca"), strict=True):
        for row, values in enumerate(differences):
            oracle = scipy_stats.bootstrap(
                (values,), np.mean, method=method, n_resamples=50_000, rng=np.random.default_rng(8), batch=5_000
            ).confidence_interval
            np.testing.assert_allclose(ends[:, row], [oracle.low, oracle.high], atol=0.02)
    holed = np.where(np.arange(12) == 3, np.nan, differences)
    assert np.isnan(bootstrap_intervals(holed, np.random.default_rng(9))).all()


@pytest.mark.parametrize("n", [6, 10])
def test_attainable_size_is_the_share_of_patterns_that_reject(n: int) -> None:
    rank_from_top = np.arange(1, 2 ** (n - 1) + 1)  # of |sum| among all patterns, where no two are tied
    p = rank_from_top / 2 ** (n - 1)
    assert attainable_size(n) == np.mean(p < 0.05) and attainable_size(n, 0.25) == np.mean(p < 0.25)


def test_bounds_are_simultaneous_and_one_sided_where_only_more_is_an_error() -> None:
    scenario = Scenario(6)
    few = Tally("one claim", "test", "size", 300, 10_000, target=0.05, side="at most")
    exact = Tally("one claim", "test", "size", 300, 10_000, target=0.05, side="equal")
    reference = Tally("comparison", "test", "size", 900, 10_000, target=0.05, side="at most")
    alone, strict, shown = rates_of(
        [(scenario, few), (scenario, exact), (scenario, reference)], required_scenarios=[scenario]
    )
    assert (alone.inside, strict.inside, shown.inside) == (True, False, False)
    assert (alone.required, strict.required, shown.required) == (True, True, False)
    oracle = scipy_stats.binomtest(300, 10_000).proportion_ci(1 - 0.01 / 2, method="exact")  # two required figures
    assert (alone.low, alone.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))
    refused = rates_of([(scenario, Tally("family", "t", "s", 0, 0, note="refused"))], required_scenarios=[scenario])[0]
    assert np.isnan([refused.rate, refused.low, refused.high]).all() and refused.inside is None
    never = rates_of([(scenario, Tally("one claim", "t", "s", 0, 50, 0.05, "equal"))], required_scenarios=[scenario])[0]
    assert never.low == 0 and 0 < never.high < 1


HARSH = Scenario(6, 0.5, 3.0)
CHECKS = (  # as many studies as some ten seconds allow
    (evaluate_models, 80),
    (evaluate_layers, 80),
    (evaluate_thresholds, 80),
    (evaluate_mediation, 60),
)
SURPRISE = 0.02


def too_often(tallies: list[Tally]) -> list[Tally]:
    """The figures whose errors are more than chance makes of their target, each taken by itself."""
    errors = [found for found in tallies if found.side == "at most"]
    return [of for of in errors if scipy_stats.binom.sf(of.hits - 1, of.trials, of.target) < SURPRISE]


@pytest.mark.parametrize(("evaluation", "studies"), CHECKS)
def test_a_method_that_errs_thrice_too_often_would_fail(evaluation: Any, studies: int) -> None:
    enough = int(scipy_stats.binom.isf(SURPRISE, studies, 0.05)) + 1
    at, under = (Tally("models", "m", "q", hits, studies, 0.05, "at most") for hits in (enough, enough - 1))
    assert too_often([at, under]) == [at]
    assert scipy_stats.binom.sf(enough - 1, studies, 0.15) > 0.65  # and each evaluation has two such figures or more


@pytest.mark.parametrize(
    ("evaluation", "studies"),
    [
        pytest.param(*check, marks=[] if check[0] in (evaluate_models, evaluate_layers) else pytest.mark.slow)
        for check in CHECKS
    ],
)
def test_models_thresholds_and_mediation_err_as_seldom_as_they_say(evaluation: Any, studies: int) -> None:
    tallies = evaluation(HARSH, studies, np.random.default_rng(3))
    assert all(found.trials == studies and not found.undefined for found in tallies)
    assert len([found for found in tallies if found.side == "at most"]) >= 2 and not too_often(tallies)


@pytest.mark.slow
def test_a_model_that_errs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "runs as replicates": lambda table: fit_factorial(table, "a + b", errors="pooled"),
        "z instead of t": lambda table: replace(fit_gee(table, "a + b"), residual_df=1e9),
    }
    monkeypatch.setattr("alignkit.calibration.models.MODELS", broken)
    caught = too_often(evaluate_models(Scenario(6, 1.0), 100, np.random.default_rng(1)))
    assert {found.method for found in caught} == set(broken)


@pytest.mark.slow
def test_a_naive_test_for_a_bend_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the bend's place had been known beforehand (Davies 1987)."""

    def naive(*args: Any, **options: Any) -> Threshold:
        found = threshold(*args, **options)
        return replace(found, p=f_p(found.sup_f, *found.df))

    monkeypatch.setattr("alignkit.calibration.curves_and_mediation.threshold", naive)
    caught = too_often(evaluate_thresholds(HARSH, 60, np.random.default_rng(2)))
    assert "bend found in a line" in {found.quantity for found in caught}


@pytest.mark.parametrize("scenario", [Scenario(6, 0.5, 3.0, 0.1), Scenario(10)])
def test_a_fit_with_an_effect_is_that_of_a_response_with_it(scenario: Scenario) -> None:
    generator = np.random.default_rng(4)
    runs = run_table(factorial_runs(scenario, 1, generator)[0], ("a", "b"))
    layers = layer_table(layered_runs(scenario, 1, generator)[0])
    cases = [(fit, runs, term) for fit in MODELS.values() for term in ("a", "b")]
    cases += [(lambda table: fit_mixed(table, "a + layer"), layers, term) for term in ("a", "layer")]
    for fit, table, term in cases:
        moved = with_effect(fit(table), table, term, 0.7)
        again = fit(table.assign(value=table["value"] + 0.7 * (table[term] == table[term].max())))
        rows = np.eye(len(again.coefficients))[list(again.design.terms[term])]
        found, oracle = moved.f_test(rows), again.f_test(rows)
        assert (found.statistic, found.df_error, found.p) == pytest.approx(
            (oracle.statistic, oracle.df_error, oracle.p), rel=1e-6
        )


@pytest.mark.slow
def test_the_power_of_the_model_within_seeds_is_that_of_the_noncentral_t() -> None:
    scenario = Scenario(10, 1.0, 2.0)
    contrasts = np.diff(factorial_runs(scenario, 4000, np.random.default_rng(5)).mean(axis=3), axis=2)
    assert contrasts.std() == pytest.approx(scenario.factorial_sd, rel=0.03)
    tallies = evaluate_models(scenario, 60, np.random.default_rng(6))
    (known,) = (found for found in tallies if found.section == "power" and found.side == "equal")
    assert (known.method, known.quantity) == ("factorial within seeds", "power at 1 residual sd, 2 levels")
    assert 0.3 < known.target < 0.7
    assert scipy_stats.binomtest(known.hits, known.trials, known.target).pvalue > SURPRISE


def test_practices_are_ten_orthogonal_factors() -> None:
    signs = 2 * practice_levels() - 1
    np.testing.assert_array_equal(signs.T @ signs, 16 * np.eye(10))
    assert not signs.sum(axis=0).any()
    for scenario in (Scenario(10, 0.5, 3.0), Scenario(10)):
        for values in practice_runs(scenario, 800, np.random.default_rng(6)):
            contrasts = values @ signs / 8
            assert contrasts.mean() == pytest.approx(0, abs=0.02)
            np.testing.assert_allclose(contrasts.std(axis=(0, 1)), scenario.contrast_sd, rtol=0.05)


def test_runs_that_diverge_are_the_worst_of_one_level() -> None:
    scenario = Scenario(10, diverging=0.3)
    complete, diverged = (practice_runs(of, 200, np.random.default_rng(7)) for of in (Scenario(10), scenario))
    levels, lost = practice_levels(), np.isnan(diverged[0])
    np.testing.assert_array_equal(lost, np.isnan(diverged[1]))
    assert lost[..., levels[:, 0] == 1].mean() == pytest.approx(0.3) and not lost[..., levels[:, 0] == 0].any()
    angle, accuracy = ((found[..., levels[:, 0] == 1]) for found in complete)
    there = ~lost[..., levels[:, 0] == 1]
    # What remains looks better aligned and more accurate than it is.
    assert angle[there].mean() < angle.mean() - 0.3 and accuracy[there].mean() > accuracy.mean() + 0.2


def test_records_of_practices_are_judged_by_their_runs() -> None:
    signs = 2 * practice_levels() - 1
    angle, accuracy = (found[0] for found in practice_runs(Scenario(10), 1, np.random.default_rng(8)))
    angle = angle + practice_levels() @ np.where(np.arange(10) == 4, -6.0, 0.0)
    records = practice_records(angle, accuracy, margin=1.0)
    entries = recommendations(records, evaluate(records))
    np.testing.assert_allclose([entry["effect"] for entry in entries], angle.mean(axis=0) @ signs / 8, rtol=1e-5)
    np.testing.assert_allclose(
        [entry["accuracy_effect"] for entry in entries], accuracy.mean(axis=0) @ signs / 8, rtol=1e-5
    )
    assert [entry["verdict"] for entry in entries].count("supported") == 1 and entries[4]["verdict"] == "supported"
    said = ["accuracy rises" in entry["summary"] or "accuracy falls" in entry["summary"] for entry in entries]
    assert [speaks_of_accuracy(entry) for entry in entries] == said


def test_false_recommendations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(verdicts: str, accurate: int = 10) -> list[dict[str, Any]]:
        words = {"n": "no evidence", "s": "supported", "r": "refuted", "e": "equivalent"}
        return [
            {"verdict": words[letter], "accuracy_interval": [0.1 if k == accurate else -0.1, 0.2],
             "accuracy_p_adjusted": 0.01 if k == accurate else 0.9}
            for k, letter in enumerate(verdicts)
        ]  # fmt: skip

    # Without effects any "s" or "r" is false; at the margin, the second five, any "e" or "r".
    answers = [said("nnnnneeeee"), said("nnnnnnnnns"), said("nnnnnsssss", 3), said("nnnnnneeee"), said("ssssssssss")]
    answers += [said("nnnnnnnnnr")]
    monkeypatch.setattr("alignkit.calibration.recommendations.evaluate", lambda records: [])
    monkeypatch.setattr(
        "alignkit.calibration.recommendations.recommendations", lambda records, verdicts: answers.pop(0)
    )
    found = {of.quantity: of.hits for of in evaluate_advice(Scenario(6), 3, np.random.default_rng(0))}
    assert found == {
        "any false verdict, no effects": 2, "any word on accuracy, no effects": 1, "anything false, no effects": 2,
        "any false verdict, half at the margin": 3, "any word on accuracy, half at the margin": 0,
        "anything false, half at the margin": 3,
    }  # fmt: skip


def test_models_meet_every_scenario_and_recommendations_runs_that_diverge() -> None:
    for name in ("paired", "models", "layers", "thresholds", "mediation"):
        assert [scenario for scenario in (*GRID, *DIVERGING) if EVALUATIONS[name].applies(scenario)] == list(GRID)
    advised = {scenario for scenario in (*GRID, *DIVERGING) if EVALUATIONS["advice"].applies(scenario)}
    assert advised > set(DIVERGING) and {scenario.missing for scenario in advised} == {0.0, 0.1}


def test_models_that_give_no_answer_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(table: pd.DataFrame) -> None:
        raise AnalysisError("expected more seeds")

    monkeypatch.setattr("alignkit.calibration.models.MODELS", {"none": refuse})
    found = evaluate_models(VARYING, 5, np.random.default_rng(0))
    assert [(t.hits, t.undefined, t.trials) for t in found] == [(0, 5, 5), (0, 0, 5)] * 2


@pytest.mark.slow
def test_the_report_holds_every_figure(calibration: Calibration, tmp_path: Path) -> None:
    page = write_calibration(calibration, tmp_path).read_text()
    assert f"All {calibration.tested} figures are within simultaneous 99% bounds" in page
    assert "refused: needs ≥ 9 seeds" in page and "✗" in page.split("## For comparison")[1]
    table = pd.read_csv(tmp_path / "calibration.csv")
    assert len(table) == len(calibration.rates) and {"n_seeds", "rate", "low", "high", "inside"} <= set(table)
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert len(stored["rates"]) == len(table) and stored["tested"] == calibration.tested
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_calibration(calibration, tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert first["calibration.svg"].startswith(b"<?xml")


def test_the_report_names_what_is_out_of_bounds(tmp_path: Path) -> None:
    scenario = Scenario(6)
    wrong = [(scenario, Tally("one claim", "bad test", "type I error", 900, 10_000, 0.05, "equal"))]
    wrong.append((Scenario(6, skewed=True), replace(wrong[0][1], hits=800)))
    result = Calibration(rates_of(wrong, required_scenarios=[scenario]), 10_000, 0, 0)
    assert [rate.method for rate in result.outside] == ["bad test"]
    page = write_calibration(result, tmp_path).read_text()
    assert "1 of 1 figures are out of bounds" in page and "bad test, type I error, 6 seeds: 9.00%" in page
    assert "of them 1 of 1 figures are out of bounds, the furthest bad test, type I error, 6 seeds: 8.00%" in page


@pytest.mark.slow
def test_the_command_writes_its_report_and_asks_for_what_to_check(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench)
    with pytest.raises(AlignkitError, match="belong to --calibration"):
        CliRunner().invoke(app, ["--replicates", "20"], catch_exceptions=False)
    options = [
        "--calibration",
        "--replicates",
        "20",
        "--mixed-replicates",
        "0",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, options, catch_exceptions=False)
    assert result.exit_code == 0 and "out of simultaneous 99% bounds" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        f"calibration.{kind}" for kind in ("md", "csv", "json", "svg")
    }


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(AnalysisError, match="expected a number of replicates"):
        calibrate(replicates=0, model_replicates=0)
    with pytest.raises(AnalysisError, match="0 workers"):
        calibrate(workers=0)


def test_calibration_needs_no_torch() -> None:
    script = "import sys, alignkit.calibration; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
