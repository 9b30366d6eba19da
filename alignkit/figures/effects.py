"""Figures of effects: what each change does, with its interval."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.style import FAINT, INK, RULE_COLOURS, STYLE, WIDTH, finish, in_unit
from alignkit.stats.contrasts.contrasts import Contrast
from alignkit.text import row_label


def forest(
    groups: Mapping[str, Sequence[Contrast]],
    *,
    smallest: Mapping[tuple[str, str], float] | None = None,
    title: str = "",
) -> Figure:
    """All effects at a glance: a row for each contrast, a column for each response.

    `groups` maps a response to its contrasts. A dot is the estimate, a line its 95% t interval, filled
    where the Holm-adjusted p is below .05. `smallest` holds the smallest effect that matters by (factor,
    response): the grey band.
    """
    smallest = smallest or {}
    groups = {response: list(members) for response, members in groups.items() if members}
    rows = list(dict.fromkeys((effect.factor, effect.levels) for members in groups.values() for effect in members))
    if not rows:
        raise AnalysisError("expected at least one contrast; got none")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.46 * len(rows) + 1.25), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (response, members) in zip(panels, groups.items(), strict=True):
            for y in range(len(rows)):  # broken where the rows' names stand
                axes.plot([0, 0], [y - 0.26, y + 0.26], color=INK, lw=0.8, zorder=1)
            for effect in members:
                y = rows.index((effect.factor, effect.levels))
                band = smallest.get((effect.factor, response))
                if band:
                    axes.fill_betweenx([y - 0.22, y + 0.22], -band, band, color="#c9ced6", alpha=0.6, lw=0)
                certain = effect.p_adjusted < 0.05
                colour = RULE_COLOURS["dfa"] if certain else FAINT
                if np.isfinite(effect.interval).all():
                    # Caps reach above the dot: an interval narrower than it stays to be seen.
                    axes.plot(effect.interval, [y, y], color=colour, lw=1.4, solid_capstyle="butt", marker="|", ms=7.5)
                axes.plot(effect.estimate, y, marker="o", ms=3.8, color=colour, mfc=colour if certain else "white")
            axes.set_ylim(len(rows) - 0.4, -0.85)
            axes.margins(x=0.1)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(NullLocator())
            axes.spines["left"].set_visible(False)
            axes.set_title(textwrap.fill(f"{label_of(response)}{in_unit(response)}", 28), loc="left")
            axes.set_xlabel("change")
        # A row's name stands above its line: beside it, names would take half of a phone's width.
        for y, (factor, levels) in enumerate(rows):
            name = panels[0].text(
                0,
                y - 0.5,
                row_label(factor, levels),
                transform=panels[0].get_yaxis_transform(),
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
            name.set_in_layout(False)
        finish(figure, title or "Effect of each change, with 95% intervals")
    return figure
