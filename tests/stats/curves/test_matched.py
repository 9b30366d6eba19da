"""Matched loss: curves whose response at equal loss is known, whatever their speed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records

from alignkit.errors import AnalysisError
from alignkit.records.summaries import run_summaries
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.curves.matched import UNMATCHED, matched_comparison, matched_loss_table

STEPS = np.array([0, 1, 3, 11, 37, 111, 222, 333, 444])
FAST_SLOW = {"fast": 60.0, "slow": 240.0}


def angle_of(loss: np.ndarray, arm: str, site: str) -> np.ndarray:
    return np.asarray(90 + 15 * np.log(loss / 2.3) + (4.0 if arm == "slow" else 0.0) + 2 * (site == "q"))


def study(
    seeds: int = 6, *, response: Callable[[np.ndarray, str, str], np.ndarray] = angle_of, floor: float = 0.05,
    sites: tuple[str, ...] = ("p", "q"), steps: np.ndarray = STEPS,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Runs of two arms, one four times slower, whose angle depends on the loss (and arm and site) alone."""
    generator = np.random.default_rng(0)
    runs, checkpoints, layers = [], [], []
    for seed, site, (arm, tau) in itertools.product(range(seeds), sites, FAST_SLOW.items()):
        run_id = f"{seed}{site}{arm}"
        loss = floor + (2.3 - floor) * np.exp(-steps / (tau * generator.uniform(0.8, 1.2)))
        runs.append({"run_id": run_id, "seed": seed, "site": site, "arm": arm})
        for step, at in zip(steps, loss, strict=True):
            accuracy = 0.5 - 0.15 * np.log(at)
            checkpoints.append({"run_id": run_id, "step": step, "train_loss": at, "test_accuracy": accuracy})
        for layer in (1, 2):
            for step, value in zip(steps, response(loss, arm, site), strict=True):
                layers.append({"run_id": run_id, "step": step, "layer": layer, "angle": value + 10 * (layer - 1.5)})
    return pd.DataFrame(runs), pd.DataFrame(checkpoints), pd.DataFrame(layers)


OPTIONS: dict[str, Any] = {"factor": "arm", "levels": ("fast", "slow"), "response": "angle", "within": ["site"]}


@pytest.mark.parametrize("summary", ["mean", "end"])
def test_what_depends_on_the_loss_alone_differs_at_equal_steps_only(summary: str) -> None:
    tables = study(response=lambda loss, arm, site: angle_of(loss, "fast", site))
    result = matched_comparison(*tables, summary=summary, **OPTIONS)
    assert result.estimate == pytest.approx(0.0, abs=1e-9)
    assert result.at_step.estimate > 5 and result.at_step.p < 0.05


@pytest.mark.parametrize("points", [2, 25])
def test_a_difference_at_equal_loss_is_found_whatever_the_speed(points: int) -> None:
    result = matched_comparison(*study(), points=points, **OPTIONS)
    assert result.estimate == pytest.approx(4.0) and result.p == pytest.approx(2 / 2**6)
    assert (result.n_seeds, result.n_runs, result.n_unmatched, result.levels) == (6, 24, 0, ("fast", "slow"))
    high, low = result.loss_range
    assert high == pytest.approx(2.3) and 0.05 < low < high
    frame = result.to_frame()
    assert list(frame["matched"]) == ["loss", "step"] and {"estimate", "low", "high", "p", "n_unmatched"} <= set(frame)


def test_the_table_is_that_of_interpolating_each_curve() -> None:
    runs, checkpoints, layers = study(seeds=1, sites=("p",), response=lambda loss, arm, site: np.sin(5 * loss))
    table = matched_loss_table(runs, checkpoints, layers, **OPTIONS)
    curves = {name: np.log(part["train_loss"].to_numpy()) for name, part in checkpoints.groupby("run_id")}
    targets = np.linspace(np.log(2.3), max(curve.min() for curve in curves.values()), 25)
    for _, row in table.iterrows():
        loss = curves[row["run_id"]]
        value = layers[layers["run_id"] == row["run_id"]].groupby("step")["angle"].mean().to_numpy()
        assert row["value"] == pytest.approx(np.interp(targets[::-1], loss[::-1], value[::-1]).mean())
        assert (row["loss_from"], row["loss_to"]) == pytest.approx(tuple(np.exp(targets[[0, -1]])))


