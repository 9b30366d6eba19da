"""When alignment comes: layer by layer, and before or after the training loss has fallen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.columns import label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.figures.phases import chart
from alignkit.report.section import Answer
from alignkit.report.sections.attempts import attempted
from alignkit.report.sections.dose import RULE as IMPOSED
from alignkit.report.tables import Table
from alignkit.stats.curves.phase_order import LayerOrder, PhaseLag, layer_order, phase_lag
from alignkit.stats.curves.phases import PhaseSummary, memorisation_times, phase_summaries, phase_times
from alignkit.text import ABSENT, interval_text, listed, number, p_text, rule_name, sentence, signed, slug

EVENTS: tuple[Literal["onset", "saturation"], ...] = ("onset", "saturation")
LEAST_CHECKPOINTS = 4
"""With fewer, an onset and a saturation would lie between the same two checkpoints."""
ANGLE: Any = {"better": "lower", "chance": 90.0, "margin": 2.0}
COSINE: Any = {"better": "higher", "chance": 0.0, "margin": 0.035}
"""As for angles: what counts is two degrees off chance, where a cosine changes by .035."""


@dataclass(frozen=True)
class Phases:
    """The phases of one rule's runs: when events come, in which order, and beside the fall of the training loss.

    `page` holds the p of Page's trend over layers by event and depth. `lags` are those of the training loss behind
    saturation, of all layers first and then of each.
    """

    rule: str
    steps: tuple[int, ...]
    summaries: tuple[PhaseSummary, ...]
    orders: dict[str, LayerOrder]
    page: dict[tuple[str, int], float]
    lags: tuple[PhaseLag, ...]
    notes: tuple[str, ...]


def phases(analysis: Analysis) -> Answer | None:
    """Onset and saturation by layer under each taught rule, their order, and whether alignment comes before fitting."""
    # Elsewhere nothing learns to align: the feedback never teaches, or the angle is set.
    rules = [rule for rule in analysis.rules if rule not in ("bp", IMPOSED)]
    found, failed = attempted(rules, lambda rule: _phases(analysis, rule))
    reasons = [f"{rule_name(rule)}: {why}" for rule, why in failed]
    if not found:
        if reasons:
            raise AnalysisError("; ".join(reasons))
        return None
    answers: list[str] = []
    tables: list[Table] = []
    notes = [f"{reason}." for reason in reasons]
    for made in found:
        suffix = "" if made is found[0] else f"_{slug(made.rule)}"
        answers += _answers(made)
        tables += _tables(analysis, made, suffix)
        notes += made.notes
    times = pd.concat([_times(made) for made in found])
    drawn = chart(times, steps={made.rule: made.steps for made in found}, see=answers[0])
    notes += [
        "Onset: the last time that a layer leaves chance (and where it started) by 10% of its improvement and at least "
        "two degrees, before its best. Saturation: 90% of the improvement that this run made, so no sign that "
        "alignment would not go on with more training; one in the last fifth of training is censored.",
        "Times are interpolated between checkpoints. Lags are in doublings of 1 + step, one number a seed; what has "
        "not happened counts at the end of training, which draws lags towards 0. Nothing of this was declared as a "
        "claim: p-values are those of single tests, adjusted (Holm) among neighbouring layers alone.",
    ]
    return Answer(tuple(answers), tuple(tables), (drawn,), tuple(dict.fromkeys(notes)))


def _times(made: Phases) -> pd.DataFrame:
    """When each event comes: a row for each."""
    return pd.concat([result.to_frame() for result in made.summaries], ignore_index=True).assign(rule=made.rule)


def _phases(analysis: Analysis, rule: str) -> Phases:
    response, runs = analysis.response, analysis.runs_of(rule=rule, design=analysis.design)
    layers = analysis.own_layers()
    layers = layers[layers["run_id"].isin(runs["run_id"])]
    steps = sorted(int(step) for step in layers.loc[layers[response].notna(), "step"].unique())
    if len(steps) < LEAST_CHECKPOINTS:
        raise AnalysisError(
            f"expected at least {LEAST_CHECKPOINTS} checkpoints at which the {label_of(response)} is known; "
            f"got {len(steps)}. Measure more often"
        )
    times = phase_times(runs, layers, response=response, **(ANGLE if unit_of(response) == "°" else COSINE))
    notes: list[str] = []
    summaries = phase_summaries(times)
    orders, page = _orders(times, rule, notes)
    lags: tuple[PhaseLag, ...] = ()
    try:
        fitted = memorisation_times(runs, analysis.checkpoints)
        summaries += phase_summaries(fitted, by=None)
        lags = _lags(times[times["event"] == "saturation"], fitted)
    except AnalysisError as error:
        notes.append(f"{rule_name(rule)}, training loss: {error}.")
    depths = times.groupby("run_id")["layer"].max().unique()
    if len(depths) > 1:
        notes.append(
            f"Networks have {listed(map(str, sorted(depths)))} hidden layers: a layer's row is of those that have it, "
            "and the last layer is each network's own."
        )
    ends = sorted(times["horizon"].unique())
    if len(ends) > 1:
        notes.append(f"{rule_name(rule)}: runs end after {listed(f'{end:,.0f}' for end in ends)} steps.")
    for warning in dict.fromkeys(text for result in summaries for text in result.warnings):
        where = [_name(result) for result in summaries if warning in result.warnings]
        of = "" if len(where) == len(summaries) else f", {listed(where)}"
        notes.append(f"{rule_name(rule)}{of}: {warning}.")
    return Phases(rule, tuple(steps), summaries, orders, page, lags, tuple(notes))


def _orders(
    times: pd.DataFrame, rule: str, notes: list[str]
) -> tuple[dict[str, LayerOrder], dict[tuple[str, int], float]]:
    """The order of layers for each event, and Page's p over three layers or more, for each depth of its own."""
    orders: dict[str, LayerOrder] = {}
    page: dict[tuple[str, int], float] = {}
    depth = times.groupby("run_id")["layer"].transform("nunique")
    if depth.max() < 2:
        return orders, page
    for event in EVENTS:
        try:
            orders[event] = layer_order(times, event=event)
            for layers in sorted(int(value) for value in depth.unique() if value > 2):
                page[event, layers] = layer_order(times[depth == layers], event=event).page_p
        except AnalysisError as error:
            notes.append(f"{rule_name(rule)}, order of layers, {event}: {error}.")
    return orders, page


