"""Whole networks by alignment and accuracy, and which of them may be the best."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import FAINT, INK, SERIES_COLOURS, STYLE, axis_label, finish, single_panel

GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "neither": ("neither", {"marker": "o", "ms": 4.5, "color": FAINT, "alpha": 0.6, "mew": 0}),
    "aligned": ("may be the best aligned", {"marker": "s", "ms": 6, "color": SERIES_COLOURS[0], "mew": 0}),
    "accurate": ("may be the most accurate", {"marker": "^", "ms": 7, "color": SERIES_COLOURS[1], "mew": 0}),
    "both": ("may be the best in both", {"marker": "*", "ms": 11, "color": SERIES_COLOURS[4], "mec": INK, "mew": 0.6}),
}


@mpl.rc_context(STYLE)
def best_configurations(table: pd.DataFrame, *, alignment: str, accuracy: str, ax: Axes | None = None) -> Figure:
    """Every cell as a point, with the ones that may be the best marked.

    `table` has one row per cell: the means of the two responses, under their names, and for each of them
    <name>_may_be_best.
    """
    if table.empty:
        raise AnalysisError("expected cells; got none")
    aligned, accurate = (table[f"{name}_may_be_best"].to_numpy(bool) for name in (alignment, accuracy))
    chosen = {
        "neither": ~aligned & ~accurate, "aligned": aligned & ~accurate, "accurate": accurate & ~aligned,
        "both": aligned & accurate,
    }  # fmt: skip
    figure, axes = single_panel(ax, height=3.4, extra=0.75)
    handles = []
    for group, (label, look) in GROUPS.items():
        rows = table[chosen[group]]
        if len(rows):
            axes.plot(rows[alignment], rows[accuracy], ls="", **look)
            handles.append(Line2D([], [], ls="", label=f"{label} ({len(rows)})", **look))
    axes.set_xlabel(axis_label(alignment))
    _error_scale(axes, table[accuracy], accuracy)
    finish(figure, "Which networks may be the best", handles, ax=ax)
    return figure


def _error_scale(axes: Axes, values: pd.Series, accuracy: str) -> None:
    """Accuracies by the logarithm of what is left to 100%: good networks differ by a point, poor ones by tens."""
    least = 0.05

    def height(value: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(100 - np.asarray(value, dtype=float), least))

    def accuracy_at(height: np.ndarray) -> np.ndarray:
        return 100 - 10.0 ** -np.asarray(height, dtype=float)

    axes.set_yscale("function", functions=(height, accuracy_at))
    low, high = float(values.min()), float(values.max())
    bottom, top = 100 - max(100 - low, least) * 1.2, 100 - max(100 - high, least) / 1.2
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in (0, 50, 80, 90, 95, 98, 99, 99.5) if bottom <= tick <= top]
    axes.yaxis.set_major_locator(FixedLocator(ticks or [low, high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel(f"{label_of(accuracy)} (%, log scale of the error)")


def chart(table: pd.DataFrame, *, alignment: str, accuracy: str, see: str, design: str, n_seeds: int) -> Chart:
    """The cells of one design, with the sets of those that may be the best."""
    how = (
        f"Dots: cells of the design {design}, means over {n_seeds} seeds at tuned rates where the study tunes. Marked "
        "ones: the 95% sets of the best aligned and of the most accurate network."
    )
    figure = best_configurations(table, alignment=alignment, accuracy=accuracy)
    return Chart("configurations", "Which networks may be the best", see, how, figure)
