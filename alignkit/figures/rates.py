"""A claim's two arms over the learning rate."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import SERIES_COLOURS, STYLE, axis_label, finish, panels_of
from alignkit.study.claim import Claim
from alignkit.text import slug


@mpl.rc_context(STYLE)
def rate_curves(curves: pd.DataFrame, *, title: str, shifted: float = 1.0) -> Figure:
    """Responses of two arms over the learning rate, a panel for each response, with 95% t intervals over seeds.

    `curves` has columns response, level, lr, mean, low, high and chosen. A dot is the larger the more replicates took
    their value there. With `shifted`, the second arm is drawn again at so many times its rate, dashed.
    """
    drawn = curves.dropna(subset=["mean"])
    if drawn.empty:
        raise AnalysisError("expected a learning rate at which all runs of an arm have a value; got none")
    responses, levels = list(dict.fromkeys(drawn["response"])), list(dict.fromkeys(drawn["level"]))
    figure, panels = panels_of(len(responses), columns=1, height=2.3, extra=1.0)
    for axes, response in zip(panels, responses, strict=True):
        for place, level in enumerate(levels):
            table = drawn[(drawn["response"] == response) & (drawn["level"] == level)].sort_values("lr")
            _arm(axes, table, SERIES_COLOURS[place])
            if place == 1 and shifted != 1.0:
                axes.plot(table["lr"] * shifted, table["mean"], color=SERIES_COLOURS[place], ls="--", lw=1.3)
        axes.set_xscale("log")
        axes.set_ylabel(axis_label(str(response), short=True))
        axes.set_xlabel("")
    rates = sorted(set(drawn["lr"]))
    for axes in panels:
        axes.set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
        axes.xaxis.set_major_locator(FixedLocator(rates if len(rates) <= 9 else rates[::2]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[-1].set_xlabel("learning rate (log scale)")
    handles = [
        Line2D([], [], color=SERIES_COLOURS[place], marker="o", ms=4, label=str(level))
        for place, level in enumerate(levels)
    ]
    if shifted != 1.0 and len(levels) > 1:
        label = f"{levels[1]} at {shifted:.2g} times its rate"
        handles.append(Line2D([], [], color=SERIES_COLOURS[1], ls="--", lw=1.3, label=label))
    finish(figure, title, handles)
    return figure


def _arm(axes: Axes, table: pd.DataFrame, colour: str) -> None:
    sns.lineplot(x=table["lr"], y=table["mean"], color=colour, errorbar=None, ax=axes, legend=False)
    low, high = (table[end].astype(float).to_numpy() for end in ("low", "high"))
    if np.isfinite(low).any():
        axes.fill_between(table["lr"], low, high, color=colour, alpha=0.2, lw=0)
    sizes = 8 + 70 * table["chosen"].to_numpy(float)
    axes.scatter(table["lr"], table["mean"], s=sizes, color=colour, edgecolor="white", linewidth=0.6, zorder=3)


def chart(curves: pd.DataFrame, *, claim: Claim, see: str, shifted: float = 1.0) -> Chart:
    """One claim's arms."""
    title = claim.practice or claim.statement
    how = (
        "Means over seeds at the end of training, each seed averaged over its cells, with 95% t intervals. The larger "
        "a dot, the more runs took their value at this rate: those within one standard error of the seed's best "
        "validation accuracy. Rates that only some seeds tried are left out."
    )
    if shifted != 1.0:
        how += " Dashed: the second arm once more, at the rates that bring the curves of the response closest."
    figure = rate_curves(curves, title=title, shifted=shifted)
    return Chart(f"rates_{slug(claim.name)}", f"Over the learning rate: {title}", see, how, figure)
