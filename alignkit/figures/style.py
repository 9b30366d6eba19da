"""The one look of all figures: sizes, colours, axes, and how they are saved.

Narrow enough to be read on a phone, colours that the colour-blind can tell apart, one colour per rule and
per layer throughout. Nothing here changes matplotlib's global settings.
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from alignkit.columns import GAP, label_of, unit_of
from alignkit.text import axis_unit, own_colour

WIDTH = 4.8
INK, FAINT, GRID = "#1f2328", "#8a9099", "#e3e5e8"
RULE_COLOURS = {"dfa": "#0173b2", "fa": "#de8f05", "bp": "#5f6670", "shallow": "#949494", "imposed_angle": "#cc78bc"}
OTHER_COLOURS = ("#029e73", "#ca9161", "#d55e00", "#56b4e9")
SERIES_COLOURS = (RULE_COLOURS["dfa"], RULE_COLOURS["fa"], *OTHER_COLOURS)
"""Colours of what is no rule: levels, conditions."""
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 3,
}


def save_figure(figure: Figure, *, name: str) -> tuple[bytes, bytes]:
    """The figure as SVG and as PDF: the same bytes whenever the same figure is saved."""
    svg, pdf = save_svg(figure, name=name), io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return svg, pdf.getvalue()


def save_svg(figure: Figure, *, name: str) -> bytes:
    """The figure as SVG alone."""
    svg = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        # The layout starts from where the last one ended, so it is made once and then kept.
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()


def rule_colour(rule: str) -> str:
    """The one colour of a rule, in every figure."""
    return RULE_COLOURS.get(rule) or own_colour(rule) or OTHER_COLOURS[sum(map(ord, rule)) % len(OTHER_COLOURS)]


def panels_of(n: int, *, columns: int, height: float, extra: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(WIDTH, height * rows + extra), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share)
    panels = list(grid.flat)
    for spare in panels[n:]:
        spare.set_visible(False)
    return figure, panels[:n]


def single_panel(ax: Axes | None, *, height: float, extra: float) -> tuple[Figure, Axes]:
    """A figure of one panel, or the axes that a caller has."""
    if ax is not None:
        given: Any = ax.get_figure()
        return given, ax
    figure, (axes,) = panels_of(1, columns=1, height=height, extra=extra)
    return figure, axes


def finish(figure: Figure, title: str, handles: list[Any] | None = None, *, ax: Axes | None = None) -> None:
    """Title and legend: of the whole figure, or of the axes `ax` that a caller gave."""
    if ax is not None:
        ax.set_title(title, loc="left")
        if handles:
            ax.legend(handles=handles)
        return
    figure.suptitle(textwrap.fill(title, 58), x=0.01, ha="left", fontsize=10, fontweight="bold")
    if handles:
        columns = 2 if max(len(handle.get_label()) for handle in handles) > 14 else 4
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=1.6, columnspacing=1.2)
    for axes in figure.axes:
        sns.despine(ax=axes, left=not axes.spines["left"].get_visible())


def ordered_colours(n: int) -> list[tuple[float, float, float]]:
    colours = mpl.colormaps["viridis"](np.linspace(0.12, 0.7, n) if n > 1 else [0.3])
    return [(float(red), float(green), float(blue)) for red, green, blue, _ in colours]


def step_axis(axes: Axes, steps: list[int]) -> None:
    positive = [step for step in steps if step > 0]
    if not positive or positive[-1] / positive[0] < 20:
        axes.set_xlabel("training step")
        return
    axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    decades = [10.0**k for k in range(12) if positive[0] <= 10**k <= positive[-1]]
    axes.xaxis.set_major_locator(FixedLocator(([0.0] if steps[0] == 0 else []) + decades))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(left=steps[0])
    axes.set_xlabel("training step (log scale)")


def log2_axis(axes: Axes, levels: list[float], factor: str) -> None:
    """A factor that doubles, ticked where it was tried."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"{factor.replace('_', ' ')} (units, log scale)")


def mark_chance(axes: Axes, response: str) -> None:
    level = 90 if unit_of(response) == "°" else 0
    axes.axhline(level, color=INK, lw=0.7, ls=":")
    axes.annotate("chance", (0.995, level), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="right", fontsize=8, color=INK)  # fmt: skip


def axis_label(response: str, *, short: bool = False) -> str:
    """The label of an axis of levels: accuracies are in %, their differences (`axis_unit`) in points."""
    if short and unit_of(response) == "°":
        return "angle (degrees)"
    is_level = unit_of(response) == "points" and response != GAP
    return label_of(response) + (" (%)" if is_level else axis_unit(response))