def _lags(saturation: pd.DataFrame, fitted: pd.DataFrame) -> tuple[PhaseLag, ...]:
    """How much later than saturation the loss has fallen: the mean over a run's layers, and each layer."""
    lags = [phase_lag(saturation, fitted, comparison="loss after saturation, all layers")]
    layers = sorted(saturation["layer"].unique())
    for layer in layers if len(layers) > 1 else ():
        own = saturation[saturation["layer"] == layer]
        those = fitted[fitted["run_id"].isin(own["run_id"])]
        lags.append(phase_lag(own, those, comparison=f"loss after saturation, layer {layer}"))
    return tuple(lags)


def _answers(made: Phases) -> list[str]:
    at = {(result.event, result.group): result for result in made.summaries}
    layers = [group for event, group in at if event == "onset"]
    parts = [
        f"layer {layer} begins to align {_at(at['onset', layer])} and saturates {_at(at['saturation', layer])}"
        for layer in dict.fromkeys((layers[0], layers[-1]))
    ]
    sentences = [f"Under {rule_name(made.rule)}, {', '.join(parts)}."]
    sentences += [_order_sentence(event, order, made) for event, order in made.orders.items()]
    if made.lags:
        sentences.append(_lag_sentence(at["memorisation", "all"], made.lags))
    return sentences


def _order_sentence(event: str, order: LayerOrder, made: Phases) -> str:
    what, does = ("begin to align", "begins to align") if event == "onset" else ("saturate", "saturates")
    size = f"the last layer {does} {_doublings(order.estimate, order.interval)} the first"
    if order.n_seeds < 2:
        return f"In one seed, which is no test, {size}."
    trends = [
        f"{p_text(p)} over {depth} layers" for (of, depth), p in made.page.items() if of == event and math.isfinite(p)
    ]
    evidence = f"p {p_text(order.p)}{f'; Page trend p {listed(trends)}' if trends else ''}"
    if order.p >= 0.05:
        return f"No order in which layers {what} is shown: {size} ({evidence})."
    neighbours = order.pairs[1:]
    shown = [pair for pair in neighbours if pair.p < 0.05]
    same = [pair.comparison for pair in shown if pair.estimate * order.estimate > 0]
    # All of them at once need no adjustment: the order of the whole is shown only where each neighbour's is.
    if len(same) == len(neighbours):
        return f"{'Lower' if order.estimate > 0 else 'Upper'} layers {what} first: {size} ({evidence})."
    reverse = [pair.comparison for pair in shown if pair.estimate * order.estimate < 0]
    unclear = [f"{pair.comparison} (p {p_text(pair.p)})" for pair in neighbours if pair not in shown]
    found = (("that order is shown for", same), ("the reverse for", reverse), ("neither for", unclear))
    parts = "; ".join(f"{words} {listed(names)}" for words, names in found if names)
    return f"{sentence(size)} ({evidence}), but not each layer in turn: of neighbours, {parts}."


