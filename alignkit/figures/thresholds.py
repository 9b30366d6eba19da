"""A response that may bend along a factor: seeds, means, and the curves that were fitted."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import INK, STYLE, axis_label, finish, log2_axis, panels_of, rule_colour
from alignkit.stats.curves.thresholds import Threshold
from alignkit.text import rule_name

BAND = "#e3e5e8"


@mpl.rc_context(STYLE)
def threshold_curves(
    seeds: pd.DataFrame, bends: Mapping[str, Threshold], *, response: str, factor: str = "width"
) -> Figure:
    """A response over a factor on its log2, with the segmented line and the quadratic that fit it best.

    `seeds` has columns rule, seed, value and the factor; `bends` is each rule's `Threshold`, made on log2. The band is
    the interval of the bend; there is none where every single bend is rejected.
    """
    if not bends:
        raise AnalysisError(f"expected a curve over {factor}; got none")
    figure, panels = panels_of(len(bends), columns=1, height=2.9, extra=0.95, share=True)
    for axes, (rule, bend) in zip(panels, bends.items(), strict=True):
        colour = rule_colour(rule)
        if np.isfinite(bend.interval).all():
            axes.axvspan(*bend.interval, color=BAND, lw=0, zorder=0)
        for _, seed in seeds[seeds["rule"] == rule].groupby("seed"):
            axes.plot(seed[factor], seed["value"], ls="", marker="o", ms=2.4, mew=0, color=colour, alpha=0.5)
        axes.plot(bend.levels, bend.means, ls="", marker="o", ms=6, mec="white", mew=0.8, color=colour, zorder=3)
        x = np.linspace(np.log2(bend.levels[0]), np.log2(bend.levels[-1]), 200)
        axes.plot(2**x, _segmented(bend, x), color=INK, lw=1.4)
        quadratic = np.polyfit(np.log2(bend.levels), bend.means, 2)
        axes.plot(2**x, np.polyval(quadratic, x), color=INK, lw=1.2, ls="--")
        log2_axis(axes, list(bend.levels), factor)
        axes.set_ylabel(axis_label(response))
        axes.set_title(rule_name(rule), loc="left")
    handles = [
        Line2D([], [], color=INK, lw=1.4, label="line with one bend"),
        Line2D([], [], color=INK, lw=1.2, ls="--", label="quadratic"),
        Patch(color=BAND, label="where the bend may lie (95%)"),
    ]
    finish(figure, f"Does the {label_of(response)} bend with {factor.replace('_', ' ')}?", handles)
    return figure


def _segmented(bend: Threshold, x: np.ndarray) -> np.ndarray:
    """The fitted segmented line at log2 levels x: its slopes, through the mean of the means."""

    def shape(at: np.ndarray) -> np.ndarray:
        below, above = bend.slopes
        return np.asarray(below * at + (above - below) * np.maximum(at - np.log2(bend.estimate), 0))

    offset = np.mean(bend.means) - shape(np.log2(bend.levels)).mean()
    return np.asarray(shape(x) + offset)


def chart(seeds: pd.DataFrame, bends: Mapping[str, Threshold], *, response: str, see: str) -> Chart:
    """Alignment over the widths of each taught rule."""
    how = (
        f"The {label_of(response)} at the end of training, mean over hidden layers. Small dots: single seeds; large "
        "dots: means. Grey: the 95% interval of where a single bend may lie, by inversion of the sup-F test."
    )
    title = "Alignment over width, and the bend that fits it best"
    return Chart("thresholds_width", title, see, how, threshold_curves(seeds, bends, response=response))
