"""The panel of a claim: its effect, asked in every defensible way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from alignkit.claims.panel import Panel
from alignkit.columns import label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import FAINT, INK, RULE_COLOURS, STYLE, finish, single_panel
from alignkit.text import axis_unit, sentence, sized, slug

BAND = "#c9ced6"
KINDS: dict[str, tuple[str, str, str]] = {
    "core": (RULE_COLOURS["dfa"], RULE_COLOURS["dfa"], "o"),
    "graded": (RULE_COLOURS["fa"], "white", "s"),
    "shown": (FAINT, "white", "D"),
}
"""Colour, fill and marker of a row: core rows carry "robust", graded ones can contest, shown ones do neither."""


@mpl.rc_context(STYLE)
def panel_forest(
    rows: pd.DataFrame, *, response: str, smallest: float = 0.0, title: str = "", ax: Axes | None = None
) -> Figure:
    """A claim's effect in every row of its panel, with 95% intervals; the first row is the declared one.

    `rows` has the columns label, estimate, low, high, core and graded (see `Panel.to_frame`). Rows without an answer
    are left out. `smallest` is the smallest effect that matters: the grey band.
    """
    rows = rows[np.isfinite(rows["estimate"].astype(float))]
    if rows.empty:
        raise AnalysisError("expected a row of the panel with an answer; got none")
    figure, axes = single_panel(ax, height=0.36 * len(rows), extra=1.35)
    axes.axvline(0, color=INK, lw=0.8, zorder=1)
    if smallest:
        axes.axvspan(-smallest, smallest, color=BAND, alpha=0.5, lw=0, zorder=0)
    for y, row in enumerate(rows.to_dict("records")):
        colour, face, marker = KINDS[kind_of(row)]
        if np.isfinite([row["low"], row["high"]]).all():
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.5, marker="|", ms=7, zorder=2)
        axes.plot(row["estimate"], y, marker=marker, ms=4.6, color=colour, mfc=face, ls="", zorder=3)
        name = axes.text(
            0, y - 0.42, str(row["label"]), transform=axes.get_yaxis_transform(), va="center", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )  # fmt: skip
        name.set_in_layout(False)
    axes.set_ylim(len(rows) - 0.5, -0.85)
    axes.margins(x=0.08)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"change{axis_unit(response)}")
    present = dict.fromkeys(kind_of(row) for row in rows.to_dict("records"))
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=KINDS[kind][0], mfc=KINDS[kind][1], marker=KINDS[kind][2], ms=4.6, label=kind)
        for kind in KINDS
        if kind in present
    ]
    if smallest:
        handles.append(Patch(color=BAND, alpha=0.5, label="too small"))
    finish(figure, title or "The claim, asked in every way", handles, ax=ax)
    return figure


def kind_of(row: Mapping[Any, Any]) -> str:
    """What a row of a panel counts for: "core", "graded", or "shown"."""
    return "core" if row["core"] else "graded" if row["graded"] else "shown"


def chart(panel: Panel, *, see: str) -> Chart:
    """One claim's panel."""
    claim, rows = panel.claim, panel.to_frame()
    title = sentence(claim.practice or claim.statement)
    figure = panel_forest(rows, response=claim.response, smallest=claim.smallest_effect, title=title)
    better = "left" if claim.direction == "decrease" else "right"
    how = (
        f"Estimates with 95% t intervals over seeds, each of its row alone; the claim says {better} of zero. The first "
        f"row is the {label_of(claim.response)} as declared. Blue: core rows, all of which a robust verdict needs; "
        "orange squares: graded rows, which can contest it; grey: rows that are shown and judge nothing."
    )
    if claim.smallest_effect:
        margin = sized(claim.smallest_effect, unit_of(claim.response))
        how += f" Grey band: effects below {margin}, too small to matter."
    return Chart(f"panels_{slug(claim.name)}", f"Panel: {title}", see, how, figure)
