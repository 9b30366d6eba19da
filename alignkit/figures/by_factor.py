"""What each level of each factor does to alignment, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alignkit.claims.analysis import Analysis
from alignkit.columns import digits_of, label_of
from alignkit.errors import AnalysisError
from alignkit.figures import captions
from alignkit.figures.chart import Chart
from alignkit.figures.style import STYLE, axis_label, finish, panels_of, rule_colour
from alignkit.stats.contrasts.contrasts import Contrast, contrast_frame, level_means
from alignkit.text import (
    change,
    change_interval,
    count,
    interval_text,
    row_label,
    rule_name,
    signed,
    unit,
    with_interval,
)

MOST_LABEL_CHARACTERS = 26
"""What fits below a small panel side by side; longer labels are turned."""


@mpl.rc_context(STYLE)
def alignment_by_factor(
    means: pd.DataFrame, effects: pd.DataFrame, *, rule: str, response: str = "signal_angle_deg"
) -> Figure:
    """What each level of each factor does, with every seed shown, a panel for each factor.

    `means` has columns factor, level, seed and value, the levels in order: a thin line is one seed, the thick line
    their mean. `effects` are a `contrast_frame`; panel titles give the last of each factor (last level minus
    first) with its interval.
    """
    if effects.empty:
        raise AnalysisError("expected a factor that the design varies; got none")
    groups = means.groupby("factor", sort=False)
    colour, digits = rule_colour(rule), digits_of(response)
    figure, panels = panels_of(groups.ngroups, columns=2, height=1.9, extra=0.5, share=True)
    for axes, (factor, part) in zip(panels, groups, strict=True):
        levels = [str(level) for level in part["level"].unique()]
        seeds = part.pivot(index="seed", columns="level", values="value")[levels]
        places = range(len(levels))
        for _, row in seeds.iterrows():
            axes.plot(places, row, color=colour, alpha=0.35, lw=0.8, marker="o", ms=2.2)
        axes.plot(places, seeds.mean(), color=colour, lw=2, marker="o", ms=5, mec="white", mew=0.8)
        axes.set_xticks(list(places), levels)
        if sum(map(len, levels)) > MOST_LABEL_CHARACTERS:
            axes.tick_params(axis="x", labelrotation=30)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.35, len(levels) - 0.65)
        axes.xaxis.grid(False)
        effect = effects[effects["factor"] == factor].iloc[-1]
        text, interval = f"{signed(effect['estimate'], digits)}{unit(response)}", (effect["low"], effect["high"])
        if np.isfinite(interval).all():
            text += f" {interval_text(interval, digits)}"
        which = f"\n{levels[-1]} less {levels[0]}" if len(levels) > 2 else ""
        axes.set_title(f"{str(factor).replace('_', ' ')}{which}\n{text}", loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axes in panels[::2]:
        axes.set_ylabel(axis_label(response, short=True))
    finish(figure, f"{rule_name(rule)}: {label_of(response)} by factor, seed by seed")
    return figure


def means_by_level(table: pd.DataFrame, effects: Sequence[Contrast], *, within: Sequence[str]) -> pd.DataFrame:
    """Each seed's mean at each level that these contrasts compare: factor, level, seed and value.

    `table` has one row per run; `within` are the factors that make a cell.
    """
    parts = []
    for factor in dict.fromkeys(effect.factor for effect in effects):
        members = [effect for effect in effects if effect.factor == factor]
        levels = [members[0].levels[0], *(member.levels[1] for member in members)]
        means = level_means(table, factor=factor, levels=levels, within=within).means
        parts.append(means.melt(var_name="level", ignore_index=False).rename_axis("seed").assign(factor=factor))
    return pd.concat(parts).reset_index() if parts else pd.DataFrame(columns=["seed", "level", "value", "factor"])


def chart(analysis: Analysis, rule: str) -> Chart:
    """Every factor's levels under one rule, and its largest effect."""
    response, design = analysis.response, analysis.design_with_effects(rule)
    effects = analysis.effects_on(response, rule=rule, design=design)
    if not effects:
        raise AnalysisError("no two levels of a factor can be compared on it")
    table = analysis.final(response, rule=rule, design=design)
    means = means_by_level(table, effects, within=analysis.factors)
    figure = alignment_by_factor(means, contrast_frame(effects), rule=rule, response=response)
    largest = max(effects, key=lambda effect: abs(effect.estimate))
    clear = sum(effect.p_adjusted < 0.05 for effect in effects)
    see = (
        f"The largest effect is that of {row_label(largest.factor, largest.levels)}: "
        f"{with_interval(change(largest.estimate, response), change_interval(largest.interval, response))}. "
        f"{clear} of {count(len(effects), 'effect')} {'has' if clear == 1 else 'have'} an adjusted p below .05."
    )
    how = (
        f"The {label_of(response)} at the end of training, averaged over hidden layers and over the other factors. "
        f"Thin lines: one for each of {captions.seeds(analysis)}; thick: their mean. In brackets: the 95% t interval "
        f"of the difference within seeds. {captions.where(analysis, design)}"
    )
    name = f"alignment_by_factor{analysis.suffix(rule)}"
    return Chart(name, f"Alignment by factor, {rule_name(rule)}", see, how, figure)