def _lag_sentence(fitted: PhaseSummary, lags: tuple[PhaseLag, ...]) -> str:
    overall, *by_layer = lags
    text = f"The training loss has made nine tenths of its fall {_at(fitted)}"
    size = f"{_doublings(overall.estimate, overall.interval)} alignment saturates"
    if by_layer:
        each = listed(_later(lag.estimate) for lag in by_layer)
        size += f" on the mean of layers (layer by layer {each})"
    if overall.n_seeds < 2:
        return f"{text}, {size}: one seed, no test."
    if overall.p >= 0.05:
        return f"{text}, {size}: which of the two comes first is not shown (p {p_text(overall.p)})."
    order = (
        "networks align, then memorise"
        if overall.estimate > 0
        else "alignment still improves when most of the fitting is done"
    )
    return f"{text}, {size}: {order} (p {p_text(overall.p)})."


def _tables(analysis: Analysis, made: Phases, suffix: str) -> list[Table]:
    name, measure = rule_name(made.rule), label_of(analysis.response)
    caption = (
        f"{name}: when the {measure} of each layer begins to improve and when it saturates, in steps, and when the "
        "training loss has made nine tenths of its fall. A run without the event by the end is later than any with it."
    )
    times = Table.each(f"phases{suffix}", caption, made.summaries, _times(made).drop(columns="rule"), columns=[
        ("event", _name),
        ("median step", lambda result: _when(result.estimate)),
        ("95% interval", lambda result: _span(result.interval)),
        ("seeds", lambda result: str(result.n_seeds)),
        ("runs", lambda result: f"{result.n_runs:,}"),
        ("not by the end", lambda result: f"{result.n_censored:,}"),
        ("undefined", lambda result: f"{result.n_undefined:,}"),
    ])  # fmt: skip
    pairs = [*(pair for order in made.orders.values() for pair in order.pairs), *made.lags]
    if not pairs:
        return [times]
    caption = (
        f"{name}: how much later the first named comes than the second, in doublings of 1 + step (1: twice as late), "
        "within runs. p: exact sign-flip test over seeds; Holm among neighbouring layers."
    )
    data = pd.concat([pair.to_frame() for pair in pairs], ignore_index=True)
    order = Table.each(f"phases_order{suffix}", caption, pairs, data, columns=[
        ("comparison", lambda pair: f"{'' if pair in made.lags else f'{pair.event}: layer '}{pair.comparison}"),
        ("lag", lambda pair: signed(pair.estimate, 2)),
        ("95% interval", lambda pair: interval_text(pair.interval, 2)),
        ("p", lambda pair: p_text(pair.p) if pair.n_seeds > 1 else ABSENT),
        ("Holm p", lambda pair: p_text(pair.p_adjusted) if pair.n_seeds > 1 else ABSENT),
        ("seeds", lambda pair: str(pair.n_seeds)),
        ("runs", lambda pair: f"{pair.n_runs:,}"),
        ("one censored", lambda pair: f"{pair.n_censored:,}"),
        ("both censored", lambda pair: f"{pair.n_ties:,}"),
    ])  # fmt: skip
    return [times, order]


def _name(result: PhaseSummary) -> str:
    return "training loss" if result.event == "memorisation" else f"{result.event}, layer {result.group}"


def _at(result: PhaseSummary) -> str:
    if math.isnan(result.estimate):
        return "at no step that is known, every curve having missing values"
    if math.isinf(result.estimate):
        return "by the end of training in half of the seeds or fewer"
    span = _span(result.interval)
    return f"at step {_when(result.estimate)}" + ("" if span == ABSENT else f" {span}")


def _when(time: float) -> str:
    if math.isinf(time):
        return "not by the end"
    return number(time, 0 if time >= 10 else 1)


def _span(interval: tuple[float, float]) -> str:
    if any(map(math.isnan, interval)):
        return ABSENT
    beyond = "beyond the end"
    if math.isinf(interval[0]):
        return f"[{beyond}]"
    return f"[{_when(interval[0])}, {beyond if math.isinf(interval[1]) else _when(interval[1])}]"


def _doublings(estimate: float, interval: tuple[float, float]) -> str:
    """A lag in words, the interval in its direction: "0.17 doublings of training time [0.10, 0.24] before"."""
    size, side = _later(estimate).rsplit(" ", 1)
    span = interval_text(interval if estimate >= 0 else (-interval[1], -interval[0]), 2)
    return f"{size} doublings of training time {'' if span == ABSENT else f'{span} '}{side}"


def _later(lag: float) -> str:
    return f"{number(abs(lag), 2)} {'after' if lag >= 0 else 'before'}"
