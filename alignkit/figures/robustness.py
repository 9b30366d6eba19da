"""The figure of specification curves: one claim a row, one dot for each way to analyse it."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from alignkit.errors import AnalysisError
from alignkit.figures.style import FAINT, INK, RULE_COLOURS, STYLE, WIDTH, finish


def specification_strips(curves: Mapping[str, pd.DataFrame], *, alpha: float = 0.05) -> Figure:
    """Standardised effects of every specification, a strip for each claim; the ringed dot is the declared one.

    Each table has columns standardised, p and reason, the declared specification first.
    """
    curves = {name: table[table["reason"] == ""] for name, table in curves.items()}
    curves = {name: table for name, table in curves.items() if table["standardised"].notna().any()}
    if not curves:
        raise AnalysisError("expected a claim with a specification that can be estimated; got none")
    generator = np.random.default_rng(0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.52 * len(curves) + 1.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.axvline(0, color=INK, lw=0.8)
        for place, (name, table) in enumerate(curves.items()):
            certain = (table["p"] < alpha).to_numpy()
            x = table["standardised"].to_numpy(float)
            y = place + generator.uniform(-0.14, 0.14, len(table))
            for chosen, colour in ((~certain, FAINT), (certain, RULE_COLOURS["dfa"])):
                face = colour if colour != FAINT else "white"
                axes.plot(x[chosen], y[chosen], ls="", marker="o", ms=3.2, mec=colour, mfc=face, mew=0.7, alpha=0.8)
            axes.plot(x[:1], [place], ls="", marker="o", ms=8, mec=INK, mfc="none", mew=1.2)
            axes.annotate(name, (0, place - 0.36), xycoords=("axes fraction", "data"), fontsize=8, va="center")
        axes.set_ylim(len(curves) - 0.6, -0.75)
        axes.yaxis.set_major_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("effect, in standard deviations over seeds")
        handles = [
            Line2D([], [], ls="", marker="o", ms=8, mec=INK, mfc="none", label="as declared"),
            Line2D([], [], ls="", marker="o", ms=4, color=RULE_COLOURS["dfa"], label=f"p below {alpha:g}"),
            Line2D([], [], ls="", marker="o", ms=4, mec=FAINT, mfc="white", label="not so"),
        ]
        finish(figure, "Each claim under every way to analyse it", handles)
    return figure
