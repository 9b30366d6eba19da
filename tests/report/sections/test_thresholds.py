"""The section on thresholds in width: a bend that is there is found, a smooth curve is not called one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.analysis import analyse
from alignkit.errors import AnalysisError
from alignkit.figures.thresholds import threshold_curves
from alignkit.records.store import Records
from alignkit.report.section import Answer
from alignkit.report.sections.thresholds import thresholds
from alignkit.stats.curves.thresholds import threshold
from alignkit.text import ABSENT

WIDTHS = [4, 8, 16, 32, 64, 128, 256]
CURVE = {"width_curve": grid({"network.width": WIDTHS})}


def curved(shape: Any, *, noise: float = 0.3, **options: Any) -> Records:
    """Records whose final angle is `shape(log2 width)`, plus noise of each run."""
    records = synthetic_records(**{"designs": CURVE, "seeds": 8, "steps": (0, 360), "rules": ("dfa",), **options})
    runs, generator = records.runs.set_index("run_id"), np.random.default_rng(5)
    angle = shape(np.log2(runs["width"].astype(float))) + generator.normal(0, noise, len(runs))
    values = records.layers["run_id"].map(angle).where(records.layers["signal_angle_deg"].notna())
    return replace(records, layers=records.layers.assign(signal_angle_deg=values))


def section(records: Records) -> Answer:
    found = thresholds(analyse(records))
    assert found is not None
    return found


def test_a_threshold_is_found_where_it_is() -> None:
    found = section(curved(lambda x: 60 + 8 * np.maximum(5 - x, 0)))
    first = found.tables[0].rows[0]
    assert first[:2] == ("DFA", "threshold")
    low, high = (float(value) for value in first[3].strip("[]").split(", "))
    assert low <= 32 <= high and high / low < 2
    assert float(first[2]) == pytest.approx(32, rel=0.15)
    assert first[4].startswith("\N{MINUS SIGN}") and abs(float(first[5].strip("°+\N{MINUS SIGN}"))) < 0.5
    assert "with a threshold at 3" in found.sentences[0] and "sup-F p .008" in found.sentences[0]
    assert [table.name for table in found.tables] == ["thresholds", "thresholds_curves", "thresholds_trend"]
    assert [chart.name for chart in found.charts] == ["thresholds_width"]


def test_a_parabola_is_no_threshold() -> None:
    found = section(curved(lambda x: 60 + (x - 5) ** 2))
    assert found.tables[0].rows[0][1] == "smooth curve"
    assert "no clear threshold" in found.sentences[0] or "without a single bend" in found.sentences[0]
    shares = {row[1]: row[6] for row in found.tables[2].rows}
    assert int(shares["quadratic"].rstrip("%")) > 95


def test_a_line_shows_no_bend() -> None:
    found = section(curved(lambda x: 70 - 2 * x, noise=1.0))
    assert found.tables[0].rows[0][1] == "line" and "no threshold is shown" in found.sentences[0]
    linear = found.tables[2].data.query("degree == 1").iloc[0]
    assert linear["low"] <= -2 <= linear["high"] and linear["share"] > 0.9
    assert "per doubling" in found.sentences[0]


def test_only_curves_without_a_gap_count() -> None:
    """A seed that diverges at one width is left out of means, tests and figure alike."""
    records = curved(lambda x: 70 - 2 * x, diverge=(("network.width", 4),))
    found = section(records)
    assert found.tables[0].rows[0][8] == "6"
    assert any("2 of 8 curves left out" in note for note in found.notes)
    dots = [line for line in found.charts[0].figure.axes[0].get_lines() if line.get_markersize() == 2.4]
    assert len(dots) == 6


def test_other_factors_are_averaged_over_complete_cells() -> None:
    records = curved(lambda x: 70 - 2 * x, designs={"both": grid({"network.width": WIDTHS, "network.depth": [2, 3]})})
    assert section(records).tables[0].data["n_cells"].tolist() == [2]


def test_a_rate_that_differs_between_runs_is_told() -> None:
    records = curved(lambda x: 70 - 2 * x)
    assert not any("Learning rates" in note for note in section(records).notes)
    wide = records.runs.assign(lr=np.where(records.runs["width"] > 32, 0.03, 0.1))
    assert any("0.03 to 0.1" in note for note in section(replace(records, runs=wide)).notes)


def test_a_constant_response_has_no_share_to_tell() -> None:
    records = curved(lambda x: 60 + 0 * x, noise=0.0, seeds=6)
    found = section(records)
    assert found.tables[0].rows[0][1] == "line" and "nan" not in " ".join(found.sentences)
    assert [row[6] for row in found.tables[2].rows] == [ABSENT] * 3


def test_each_taught_rule_has_its_rows() -> None:
    found = section(curved(lambda x: 70 - 2 * x, rules=("dfa", "fa"), seeds=6))
    assert [row[0] for row in found.tables[0].rows] == ["DFA", "FA"]
    assert len(found.charts[0].figure.axes) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"designs": {"three": grid({"network.width": [8, 16, 32]})}},
        {"designs": {"depths": grid({"network.depth": [2, 3, 4, 5]})}},
        {"rules": ("bp",)},
        {"measures": ()},
    ],
)
def test_without_four_widths_under_a_taught_rule_there_is_no_question(options: dict[str, Any]) -> None:
    records = synthetic_records(**{"designs": CURVE, "seeds": 2, "steps": (0, 360), **options})
    assert thresholds(analyse(records)) is None


def test_too_few_seeds_are_refused() -> None:
    with pytest.raises(AnalysisError, match=r"DFA: .*6 seeds"):
        thresholds(analyse(curved(lambda x: x, seeds=3)))


def test_the_drawn_line_is_the_least_squares_fit() -> None:
    x = np.log2(WIDTHS)
    rows = [
        (seed, width, 60 + 3 * np.maximum(5.3 - at, 0) + 0.01 * np.sin(7 * seed + at))
        for seed in range(6)
        for width, at in zip(WIDTHS, x, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["seed", "width", "value"])
    bend = threshold(table, factor="width")
    figure = threshold_curves(table.assign(rule="dfa"), {"dfa": bend}, response="signal_angle_deg")
    line = next(
        each for each in figure.axes[0].get_lines() if each.get_linestyle() == "-" and len(each.get_xdata()) > 10
    )
    hinge = np.maximum(x - np.log2(bend.estimate), 0)
    design = np.stack([np.ones_like(x), x, hinge]).T
    fit = np.linalg.lstsq(design, np.array(bend.means), rcond=None)[0]
    drawn = np.interp(x, np.log2(np.asarray(line.get_xdata(), float)), np.asarray(line.get_ydata(), float))
    assert drawn == pytest.approx(design @ fit, abs=0.03)
