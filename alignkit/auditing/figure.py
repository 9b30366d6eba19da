"""The specification curve of one claim: every estimate, sorted, and below it what each question settled."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignkit.auditing.result import ALPHA, ClaimAudit
from alignkit.figures.style import FAINT, GRID, INK, RULE_COLOURS, STYLE, WIDTH
from alignkit.text import axis_unit

SAME, OPPOSITE, BEYOND = RULE_COLOURS["dfa"], RULE_COLOURS["fa"], "#8f1d1d"
BINS = 90
ROW = 0.135


def shown_questions(audit: ClaimAudit) -> pd.DataFrame:
    """The questions in the claim's own unit, sorted by their estimates."""
    questions = audit.questions
    return questions[questions["scale"] == questions["scale"].iloc[0]].sort_values("estimate", kind="stable")


@mpl.rc_context(STYLE)
def specification_curve(audit: ClaimAudit) -> Figure:
    """The estimates of a claim in its unit, sorted, with 95% intervals; below, where each choice lies among them."""
    table = shown_questions(audit)
    choices = _choices(table)
    below = ROW * len(choices)
    figure = Figure(figsize=(WIDTH, 2.9 + below), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, max(below, ROW)])
    _estimates(top, table, audit)
    _density(bottom, table, choices)
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=SAME, label="sign of the verdict"),
        Line2D([], [], marker="o", ls="", ms=4, color=OPPOSITE, label="opposite"),
        Line2D([], [], marker="o", ls="", ms=4, color=BEYOND, label="opposite, beyond chance"),
        Line2D([], [], marker="o", ls="", ms=4, color=FAINT, label="not comparable"),
        Line2D([], [], marker="o", ls="", ms=7, mec=INK, mfc="none", label="as declared"),
        Line2D([], [], ls="--", lw=0.8, color=INK, label="smallest effect that matters"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, handlelength=1.6, columnspacing=1.2)
    return figure


def _estimates(axes: Axes, table: pd.DataFrame, audit: ClaimAudit) -> None:
    x = np.arange(len(table))
    estimate, low, high = (table[name].to_numpy(float) for name in ("estimate", "low", "high"))
    beyond = (table["p_opposite"] < ALPHA).to_numpy() & (table["side"] == "opposite").to_numpy()
    opposite = (table["side"] == "opposite").to_numpy()
    colour = np.where(beyond, BEYOND, np.where(opposite, OPPOSITE, SAME))
    colour = np.where(table["comparable"].to_numpy(bool), colour, FAINT)
    if not audit.has_a_side:
        colour = np.where(table["comparable"].to_numpy(bool), SAME, FAINT)
    few = float(np.clip(600 / len(table), 1, 3))
    axes.vlines(x, low, high, colors=colour.tolist(), lw=few * 0.5, alpha=0.35, rasterized=True)
    axes.scatter(x, estimate, s=few**2 * 2.5, c=colour.tolist(), lw=0, rasterized=True)
    declared = np.flatnonzero(table["declared"].to_numpy(bool))
    axes.plot(declared, estimate[declared], ls="", marker="o", ms=7, mec=INK, mfc="none", mew=1.1)
    axes.axhline(0, color=INK, lw=0.8)
    for margin in (-audit.claim.smallest_effect, audit.claim.smallest_effect):
        axes.axhline(margin, color=INK, lw=0.7, ls="--")
    spread = np.quantile(np.concatenate([low, high]), [0.005, 0.995])
    room = 0.08 * (spread[1] - spread[0])
    axes.set_ylim(
        min(spread[0] - room, -audit.claim.smallest_effect), max(spread[1] + room, audit.claim.smallest_effect)
    )
    axes.set_ylabel(f"effect{axis_unit(audit.claim.response)}")
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)


def _choices(table: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Each choice that tells questions apart: its name, and which questions made it."""
    where = [f"{place}, {mode}" if mode else place for place, mode in zip(table["place"], table["mode"], strict=True)]
    found: list[tuple[str, np.ndarray]] = []
    for values, prefix in ((where, ""), (table["layer"], "layer "), (table["rates"], "rates: "), (table["when"], "")):
        found += [
            (f"{prefix}{name}", np.array([value == name for value in values])) for name in dict.fromkeys(sorted(values))
        ]
    subset = table["cells"] != "all"
    found += [
        ("cells left out", subset.to_numpy()),
        ("seeds left out", (table["seeds"] != "all").to_numpy()),
        ("failed runs left out", (table["failed"] == "left out").to_numpy()),
        ("median over cells", (table["average"] == "median").to_numpy()),
    ]
    return [(name, chosen) for name, chosen in found if chosen.any() and not chosen.all() and not name.endswith(" ")]


def _density(axes: Axes, table: pd.DataFrame, choices: list[tuple[str, np.ndarray]]) -> None:
    n = len(table)
    bins = min(BINS, n)
    edge = np.linspace(0, n, bins + 1).astype(int)
    size = np.diff(edge)
    rows = [np.add.reduceat(chosen.astype(float), edge[:-1]) / size for _, chosen in choices]
    if rows:
        shares = np.array([row / max(row.max(), 1e-9) for row in rows])
        colours = mpl.colors.LinearSegmentedColormap.from_list("share", ["white", INK])
        axes.imshow(shares, aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest",
                    extent=(-0.5, n - 0.5, len(rows) - 0.5, -0.5))  # fmt: skip
    axes.set_yticks(range(len(choices)), [name for name, _ in choices], fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    axes.hlines(np.arange(len(choices) + 1) - 0.5, -0.5, n - 0.5, color=GRID, lw=0.4)
    axes.grid(visible=False)
    axes.set_xlabel("questions, sorted by answer")
    for spine in axes.spines.values():
        spine.set_visible(False)
