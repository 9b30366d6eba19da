"""Accuracy lost to back-propagation, against alignment."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.claims.analysis import Analysis
from alignkit.columns import GAP, label_of
from alignkit.errors import AnalysisError
from alignkit.figures import captions
from alignkit.figures.chart import Chart
from alignkit.figures.style import (
    INK,
    SERIES_COLOURS,
    STYLE,
    axis_label,
    finish,
    ordered_colours,
    rule_colour,
    single_panel,
)
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.tables.levels import level_column, level_order, numeric_levels
from alignkit.text import ABSENT, number, rule_name
from alignkit.text import level as level_words

CELL: Any = {"ls": "", "marker": "o", "ms": 5.5}


@mpl.rc_context(STYLE)
def accuracy_gap_against_alignment(
    table: pd.DataFrame, *, response: str = "signal_angle_deg", colour_by: str | None = None, ax: Axes | None = None
) -> Figure:
    """Whether better aligned networks lose less accuracy to BP.

    `table` has one row per run: rule, cell, value (alignment), gap, and the factor `colour_by` (or the rule). A faint
    dot is one run, a large one the mean of a cell over seeds. Alignment was not randomised here: the figure shows
    an association.
    """
    if table.empty:
        raise AnalysisError("expected runs with an alignment and a BP twin that has an accuracy; got none")
    key = level_column(table[colour_by]).fillna(ABSENT) if colour_by else table["rule"]
    levels = level_order(key)
    numeric = colour_by is not None and numeric_levels(levels) is not None and len(levels) > 2
    palette: Any = ordered_colours(len(levels)) if numeric or len(levels) > 6 else SERIES_COLOURS
    colours = {level: rule_colour(level) if colour_by is None else palette[i] for i, level in enumerate(levels)}
    figure, axes = single_panel(ax, height=3.4, extra=0.75)
    run: Any = {"ls": "", "marker": "o", "ms": 2.5, "mew": 0, "alpha": 0.25, "rasterized": True}
    for level in levels:
        part = table[key == level]
        axes.plot(part["value"], part["gap"], color=colours[level], **run)
    for level in levels:
        cells = table[key == level].groupby(["rule", "cell"])[["value", "gap"]].mean()
        axes.plot(cells["value"], cells["gap"], color=colours[level], mec="white", mew=0.7, **CELL)
    axes.axhline(0, color=INK, lw=0.8)
    axes.annotate("as accurate as BP", (0.99, 0), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=8, color=INK)  # fmt: skip
    axes.set_xlabel(axis_label(response))
    axes.set_ylabel("accuracy gap to BP (points)")
    names = {level: f"{colour_by.replace('_', ' ')} {level}" if colour_by else rule_name(level) for level in levels}
    handles = [Line2D([], [], color=colours[level], label=names[level], **CELL) for level in levels]
    finish(figure, "Accuracy lost to BP against alignment", handles, ax=ax)
    return figure


def chart(analysis: Analysis) -> Chart:
    """The runs of every taught rule in the main design, and how alignment and gap go together over its cells."""
    response, design = analysis.response, analysis.design
    rules = tuple(rule for rule in analysis.rules if rule != "bp")
    if "bp" not in analysis.study.rules or not rules:
        raise AnalysisError("it needs BP and another rule in one study")
    table = pd.concat([_with_gap(analysis, rule) for rule in rules])
    factor = _strongest_factor(analysis, rules[0]) if len(rules) == 1 else None
    figure = accuracy_gap_against_alignment(table, response=response, colour_by=factor)
    see = []
    mean = analysis.mean(rules[0], GAP)
    if mean:
        side = "below" if mean.estimate < 0 else "above"
        size = level_words(abs(mean.estimate), GAP)
        see.append(f"{rule_name(rules[0])} ends {size} {side} BP in test accuracy on average.")
    see += _association(table[table["rule"] == rules[0]], response)
    dots = "Faint dots: runs; large dots: means of cells over seeds." if analysis.n_seeds > 1 else "Dots: runs."
    how = (
        f"{dots} The gap is the test accuracy of a run minus that of the BP run with the same cell and seed. Alignment "
        "was not randomised: this is an association, and no cause can be read from it. "
        f"{captions.where(analysis, design)}"
    ).strip()
    return Chart("accuracy_gap", "Accuracy gap against alignment", " ".join(see), how, figure)


def _with_gap(analysis: Analysis, rule: str) -> pd.DataFrame:
    """The runs of a rule that have an alignment and a gap."""
    table = analysis.final(analysis.response, rule=rule, design=analysis.design)
    gap = analysis.final(GAP, rule=rule, design=analysis.design)["value"]
    return table.assign(gap=gap).dropna(subset=["value", "gap"])


def _strongest_factor(analysis: Analysis, rule: str) -> str | None:
    effects = analysis.effects_on(analysis.response, rule=rule, design=analysis.design)
    if effects:
        return max(effects, key=lambda effect: abs(effect.estimate)).factor
    return next(iter(analysis.varying(rule, analysis.design)), None)


def _association(table: pd.DataFrame, response: str) -> list[str]:
    """The correlation over cells within each seed: the seed stays the unit."""
    correlations = [
        np.corrcoef(part["value"], part["gap"])[0, 1]
        for _, part in table.groupby("seed")
        if len(part) >= 4 and part["value"].std() > 0 and part["gap"].std() > 0
    ]
    if len(correlations) < 2:
        return []
    result = paired_test(correlations)
    low, high = result.interval
    return [
        f"Over the cells of a seed, gap and {label_of(response)} correlate by {number(result.estimate, 2)} "
        f"[{number(low, 2)}, {number(high, 2)}]."
    ]
