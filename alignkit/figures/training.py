"""Alignment over training, layer by layer."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.claims.analysis import Analysis
from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures import captions
from alignkit.figures.chart import Chart
from alignkit.figures.style import (
    FAINT,
    INK,
    STYLE,
    axis_label,
    finish,
    mark_chance,
    ordered_colours,
    panels_of,
    step_axis,
)
from alignkit.text import level, rule_name, sentence

UNTAUGHT = (0, (2, 1.5))
"""The dashes of a feedback that never teaches."""


@mpl.rc_context(STYLE)
def alignment_over_training(
    curves: pd.DataFrame, *, response: str = "signal_angle_deg", untaught: pd.DataFrame | None = None
) -> Figure:
    """How each hidden layer aligns while it learns, a panel for each rule.

    `curves` has columns rule, layer, step, mean, low and high: lines are means, bands their intervals. `untaught`
    has the same of the feedback that never teaches, in the BP runs: dashed lines.

    Raises `AnalysisError` where fewer than two checkpoints hold a value.
    """
    drawn = {rule: table for rule, table in curves.groupby("rule", sort=False) if table["step"].nunique() > 1}
    if not drawn:
        raise AnalysisError(f"expected at least two checkpoints with a {label_of(response)}; got fewer")
    control = untaught if untaught is not None and "bp" not in drawn else curves.iloc[:0]
    layers = sorted({layer for table in drawn.values() for layer in table["layer"]})
    colours = dict(zip(layers, ordered_colours(len(layers)), strict=True))
    figure, panels = panels_of(len(drawn), columns=1, height=3.1, extra=0.75, share=True)
    for axes, (rule, table) in zip(panels, drawn.items(), strict=True):
        for layer, curve in table.groupby("layer"):
            axes.plot(curve["step"], curve["mean"], color=colours[layer])
            axes.fill_between(curve["step"], curve["low"], curve["high"], color=colours[layer], alpha=0.2, lw=0)
        for layer, curve in control.groupby("layer"):
            axes.plot(curve["step"], curve["mean"], color=colours.get(layer, FAINT), ls=UNTAUGHT, lw=1)
        mark_chance(axes, response)
        step_axis(axes, sorted(table["step"].unique()))
        axes.set_title(rule_name(str(rule)), loc="left")
        axes.set_ylabel(axis_label(response))
    handles = [Line2D([], [], color=colours[layer], label=f"layer {layer}") for layer in layers]
    if len(control):
        handles.append(Line2D([], [], color=INK, lw=1, ls=UNTAUGHT, label="untaught feedback (BP runs)"))
    finish(figure, f"The {label_of(response)} over training, layer by layer", handles)
    return figure


def chart(analysis: Analysis) -> Chart:
    """Where each rule's alignment starts and ends, in the main design."""
    response, design = analysis.response, analysis.design
    curves = analysis.curves(response, rules=analysis.rules, design=design)
    untaught = analysis.curves(response, rules=("bp",), design=design)
    figure = alignment_over_training(curves, response=response, untaught=untaught)
    sees = [_sees(analysis, rule, response, curves[curves["rule"] == rule]) for rule in analysis.rules]
    cells = captions.cells(analysis, design)
    several = analysis.n_seeds > 1
    how = f"Mean over {captions.seeds(analysis)} of each seed's mean over {cells}"
    how = how if several else f"Mean over {cells}, of one seed"
    how += "; bands: 95% t intervals over seeds" if curves["low"].notna().any() else ""
    how = f"{how}. {captions.where(analysis, design)}".strip()
    runs = analysis.runs_of(design=design)
    layers = analysis.layers[analysis.layers["run_id"].isin(runs["run_id"])]
    if layers.groupby("run_id")["layer"].max().nunique() > 1:
        how += (
            " A layer's line averages the networks that are deep enough to have it; the average of the first sentence "
            "is over all networks, each by the mean of its own layers."
        )
    if runs["diverged"].any():
        how += " A run that diverged is in no mean from that step on."
    if "bp" in analysis.study.rules and "bp" not in analysis.rules:
        how += " Dashed: the same measure in the BP runs, for a feedback that never teaches."
    return Chart("alignment_over_training", "Alignment over training", " ".join(sees), how, figure)


def _sees(analysis: Analysis, rule: str, response: str, curves: pd.DataFrame) -> str:
    ends = curves[curves["step"] == curves["step"].max()].set_index("layer")["mean"]
    signal = "signal" if rule != "bp" else "runs' untaught feedback"
    start, final = _mean_at(analysis, rule, response, curves["step"].min()), analysis.mean(rule, response)
    end = level(final.estimate if final else float("nan"), response)
    text = f"{sentence(rule_name(rule))}'s {signal} goes from {level(start, response)} to {end} on average"
    if len(ends) > 1:
        best = ends.idxmin() if response.endswith("_deg") else ends.idxmax()
        text += f", layer {best} ending closest to BP ({level(ends[best], response)})"
    return f"{text}."


def _mean_at(analysis: Analysis, rule: str, response: str, step: int) -> float:
    """The mean over a design's runs at a checkpoint, each by the mean of its layers: as the report's lead has it."""
    layers = analysis.layers
    means = layers[layers["step"] == step].groupby("run_id")[response].mean()
    by_run = analysis.runs_of(rule=rule, design=analysis.design).set_index("run_id").assign(mean=means)
    return float(by_run.groupby("seed")["mean"].mean().mean())
