"""The figures of a report. Each function takes records and gives a matplotlib Figure.

All share one look: narrow enough to be read on a phone, colours that the colour-blind can tell apart, one
colour per rule and per layer throughout. Nothing here changes matplotlib's global settings.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy import stats

from alignkit.errors import AnalysisError
from alignkit.stats import (
    Contrast,
    digits_of,
    in_design,
    label_of,
    level_order,
    run_summaries,
    seed_contrasts,
    unit_of,
)
from alignkit.stats.levels import level_column, numeric_levels
from alignkit.store import Records

WIDTH = 4.8
ABSENT, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
INK, FAINT = "#1f2328", "#8a9099"
RULE_COLOURS = {"dfa": "#0173b2", "fa": "#de8f05", "bp": "#5f6670", "shallow": "#949494"}
OTHER_COLOURS = ("#029e73", "#cc78bc", "#ca9161", "#d55e00", "#56b4e9")
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
    "grid.color": "#e3e5e8",
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

MOST_LABEL_CHARACTERS = 26
"""What fits below a small panel side by side; longer labels are turned."""


def alignment_over_training(
    records: Records, *, rules: Sequence[str], design: str | None = None, response: str = "signal_angle_deg"
) -> Figure:
    """How each hidden layer aligns while it learns, a panel for each rule.

    Lines are means over seeds of the mean over cells, bands their 95% t intervals over seeds; dashed
    lines are the untaught feedback of the BP runs. Only checkpoints that every run has are drawn.

    Raises `AnalysisError` where fewer than two checkpoints hold a value.
    """
    drawn = {rule: curves(records, rule=rule, design=design, response=response) for rule in rules}
    drawn = {rule: table for rule, table in drawn.items() if table["step"].nunique() > 1}
    if not drawn:
        raise AnalysisError(f"expected at least two checkpoints with a {label_of(response)}; got fewer")
    control = curves(records, rule="bp", design=design, response=response) if "bp" not in drawn else pd.DataFrame()
    layers = sorted({layer for table in drawn.values() for layer in table["layer"]})
    colours = dict(zip(layers, _ordered_colours(len(layers)), strict=True))
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(drawn), columns=1, height=3.1, extra=0.75, share=True)
        for axes, (rule, table) in zip(panels, drawn.items(), strict=True):
            for layer, curve in table.groupby("layer"):
                axes.plot(curve["step"], curve["mean"], color=colours[layer])
                axes.fill_between(curve["step"], curve["low"], curve["high"], color=colours[layer], alpha=0.2, lw=0)
            for layer, curve in control.groupby("layer") if len(control) else ():
                axes.plot(curve["step"], curve["mean"], color=colours.get(layer, FAINT), ls=(0, (2, 1.5)), lw=1)
            _chance(axes, response)
            _step_axis(axes, sorted(table["step"].unique()))
            axes.set_title(_rule_name(rule), loc="left")
            axes.set_ylabel(_axis(response))
        handles = [Line2D([], [], color=colours[layer], label=f"layer {layer}") for layer in layers]
        if len(control):
            handles.append(Line2D([], [], color=INK, lw=1, ls=(0, (2, 1.5)), label="untaught feedback (BP runs)"))
        _finish(figure, f"The {label_of(response)} over training, layer by layer", handles)
    return figure


def alignment_by_factor(
    records: Records,
    effects: Iterable[Contrast],
    *,
    rule: str,
    design: str | None = None,
    response: str = "signal_angle_deg",
) -> Figure:
    """What each level of each factor does, with every seed shown, a panel for each factor.

    A thin line is one seed, averaged over the cells; the thick line is their mean. Panel titles give
    the effect (last level minus first) with its 95% t interval. `effects` come from `contrasts`.
    """
    groups: dict[str, list[Contrast]] = {}
    for effect in effects:
        groups.setdefault(effect.factor, []).append(effect)
    if not groups:
        raise AnalysisError("expected a factor that the design varies; got none")
    table = final_values(records, rule=rule, design=design, response=response)
    colour = rule_colour(rule)
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(groups), columns=2, height=1.9, extra=0.5, share=True)
        for axes, (factor, members) in zip(panels, groups.items(), strict=True):
            levels = [members[0].levels[0], *(member.levels[1] for member in members)]
            means = _level_means(table, factor, levels, records.factors)
            places = range(len(levels))
            for _, row in means.iterrows():
                axes.plot(places, row, color=colour, alpha=0.35, lw=0.8, marker="o", ms=2.2)
            axes.plot(places, means.mean(), color=colour, lw=2, marker="o", ms=5, mec="white", mew=0.8)
            crowded = sum(map(len, levels)) > MOST_LABEL_CHARACTERS
            axes.set_xticks(list(places), levels)
            if crowded:
                axes.tick_params(axis="x", labelrotation=30)
                for label in axes.get_xticklabels():
                    label.set(ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.35, len(levels) - 0.65)
            axes.xaxis.grid(False)
            effect = members[-1]
            text = f"{signed(effect.estimate, digits_of(response))}{_unit(response)}"
            if np.isfinite(effect.interval).all():
                text += f" {interval_text(effect.interval, digits_of(response))}"
            which = f"\n{levels[-1]} less {levels[0]}" if len(levels) > 2 else ""
            axes.set_title(f"{factor.replace('_', ' ')}{which}\n{text}", loc="left")
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        for axes in panels[::2]:
            axes.set_ylabel(_axis(response, short=True))
        _finish(figure, f"{_rule_name(rule)}: {label_of(response)} by factor, seed by seed")
    return figure


def width_curve(
    records: Records,
    *,
    rules: Sequence[str],
    design: str | None = None,
    factor: str = "width",
    response: str = "signal_cosine",
) -> Figure:
    """How alignment at the end of training changes with width, a panel for each rule.

    A dot is one seed, a line the mean of a layer. The dashed line is `ceiling_cosine`, the best that any
    use of the feedback could reach, and the dotted one the untaught feedback of the BP runs.
    """
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(rules), columns=1, height=3.0, extra=0.85, share=True)
        handles: dict[str, Any] = {}
        for axes, rule in zip(panels, rules, strict=True):
            by_layer = _final_by_layer(records, rule=rule, design=design, factor=factor, response=response)
            if by_layer["x"].nunique() < 2:
                raise AnalysisError(f"expected at least two levels of {factor} with a {label_of(response)}; got fewer")
            layers = sorted(by_layer["layer"].unique())
            for layer, colour in zip(layers, _ordered_colours(len(layers)), strict=True):
                seeds = by_layer[by_layer["layer"] == layer].groupby(["x", "seed"])["value"].mean()
                means = seeds.groupby("x").mean()
                nudge = 2 ** (0.05 * (layers.index(layer) - (len(layers) - 1) / 2))
                x = seeds.index.get_level_values("x").to_numpy(float) * nudge
                axes.plot(x, seeds, ls="", marker="o", ms=2.4, mew=0, color=colour, alpha=0.5, rasterized=len(x) > 400)
                axes.plot(means.index * nudge, means, color=colour)
                handles[f"layer {layer}"] = Line2D([], [], color=colour, marker="o", ms=2.4, label=f"layer {layer}")
            references = (
                ("ceiling_cosine", rule, "--", "best that this feedback allows"),
                (response, "bp", ":", "untaught feedback (BP runs)"),
            )
            for measure, of_rule, dashes, label in references:
                if (measure == "ceiling_cosine" and response != "signal_cosine") or (of_rule == rule == "bp"):
                    continue
                reference = _final_by_layer(records, rule=of_rule, design=design, factor=factor, response=measure)
                line = reference.groupby("x")["value"].mean()
                if len(line) > 1:
                    axes.plot(line.index, line, color=INK, lw=1, ls=dashes)
                    handles[label] = Line2D([], [], color=INK, lw=1, ls=dashes, label=label)
            ticks = sorted(by_layer["x"].unique())
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlabel(f"{factor.replace('_', ' ')} (units, log scale)")
            axes.set_ylabel(_axis(response))
            axes.set_title(_rule_name(rule), loc="left")
            if unit_of(response) != "°":
                axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        _finish(figure, f"Final {label_of(response)} by {factor}", list(handles.values()))
    return figure


def accuracy_gap_against_alignment(
    records: Records,
    *,
    rules: Sequence[str],
    design: str | None = None,
    response: str = "signal_angle_deg",
    colour_by: str | None = None,
) -> Figure:
    """Whether better aligned networks lose less accuracy to BP.

    A faint dot is one run, a large one the mean of a cell over seeds, coloured by a factor (or the rule).
    Alignment was not randomised here: the figure shows an association.
    """
    tables = []
    for rule in rules:
        table = final_values(records, rule=rule, design=design, response=response)
        gap = final_values(records, rule=rule, design=design, response="accuracy_gap")
        tables.append(table.assign(gap=gap["value"], rule=rule).dropna(subset=["value", "gap"]))
    table = pd.concat(tables) if tables else pd.DataFrame()
    if table.empty:
        raise AnalysisError("expected runs with an alignment and a BP twin that has an accuracy; got none")
    key = level_column(table[colour_by]).fillna(ABSENT) if colour_by else table["rule"]
    levels = level_order(key)
    numeric = colour_by is not None and numeric_levels(levels) is not None and len(levels) > 2
    palette = (
        _ordered_colours(len(levels))
        if numeric or len(levels) > 6
        else [RULE_COLOURS["dfa"], RULE_COLOURS["fa"], *OTHER_COLOURS]
    )
    colours = {level: rule_colour(level) if colour_by is None else palette[i] for i, level in enumerate(levels)}
    with mpl.rc_context(STYLE):
        figure, (axes,) = _panels(1, columns=1, height=3.4, extra=0.75)
        for level in levels:
            part = table[key == level]
            axes.plot(
                part["value"],
                part["gap"],
                ls="",
                marker="o",
                ms=2.5,
                mew=0,
                color=colours[level],
                alpha=0.25,
                rasterized=True,
            )
        for level in levels:
            cells = table[key == level].groupby(["rule", "cell"])[["value", "gap"]].mean()
            style: Any = {"ls": "", "marker": "o", "ms": 5.5, "mec": "white", "mew": 0.7}
            axes.plot(cells["value"], cells["gap"], color=colours[level], **style)
        axes.axhline(0, color=INK, lw=0.8)
        axes.annotate("as accurate as BP", (0.99, 0), (0, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=8, color=INK)  # fmt: skip
        axes.set_xlabel(_axis(response))
        axes.set_ylabel("accuracy gap to BP (points)")
        name = (colour_by or "").replace("_", " ")
        handles = [
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                ms=5.5,
                color=colours[level],
                label=f"{name} {level}" if name else _rule_name(level),
            )
            for level in levels
        ]
        _finish(figure, "Accuracy lost to BP against alignment", handles)
    return figure


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
            axes.axvline(0, color=INK, lw=0.8)
            for effect in members:
                y = rows.index((effect.factor, effect.levels))
                band = smallest.get((effect.factor, response))
                if band:
                    axes.fill_betweenx([y - 0.22, y + 0.22], -band, band, color="#c9ced6", alpha=0.6, lw=0)
                certain = effect.p_adjusted < 0.05
                colour = RULE_COLOURS["dfa"] if certain else FAINT
                if np.isfinite(effect.interval).all():
                    axes.plot(effect.interval, [y, y], color=colour, lw=1.8, solid_capstyle="butt")
                axes.plot(effect.estimate, y, marker="o", ms=5, color=colour, mfc=colour if certain else "white")
            axes.set_ylim(len(rows) - 0.4, -0.85)
            axes.margins(x=0.1)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(NullLocator())
            axes.spines["left"].set_visible(False)
            axes.set_title(textwrap.fill(f"{label_of(response)}{_in(response)}", 28), loc="left")
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
        _finish(figure, title or "Effect of each change, with 95% intervals")
    return figure


def save_figure(figure: Figure, *, name: str) -> tuple[bytes, bytes]:
    """The figure as SVG and as PDF: the same bytes whenever the same figure is saved."""
    svg, pdf = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        # The layout starts from where the last one ended, so it is made once and then kept.
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return svg.getvalue(), pdf.getvalue()


def final_values(records: Records, *, rule: str, design: str | None, response: str) -> pd.DataFrame:
    """`run_summaries` of one rule in one design (all designs if None)."""
    table = run_summaries(records.runs, records.layers, response)
    table = table[table["rule"] == rule]
    return table if design is None else table[in_design(table, design)]


def curves(
    records: Records, *, rule: str, design: str | None = None, response: str = "signal_angle_deg"
) -> pd.DataFrame:
    """Mean and 95% t interval over seeds, by layer and step; each seed is first averaged over its cells."""
    runs = records.runs[records.runs["rule"] == rule]
    runs = runs if design is None else runs[in_design(runs, design)]
    rows = records.layers[["run_id", "step", "layer", response]].merge(runs[["run_id", "seed"]], on="run_id")
    common = rows.groupby("step")["run_id"].nunique() == rows["run_id"].nunique()
    rows = rows[rows["step"].map(common).astype(bool)].dropna(subset=[response])
    seeds = rows.groupby(["layer", "step", "seed"])[response].mean()
    summary = seeds.groupby(["layer", "step"]).agg(["mean", "sem", "count"]).reset_index()
    spread = summary["sem"] * stats.t.ppf(0.975, np.maximum(summary["count"] - 1, 1))
    return summary.assign(low=summary["mean"] - spread, high=summary["mean"] + spread)


def rule_colour(rule: str) -> str:
    """The one colour of a rule, in every figure."""
    return RULE_COLOURS.get(rule) or OTHER_COLOURS[sum(map(ord, rule)) % len(OTHER_COLOURS)]


def row_label(factor: str, levels: tuple[str, str]) -> str:
    """A contrast in words.

    >>> row_label("feedback_normalised", ("false", "true"))
    'feedback normalised: false → true'
    """
    return f"{factor.replace('_', ' ')}: {levels[0]} → {levels[1]}"


def signed(value: float, digits: int) -> str:
    """A number with its sign, and a true minus; a dash where it is missing.

    >>> signed(0.25, 1), signed(0.001, 1)
    ('+0.2', '0.0')
    """
    if not np.isfinite(value):
        return ABSENT
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", MINUS)


def interval_text(interval: tuple[float, float], digits: int) -> str:
    """An interval in brackets; a dash where it is missing."""
    if not np.isfinite(interval).all():
        return ABSENT
    return f"[{signed(interval[0], digits)}, {signed(interval[1], digits)}]"


def _final_by_layer(records: Records, *, rule: str, design: str | None, factor: str, response: str) -> pd.DataFrame:
    """Columns layer, x (the factor as a number), seed and value, at the last checkpoint."""
    runs = records.runs[records.runs["rule"] == rule]
    runs = runs if design is None else runs[in_design(runs, design)]
    runs = runs.assign(x=pd.to_numeric(level_column(runs[factor]), errors="coerce"))[["run_id", "seed", "x"]]
    rows = records.layers[["run_id", "step", "layer", response]].merge(runs, on="run_id")
    rows = rows[rows["step"] == rows.groupby("run_id")["step"].transform("max")]
    return rows.rename(columns={response: "value"}).dropna(subset=["value", "x"])


def _level_means(table: pd.DataFrame, factor: str, levels: list[str], factors: Sequence[str]) -> pd.DataFrame:
    """Seeds by levels; each level's mean is the one that its contrast with the first was taken from."""
    sides: dict[str, pd.Series] = {}
    for level in levels[1:]:
        means = seed_contrasts(table, factor=factor, levels=(levels[0], level), response="value", within=factors).means
        sides.setdefault(levels[0], means[levels[0]])
        sides[level] = means[level]
    return pd.DataFrame(sides)[levels]


