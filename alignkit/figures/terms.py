"""Which terms of a model explain a response."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.chart import Chart
from alignkit.figures.style import FAINT, RULE_COLOURS, STYLE, finish, single_panel
from alignkit.text import rule_name


def term_name(term: str) -> str:
    """A model term in words.

    >>> term_name("feedback_normalised:width")
    'feedback normalised by width'
    """
    return " by ".join(part.replace("_", " ") for part in term.split(":"))


@mpl.rc_context(STYLE)
def explained(anova: pd.DataFrame, *, response: str, most: int = 12, ax: Axes | None = None) -> Figure:
    """The share of a response's variation that each term of a model explains, the largest first.

    `anova` has columns term, p_adjusted and generalised_r2. Filled bars have an adjusted p below .05.
    """
    if anova.empty:
        raise AnalysisError("expected a model with at least one term; got none")
    table = anova.sort_values("generalised_r2", ascending=False).head(most)
    figure, axes = single_panel(ax, height=0.27 * len(table), extra=1.1)
    for place, (share, p) in enumerate(table[["generalised_r2", "p_adjusted"]].to_numpy(float)):
        certain = p < 0.05
        axes.barh(
            place, share, height=0.66, color=RULE_COLOURS["dfa"] if certain else "white",
            edgecolor=RULE_COLOURS["dfa"] if certain else FAINT, lw=0.8,
        )  # fmt: skip
    axes.set_yticks(range(len(table)), [term_name(term) for term in table["term"]])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.yaxis.grid(False)
    axes.set_xlim(0, min(1.0, 1.12 * table["generalised_r2"].max()))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("generalised R\N{SUPERSCRIPT TWO}")
    finish(figure, f"What the {label_of(response)} depends on", ax=ax)
    return figure


def chart(anova: pd.DataFrame, *, rule: str, response: str, suffix: str) -> Chart:
    """The terms of a rule's model of alignment, the largest first; `suffix` ends the figure's name."""
    see = f"Of all terms, {term_name(anova.iloc[0]['term'])} explains most of the {label_of(response)}."
    how = (
        "Generalised R² of each term of the factorial model; filled bars have an adjusted p below .05. A bar is the "
        "term's sum of squares over itself and all that no term explains, differences between seeds included."
    )
    figure = explained(anova, response=response)
    return Chart(f"model_terms{suffix}", f"What alignment depends on, {rule_name(rule)}", see, how, figure)
