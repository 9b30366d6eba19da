"""Figures of when things happen: the onset and saturation of alignment, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.errors import AnalysisError
from alignkit.figures.style import INK, STYLE, finish, panels_of, rule_colour, step_axis
from alignkit.stats.curves.phases import PhaseSummary
from alignkit.text import rule_name

SHIFT = {"onset": -0.14, "saturation": 0.14, "memorisation": 0.0}


def phase_spans(summaries: Mapping[str, Sequence[PhaseSummary]], *, steps: Mapping[str, Sequence[int]]) -> Figure:
    """When each layer's alignment begins and saturates, with intervals, a panel for each rule.

    `summaries` are those of "onset" and "saturation" by layer, and of "memorisation" (the training loss), in steps;
    `steps` are the checkpoints of each rule. What is infinite, "not by the end", is an arrow at the end of training
    (dotted).
    """
    drawn = {
        rule: [result for result in results if not np.isnan(result.estimate)] for rule, results in summaries.items()
    }
    drawn = {rule: results for rule, results in drawn.items() if results}
    if not drawn:
        raise AnalysisError("expected times of at least one event; got none")
    labels = {rule: list(dict.fromkeys(map(_label, results))) for rule, results in drawn.items()}
    with mpl.rc_context(STYLE):
        rows = max(map(len, labels.values()))
        figure, panels = panels_of(len(drawn), columns=1, height=0.85 + 0.36 * rows, extra=0.7)
        for axes, (rule, results) in zip(panels, drawn.items(), strict=True):
            end = float(max(steps[rule]))
            for result in results:
                colour = INK if result.event == "memorisation" else rule_colour(rule)
                fill = "white" if result.event == "onset" else colour
                y = labels[rule].index(_label(result)) + SHIFT[result.event]
                low, high = result.interval
                if np.isfinite(low):
                    axes.plot([low, min(high, end)], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                if np.isfinite(result.estimate):
                    axes.plot(result.estimate, y, ls="", marker="o", ms=5.5, color=colour, mfc=fill, zorder=3)
                if np.isinf(result.estimate) or np.isinf(high):
                    axes.plot(end, y, ls="", marker=">", ms=5.5, color=colour, mfc=fill, zorder=3)
            axes.axvline(end, color=INK, lw=0.7, ls=":")
            step_axis(axes, list(steps[rule]))
            axes.set_xlim(left=0, right=1.15 * end)
            axes.set_yticks(range(len(labels[rule])), labels[rule])
            axes.set_ylim(len(labels[rule]) - 0.5, -0.5)
            axes.yaxis.grid(False)
            axes.tick_params(axis="y", length=0)
            axes.set_title(rule_name(rule), loc="left")
        handles = [
            Line2D([], [], ls="", marker="o", ms=5.5, color=INK, mfc=fill, label=label)
            for fill, label in (("white", "onset"), (INK, "saturation; of the loss, 90% of its fall"))
        ]
        handles.append(Line2D([], [], color=INK, lw=0.7, ls=":", label="end of training"))
        finish(figure, "When each layer begins to align, and when it has aligned", handles)
    return figure


def _label(result: PhaseSummary) -> str:
    return "training loss" if result.event == "memorisation" else f"layer {result.group}"
