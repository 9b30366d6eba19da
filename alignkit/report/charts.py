"""The figures of alignment that a report opens with, in the order of the page; each has a file of its own."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.claims.analysis import IMPOSED, Analysis
from alignkit.errors import AnalysisError
from alignkit.figures import accuracy_gap, by_factor, effects, training, width
from alignkit.figures.chart import Chart, Drawing
from alignkit.text import rule_name

FIGURES: tuple[Drawing, ...] = (
    Drawing("Alignment over training", training.chart),
    Drawing("Alignment by factor", by_factor.chart, each_rule=True),
    Drawing("Width curve", width.chart),
    Drawing("Accuracy gap against alignment", accuracy_gap.chart),
    Drawing("All effects", effects.chart, each_rule=True),
)


def charts(analysis: Analysis, more: Sequence[Drawing] = ()) -> tuple[list[Chart], list[str]]:
    """The figures, `more` of them last, and a line for each that does not apply."""
    drawn: list[Chart] = []
    absent: list[str] = []
    varied = [rule for rule in analysis.rules if any(found.rule == rule for found in analysis.effects)]
    for figure in (*(FIGURES if analysis.alignment else ()), *more):
        for rule in varied if figure.each_rule else (None,):
            try:
                chart = figure.draw(analysis) if rule is None else figure.draw(analysis, rule)
            except AnalysisError as error:
                absent.append(f"{figure.title}{f', {rule_name(rule)}' if rule else ''}: {error}.")
            else:
                drawn += [chart] if chart is not None else []
    if analysis.alignment is None:
        imposed = IMPOSED & set(analysis.study.rules)
        why = "the angle was imposed" if imposed else "no run has a defined alignment measure"
        absent.append(f"No figure of alignment: {why}.")
    absent += [
        f"Effects of factors, {rule_name(rule)}: no design varies a factor within its runs."
        for rule in analysis.rules
        if rule not in varied
    ]
    return drawn, absent
