"""Figures of fitted models: which terms explain a response, and how marginal means move with two factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.style import FAINT, INK, OTHER_COLOURS, RULE_COLOURS, STYLE, WIDTH, axis_label, finish, panels_of

LEVEL_COLOURS = (RULE_COLOURS["dfa"], RULE_COLOURS["fa"], *OTHER_COLOURS)


def term_name(term: str) -> str:
    """A model term in words.

    >>> term_name("feedback_normalised:width")
    'feedback normalised by width'
    """
    return " by ".join(part.replace("_", " ") for part in term.split(":"))


def explained(anova: pd.DataFrame, *, response: str, most: int = 12) -> Figure:
    """The share of a response's variation that each term of a model explains, the largest first.

    `anova` has columns term, p_adjusted and generalised_r2. Filled bars have an adjusted p below .05.
    """
    if anova.empty:
        raise AnalysisError("expected a model with at least one term; got none")
    table = anova.sort_values("generalised_r2", ascending=False).head(most)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.27 * len(table) + 1.1), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for place, (share, p) in enumerate(table[["generalised_r2", "p_adjusted"]].to_numpy(float)):
            certain = p < 0.05
            axes.barh(
                place, share, height=0.66, color=RULE_COLOURS["dfa"] if certain else "white",
                edgecolor=RULE_COLOURS["dfa"] if certain else FAINT, lw=0.8,
            )  # fmt: skip
        axes.set_yticks(range(len(table)), [term_name(term) for term in table["term"]])
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.yaxis.grid(False)
        axes.set_xlim(0, min(1.0, 1.12 * table["generalised_r2"].max()))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("generalised R\N{SUPERSCRIPT TWO}")
        finish(figure, f"What the {label_of(response)} depends on")
    return figure


def marginal_effects(
    panels: Sequence[pd.DataFrame], *, pairs: Sequence[tuple[str, str]], response: str, colours: Mapping[str, str] = {}
) -> Figure:
    """Marginal means of one factor at each level of another, a panel for each pair (x axis, lines).

    Each table has a column for both factors, and estimate, low, high.
    """
    if not panels:
        raise AnalysisError("expected two factors or more with an interaction; got fewer")
    with mpl.rc_context(STYLE):
        figure, drawn = panels_of(len(panels), columns=2, height=2.15, extra=0.5, share=True)
        for axes, table, (x_factor, line_factor) in zip(drawn, panels, pairs, strict=True):
            levels = list(dict.fromkeys(table[x_factor]))
            handles = []
            for position, (level, part) in enumerate(table.groupby(line_factor, sort=False)):
                colour = colours.get(str(level)) or LEVEL_COLOURS[position % len(LEVEL_COLOURS)]
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
        finish(
            figure,
            f"{label_of(response)[0].upper()}{label_of(response)[1:]}: marginal means of the largest interactions",
        )
    return figure
