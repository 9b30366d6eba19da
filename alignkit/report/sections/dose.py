"""Does alignment matter? Accuracy against an angle that was imposed, not observed."""

from __future__ import annotations

import math

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.stakes import ACCURACY, DOSE, POINT, RULE, best_rates
from alignkit.errors import AnalysisError
from alignkit.figures.dose import chart
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.stats.curves.dose import DoseAtLoss, DoseResponse, dose_at_loss, dose_response
from alignkit.stats.tables.levels import level_order
from alignkit.text import bare_change, change_interval, in_unit, number, p_text, reading, sentence

LOSS = POINT
"""Points of accuracy whose dose is told."""


def dose(analysis: Analysis) -> Answer | None:
    """The dose-response of test accuracy on an imposed angle, in each design that varies it."""
    if RULE not in analysis.study.rules or DOSE not in analysis.factors:
        return None
    found: dict[str, tuple[DoseResponse, DoseAtLoss]] = {}
    notes: list[str] = []
    for design in analysis.designs:
        table = analysis.final(ACCURACY, rule=RULE, design=design)
        if len(level_order(table[DOSE])) < 3:
            continue
        # Every angle ran at several rates, so that the best of them can be taken.
        if "lr" in analysis.varying(RULE, design) and (table.groupby(DOSE)["lr"].nunique() > 1).all():
            table = best_rates(table)
            notes.append(
                f"{_name(design)}: for every seed and angle the learning rate with the best validation accuracy; test "
                "accuracy had no part in that choice."
            )
        averaged = table.groupby(["seed", DOSE])["value"].mean().reset_index()
        result = dose_response(averaged, dose=DOSE)
        found[design] = (result, dose_at_loss(result, loss=LOSS))
        notes += [f"{_name(design)}: {warning}." for warning in result.warnings]
    if not found:
        raise AnalysisError("expected three angles or more in a design; got fewer")
    answers = tuple(_answer(design, *results) for design, results in found.items())
    first = next(iter(found))
    references = {}
    for rule, name, dashes in (("bp", "back-propagation", "--"), ("shallow", "hidden layers do not learn", ":")):
        values = analysis.final(ACCURACY, rule=rule, design=first)["value"]
        if values.notna().any():
            references[name] = (float(values.mean()), dashes)
    curves = pd.concat([result.to_frame().assign(curve=_name(design)) for design, (result, _) in found.items()])
    drawn = chart(curves, n_seeds=found[first][0].n_seeds, references=references, see=answers[0])
    tables = tuple(_table(design, *results) for design, results in found.items())
    return Answer(answers, tables, (drawn,), tuple(dict.fromkeys(notes)))


def _name(design: str) -> str:
    return design.replace("_", " ")


def _answer(design: str, result: DoseResponse, at_loss: DoseAtLoss) -> str:
    frame = result.to_frame()
    last = frame.iloc[-1]
    text = (
        f"{sentence(_name(design))}: from {result.doses[0]:g}° to {result.doses[-1]:g}° test "
        f"accuracy goes from {reading(frame['mean'].iloc[0], ACCURACY)} to {reading(last['mean'], ACCURACY)} "
        f"(Page's trend p {p_text(result.p_page)})"
    )
    if math.isinf(at_loss.estimate):
        return f"{text}; fewer than half of the seeds ever lose a point."
    low, high = at_loss.interval
    bounds = f" [{number(low, 0)}, {number(high, 0) if math.isfinite(high) else 'beyond the last'}]"
    return f"{text}; a point is lost at {number(at_loss.estimate, 0)}°{bounds if math.isfinite(low) else ''}."


def _curved(result: DoseResponse) -> str:
    """What share of the differences between angles a straight line leaves out, where that is shown to be some."""
    bent = [part for part in result.polynomial if part.degree > 1 and part.p_adjusted < 0.05]
    if not bent:
        return ""
    return f", but the curve is none: a line accounts for {result.polynomial[0].share:.0%} of what the angles differ by"


def _table(design: str, result: DoseResponse, at_loss: DoseAtLoss) -> Table:
    frame = result.to_frame()
    caption = (
        f"Design {_name(design)}: test accuracy by imposed angle, {result.n_seeds} seeds. The best straight "
        f"line has a slope of {number(result.estimate, 3)} points a degree [{number(result.interval[0], 3)}, "
        f"{number(result.interval[1], 3)}]{_curved(result)}. The angle at which a point is lost: {at_loss.method}."
    )
    return Table.each(f"dose_{design}", caption, frame.to_dict("records"), frame, words=0, columns=[
        ("angle", lambda row: f"{row[DOSE]:g}°"),
        ("test accuracy", lambda row: reading(row["mean"], ACCURACY)),
        (f"change from {result.doses[0]:g}°{in_unit(ACCURACY)}", lambda row: bare_change(row["difference"], ACCURACY)),
        ("95% interval", lambda row: change_interval((row["difference_low"], row["difference_high"]), ACCURACY)),
    ])  # fmt: skip
