"""The calibration at a size for every day: its methods are in bounds, a bad one is caught, the truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import typer
from scipy import stats as scipy_stats
from typer.testing import CliRunner

from alignkit.calibration import GRID, SKEWED, Calibration, Scenario, calibrate, write_calibration
from alignkit.calibration.models import evaluate_models
from alignkit.calibration.paired import attainable_size, bootstrap_intervals, evaluate_paired, pooled_t
from alignkit.calibration.rates import Tally, rates_of
from alignkit.calibration.scenarios import factorial_runs, layered_runs, paired_runs, run_table
from alignkit.cli_bench import bench
from alignkit.errors import AlignkitError, AnalysisError
from alignkit.stats import minimum_seeds, seed_contrasts
from alignkit.stats.factorial import fit_factorial

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


def test_models_thresholds_and_mediation_are_in_bounds() -> None:
    result = calibrate(replicates=0, model_replicates=20, scenarios=(Scenario(6, 0.5, 3.0), Scenario(10)), stress=())
    assert {rate.section for rate in result.rates} == {"models", "answers"}
    assert not result.outside and not any(rate.undefined for rate in result.rates)
    assert {(rate.method, rate.trials) for rate in result.rates} >= {
        ("mixed model", 20), ("mixed model, layers in runs", 10), ("threshold", 5), ("mediation", 5),
    }  # fmt: skip


def test_a_model_that_errs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = {"pooled": lambda table: fit_factorial(table, "a + b", errors="pooled")}
    monkeypatch.setattr("alignkit.calibration.models.MODELS", pooled)
    tallies = [(VARYING, t) for t in evaluate_models(Scenario(10, effect_sd=2.0), 60, np.random.default_rng(1))]
    assert [rate.inside for rate in rates_of(tallies, required_scenarios=[VARYING])] == [False, False]


def test_models_that_give_no_answer_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(table: pd.DataFrame) -> None:
        raise AnalysisError("expected more seeds")

    monkeypatch.setattr("alignkit.calibration.models.MODELS", {"none": refuse})
    found = evaluate_models(VARYING, 5, np.random.default_rng(0))
    assert [(t.hits, t.undefined, t.trials) for t in found] == [(0, 5, 5)] * 2


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
    result = Calibration(rates_of(wrong, required_scenarios=[scenario]), 10_000, 0, 0)
    assert [rate.method for rate in result.outside] == ["bad test"]
    page = write_calibration(result, tmp_path).read_text()
    assert "1 of 1 figures are out of bounds" in page and "bad test, type I error, 6 seeds: 9.00%" in page


@pytest.mark.slow
def test_the_command_writes_its_report_and_asks_for_what_to_check(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench)
    with pytest.raises(AlignkitError, match="Add --calibration"):
        CliRunner().invoke(app, [], catch_exceptions=False)
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
