"""The figures of the report on the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.claims.panel import Answer, Panel
from alignkit.columns import unit_of
from alignkit.figures.style import INK, SERIES_COLOURS, STYLE, WIDTH, finish, ordered_colours
from alignkit.papers.launay2019.cells import words
from alignkit.papers.launay2019.published import BOTTLENECK

VERDICT_COLOURS = {"supported": "#029e73", "refuted": "#d55e00", "equivalent": "#0173b2"}
OTHERWISE = "#8a9099"


@mpl.rc_context(STYLE)
def bottleneck_figure(table: pd.DataFrame) -> Figure:
    """Cosines by layer against the size of the published bottleneck, beside those that the paper has: a panel for each
    initialisation."""
    kinds = [kind for kind in ("pytorch", "pre_aligned") if (table["initialisation"] == kind).sum() > 1]
    kinds = kinds or list(table["initialisation"].unique())
    figure = Figure(figsize=(WIDTH, 0.8 + 2.5 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)[:, 0]
    for axes, kind in zip(panels, kinds, strict=True):
        own = table[table["initialisation"] == kind]
        known = [row for row in BOTTLENECK if row.initialisation == kind]
        for layer, colour in zip((1, 2, 3), ordered_colours(3), strict=True):
            label = f"layer {layer}" + (" (bottleneck)" if layer == 2 else "")
            axes.plot(own["size"], own[f"here_layer{layer}"], color=colour, marker="o", ms=4, label=label)
            sizes, cosines = [row.size for row in known], [row.cosines[layer - 1] for row in known]
            axes.plot(sizes, cosines, color=colour, marker="x", ms=8, mew=1.8, ls="none")
        axes.set_xscale("log")
        ticks = [1, 3, 10, 30, 100, 300, 800]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylabel("signal cosine")
        axes.set_ylim(-0.03, 1.04)
        axes.set_title({"pytorch": "standard initialisation", "pre_aligned": "pre-aligned"}.get(kind, kind), loc="left")
    panels[0].plot([], [], color=INK, marker="x", ms=8, mew=1.8, ls="none", label="published")
    panels[-1].set_xlabel("size b of the bottleneck (log scale)")
    finish(figure, "The published bottleneck, here and in the paper", panels[0].get_legend_handles_labels()[0])
    return figure


@mpl.rc_context(STYLE)
def ceiling_figure(table: pd.DataFrame, title: str, layer_word: str) -> Figure:
    """What each factor does to the cosine, to its ceiling and to the share reached, layer by layer."""
    responses = (("signal_cosine", "cosine"), ("ceiling_cosine", "ceiling"), ("share", "share of ceiling"))
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharey=True)
    factors = list(dict.fromkeys(table["factor"]))
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "mean"]
    for axes, (response, name) in zip(panels, responses, strict=True):
        axes.axvline(0, color=INK, lw=0.7)
        for layer, colour in zip(layers, ordered_colours(len(layers)), strict=True):
            rows = table[table["layer"] == layer].set_index("factor").loc[factors]
            at = np.arange(len(factors)) + 0.22 * (layers.index(layer) - (len(layers) - 1) / 2)
            low, high = rows[f"{response}_low"], rows[f"{response}_high"]
            axes.hlines(at, low, high, color=colour, lw=1.2)
            axes.plot(rows[response], at, "o", ms=4, color=colour, label=f"{layer_word} {layer}")
        axes.set_title(name)
        axes.locator_params(axis="x", nbins=3)
    labels = [
        f"{words(row['factor'])}:\n{row['from']} → {row['to']}"
        for row in table.drop_duplicates("factor").to_dict("records")
    ]
    panels[0].set_yticks(range(len(factors)), labels)
    panels[0].invert_yaxis()
    panels[1].set_xlabel("change, with 95% interval over seeds")
    finish(figure, title, panels[0].get_legend_handles_labels()[0])
    return figure


@mpl.rc_context(STYLE)
def ladder_figure(table: pd.DataFrame, short: Mapping[str, str]) -> Figure:
    """What each practice does to the cosine, step by step from the released protocol to the corrected one."""
    practices = list(dict.fromkeys(table["practice"]))
    order = list(dict.fromkeys(table["step"]))
    columns = 2
    rows = -(-len(practices) // columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in list(grid.flat)[len(practices) :]:
        axes.set_visible(False)
    for axes, practice in zip(grid.flat, practices, strict=False):
        own = table[table["practice"] == practice].sort_values("step", key=lambda column: column.map(order.index))
        at = own["step"].map(order.index)
        axes.axvline(0, color=INK, lw=0.7)
        axes.plot(own["mean"], at, color=SERIES_COLOURS[0], lw=1, alpha=0.4)
        for same, face in ((False, SERIES_COLOURS[0]), (True, "white")):
            part, place = own[own["same"] == same], at[own["same"] == same]
            axes.hlines(place, part["low"], part["high"], color=SERIES_COLOURS[0], lw=1.4)
            axes.plot(part["mean"], place, "o", ms=4.5, color=SERIES_COLOURS[0], mfc=face, ls="none")
            axes.plot(part["one_seed"], place, "x", ms=4.5, color=SERIES_COLOURS[1], ls="none")
        axes.set_title(practice)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=4)
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(order)), [f"{place} {short[step]}" for place, step in enumerate(order, start=1)])
    for axes in list(grid.flat)[max(0, len(practices) - columns) : len(practices)]:
        axes.set_xlabel("change of the cosine")
    handles = [
        Line2D([], [], color=SERIES_COLOURS[0], marker="o", ms=4.5, label="mean over seeds, 95% interval"),
        Line2D(
            [], [], color=SERIES_COLOURS[0], marker="o", mfc="white", ms=4.5, label="a step that changes nothing here"
        ),
        Line2D([], [], color=SERIES_COLOURS[1], marker="x", ms=4.5, ls="none", label="one seed"),
    ]
    finish(figure, "From the released protocol to the corrected one: change of the cosine", handles)
    return figure


@mpl.rc_context(STYLE)
def panel_figure(panels: Sequence[Panel]) -> Figure:
    """Each claim as its panel asks it: the change of the angle, row by row."""
    shown = [
        [each for each in panel.answers if each.answered and unit_of(each.question.response) == "°"] for panel in panels
    ]
    heights = [len(rows) + 1.6 for rows in shown]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.21 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, panel, rows in zip(grid, panels, shown, strict=True):
        _panel(axes, panel, rows)
    grid[-1].set_xlabel("change of the angle, degrees")
    handles = [
        Line2D([], [], color=colour, marker="o", ms=4.5, label=name)
        for name, colour in {**VERDICT_COLOURS, "undecided": OTHERWISE}.items()
    ]
    finish(figure, "The corrected claims, asked in every defensible way", handles)
    return figure


def _panel(axes: Axes, panel: Panel, rows: Sequence[Answer]) -> None:
    axes.axvline(0, color=INK, lw=0.7)
    for place, each in enumerate(rows):
        colour = VERDICT_COLOURS.get(each.verdict, OTHERWISE)
        axes.hlines(place, *each.interval, color=colour, lw=1.4)
        axes.plot(each.estimate, place, "o", ms=4.5, color=colour, mfc=colour if each.question.core else "white")
    axes.set_yticks(range(len(rows)), [each.question.label for each in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(panel.claim.statement, loc="right")  # room lies to the left, above the labels