def _panels(n: int, *, columns: int, height: float, extra: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(WIDTH, height * rows + extra), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share)
    panels = list(grid.flat)
    for spare in panels[n:]:
        spare.set_visible(False)
    return figure, panels[:n]


def _finish(figure: Figure, title: str, handles: list[Any] | None = None) -> None:
    figure.suptitle(textwrap.fill(title, 58), x=0.01, ha="left", fontsize=10, fontweight="bold")
    if handles:
        columns = 2 if max(len(handle.get_label()) for handle in handles) > 14 else 4
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=1.6, columnspacing=1.2)
    for axes in figure.axes:
        sns.despine(ax=axes, left=not axes.spines["left"].get_visible())


def _ordered_colours(n: int) -> list[tuple[float, float, float]]:
    colours = mpl.colormaps["viridis"](np.linspace(0.12, 0.7, n) if n > 1 else [0.3])
    return [(float(red), float(green), float(blue)) for red, green, blue, _ in colours]


def _step_axis(axes: Axes, steps: list[int]) -> None:
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


def _chance(axes: Axes, response: str) -> None:
    level = 90 if unit_of(response) == "°" else 0
    axes.axhline(level, color=INK, lw=0.7, ls=":")
    axes.annotate("chance", (0.995, level), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="right", fontsize=8, color=INK)  # fmt: skip


def _rule_name(rule: str) -> str:
    return rule.upper() if rule in ("bp", "dfa", "fa") else rule


def _unit(response: str) -> str:
    unit = unit_of(response)
    return unit if unit in ("", "°") else f" {unit}"


def _in(response: str) -> str:
    unit = unit_of(response)
    return f" ({'degrees' if unit == '°' else unit})" if unit else ""


def _axis(response: str, *, short: bool = False) -> str:
    unit = unit_of(response)
    if short and unit == "°":
        return "angle (degrees)"
    return label_of(response) + _in(response)
