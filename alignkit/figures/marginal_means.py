"""How marginal means move with two factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import INK, SERIES_COLOURS, STYLE, axis_label, finish, panels_of
from alignkit.figures.terms import term_name
from alignkit.stats.models.factorial import FactorialFit
from alignkit.stats.models.margins import marginal_means
from alignkit.text import p_text, rule_name, sentence

PANELS = 4
"""How many interactions are drawn."""


@mpl.rc_context(STYLE)
def marginal_effects(
    panels: Sequence[pd.DataFrame], *, pairs: Sequence[tuple[str, str]], response: str, colours: Mapping[str, str] = {}
) -> Figure:
    """Marginal means of one factor at each level of another, a panel for each pair (x axis, lines).

    Each table has a column for both factors, and estimate, low, high.
    """
    if not panels:
        raise AnalysisError("expected two factors or more with an interaction; got fewer")
    figure, drawn = panels_of(len(panels), columns=2, height=2.15, extra=0.5, share=True)
    for axes, table, (x_factor, line_factor) in zip(drawn, panels, pairs, strict=True):
        levels = list(dict.fromkeys(table[x_factor]))
        handles = []
        for position, (level, part) in enumerate(table.groupby(line_factor, sort=False)):
            colour = colours.get(str(level)) or SERIES_COLOURS[position % len(SERIES_COLOURS)]
            x = np.array([levels.index(value) for value in part[x_factor]]) + 0.05 * (position - 0.5)
            axes.plot(x, part["estimate"], color=colour, marker="o", ms=4)
            axes.vlines(x, part["low"], part["high"], color=colour, lw=1.6)
            handles.append(Line2D([], [], color=colour, marker="o", ms=4, label=str(level)))
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.35, len(levels) - 0.65)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.grid(False)
        axes.set_xlabel(x_factor.replace("_", " "))
        legend = axes.legend(handles=handles, title=line_factor.replace("_", " "), fontsize=8, title_fontsize=8)
        legend.set_in_layout(True)
        axes.tick_params(axis="x", colors=INK)
    for axes in drawn[::2]:
        axes.set_ylabel(axis_label(response, short=True))
    finish(figure, f"{sentence(label_of(response))}: marginal means of the largest interactions")
    return figure


def chart(fit: FactorialFit, anova: pd.DataFrame, *, rule: str, response: str, suffix: str) -> Chart | None:
    """The largest interactions of a rule's model of alignment; None where it has none."""
    interactions = anova[anova["term"].str.count(":") == 1]
    if interactions.empty:
        return None
    panels, drawn = [], []
    for first, second in interactions["term"].head(PANELS).str.split(":"):
        # more levels on the axis, fewer lines
        more_levels = len(fit.design.factors[first]) >= len(fit.design.factors[second])
        x, line = (first, second) if more_levels else (second, first)
        panels.append(marginal_means(fit, [line, x]).to_frame())
        drawn.append((x, line))
    largest = interactions.iloc[0]
    p = p_text(largest["p_adjusted"])
    see = f"The largest interaction is that of {term_name(largest['term'])} (adjusted p {p})."
    how = (
        "Marginal means of the model, all other factors averaged with equal weights; bars: 95% t intervals over seeds. "
        "Parallel lines would be effects that add."
    )
    figure = marginal_effects(panels, pairs=drawn, response=response)
    return Chart(f"model_means{suffix}", f"Marginal means, {rule_name(rule)}", see, how, figure)
