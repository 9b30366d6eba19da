"""Specification curves: one claim a row, one dot for each way to analyse it."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import FAINT, INK, RULE_COLOURS, STYLE, finish, single_panel

TITLE = "Each claim under every way to analyse it"


@mpl.rc_context(STYLE)
def specification_strips(curves: pd.DataFrame, *, alpha: float = 0.05, ax: Axes | None = None) -> Figure:
    """Standardised effects of every specification, a strip for each claim; the ringed dot is the declared one.

    `curves` has columns label, standardised, p and reason, the declared specification of each claim first.
    """
    curves = curves[curves["reason"] == ""]
    curves = curves[curves["standardised"].notna().groupby(curves["label"]).transform("any")]
    if curves.empty:
        raise AnalysisError("expected a claim with a specification that can be estimated; got none")
    groups = curves.groupby("label", sort=False)
    generator = np.random.default_rng(0)
    figure, axes = single_panel(ax, height=0.52 * groups.ngroups, extra=1.4)
    axes.axvline(0, color=INK, lw=0.8)
    for place, (name, table) in enumerate(groups):
        certain = (table["p"] < alpha).to_numpy()
        x = table["standardised"].to_numpy(float)
        y = place + generator.uniform(-0.14, 0.14, len(table))
        for chosen, colour in ((~certain, FAINT), (certain, RULE_COLOURS["dfa"])):
            face = colour if colour != FAINT else "white"
            axes.plot(x[chosen], y[chosen], ls="", marker="o", ms=3.2, mec=colour, mfc=face, mew=0.7, alpha=0.8)
        axes.plot(x[:1], [place], ls="", marker="o", ms=8, mec=INK, mfc="none", mew=1.2)
        axes.annotate(str(name), (0, place - 0.36), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    axes.set_ylim(groups.ngroups - 0.6, -0.75)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("effect, in standard deviations over seeds")
    handles = [
        Line2D([], [], ls="", marker="o", ms=8, mec=INK, mfc="none", label="as declared"),
        Line2D([], [], ls="", marker="o", ms=4, color=RULE_COLOURS["dfa"], label=f"p below {alpha:g}"),
        Line2D([], [], ls="", marker="o", ms=4, mec=FAINT, mfc="white", label="not so"),
    ]
    finish(figure, TITLE, handles, ax=ax)
    return figure


def chart(curves: pd.DataFrame, *, see: str) -> Chart:
    """The specification curve of each claim."""
    how = (
        "A dot is one specification: its effect over the sd of the per-seed effects on that scale, turned so that "
        "right is more of what the claim measures. Specifications share their seeds, so many that agree are not many "
        "pieces of evidence."
    )
    return Chart("specifications_strips", TITLE, see, how, specification_strips(curves))
