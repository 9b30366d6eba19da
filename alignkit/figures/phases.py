"""When things happen: the onset and saturation of alignment, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import INK, STYLE, finish, panels_of, rule_colour, step_axis
from alignkit.text import rule_name

SHIFT = {"onset": -0.14, "saturation": 0.14, "memorisation": 0.0}


@mpl.rc_context(STYLE)
def phase_spans(times: pd.DataFrame, *, steps: Mapping[str, Sequence[int]]) -> Figure:
    """When each layer's alignment begins and saturates, with intervals, a panel for each rule.

    `times` has columns rule, event, group, estimate, low and high, in steps: "onset" and "saturation" by layer, and
    "memorisation" (the training loss). `steps` are the checkpoints of each rule. What is infinite, "not by the end",
    is an arrow at the end of training (dotted).
    """
    known = times[times["estimate"].notna()]
    if known.empty:
        raise AnalysisError("expected times of at least one event; got none")
    known = known.assign(label=("layer " + known["group"]).mask(known["event"] == "memorisation", "training loss"))
    groups = known.groupby("rule", sort=False)
    rows = int(groups["label"].nunique().max())
    figure, panels = panels_of(groups.ngroups, columns=1, height=0.85 + 0.36 * rows, extra=0.7)
    for axes, (rule, results) in zip(panels, groups, strict=True):
        labels, end = list(results["label"].unique()), float(max(steps[str(rule)]))
        for result in results.to_dict("records"):
            colour = INK if result["event"] == "memorisation" else rule_colour(str(rule))
            fill = "white" if result["event"] == "onset" else colour
            y = labels.index(result["label"]) + SHIFT[result["event"]]
            line: Any = {"color": colour, "lw": 1.6, "solid_capstyle": "butt"}
            marked: Any = {"ls": "", "ms": 5.5, "color": colour, "mfc": fill, "zorder": 3}
            if np.isfinite(result["low"]):
                axes.plot([result["low"], min(result["high"], end)], [y, y], **line)
            if np.isfinite(result["estimate"]):
                axes.plot(result["estimate"], y, marker="o", **marked)
            if np.isinf(result["estimate"]) or np.isinf(result["high"]):
                axes.plot(end, y, marker=">", **marked)
        axes.axvline(end, color=INK, lw=0.7, ls=":")
        step_axis(axes, list(steps[str(rule)]))
        axes.set_xlim(left=0, right=1.15 * end)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.yaxis.grid(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title(rule_name(str(rule)), loc="left")
    handles = [
        Line2D([], [], ls="", marker="o", ms=5.5, color=INK, mfc=fill, label=label)
        for fill, label in (("white", "onset"), (INK, "saturation; of the loss, 90% of its fall"))
    ]
    handles.append(Line2D([], [], color=INK, lw=0.7, ls=":", label="end of training"))
    finish(figure, "When each layer begins to align, and when it has aligned", handles)
    return figure


def chart(times: pd.DataFrame, *, steps: Mapping[str, Sequence[int]], see: str) -> Chart:
    """The times of each layer under each taught rule."""
    several = times["n_seeds"].max() > 1
    how = "Medians over seeds of each seed's median run" if several else "Medians over the runs of one seed"
    if np.isfinite(times["low"]).any():
        how += ", with sign-test intervals of at least 95%"
    if np.isinf(times[["estimate", "high"]]).any(axis=None):
        how += ". An arrow: not by the end of training in half of the seeds, or an interval without an upper bound"
    return Chart("phases_times", "When each layer aligns", see, f"{how}.", phase_spans(times, steps=steps))
