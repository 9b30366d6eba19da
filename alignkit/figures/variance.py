"""A variance decomposition: what part of a spread each source of randomness brings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import RULE_COLOURS, STYLE, finish, panels_of


@mpl.rc_context(STYLE)
def variance_shares(shares: pd.DataFrame, *, names: Mapping[str, str], title: str) -> Figure:
    """Shares of the variance with their 95% intervals, a panel for each response.

    `shares` has columns response, source, share, share_low, share_high; `names` puts sources into words.
    """
    if shares.empty:
        raise AnalysisError("expected a decomposition; got none")
    sources = list(shares["source"].unique())
    groups = shares.groupby("response", sort=False)
    figure, panels = panels_of(groups.ngroups, columns=2, height=0.27 * len(sources) + 0.9, extra=0.4)
    for position, (axes, (name, table)) in enumerate(zip(panels, groups, strict=True)):
        rows = table.set_index("source").reindex(sources)
        places = range(len(sources))
        axes.barh(places, rows["share"], height=0.6, color=RULE_COLOURS["dfa"], alpha=0.55)
        axes.hlines(places, rows["share_low"], rows["share_high"], color=RULE_COLOURS["dfa"], lw=1.6)
        axes.set_yticks(places, [names.get(source, source) for source in sources] if position % 2 == 0 else [])
        axes.set_ylim(len(sources) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75])  # a label at 1 would touch the next panel's 0
        axes.yaxis.grid(False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        axes.set_title(textwrap.fill(str(name), 20), loc="left")
    finish(figure, title)
    return figure


def chart(shares: pd.DataFrame, *, names: Mapping[str, str], method: str, see: str) -> Chart:
    """The shares of each rule's alignment and accuracy; `method` says how they were estimated."""
    figure = variance_shares(shares, names=names, title="Share of the variance between runs, by source")
    how = f"Bars: shares of the total variance, negative components as 0; lines: 95% intervals. {method}."
    return Chart("variance_shares", "Share of the variance, by source", see, how, figure)
