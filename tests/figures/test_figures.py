"""Figures show the numbers that they claim to, and leave matplotlib as they found it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import full_study, grid, synthetic_records

from alignkit import figures
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import contrasts


@pytest.fixture(scope="module")
def records() -> Records:
    return full_study()


def test_curves_are_means_over_seeds_of_means_over_cells(records: Records) -> None:
    table = figures.curves(records, rule="dfa", design="practices")
    rows = records.layers.merge(records.runs[["run_id", "rule", "seed", "designs"]], on="run_id")
    rows = rows[
        (rows["rule"] == "dfa")
        & rows["designs"].str.contains("practices")
        & (rows["layer"] == 1)
        & (rows["step"] == 45)
    ]
    seeds = rows.groupby("seed")["signal_angle_deg"].mean()
    point = table[(table["layer"] == 1) & (table["step"] == 45)].iloc[0]
    assert point["mean"] == pytest.approx(seeds.mean()) and point["count"] == 10
    half = 2.262157 * seeds.std(ddof=1) / np.sqrt(10)
    assert point["high"] - point["mean"] == pytest.approx(half, rel=1e-5)


def all_figures(records: Records) -> dict[str, Figure]:
    table = figures.final_values(records, rule="dfa", design="practices", response="signal_angle_deg")
    effects = contrasts(table, records.factors)
    return {
        "training": figures.alignment_over_training(records, rules=["dfa"], design="practices"),
        "factors": figures.alignment_by_factor(records, effects, rule="dfa", design="practices"),
        "width": figures.width_curve(records, rules=["dfa"], design="width_curve"),
        "gap": figures.accuracy_gap_against_alignment(records, rules=["dfa"], design="practices", colour_by="norm"),
        "forest": figures.forest({"signal_angle_deg": effects}, smallest={("norm", "signal_angle_deg"): 1.0}),
    }


@pytest.mark.slow
def test_figures_are_light_and_leave_the_settings_alone(records: Records) -> None:
    before = dict(mpl.rcParams)
    drawn = all_figures(records)
    for name, figure in drawn.items():
        svg, pdf = figures.save_figure(figure, name=name)
        assert len(svg) < 150_000 and pdf.startswith(b"%PDF")
        assert b"dc:date" not in svg and b"CreationDate" not in pdf
        if name == "gap":
            assert figures.save_figure(figure, name=name) == (svg, pdf)
    assert dict(mpl.rcParams) == before
    assert len(drawn["factors"].axes) >= 7
    titles = [axes.get_title(loc="left") for axes in drawn["factors"].axes]
    assert any(title.startswith("norm\n" + figures.MINUS) for title in titles)
    every_seed = [line for line in drawn["factors"].axes[0].lines if line.get_linewidth() < 1]
    assert len(every_seed) == 10


def small_width_curve() -> bytes:
    records = synthetic_records(designs={"w": grid({"network.width": [8, 16, 32]})}, seeds=3, steps=(0, 45, 360))
    return b"".join(figures.save_figure(figures.width_curve(records, rules=["dfa"]), name="w"))


@pytest.mark.slow
def test_figures_are_the_same_bytes_in_another_process() -> None:
    script = "import hashlib, test_figures as t; print(hashlib.sha256(t.small_width_curve()).hexdigest())"
    paths = [str(Path(__file__).parents[1]), str(Path(figures.__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert other.stdout.strip() == hashlib.sha256(small_width_curve()).hexdigest()


def test_what_cannot_be_drawn_is_said() -> None:
    bare = synthetic_records(designs={"one": [{"network.width": 16}]}, seeds=2, steps=(0,))
    with pytest.raises(AnalysisError, match="two checkpoints"):
        figures.alignment_over_training(bare, rules=["dfa"])
    with pytest.raises(AnalysisError, match="two levels of width"):
        figures.width_curve(bare, rules=["dfa"])
    with pytest.raises(AnalysisError, match="a factor"):
        figures.alignment_by_factor(bare, [], rule="dfa")
    with pytest.raises(AnalysisError, match="at least one contrast"):
        figures.forest({})
    regression = synthetic_records(designs={"one": [{"network.width": 16}]}, seeds=2, steps=(0, 360), regression=True)
    with pytest.raises(AnalysisError, match="BP twin"):
        figures.accuracy_gap_against_alignment(regression, rules=["dfa"])


def test_rules_keep_their_colour() -> None:
    assert figures.rule_colour("dfa") == figures.RULE_COLOURS["dfa"]
    assert figures.rule_colour("mine:Rule") == figures.rule_colour("mine:Rule") != figures.rule_colour("dfa")
