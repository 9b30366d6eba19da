"""The width curve: alignment at the end of training against the width of the hidden layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.claims.analysis import Analysis
from alignkit.columns import label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.figures import captions
from alignkit.figures.chart import Chart
from alignkit.figures.style import INK, STYLE, axis_label, finish, log2_axis, ordered_colours, panels_of
from alignkit.text import level, rule_name


@mpl.rc_context(STYLE)
def width_curve(
    final: pd.DataFrame,
    *,
    rules: Sequence[str] | None = None,
    factor: str = "width",
    response: str = "signal_cosine",
    ceiling: pd.DataFrame | None = None,
    untaught: pd.DataFrame | None = None,
) -> Figure:
    """How alignment at the end of training changes with width, a panel for each rule.

    `final` has columns rule, layer, seed, x (the width) and value: a dot is one seed, a line the mean of a layer.
    `ceiling`, the best that any use of the feedback could reach, and `untaught`, the feedback of the BP runs, have the
    same columns and become a layer's dashed and dotted line. `rules` are those of `final` unless they are named.
    """
    rules = list(final["rule"].unique()) if rules is None else rules
    figure, panels = panels_of(len(rules), columns=1, height=3.0, extra=0.85, share=True)
    handles: dict[str, Any] = {}
    for axes, rule in zip(panels, rules, strict=True):
        by_layer = final[final["rule"] == rule]
        if by_layer["x"].nunique() < 2:
            raise AnalysisError(f"expected at least two levels of {factor} with a {label_of(response)}; got fewer")
        layers = sorted(by_layer["layer"].unique())
        colours = dict(zip(layers, ordered_colours(len(layers)), strict=True))
        for layer, colour in colours.items():
            seeds = by_layer[by_layer["layer"] == layer].groupby(["x", "seed"])["value"].mean()
            means = seeds.groupby("x").mean()
            nudge = 2 ** (0.05 * (layers.index(layer) - (len(layers) - 1) / 2))
            x = seeds.index.get_level_values("x").to_numpy(float) * nudge
            axes.plot(x, seeds, ls="", marker="o", ms=2.4, mew=0, color=colour, alpha=0.5, rasterized=len(x) > 400)
            axes.plot(means.index * nudge, means, color=colour)
            handles[f"layer {layer}"] = Line2D([], [], color=colour, marker="o", ms=2.4, label=f"layer {layer}")
        references = (
            (ceiling, rule, "--", "best that this feedback allows"),
            (untaught, "bp", ":", "untaught feedback (BP runs)"),
        )
        for table, of_rule, dashes, label in references:
            if table is None or rule == "bp":
                continue
            for layer, part in table[table["rule"] == of_rule].groupby("layer"):
                line = part.groupby("x")["value"].mean()
                if len(line) > 1:
                    axes.plot(line.index, line, color=colours.get(layer, INK), lw=1, ls=dashes)
                    handles[label] = Line2D([], [], color=INK, lw=1, ls=dashes, label=label)
        log2_axis(axes, sorted(by_layer["x"].unique()), factor)
        axes.set_ylabel(axis_label(response))
        axes.set_title(rule_name(rule), loc="left")
        if unit_of(response) != "°":
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    finish(figure, f"Final {label_of(response)} by {factor}", list(handles.values()))
    return figure


def chart(analysis: Analysis) -> Chart:
    """The cosine over widths beside the best possible; another measure of alignment where none was recorded."""
    design, rules = analysis.width_design, analysis.rules
    if design is None:
        raise AnalysisError("no design has three or more widths")
    response = "signal_cosine" if analysis.recorded("signal_cosine") else analysis.response
    of: dict[str, Any] = {"design": design, "factor": "width"}
    figure = width_curve(
        analysis.by_layer(response, rules=rules, **of),
        rules=rules,
        response=response,
        ceiling=analysis.by_layer("ceiling_cosine", rules=rules, **of) if response == "signal_cosine" else None,
        untaught=analysis.by_layer(response, rules=("bp",), **of),
    )
    table = analysis.final(response, rule=rules[0], design=design)
    means = table.assign(at=pd.to_numeric(table["width"], errors="coerce")).groupby("at")["value"].mean().dropna()
    see = (
        f"From {means.index[0]:g} to {means.index[-1]:g} units a layer, the mean {label_of(response)} goes from "
        f"{level(means.iloc[0], response)} to {level(means.iloc[-1], response)} under {rule_name(rules[0])}."
    )
    how = f"Dots: single seeds; lines: means over {captions.seeds(analysis)}, layer by layer, at the end of training."
    if response == "signal_cosine" and analysis.recorded("ceiling_cosine"):
        how += (
            " Dashed, layer by layer: the cosine of the BP signal with its projection on what the feedback can send, "
            "the best possible."
        )
    return Chart("width_curve", "The width curve", see, f"{how} {captions.where(analysis, design)}", figure)
