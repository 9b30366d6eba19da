"""Figures of a response along a dose: what an imposed angle, or a width, does."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.errors import AnalysisError
from alignkit.figures.style import INK, OTHER_COLOURS, RULE_COLOURS, STYLE, axis_label, finish, panels_of

CURVE_COLOURS = (RULE_COLOURS["dfa"], RULE_COLOURS["fa"], *OTHER_COLOURS)


def dose_curves(
    curves: Mapping[str, pd.DataFrame],
    *,
    dose: str,
    axis: str,
    response: str,
    title: str,
    references: Mapping[str, tuple[float, str]] = {},
) -> Figure:
    """A response against a dose, a line for each condition, with 95% t intervals over seeds.

    Each table of `curves` has columns `dose`, mean, low and high. `references` are horizontal lines: their
    height and dashes, by name.
    """
    if not curves:
        raise AnalysisError(f"expected a curve along {dose}; got none")
    with mpl.rc_context(STYLE):
        figure, (axes,) = panels_of(1, columns=1, height=3.4, extra=0.9)
        handles = []
        for position, (name, table) in enumerate(curves.items()):
            colour = CURVE_COLOURS[position % len(CURVE_COLOURS)]
            axes.plot(table[dose], table["mean"], color=colour, marker="o", ms=3.6)
            axes.fill_between(table[dose], table["low"], table["high"], color=colour, alpha=0.2, lw=0)
            handles.append(Line2D([], [], color=colour, marker="o", ms=3.6, label=name))
        for name, (height, dashes) in references.items():
            axes.axhline(height, color=INK, lw=1, ls=dashes)
            handles.append(Line2D([], [], color=INK, lw=1, ls=dashes, label=name))
        axes.set_xlabel(axis)
        axes.set_ylabel(axis_label(response))
        finish(figure, title, handles)
    return figure
