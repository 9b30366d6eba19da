"""A response along a dose: what an imposed angle does."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import INK, SERIES_COLOURS, STYLE, axis_label, finish, single_panel

TITLE = "Test accuracy against the imposed angle"


@mpl.rc_context(STYLE)
def dose_curves(
    curves: pd.DataFrame,
    *,
    dose: str,
    axis: str,
    response: str,
    title: str,
    references: Mapping[str, tuple[float, str]] = {},
    ax: Axes | None = None,
) -> Figure:
    """A response against a dose, a line for each curve, with 95% t intervals over seeds.

    `curves` has columns curve (its name), `dose`, mean, low and high. `references` are horizontal lines: their
    height and dashes, by name.
    """
    if curves.empty:
        raise AnalysisError(f"expected a curve along {dose}; got none")
    figure, axes = single_panel(ax, height=3.4, extra=0.9)
    handles = []
    for position, (name, table) in enumerate(curves.groupby("curve", sort=False)):
        colour = SERIES_COLOURS[position % len(SERIES_COLOURS)]
        axes.plot(table[dose], table["mean"], color=colour, marker="o", ms=3.6)
        axes.fill_between(table[dose], table["low"], table["high"], color=colour, alpha=0.2, lw=0)
        handles.append(Line2D([], [], color=colour, marker="o", ms=3.6, label=str(name)))
    for name, (height, dashes) in references.items():
        axes.axhline(height, color=INK, lw=1, ls=dashes)
        handles.append(Line2D([], [], color=INK, lw=1, ls=dashes, label=name))
    axes.set_xlabel(axis)
    axes.set_ylabel(axis_label(response))
    finish(figure, title, handles, ax=ax)
    return figure


def chart(curves: pd.DataFrame, *, n_seeds: int, references: Mapping[str, tuple[float, str]], see: str) -> Chart:
    """Accuracy by the angle that was imposed, a line for each design."""
    figure = dose_curves(
        curves, dose="feedback_angle_deg", axis="imposed angle (degrees)", response="test_accuracy", title=TITLE,
        references=references,
    )  # fmt: skip
    how = (
        f"Means over {n_seeds} seeds with 95% t intervals. Every hidden layer's update is the gradient turned by the "
        "angle at unchanged length: here the angle is a cause."
    )
    return Chart("dose_curves", TITLE, see, how, figure)
