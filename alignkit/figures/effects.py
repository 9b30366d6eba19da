"""All effects at a glance: what each change does, with its interval."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from alignkit.claims.analysis import Analysis
from alignkit.columns import GAP, label_of
from alignkit.errors import AnalysisError
from alignkit.figures import captions
from alignkit.figures.chart import Chart
from alignkit.figures.style import FAINT, INK, RULE_COLOURS, STYLE, WIDTH, finish
from alignkit.stats.contrasts.contrasts import contrast_frame
from alignkit.text import axis_unit, row_label, rule_name


@mpl.rc_context(STYLE)
def forest(
    effects: pd.DataFrame, *, smallest: Mapping[tuple[str, str], float] | None = None, title: str = ""
) -> Figure:
    """All effects at a glance: a row for each contrast, a column for each response.

    `effects` are a `contrast_frame`: factor, level_from, level_to, response, estimate, low, high, p_adjusted. A dot
    is the estimate, a line its interval, filled where the adjusted p is below .05. `smallest` holds the smallest
    effect that matters by (factor, response): the grey band.
    """
    if effects.empty:
        raise AnalysisError("expected at least one contrast; got none")
    names = [row_label(*row) for row in zip(effects["factor"], _levels(effects), strict=True)]
    rows = list(dict.fromkeys(names))
    groups = effects.assign(y=[rows.index(name) for name in names]).groupby("response", sort=False)
    figure = Figure(figsize=(WIDTH, 0.46 * len(rows) + 1.25), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, groups.ngroups, sharey=True, squeeze=False)[0]
    for axes, (response, members) in zip(panels, groups, strict=True):
        for y in range(len(rows)):  # broken where the rows' names stand
            axes.plot([0, 0], [y - 0.26, y + 0.26], color=INK, lw=0.8, zorder=1)
        for effect in members.to_dict("records"):
            y, interval = effect["y"], (effect["low"], effect["high"])
            band = (smallest or {}).get((str(effect["factor"]), str(response)))
            if band:
                axes.fill_betweenx([y - 0.22, y + 0.22], -band, band, color="#c9ced6", alpha=0.6, lw=0)
            certain = effect["p_adjusted"] < 0.05
            colour = RULE_COLOURS["dfa"] if certain else FAINT
            if np.isfinite(interval).all():
                # Caps reach above the dot: an interval narrower than it stays to be seen.
                axes.plot(interval, [y, y], color=colour, lw=1.4, solid_capstyle="butt", marker="|", ms=7.5)
            axes.plot(effect["estimate"], y, marker="o", ms=3.8, color=colour, mfc=colour if certain else "white")
        axes.set_ylim(len(rows) - 0.4, -0.85)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.set_title(textwrap.fill(f"{label_of(str(response))}{axis_unit(str(response))}", 28), loc="left")
        axes.set_xlabel("change")
    # A row's name stands above its line: beside it, names would take half of a phone's width.
    for y, text in enumerate(rows):
        place, box = panels[0].get_yaxis_transform(), {"facecolor": "white", "edgecolor": "none", "pad": 1}
        name = panels[0].text(0, y - 0.5, text, transform=place, va="center", fontsize=8, bbox=box)
        name.set_in_layout(False)
    finish(figure, title or "Effect of each change, with 95% intervals")
    return figure


def _levels(effects: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(effects["level_from"], effects["level_to"], strict=True))


def chart(analysis: Analysis, rule: str) -> Chart:
    """Every effect under one rule on alignment and on the gap to BP, beside what the claims say would matter."""
    design = analysis.design_with_effects(rule)
    known = analysis.effects_of(rule, design)
    by_response = dict(known.by_response) if known else {}
    # The gap to BP already holds what a factor does to BP itself.
    dropped = "test_accuracy" if GAP in by_response else GAP
    effects = contrast_frame(
        effect for response, members in by_response.items() if response != dropped for effect in members
    )
    smallest = {
        (claim.factor, claim.response): claim.smallest_effect for claim in analysis.study.claims if claim.rule == rule
    }
    title = f"{rule_name(rule)}: effect of each change, with 95% intervals"
    figure = forest(effects, smallest=smallest, title=title)
    how = (
        "Estimates and 95% t intervals of differences within seeds, averaged over the other factors; filled dots have "
        f"an adjusted p below .05 (exact sign-flip test, Holm within a column). {captions.where(analysis, design)}"
    )
    if not smallest.keys().isdisjoint(zip(effects["factor"], effects["response"], strict=True)):
        how += " Grey bands: effects too small to matter, as the claims declare them."
    see = "Each change in one line: left of zero the response falls, right of it it rises."
    return Chart(f"effects{analysis.suffix(rule)}", f"All effects, {rule_name(rule)}", see, how, figure)
