"""Figures show the numbers that they claim to, and leave matplotlib as they found it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import full_study, grid, synthetic_records

from alignkit import figures
from alignkit.claims.analysis import analyse
from alignkit.errors import AnalysisError
from alignkit.figures import accuracy_gap
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import contrast_frame, contrasts
from alignkit.text import MINUS


@pytest.fixture(scope="module")
def records() -> Records:
    return full_study()


def test_curves_are_means_over_seeds_of_means_over_cells(records: Records) -> None:
    table = analyse(records).curves("signal_angle_deg", rules=["dfa"], design="practices")
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
    analysis, angle = analyse(records), "signal_angle_deg"
    table = analysis.final(angle, rule="dfa", design="practices")
    effects = contrasts(table, records.factors)
    frame = contrast_frame(effects).assign(response=angle)
    curves = analysis.curves(angle, rules=["dfa"], design="practices")
    widths = analysis.by_layer("signal_cosine", rules=["dfa"], design="width_curve", factor="width")
    means = figures.means_by_level(table, effects, within=records.factors)
    gap = table.assign(gap=analysis.final("accuracy_gap")["value"]).dropna(subset=["value", "gap"])
    return {
        "training": figures.alignment_over_training(curves),
        "factors": figures.alignment_by_factor(means, frame, rule="dfa"),
        "width": figures.width_curve(widths),
        "gap": figures.accuracy_gap_against_alignment(gap, colour_by="norm"),
        "forest": figures.forest(frame, smallest={("norm", angle): 1.0}),
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
    assert any(title.startswith("norm\n" + MINUS) for title in titles)
    every_seed = [line for line in drawn["factors"].axes[0].lines if line.get_linewidth() < 1]
    assert len(every_seed) == 10


def small_width_curve() -> bytes:
    records = synthetic_records(designs={"w": grid({"network.width": [8, 16, 32]})}, seeds=3, steps=(0, 45, 360))
    widths = analyse(records).by_layer("signal_cosine", rules=["dfa"], design="w", factor="width")
    return b"".join(figures.save_figure(figures.width_curve(widths), name="w"))


@pytest.mark.slow
def test_figures_are_the_same_bytes_in_another_process() -> None:
    script = "import hashlib, test_figures as t; print(hashlib.sha256(t.small_width_curve()).hexdigest())"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(figures.__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert other.stdout.strip() == hashlib.sha256(small_width_curve()).hexdigest()


def test_what_cannot_be_drawn_is_said() -> None:
    bare = analyse(synthetic_records(designs={"one": [{"network.width": 16}]}, seeds=2, steps=(0,)))
    of = {"rules": ["dfa"], "design": None}
    with pytest.raises(AnalysisError, match="two checkpoints"):
        figures.alignment_over_training(bare.curves("signal_angle_deg", **of))
    with pytest.raises(AnalysisError, match="two levels of width"):
        figures.width_curve(bare.by_layer("signal_cosine", factor="width", **of))
    with pytest.raises(AnalysisError, match="a factor"):
        figures.alignment_by_factor(pd.DataFrame(), contrast_frame([]), rule="dfa")
    with pytest.raises(AnalysisError, match="at least one contrast"):
        figures.forest(contrast_frame([]))
    with pytest.raises(AnalysisError, match="BP twin"):
        figures.accuracy_gap_against_alignment(pd.DataFrame(columns=["rule", "cell", "value", "gap"]))
    with pytest.raises(AnalysisError, match="BP twin"):
        options = {"designs": {"one": [{"network.width": 16}]}, "seeds": 2, "steps": (0, 360), "regression": True}
        accuracy_gap.chart(analyse(synthetic_records(**options)))


CURVE = pd.DataFrame({"curve": "a", "angle": [0, 45], "mean": [3.0, 2.0], "low": [2.0, 1.0], "high": [4.0, 3.0]})
ANOVA = pd.DataFrame({"term": ["norm", "norm:width"], "p_adjusted": [0.01, 0.5], "generalised_r2": [0.4, 0.1]})
RUNS = pd.DataFrame({"rule": "dfa", "cell": ["a", "b"], "value": [60.0, 70.0], "gap": [-1.0, -2.0]})
STRIPS = pd.DataFrame({"label": "norm", "standardised": [1.0, 2.0], "p": [0.01, 0.5], "reason": ""})
ONE_PANEL: dict[str, Callable[..., Figure]] = {
    "dose": partial(figures.dose_curves, CURVE, dose="angle", axis="angle", response="test_accuracy", title="Dose"),
    "terms": partial(figures.explained, ANOVA, response="signal_angle_deg"),
    "gap": partial(figures.accuracy_gap_against_alignment, RUNS),
    "specifications": partial(figures.specification_strips, STRIPS),
}


@pytest.mark.parametrize("draw", ONE_PANEL.values(), ids=ONE_PANEL)
def test_a_figure_of_one_panel_is_drawn_where_a_caller_wants_it(draw: Callable[..., Figure]) -> None:
    own, whole = draw(), Figure()
    left, right = whole.subplots(1, 2)
    assert draw(ax=left) is whole and len(own.axes) == 1
    assert left.get_title(loc="left") == own.get_suptitle().replace("\n", " ") and whole.get_suptitle() == ""
    assert left.has_data() and not right.has_data() and left.get_xlabel() == own.axes[0].get_xlabel()


def test_rules_keep_their_colour() -> None:
    assert figures.rule_colour("dfa") == figures.RULE_COLOURS["dfa"]
    assert figures.rule_colour("mine:Rule") == figures.rule_colour("mine:Rule") != figures.rule_colour("dfa")
