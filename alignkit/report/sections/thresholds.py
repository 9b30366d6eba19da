"""Is there a width below which alignment fails, or does it follow a smooth curve?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.columns import digits_of, label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.figures.thresholds import chart
from alignkit.report.section import Answer
from alignkit.report.sections.attempts import attempted
from alignkit.report.tables import Table
from alignkit.stats.curves.dose import DoseResponse, PolynomialContrast, dose_response
from alignkit.stats.curves.thresholds import HeldOut, Threshold, threshold
from alignkit.stats.tables.levels import level_column, level_order
from alignkit.text import (
    ABSENT,
    MINUS,
    change,
    change_interval,
    in_unit,
    level,
    listed,
    number,
    p_text,
    rule_name,
    sentence,
    unit,
)

FACTOR = "width"
LEAST_WIDTHS = 4
DEGREES = {1: "linear", 2: "quadratic", 3: "cubic"}


@dataclass(frozen=True)
class WidthCurve:
    """Alignment over widths under one rule: whether it bends, and its trend on log2 width."""

    rule: str
    bend: Threshold
    trend: DoseResponse


def thresholds(analysis: Analysis) -> Answer | None:
    """Whether alignment has a threshold in width under each taught rule, where a design has four widths or more."""
    design = analysis.width_design
    if design is None or len(level_order(analysis.runs_of(design=design)[FACTOR])) < LEAST_WIDTHS:
        return None
    rules = [rule for rule in analysis.rules if rule != "bp"]
    found, failed = attempted(rules, lambda rule: _curve(analysis, rule, design))
    reasons = [f"{rule_name(rule)}: {why}" for rule, why in failed]
    if not found:
        if reasons:
            raise AnalysisError("; ".join(reasons))
        return None
    response = analysis.response
    answers = [" ".join(_answer(curve, response)) for curve in found]
    seeds = pd.concat([_by_seed(curve) for curve in found])
    bends = {curve.rule: curve.bend for curve in found}
    drawn = chart(seeds, bends, response=response, see=_answer(found[0], response)[0])
    notes = [f"{reason}." for reason in reasons]
    runs = analysis.runs_of(design=design)
    rates = runs.loc[runs["rule"].isin(bends), "lr"].dropna()
    if rates.nunique() > 1:
        notes.append(
            f"Learning rates differ between runs ({rates.min():g} to {rates.max():g}): where they differ between "
            "widths, a bend may be one of the rate."
        )
    for curve in found:
        said = dict.fromkeys((*curve.bend.warnings, *curve.trend.warnings))
        notes += [f"{rule_name(curve.rule)}: {warning}." for warning in said]
    notes += [
        "A rejected line is no threshold: that verdict also needs the bent line to predict held-out seeds better than "
        "every smooth curve. A line that is not rejected is no proof of a line.",
        "The sup-F test supposes that a seed's deviations from its own line are as likely with all signs turned. "
        "Networks of different widths share their data order, not their weights.",
    ]
    return Answer(tuple(answers), tuple(_tables(found, response, design)), (drawn,), tuple(notes))


def _curve(analysis: Analysis, rule: str, design: str) -> WidthCurve:
    table = analysis.final(analysis.response, rule=rule, design=design)
    others = [name for name in analysis.factors if name != FACTOR]
    bend = threshold(table, factor=FACTOR, within=others)
    whole = _whole_curves(table, others)
    averaged = whole.groupby(["seed", FACTOR])["value"].mean().reset_index()
    return WidthCurve(rule, bend, dose_response(averaged, dose=FACTOR, scale="log2"))


def _by_seed(curve: WidthCurve) -> pd.DataFrame:
    """Each seed's values over widths: a row for each."""
    long = curve.trend.curves.melt(var_name=FACTOR, ignore_index=False).rename_axis("seed").reset_index()
    return long.assign(rule=curve.rule)


def _whole_curves(table: pd.DataFrame, others: list[str]) -> pd.DataFrame:
    """The runs of each seed and cell that have a value at every width: those that `threshold` takes."""
    texts = pd.DataFrame({name: level_column(table[name]).fillna("") for name in others}, index=table.index)
    cell = ["\x1f".join(map(str, row)) for row in texts.itertuples(index=False, name=None)]
    rows = table.assign(cell=cell, at=level_column(table[FACTOR])).dropna(subset=["at", "value"])
    widths = rows.groupby(["seed", "cell"])["at"].transform("nunique")
    return rows[widths == len(level_order(table[FACTOR]))]


def _answer(curve: WidthCurve, response: str) -> tuple[str, str]:
    """What becomes of a threshold, and the trend."""
    bend, trend = curve.bend, curve.trend
    first, last = (f"{level(bend.means[end], response)} at {bend.levels[end]:g} units" for end in (0, -1))
    text = f"{rule_name(curve.rule)}'s {label_of(response)} goes from {first} to {last}, "
    place = (
        f"at {_units(bend.estimate)} units {_span(bend.interval)}, where its change per doubling of the width turns "
        f"from {change(bend.slopes[0], response)} to {change(bend.slopes[1], response)}"
    )
    if bend.verdict == "threshold":
        text += f"with a threshold {place}"
    elif bend.verdict == "line":
        text += "and no threshold is shown"
    elif math.isnan(bend.interval[0]):
        text += "along a curve without a single bend"
    else:
        text += f"along a curve that is no clear threshold: a single bend would be {place}"
    linear = trend.polynomial[0]
    return (
        f"{text} (sup-F p {p_text(bend.p)}). {sentence(bend.reason)}.",
        f"The straight trend is {change(linear.estimate, response)} {change_interval(linear.interval, response)} per "
        f"doubling, {_share(linear)} of what widths differ by (Page's trend p {p_text(trend.p_page)}).",
    )


