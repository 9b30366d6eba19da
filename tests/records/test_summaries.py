"""One number per run, and why it is missing where it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic import grid, synthetic_records

from alignkit.columns import label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.records.summaries import run_summaries
from alignkit.stats.tables.levels import in_design

CELLS = {"cells": grid({"network.width": [16, 32], "feedback.normalised": [False, True]})}


@pytest.fixture(scope="module")
def records() -> Records:
    return synthetic_records(designs=CELLS, seeds=3, rules=("bp", "dfa", "shallow"), diverge=(("network.width", 32),))


def test_final_value_is_the_mean_over_layers_at_the_last_step(records: Records) -> None:
    table = run_summaries(records.runs, records.layers, "signal_angle_deg")
    assert len(table) == len(records.runs) and list(table["run_id"]) == list(records.runs["run_id"])
    run = records.runs["run_id"].iloc[3]
    rows = records.layers[(records.layers["run_id"] == run) & (records.layers["step"] == 360)]
    assert table.loc[table["run_id"] == run, "value"].item() == pytest.approx(rows["signal_angle_deg"].mean())
    assert list(table["width"]) == list(records.runs["width"])  # the factor, not the layers' column


def test_auc_is_the_time_average_and_skips_what_is_never_defined(records: Records) -> None:
    for measure in ("signal_cosine", "step_cosine"):  # a step has no cosine before the first update
        table = run_summaries(records.runs, records.layers, measure, summary="auc", layer=1)
        run = records.runs.loc[(records.runs["rule"] == "dfa") & (records.runs["seed"] == 2), "run_id"].iloc[0]
        rows = records.layers[(records.layers["run_id"] == run) & (records.layers["layer"] == 1)].dropna(
            subset=[measure]
        )
        expected = np.trapezoid(rows[measure], rows["epoch"]) / np.ptp(rows["epoch"])
        assert table.loc[table["run_id"] == run, "value"].item() == pytest.approx(expected)


def test_missing_values_say_why(records: Records) -> None:
    table = run_summaries(records.runs, records.layers, "signal_angle_deg")
    assert (table["value"].isna() == (table["missing"] != "")).all()
    assert set(table.loc[table["diverged"], "missing"]) == {"diverged"}
    assert set(table.loc[table["rule"] == "shallow", "missing"]) == {"signal_angle_deg undefined"}
    gap = run_summaries(records.runs, records.layers, "accuracy_gap")
    assert set(gap.loc[gap["rule"] == "bp", "missing"]) == {"is the reference itself"}


def test_an_infinite_value_is_missing_under_its_own_name(records: Records) -> None:
    runs = records.runs.copy()
    whole = runs.index[(runs["rule"] == "dfa") & ~runs["diverged"]]
    runs.loc[whole[0], "test_loss"] = np.inf
    table = run_summaries(runs, records.layers, "test_loss")
    assert np.isnan(table.loc[whole[0], "value"]) and table.loc[whole[0], "missing"] == "test_loss infinite"
    assert table["missing"].drop(whole[0]).eq("").all() and table["value"].drop(whole[0]).notna().all()


def test_one_undefined_layer_is_enough(records: Records) -> None:
    layers = records.layers.copy()
    run = records.runs.loc[records.runs["rule"] == "dfa", "run_id"].iloc[-1]
    layers.loc[(layers["run_id"] == run) & (layers["layer"] == 2) & (layers["step"] == 360), "signal_cosine"] = np.nan
    table = run_summaries(records.runs, layers, "signal_cosine")
    assert table.loc[table["run_id"] == run, "missing"].item() == "signal_cosine undefined"


def test_what_no_run_can_have_is_left_out_of_the_mean(records: Records) -> None:
    layers = records.layers.copy()
    layers.loc[layers["layer"] == 1, "weight_cosine"] = np.nan  # as before a convolution
    table = run_summaries(records.runs, layers, "weight_cosine")
    ends = layers[(layers["step"] == 360) & (layers["layer"] == 2)].set_index("run_id")["weight_cosine"]
    np.testing.assert_allclose(table["value"], ends.reindex(table["run_id"]))


def test_gap_and_excess_are_taken_against_the_twin(records: Records) -> None:
    accuracy = records.runs.set_index("run_id")["test_accuracy"]
    gap = run_summaries(records.runs, records.layers, "accuracy_gap").query("rule == 'dfa'").dropna(subset=["value"])
    twins = accuracy.reindex(gap["bp_run_id"]).to_numpy()
    np.testing.assert_allclose(gap["value"], (accuracy.reindex(gap["run_id"]).to_numpy() - twins) * 100)
    angle = run_summaries(records.runs, records.layers, "signal_angle_deg").set_index("run_id")["value"]
    excess = run_summaries(records.runs, records.layers, "signal_angle_deg_excess").query("rule == 'dfa'")
    np.testing.assert_allclose(
        excess["value"], angle.reindex(excess["run_id"]).to_numpy() - angle.reindex(excess["bp_run_id"]).to_numpy()
    )
    assert unit_of("signal_angle_deg_excess") == "°" and "untaught" in label_of("signal_angle_deg_excess")


def test_accuracies_come_in_points(records: Records) -> None:
    table = run_summaries(records.runs, records.layers, "test_accuracy")
    np.testing.assert_allclose(table["value"], records.runs["test_accuracy"] * 100)


def test_unknown_responses_are_named_with_the_nearest(records: Records) -> None:
    with pytest.raises(AnalysisError, match='did you mean "signal_cosine"'):
        run_summaries(records.runs, records.layers, "signal_cosin")
    with pytest.raises(AnalysisError, match="no such measure"):
        run_summaries(records.runs, records.layers, "layer_name")
    with pytest.raises(AnalysisError, match="hidden layers: 1, 2"):
        run_summaries(records.runs, records.layers, "signal_cosine", layer=9)


def test_designs_are_matched_by_their_whole_name(records: Records) -> None:
    runs = dataclasses.replace(records).runs.assign(designs="width+width_curve")
    assert in_design(runs, "width_curve").all() and in_design(runs, "width").all()
    assert not in_design(runs, "curve").any()
