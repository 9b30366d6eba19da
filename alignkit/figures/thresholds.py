"""Figures of a response that may bend: seeds, means, and the curves that were fitted."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.style import INK, STYLE, axis_label, finish, panels_of, rule_colour
from alignkit.stats.curves.thresholds import Threshold
from alignkit.text import rule_name

BAND = "#e3e5e8"


def threshold_curves(
    curves: Mapping[str, tuple[Threshold, pd.DataFrame]], *, response: str, factor: str = "width"
) -> Figure:
    """A response over a factor on its log2, with the segmented line and the quadratic that fit it best.

    Each rule has its `Threshold` (made on log2) and its seeds' curves [seed, level]. The band is the interval of
    the bend; there is none where every single bend is rejected.
    """
    if not curves:
        raise AnalysisError(f"expected a curve over {factor}; got none")
    with mpl.rc_context(STYLE):
        figure, panels = panels_of(len(curves), columns=1, height=2.9, extra=0.95, share=True)
        for axes, (rule, (bend, seeds)) in zip(panels, curves.items(), strict=True):
            colour = rule_colour(rule)
            if np.isfinite(bend.interval).all():
                axes.axvspan(*bend.interval, color=BAND, lw=0, zorder=0)
            for _, row in seeds.iterrows():
                axes.plot(seeds.columns, row, ls="", marker="o", ms=2.4, mew=0, color=colour, alpha=0.5)
            axes.plot(bend.levels, bend.means, ls="", marker="o", ms=6, mec="white", mew=0.8, color=colour, zorder=3)
            x = np.linspace(np.log2(bend.levels[0]), np.log2(bend.levels[-1]), 200)
            axes.plot(2**x, _segmented(bend, x), color=INK, lw=1.4)
            quadratic = np.polyfit(np.log2(bend.levels), bend.means, 2)
            axes.plot(2**x, np.polyval(quadratic, x), color=INK, lw=1.2, ls="--")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(list(bend.levels)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlabel(f"{factor.replace('_', ' ')} (units, log scale)")
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