def test_only_the_first_time_at_a_loss_counts() -> None:
    runs = pd.DataFrame({"run_id": ["a", "b"], "seed": 0, "arm": ["fast", "slow"]})
    loss = {"a": [8.0, 4.0, 6.0, 2.0], "b": [8.0, 4.0, 2.0, 2.0]}
    value = {"a": [0.0, 1.0, 9.0, 2.0], "b": [0.0, 1.0, 2.0, 7.0]}
    checkpoints = pd.DataFrame(
        [
            {"run_id": run, "step": step, "train_loss": loss[run][step], "angle": value[run][step]}
            for run, step in itertools.product("ab", range(4))
        ]
    )
    table = matched_loss_table(runs, checkpoints, points=5, **{**OPTIONS, "within": ()}).set_index("run_id")["value"]
    # 8, 5.66, 4, 2.83 and 2: run a comes to 2.83 on its way from 6 to 2.
    share = np.log(6 / np.sqrt(8)) / np.log(3)
    assert table["a"] == pytest.approx(np.mean([0, 0.5, 1, 9 - 7 * share, 2]))
    assert table["b"] == pytest.approx(np.mean([0, 0.5, 1, 1.5, 2]))


def test_counterparts_without_a_common_loss_are_missing_and_counted() -> None:
    runs, checkpoints, layers = study()
    stuck = (checkpoints["run_id"] == "0pslow") & (checkpoints["step"] >= 0)
    checkpoints.loc[stuck, "train_loss"] = 2.3 + 0.001 * checkpoints.loc[stuck, "step"]
    table = matched_loss_table(runs, checkpoints, layers, **OPTIONS).set_index("run_id")
    assert set(table.index[table["missing"] == UNMATCHED]) == {"0pslow", "0pfast"}
    result = matched_comparison(runs, checkpoints, layers, **OPTIONS)
    assert result.n_unmatched == 2 and "2 of 24 runs left out" in result.warnings[-1]
    assert "1 of 12 pairs" in result.warnings[0] and result.estimate == pytest.approx(4.0)
    assert "1 of 12 pairs" in result.at_step.warnings[0]
    checkpoints["train_loss"] = np.where(checkpoints["run_id"].str.endswith("slow"), 5.0, checkpoints["train_loss"])
    with pytest.raises(AnalysisError, match="counterparts that reach a common loss"):
        matched_comparison(runs, checkpoints, layers, **OPTIONS)


def test_an_undefined_curve_takes_its_counterpart_with_it() -> None:
    runs, checkpoints, layers = study()
    checkpoints.loc[(checkpoints["run_id"] == "2qfast") & (checkpoints["step"] > 100), "train_loss"] = np.nan
    layers.loc[(layers["run_id"] == "3pslow") & (layers["layer"] == 1) & (layers["step"] == 37), "angle"] = np.nan
    missing = matched_loss_table(runs, checkpoints, layers, **OPTIONS).set_index("run_id")["missing"]
    assert missing["2qfast"] == missing["3pslow"] == "train_loss or angle undefined"
    assert missing["2qslow"] == missing["3pfast"] == "no counterpart with a value" and (missing != "").sum() == 4


def test_what_no_run_defines_is_left_out() -> None:
    runs, checkpoints, layers = study()
    plain = matched_loss_table(runs, checkpoints, layers[layers["layer"] == 2], layer=2, **OPTIONS)["value"]
    layers.loc[layers["layer"] == 1, "angle"] = np.nan
    assert matched_loss_table(runs, checkpoints, layers, **OPTIONS)["value"].to_numpy() == pytest.approx(
        plain.to_numpy()
    )
    # Without step 0, the matched losses begin at the first step.
    layers.loc[layers["step"] == 0, "angle"] = np.nan
    later = matched_loss_table(runs, checkpoints, layers, layer=2, **OPTIONS)
    assert (later["missing"] == "").all() and (later["loss_from"] < 2.3).all()


def test_a_column_of_checkpoints_is_compared_too() -> None:
    runs, checkpoints, _ = study()
    result = matched_comparison(runs, checkpoints, **{**OPTIONS, "response": "test_accuracy"})
    assert result.estimate == pytest.approx(0.0, abs=1e-11) and result.at_step.estimate < -0.05
    high, low = result.loss_range
    assert result.at_loss.level_means[0] == pytest.approx(0.5 - 0.15 * np.log(high * low) / 2, abs=0.01)