def _tables(curves: list[WidthCurve], response: str, design: str) -> list[Table]:
    where = f"{label_of(response)} over the widths of the design {design}"
    return [_bends(curves, response, where), _models(curves, response, where), _trends(curves, response, where)]


def _bends(curves: list[WidthCurve], response: str, where: str) -> Table:
    caption = (
        f"Whether the {where} bends, and where; slopes are per doubling. p: the largest F over bends against a line, "
        "under random signs of whole seeds. The interval holds every bend that these seeds do not reject."
    )
    data = _by_rule([(curve, curve.bend.to_frame().assign(response=response)) for curve in curves])
    return Table.each("thresholds", caption, curves, data, words=2, columns=[
        ("rule", lambda curve: rule_name(curve.rule)),
        ("verdict", lambda curve: curve.bend.verdict),
        ("bend at", lambda curve: _units(curve.bend.estimate)),
        ("95% interval", lambda curve: _span(curve.bend.interval) or ABSENT),
        ("slope below", lambda curve: change(curve.bend.slopes[0], response)),
        ("slope above", lambda curve: change(curve.bend.slopes[1], response)),
        ("sup-F", lambda curve: number(curve.bend.sup_f, 1)),
        ("p", lambda curve: p_text(curve.bend.p)),
        ("seeds", lambda curve: str(curve.bend.n_seeds)),
    ])  # fmt: skip


def _models(curves: list[WidthCurve], response: str, where: str) -> Table:
    square = f" ({unit_of(response)}\N{SUPERSCRIPT TWO})" if unit_of(response) else ""
    degrees = unit(response) * (unit_of(response) == "°")
    caption = (
        f"How well each curve through the {where}, fitted to the other seeds, predicts a seed that it has not seen: "
        "root mean squared error, and what the segmented line takes off the mean squared error (exact sign-flip test "
        "over seeds)."
    )
    models = [(curve.rule, model) for curve in curves for model in curve.bend.held_out]
    data = _by_rule(
        [(curve, pd.DataFrame([_held_out_row(model) for model in curve.bend.held_out])) for curve in curves]
    )
    return Table.each("thresholds_curves", caption, models, data, words=2, columns=[
        ("rule", lambda of: rule_name(of[0])),
        ("curve", lambda of: of[1].model),
        (f"held-out error{in_unit(response)}", lambda of: number(of[1].rmse, digits_of(response) + 1) + degrees),
        (f"gain of a bend{square}", lambda of: _gain(of[1])),
        ("95% interval", lambda of: _significant_span(of[1].interval)),
        ("p", lambda of: p_text(of[1].p)),
    ])  # fmt: skip


def _trends(curves: list[WidthCurve], response: str, where: str) -> Table:
    pages = listed(
        f"{rule_name(curve.rule)} L {curve.trend.page_l:g}, p {p_text(curve.trend.p_page)}" for curve in curves
    )
    caption = (
        f"Orthogonal polynomial contrasts of the {where} on log2 width, one coefficient a seed; share: of the means' "
        f"sum of squares over widths. Page's test of a monotone trend, two-sided: {pages}."
    )
    parts = [(curve.rule, part) for curve in curves for part in curve.trend.polynomial]
    data = _by_rule([(curve, curve.trend.polynomial_frame()) for curve in curves])
    return Table.each("thresholds_trend", caption, parts, data, words=2, columns=[
        ("rule", lambda of: rule_name(of[0])),
        ("component", lambda of: DEGREES[of[1].degree]),
        (f"estimate{in_unit(response)}", lambda of: change(of[1].estimate, response)),
        ("95% interval", lambda of: change_interval(of[1].interval, response)),
        ("p", lambda of: p_text(of[1].p)),
        ("Holm p", lambda of: p_text(of[1].p_adjusted)),
        ("share", lambda of: _share(of[1])),
    ])  # fmt: skip


def _by_rule(frames: list[tuple[WidthCurve, pd.DataFrame]]) -> pd.DataFrame:
    return pd.concat([frame.assign(rule=curve.rule) for curve, frame in frames], ignore_index=True)


def _held_out_row(model: HeldOut) -> dict[str, object]:
    low, high = model.interval
    return {
        "model": model.model,
        "rmse": model.rmse,
        "improvement": model.improvement,
        "low": low,
        "high": high,
        "p": model.p,
    }


def _share(part: PolynomialContrast) -> str:
    return f"{part.share:.0%}" if math.isfinite(part.share) else ABSENT


def _units(width: float) -> str:
    return number(width, 0)


def _span(interval: tuple[float, float]) -> str:
    return "" if math.isnan(interval[0]) else f"[{_units(interval[0])}, {_units(interval[1])}]"


def _gain(model: HeldOut) -> str:
    return ABSENT if model.model == "segmented" else _significant(model.improvement)


def _significant(value: float) -> str:
    """Three significant digits: squared errors of angles and of cosines are of different orders."""
    return f"{value:+.3g}".replace("-", MINUS)


def _significant_span(interval: tuple[float, float]) -> str:
    return ABSENT if math.isnan(interval[0]) else f"[{_significant(interval[0])}, {_significant(interval[1])}]"
