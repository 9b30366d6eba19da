"""The arms of a claim over the learning rate: every rate that all were tried at, and one curve shifted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import grid, synthetic_records
from tuned import CLAIM, RATES, tuned_records

from alignkit.claims.analysis import analyse
from alignkit.claims.over_rates import over_rates, shift_between
from alignkit.errors import AnalysisError
from alignkit.figures.rates import rate_curves
from alignkit.records.store import Records
from alignkit.report.sections.rates import rates


@pytest.fixture(scope="module")
def records() -> Records:
    return tuned_records()


def test_a_point_is_the_mean_of_an_arm_at_a_rate(records: Records) -> None:
    curves = over_rates(records, records.study.claims[0])
    assert sorted(set(curves["lr"])) == list(RATES) and set(curves["level"]) == {"none", "batch"}
    rows = records.layers[(records.layers["mode"] == "batch") & (records.layers["step"] == 360)]
    rows = rows.groupby("run_id")["gradient_angle_deg"].mean().rename("value").reset_index().merge(records.runs)
    rows = rows[(rows["norm"] == "batch") & (rows["lr"] == 1.0)].groupby("seed")["value"].mean()
    point = curves[(curves["level"] == "batch") & (curves["lr"] == 1.0)].iloc[0]
    half = stats.t.ppf(0.975, len(rows) - 1) * rows.sem()
    assert point[["mean", "low", "high"]].astype(float).tolist() == pytest.approx(
        [rows.mean(), rows.mean() - half, rows.mean() + half]
    )
    # the middle rate is the best of every seed, and the others are out of reach
    assert curves.set_index("lr")["chosen"].groupby("lr").mean().to_dict() == {0.01: 0.0, 0.1: 1.0, 1.0: 0.0}
    accuracy = over_rates(records, records.study.claims[0], response="validation_accuracy")
    at = accuracy.groupby("lr")["mean"].mean()
    assert at[0.1] - at[0.01] == pytest.approx(10.0)


def test_rates_that_only_some_seeds_tried_have_no_mean(records: Records) -> None:
    one = records.runs["run_id"][(records.runs["lr"] == 1.0) & (records.runs["norm"] == "batch")].iloc[0]
    fewer = dataclasses.replace(records, runs=records.runs[records.runs["run_id"] != one].reset_index(drop=True))
    curves = over_rates(fewer, records.study.claims[0]).set_index(["level", "lr"])
    assert not curves.loc[("batch", 1.0), "whole"] and np.isnan(curves.loc[("batch", 1.0), "mean"])
    assert curves.loc[("none", 1.0), "whole"] and np.isfinite(curves.loc[("none", 1.0), "mean"])


def curve(shift: float, lift: float = 0.0) -> pd.DataFrame:
    lr = np.array([0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    parts = [
        pd.DataFrame({"level": level, "lr": lr, "mean": 60 + np.log(lr * by / 0.2) ** 2 + up, "response": "r"})
        for level, by, up in (("false", 1.0, 0.0), ("true", shift, lift))
    ]
    return pd.concat(parts, ignore_index=True).assign(low=np.nan, high=np.nan, chosen=0.5)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_a_shift_between_curves_is_found(factor: float) -> None:
    found = shift_between(curve(factor))
    assert found.factor == pytest.approx(factor, rel=0.08) and found.after < 0.6
    assert found.before > found.after or factor == 1.0


def test_what_is_no_shift_stays_apart() -> None:
    assert shift_between(curve(1.0, lift=6.0)).after > 2.0
    with pytest.raises(AnalysisError, match="3 rates or more"):
        shift_between(curve(1.0).iloc[[0, 1, 6, 7]])


def test_the_figure_draws_both_arms_and_the_shifted_one_again() -> None:
    table = curve(0.2)
    plain, shifted = (rate_curves(table, title="t", shifted=by).axes[0] for by in (1.0, 0.2))
    assert len(plain.lines) == 2 and len(shifted.lines) == 3
    again = shifted.lines[2]
    assert again.get_xdata() == pytest.approx(table.loc[table["level"] == "true", "lr"].to_numpy() * 0.2)
    with pytest.raises(AnalysisError, match="expected a learning rate"):
        rate_curves(table.assign(mean=np.nan), title="t")


def test_the_section_says_where_a_sign_turns_with_the_rate() -> None:
    plain = tuned_records()
    section = rates(analyse(plain))
    assert section is not None and "no effect that would matter changes its sign" in section.sentences[0]
    worse = (plain.layers["run_id"].str.endswith("@1")) & plain.layers["run_id"].str.contains("norm=batch")
    layers = plain.layers.assign(gradient_angle_deg=plain.layers["gradient_angle_deg"] + 12.0 * worse)
    section = rates(analyse(dataclasses.replace(plain, layers=layers)))
    assert section is not None and "of norm has one sign at some rates" in section.sentences[0]
    assert "at rate 1" in section.folds[0].charts[0].see
    assert set(section.tables[0].data["response"]) == {"gradient_angle_deg", "validation_accuracy"}


def test_arms_that_are_not_identifiable_are_one_curve_shifted() -> None:
    claim = {**CLAIM, "name": "feedback", "factor": "feedback_normalised", "levels": [False, True]}
    options: dict[str, Any] = {"factors": {"feedback.normalised": [False, True]}}
    analysis = analyse(tuned_records(claim, **options))
    assert analysis.verdicts[0].verdict == "not identifiable"
    section = rates(analysis)
    assert section is not None and section.folds[0].charts[0].see.startswith("One curve, shifted:")
    assert "hidden layers alone" in section.folds[0].notes[0]


def test_what_was_not_tuned_has_no_rates() -> None:
    designs = {"cells": grid({"network.norm": ["none", "batch"]})}
    assert rates(analyse(synthetic_records(designs=designs, study={"claims": [CLAIM]}, steps=(0, 360)))) is None