def test_the_end_at_equal_steps_is_the_final_summary() -> None:
    records = synthetic_records(
        designs={"cells": grid({"network.width": [16, 32], "network.norm": ["none", "batch"]})}, seeds=6, rules=("dfa",)
    )
    checkpoints = records.checkpoints.assign(train_loss=2.3 * np.exp(-records.checkpoints["step"] / 200))
    options: dict[str, Any] = {
        "factor": "width", "levels": (16, 32), "within": records.factors, "response": "signal_angle_deg"
    }  # fmt: skip
    table = matched_loss_table(records.runs, checkpoints, records.layers, at="step", summary="end", **options)
    final = run_summaries(records.runs, records.layers, "signal_angle_deg")
    assert table["value"].to_numpy() == pytest.approx(final["value"].to_numpy())
    assert set(table["step_from"]) == {0.0} and table["step_to"].to_numpy() == pytest.approx(360)
    # All runs fall alike, so that the end at equal loss is that at equal steps.
    result = matched_comparison(records.runs, checkpoints, records.layers, summary="end", **options)
    oracle = contrast(final, factor="width", levels=(16, 32), within=records.factors)
    assert result.estimate == pytest.approx(oracle.estimate) and result.p == oracle.p


def test_in_a_fraction_all_runs_of_a_seed_are_matched() -> None:
    runs, checkpoints, layers = study(response=lambda loss, arm, site: angle_of(loss, arm, "p"))
    keep = (runs["arm"] == "fast") == (runs["site"] == "p")
    half = runs[keep]
    checkpoints.loc[checkpoints["run_id"] == "0qslow", "train_loss"] = 2.3 - 1e-5 * STEPS
    table = matched_loss_table(half, checkpoints, layers, **OPTIONS)
    by_seed = table.groupby("seed")["loss_to"].nunique()
    assert (by_seed == 1).all() and len(table) == 12
    assert table.loc[table["seed"] == 0, "loss_to"].iloc[0] > 2.29


def test_reach_lets_the_slowest_go_and_counts_them() -> None:
    runs, checkpoints, layers = study(sites=tuple("pqrs"))
    # Half of the 2 x 4 grid in a balanced way is no longer a fraction for pairs: sites name different cells.
    even = runs["site"].isin(["p", "q"])
    half = runs[(runs["arm"] == "fast") == even]
    full = matched_loss_table(half, checkpoints, layers, **OPTIONS)
    some = matched_loss_table(half, checkpoints, layers, reach=0.75, **OPTIONS)
    assert (full["missing"] == "").all() and (some["missing"] == UNMATCHED).sum() == 6
    assert set(some.loc[some["missing"] != "", "arm"]) == {"slow"}
    assert some["loss_to"].min() < full["loss_to"].min()


def test_bad_input_says_what_was_expected() -> None:
    runs, checkpoints, layers = study(2)
    with pytest.raises(AnalysisError, match="two different levels; got fast and none, of fast, slow"):
        matched_loss_table(runs, checkpoints, layers, **{**OPTIONS, "levels": ("fast", "none")})
    with pytest.raises(AnalysisError, match="got fast and fast"):
        matched_loss_table(runs, checkpoints, layers, **{**OPTIONS, "levels": ("fast", "fast")})
    with pytest.raises(AnalysisError, match='"train_loss" above 0'):
        matched_loss_table(runs, checkpoints.assign(train_loss=checkpoints["train_loss"] - 1), layers, **OPTIONS)
    with pytest.raises(AnalysisError, match="points: expected a whole number of at least 2"):
        matched_loss_table(runs, checkpoints, layers, points=1, **OPTIONS)
    with pytest.raises(AnalysisError, match="Choose one signal"):
        matched_loss_table(runs, checkpoints, pd.concat([layers, layers]), **OPTIONS)
    with pytest.raises(AnalysisError, match="layer 3: no run has it; hidden layers: 1, 2"):
        matched_loss_table(runs, checkpoints, layers, layer=3, **OPTIONS)
    with pytest.raises(AnalysisError, match='expected a column "train_lss"'):
        matched_loss_table(runs, checkpoints, layers, loss="train_lss", **OPTIONS)
