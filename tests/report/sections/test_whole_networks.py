"""The sections on configurations, on cells and on stakes: what is known reaches the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.analysis import Analysis, analyse
from alignkit.figures.configurations import best_configurations
from alignkit.report.contents import answered
from alignkit.report.section import Answer
from alignkit.report.sections.cells import cells
from alignkit.report.sections.configurations import configurations
from alignkit.report.sections.stakes import stakes

FACTORS: dict[str, list[Any]] = {
    "network.activation": ["relu", "tanh"], "network.norm": ["none", "batch"], "network.width": [16, 64],
}  # fmt: skip
CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Batch norm aligns", "factor": "norm", "levels": ["none", "batch"],
    "direction": "decrease", "smallest_effect": 1.0, "response": "gradient_angle_deg",
}  # fmt: skip
CURVE = [{"network.activation": "relu", "network.norm": "none", "network.width": width} for width in (16, 64, 256)]


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    """Batch norm aligns by 8°, tanh and 64 units are the most accurate."""
    records = synthetic_records(
        designs={"practices": grid(FACTORS), "width_curve": CURVE},
        study={"claims": [CLAIM], "designs": {"practices": {"factors": FACTORS},
                                              "width_curve": {"factors": {"network.width": [16, 64, 256]}}}},
        angle_effects={"network.norm": -8.0}, accuracy_effects={"network.activation": 3.0, "network.width": 1.5},
        seeds=8, seed_by_factor_sd=0.3, residual_sd=0.5,
    )  # fmt: skip
    records.layers["gradient_angle_deg"] = records.layers["signal_angle_deg"]
    return analyse(records)


def told(answer: Answer | None) -> Answer:
    assert answer is not None
    return answer


def test_configurations_are_named_listed_and_drawn(analysis: Analysis) -> None:
    answer = told(configurations(analysis))
    assert "4 may be the best aligned (95%): the ones with norm batch." in answer.sentences[0]
    assert any(note.startswith("Width curve: ") for note in answer.notes)
    (table,) = answer.tables
    assert table.name == "configurations"
    assert len(table.data) == 8 + 3
    assert table.columns[:2] == ("design", "network")
    best = table.rows[0]
    assert best[:2] == ("practices", "tanh, norm batch, width 64") and best[-1] == "alignment and accuracy"
    (drawn,) = answer.charts
    assert drawn.see == "Of 8 networks, 4 may be the best aligned, 2 the most accurate, and 1 both."
    axes = drawn.figure.axes[0]
    assert "angle" in axes.get_xlabel() and "log scale of the error" in axes.get_ylabel()
    assert sum(len(line.get_xdata()) for line in axes.lines) == 8


def test_a_design_of_one_name_needs_no_column(analysis: Analysis) -> None:
    records = synthetic_records(designs={"practices": grid(FACTORS)}, seeds=6)
    (table,) = told(configurations(analyse(records))).tables
    assert table.columns[0] == "network"


def test_perfect_accuracies_can_be_drawn(analysis: Analysis) -> None:
    (chart,) = told(configurations(analysis)).charts
    table = told(configurations(analysis)).tables[0].data.head(8).assign(test_accuracy=100.0)
    figure = best_configurations(table, alignment="gradient_angle_deg", accuracy="test_accuracy")
    low, high = figure.axes[0].get_ylim()
    assert np.isfinite([low, high]).all() and low < 100
    assert chart.figure is not figure


def test_each_effect_has_its_spread(analysis: Analysis) -> None:
    answer = told(cells(analysis))
    assert answer.sentences == ("Every effect has the sign of its average in nearly all networks like these.",)
    (row,) = answer.tables[0].rows
    assert row[:2] == ("norm", "norm: none → batch") and row[-2:] == ("4", "0")
    assert answer.tables[0].data["n_seeds"].tolist() == [8]


def test_an_effect_that_turns_over_is_named(analysis: Analysis) -> None:
    records = synthetic_records(
        designs={"practices": grid(FACTORS)}, study={"claims": [{**CLAIM, "response": "signal_angle_deg"}]}, seeds=8,
    )  # fmt: skip
    runs = records.runs.set_index("run_id")
    side = np.where(runs["activation"] == "relu", -6.0, 6.0) * (runs["norm"] == "batch") * (runs["rule"] == "dfa")
    records.layers["signal_angle_deg"] += records.layers["run_id"].map(side)
    answer = told(cells(analyse(records)))
    assert answer.sentences[0].startswith(
        "Of 1 effect, 1 may have either sign in another network like these: norm. Its"
    )


def test_stakes_reach_the_page(analysis: Analysis) -> None:
    answer = told(stakes(analysis))
    assert "every effect on an angle here is worth less than a point of test accuracy" in answer.sentences[0]
    assert "no margin in degrees" in answer.sentences[1]
    (row,) = answer.tables[0].rows
    assert row[0] == "norm" and row[-2:] == ("yes", "\N{EN DASH}")


def test_without_a_like_network_no_stake_is_told(analysis: Analysis) -> None:
    study = analysis.study.model_copy(update={"data": analysis.study.data.model_copy(update={"shuffle_labels": True})})
    answer = told(stakes(replace(analysis, records=replace(analysis.records, study=study))))
    assert answer.sentences[0].startswith("No dose") and not answer.tables


def test_a_study_without_claims_or_cells_is_not_asked() -> None:
    bare = analyse(synthetic_records(designs={"one": [{"network.width": 8}]}, seeds=3))
    assert configurations(bare) is None and cells(bare) is None and stakes(bare) is None
    names = [question.name for question, _ in answered(bare, full=False)[0]]
    assert not {"configurations", "cells", "stakes"} & set(names)
