"""Figures of alignment itself: over training, by factor, by width, and beside accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from alignkit.columns import digits_of, label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.figures.style import (
    FAINT,
    INK,
    OTHER_COLOURS,
    RULE_COLOURS,
    STYLE,
    axis_label,
    finish,
    mark_chance,
    ordered_colours,
    panels_of,
    rule_colour,
    step_axis,
    unit_after,
)
from alignkit.records.rows import curves, final_by_layer, final_values
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import Contrast, level_means
from alignkit.stats.tables.levels import level_column, level_order, numeric_levels
from alignkit.text import ABSENT, interval_text, rule_name, signed

MOST_LABEL_CHARACTERS = 26
"""What fits below a small panel side by side; longer labels are turned."""


def alignment_over_training(
    records: Records, *, rules: Sequence[str], design: str | None = None, response: str = "signal_angle_deg"
) -> Figure:
    """How each hidden layer aligns while it learns, a panel for each rule.

    Lines are means over seeds of the mean over cells, bands their 95% t intervals over seeds; dashed
    lines are the untaught feedback of the BP runs. Only checkpoints that every run has are drawn.

    Raises `AnalysisError` where fewer than two checkpoints hold a value.
    """
    drawn = {rule: curves(records, rule=rule, design=design, response=response) for rule in rules}
    drawn = {rule: table for rule, table in drawn.items() if table["step"].nunique() > 1}
    if not drawn:
        raise AnalysisError(f"expected at least two checkpoints with a {label_of(response)}; got fewer")
    control = curves(records, rule="bp", design=design, response=response) if "bp" not in drawn else pd.DataFrame()
    layers = sorted({layer for table in drawn.values() for layer in table["layer"]})
    colours = dict(zip(layers, ordered_colours(len(layers)), strict=True))
    with mpl.rc_context(STYLE):
        figure, panels = panels_of(len(drawn), columns=1, height=3.1, extra=0.75, share=True)
        for axes, (rule, table) in zip(panels, drawn.items(), strict=True):
            for layer, curve in table.groupby("layer"):
                axes.plot(curve["step"], curve["mean"], color=colours[layer])
                axes.fill_between(curve["step"], curve["low"], curve["high"], color=colours[layer], alpha=0.2, lw=0)
            for layer, curve in control.groupby("layer") if len(control) else ():
                axes.plot(curve["step"], curve["mean"], color=colours.get(layer, FAINT), ls=(0, (2, 1.5)), lw=1)
            mark_chance(axes, response)
            step_axis(axes, sorted(table["step"].unique()))
            axes.set_title(rule_name(rule), loc="left")
            axes.set_ylabel(axis_label(response))
        handles = [Line2D([], [], color=colours[layer], label=f"layer {layer}") for layer in layers]
        if len(control):
            handles.append(Line2D([], [], color=INK, lw=1, ls=(0, (2, 1.5)), label="untaught feedback (BP runs)"))
        finish(figure, f"The {label_of(response)} over training, layer by layer", handles)
    return figure


def alignment_by_factor(
    records: Records,
    effects: Iterable[Contrast],
    *,
    rule: str,
    design: str | None = None,
    response: str = "signal_angle_deg",
) -> Figure:
    """What each level of each factor does, with every seed shown, a panel for each factor.

    A thin line is one seed, averaged over the cells; the thick line is their mean. Panel titles give
    the effect (last level minus first) with its 95% t interval. `effects` come from `contrasts`.
    """
    groups: dict[str, list[Contrast]] = {}
    for effect in effects:
        groups.setdefault(effect.factor, []).append(effect)
    if not groups:
        raise AnalysisError("expected a factor that the design varies; got none")
    table = final_values(records, rule=rule, design=design, response=response)
    colour = rule_colour(rule)
    with mpl.rc_context(STYLE):
        figure, panels = panels_of(len(groups), columns=2, height=1.9, extra=0.5, share=True)
        for axes, (factor, members) in zip(panels, groups.items(), strict=True):
            levels = [members[0].levels[0], *(member.levels[1] for member in members)]
            means = level_means(table, factor=factor, levels=levels, within=records.factors).means
            places = range(len(levels))
            for _, row in means.iterrows():
                axes.plot(places, row, color=colour, alpha=0.35, lw=0.8, marker="o", ms=2.2)
            axes.plot(places, means.mean(), color=colour, lw=2, marker="o", ms=5, mec="white", mew=0.8)
            crowded = sum(map(len, levels)) > MOST_LABEL_CHARACTERS
            axes.set_xticks(list(places), levels)
            if crowded:
                axes.tick_params(axis="x", labelrotation=30)
                for label in axes.get_xticklabels():
                    label.set(ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.35, len(levels) - 0.65)
            axes.xaxis.grid(False)
            effect = members[-1]
            text = f"{signed(effect.estimate, digits_of(response))}{unit_after(response)}"
            if np.isfinite(effect.interval).all():
                text += f" {interval_text(effect.interval, digits_of(response))}"
            which = f"\n{levels[-1]} less {levels[0]}" if len(levels) > 2 else ""
            axes.set_title(f"{factor.replace('_', ' ')}{which}\n{text}", loc="left")
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        for axes in panels[::2]:
            axes.set_ylabel(axis_label(response, short=True))
        finish(figure, f"{rule_name(rule)}: {label_of(response)} by factor, seed by seed")
    return figure


def width_curve(
    records: Records,
    *,
    rules: Sequence[str],
    design: str | None = None,
    factor: str = "width",
    response: str = "signal_cosine",
) -> Figure:
    """How alignment at the end of training changes with width, a panel for each rule.

    A dot is one seed, a line the mean of a layer. A layer's dashed line is `ceiling_cosine`, the best that any
    use of the feedback could reach, and its dotted one the untaught feedback of the BP runs.
    """
    with mpl.rc_context(STYLE):
        figure, panels = panels_of(len(rules), columns=1, height=3.0, extra=0.85, share=True)
        handles: dict[str, Any] = {}
        for axes, rule in zip(panels, rules, strict=True):
            by_layer = final_by_layer(records, rule=rule, design=design, factor=factor, response=response)
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
                ("ceiling_cosine", rule, "--", "best that this feedback allows"),
                (response, "bp", ":", "untaught feedback (BP runs)"),
            )
            for measure, of_rule, dashes, label in references:
                if (measure == "ceiling_cosine" and response != "signal_cosine") or (of_rule == rule == "bp"):
                    continue
                reference = final_by_layer(records, rule=of_rule, design=design, factor=factor, response=measure)
                for layer, part in reference.groupby("layer"):
                    line = part.groupby("x")["value"].mean()
                    if len(line) > 1:
                        axes.plot(line.index, line, color=colours.get(layer, INK), lw=1, ls=dashes)
                        handles[label] = Line2D([], [], color=INK, lw=1, ls=dashes, label=label)
            ticks = sorted(by_layer["x"].unique())
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlabel(f"{factor.replace('_', ' ')} (units, log scale)")
            axes.set_ylabel(axis_label(response))
            axes.set_title(rule_name(rule), loc="left")
            if unit_of(response) != "°":
                axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        finish(figure, f"Final {label_of(response)} by {factor}", list(handles.values()))
    return figure


def accuracy_gap_against_alignment(
    records: Records,
    *,
    rules: Sequence[str],
    design: str | None = None,
    response: str = "signal_angle_deg",
    colour_by: str | None = None,
) -> Figure:
    """Whether better aligned networks lose less accuracy to BP.

    A faint dot is one run, a large one the mean of a cell over seeds, coloured by a factor (or the rule).
    Alignment was not randomised here: the figure shows an association.
    """
    tables = []
    for rule in rules:
        table = final_values(records, rule=rule, design=design, response=response)
        gap = final_values(records, rule=rule, design=design, response="accuracy_gap")
        tables.append(table.assign(gap=gap["value"], rule=rule).dropna(subset=["value", "gap"]))
    table = pd.concat(tables) if tables else pd.DataFrame()
    if table.empty:
        raise AnalysisError("expected runs with an alignment and a BP twin that has an accuracy; got none")
    key = level_column(table[colour_by]).fillna(ABSENT) if colour_by else table["rule"]
    levels = level_order(key)
    numeric = colour_by is not None and numeric_levels(levels) is not None and len(levels) > 2
    palette = (
        ordered_colours(len(levels))
        if numeric or len(levels) > 6
        else [RULE_COLOURS["dfa"], RULE_COLOURS["fa"], *OTHER_COLOURS]
    )
    colours = {level: rule_colour(level) if colour_by is None else palette[i] for i, level in enumerate(levels)}
    with mpl.rc_context(STYLE):
        figure, (axes,) = panels_of(1, columns=1, height=3.4, extra=0.75)
        for level in levels:
            part = table[key == level]
            axes.plot(
                part["value"],
                part["gap"],
                ls="",
                marker="o",
                ms=2.5,
                mew=0,
                color=colours[level],
                alpha=0.25,
                rasterized=True,
            )
        for level in levels:
            cells = table[key == level].groupby(["rule", "cell"])[["value", "gap"]].mean()
            style: Any = {"ls": "", "marker": "o", "ms": 5.5, "mec": "white", "mew": 0.7}
            axes.plot(cells["value"], cells["gap"], color=colours[level], **style)
        axes.axhline(0, color=INK, lw=0.8)
        axes.annotate("as accurate as BP", (0.99, 0), (0, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=8, color=INK)  # fmt: skip
        axes.set_xlabel(axis_label(response))
        axes.set_ylabel("accuracy gap to BP (points)")
        name = (colour_by or "").replace("_", " ")
        handles = [
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                ms=5.5,
                color=colours[level],
                label=f"{name} {level}" if name else rule_name(level),
            )
            for level in levels
        ]
        finish(figure, "Accuracy lost to BP against alignment", handles)
    return figure
