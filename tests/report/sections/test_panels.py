"""What the verdicts hang on: the right rows, told apart, and the levels of moderators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import grid, synthetic_records
from tuned import CLAIM, tuned_records

from alignkit.claims.analysis import Analysis, analyse
from alignkit.figures.panel import panel_forest
from alignkit.report.page import write_report
from alignkit.report.results import first_screen
from alignkit.report.sections.panels import panels
from alignkit.study.hypotheses import layers_note, panel_notes
from alignkit.study.study import Study

pytestmark = pytest.mark.usefixtures("without_pdf")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    """Batch norm aligns at ReLU and not at tanh; at h in batch mode it seems to harm."""
    claim = {**CLAIM, "moderators": ["activation"]}
    return analyse(tuned_records(claim, effect=-8.0, at_tanh=10.0, h_in_batch_mode=14.0, seeds=10))


def test_each_row_is_the_contrast_that_it_names(analysis: Analysis) -> None:
    section = panels(analysis)
    assert section is not None
    frame = section.tables[0].data.set_index("question")
    assert frame.loc["declared", "estimate"] == pytest.approx(analysis.verdicts[0].estimate)
    assert frame.loc["declared", "estimate"] == pytest.approx(-3.0, abs=0.6)
    assert frame.loc["signal-batch", "estimate"] == pytest.approx(11.0, abs=0.6)
    assert frame.loc["signal-eval", "estimate"] == pytest.approx(-3.0, abs=0.6)
    # what compares signals of two kinds is shown, says why, and judges nothing
    assert not frame.loc["signal-batch", ["core", "graded", "comparable"]].any()
    (fold,) = section.folds
    row = next(row for row in fold.tables[0].rows if row[0] == "at h (batch statistics)")
    assert row[1:3] == ("shown, not comparable", "refuted")
    assert any("signals of two kinds" in note for note in fold.notes)
    assert fold.tables[0].rows[0][1:3] == ("core", "supported")
    assert section.tables[0].to_csv().count("\n") == 1 + len(analysis.panels[0].answers)


def test_levels_stand_beside_the_average_they_hide(analysis: Analysis) -> None:
    section = panels(analysis)
    assert section is not None
    levels = section.tables[1].data.set_index("level")
    assert levels.loc["relu", "estimate"] == pytest.approx(-8.0, abs=0.7)
    assert levels.loc["tanh", "estimate"] == pytest.approx(2.0, abs=0.7)
    assert levels[["estimate"]].mean().item() == pytest.approx(analysis.verdicts[0].estimate)
    (row,) = first_screen(analysis)
    assert (row["verdict"], row["practice"]) == ("supported", "Normalise")
    assert "at relu" in row["hangs_on"] and "at tanh" in row["hangs_on"] and "turns over" in row["hangs_on"]
    assert row["accuracy"].endswith("points")


def test_the_forest_draws_core_graded_and_shown_apart(analysis: Analysis) -> None:
    rows = analysis.panels[0].to_frame()
    axes = panel_forest(rows, response="gradient_angle_deg", smallest=2.0).axes[0]
    dots = {line.get_ydata()[0]: line for line in axes.lines if len(line.get_xdata()) == 1}
    answered = rows[np.isfinite(rows["estimate"])].reset_index(drop=True)
    assert [dots[place].get_xdata()[0] for place in range(len(answered))] == pytest.approx(
        answered["estimate"].tolist()
    )
    kinds = np.select([answered["core"], answered["graded"]], ["core", "graded"], "shown")
    looks = {kind: {dots[p].get_marker() for p in np.flatnonzero(kinds == kind)} for kind in set(kinds)}
    assert set(looks) == {"core", "graded", "shown"} and len(set().union(*looks.values())) == 3
    (band,) = axes.patches
    assert band.get_extents().transformed(axes.transData.inverted()).x0 == pytest.approx(-2.0)


def test_a_study_with_one_way_to_ask_has_no_section() -> None:
    designs = {"cells": grid({"network.norm": ["none", "batch"]})}
    claim = {**CLAIM, "response": "test_accuracy", "direction": "increase"}
    found = analyse(synthetic_records(designs=designs, study={"claims": [claim]}, steps=(0, 360)))
    assert panels(found) is None
    (row,) = first_screen(found)
    assert row["accuracy"] == "\N{EN DASH}"  # accuracy is its effect


@pytest.mark.parametrize(
    ("factors", "levels", "factor", "layer", "mixes"),
    [
        ({"network.depth": [2, 4]}, [2, 4], "depth", "mean", "over 2 layers in one arm and 4"),
        ({"network.depth": [2, 4]}, [2, 4], "depth", "last", ""),
        ({"network.width": [8, 32]}, [8, 32], "width", "mean", ""),
        (
            {"shape": {"narrow": {"network.widths": [32, 4, 32]}, "wide": {"network.widths": [32, 32, 32]}}},
            ["narrow", "wide"], "shape", "mean", "1 of 3 layers change their width",
        ),
    ],
)  # fmt: skip
def test_a_mean_over_layers_says_what_it_mixes(
    factors: dict[str, Any], levels: list[Any], factor: str, layer: str, mixes: str
) -> None:
    claim = {**CLAIM, "factor": factor, "levels": levels, "layer": layer, "response": "gradient_angle_deg"}
    study = Study.parse({
        "name": "s", "seeds": 8, "rules": ["dfa"], "claims": [claim], "designs": {"cells": {"factors": factors}},
        "probe": {"measures": ["signal", "gradient"]},
    })  # fmt: skip
    note = layers_note(study.claims[0], study)
    assert (mixes in note) if mixes else note == ""
    assert any(mixes in line for line in panel_notes(study)) if mixes else "mixes" not in " ".join(panel_notes(study))


def test_the_first_screen_is_before_everything_else(analysis: Analysis, tmp_path: Path) -> None:
    text = write_report(analysis.records, tmp_path).read_text(encoding="utf-8")
    places = [text.index(f'id="{name}"') for name in ("answers", "overview", "verdicts", "panels", "method")]
    assert places == sorted(places)
    header = text[text.index("<header>") : text.index("</header>")]
    assert len(header) < 600 and "<nav" not in header
    assert (tmp_path / "tables" / "panels.csv").is_file() and (tmp_path / "figures" / "panels_norm.svg").is_file()
