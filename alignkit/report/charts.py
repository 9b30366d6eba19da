"""Which figures a study's records can carry, each with a caption that says what to see and how it was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from alignkit import figures
from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.report.analysis import IMPOSED, Analysis, varying_factors
from alignkit.stats.contrasts.contrasts import Contrast
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.tables.levels import in_design, level_order
from alignkit.text import (
    change,
    change_interval,
    count,
    level,
    listed,
    number,
    rule_name,
    sentence,
    slug,
    with_interval,
)


@dataclass(frozen=True)
class Chart:
    """A figure of the report. `see` is its main message, `how` says what was drawn."""

    name: str
    title: str
    see: str
    how: str
    figure: Figure


def charts(analysis: Analysis) -> tuple[list[Chart], list[str]]:
    """The figures in the order of the page, and a line for each that does not apply."""
    found: list[Chart] = []
    absent: list[str] = []

    def attempt(what: str, make: Callable[[], Chart]) -> None:
        try:
            found.append(make())
        except AnalysisError as error:
            absent.append(f"{what}: {error}.")

    if analysis.alignment is None:
        imposed = IMPOSED & set(analysis.records.study.rules)
        why = "the angle was imposed" if imposed else "no run has a defined alignment measure"
        absent.append(f"No figure of alignment: {why}.")
        return found, absent
    attempt("Alignment over training", lambda: _training(analysis))
    varied = [rule for rule in analysis.rules if any(found.rule == rule for found in analysis.effects)]
    for rule in varied:
        attempt(f"Alignment by factor, {rule_name(rule)}", partial(_factors, analysis, rule))
    if analysis.width_design is None:
        absent.append("Width curve: no design has three or more widths.")
    else:
        attempt("Width curve", lambda: _width(analysis))
    taught = tuple(rule for rule in analysis.rules if rule != "bp")
    if "bp" not in analysis.records.study.rules or not taught:
        absent.append("Accuracy gap against alignment: it needs BP and another rule in one study.")
    else:
        attempt("Accuracy gap against alignment", lambda: _gap(analysis, taught))
    for rule in varied:
        attempt(f"All effects, {rule_name(rule)}", partial(_forest, analysis, rule))
    for rule in analysis.rules:
        if rule not in varied:
            absent.append(f"Effects of factors, {rule_name(rule)}: no design varies a factor within its runs.")
    return found, absent


def _training(analysis: Analysis) -> Chart:
    response = _alignment(analysis)
    figure = figures.alignment_over_training(
        analysis.records, rules=analysis.rules, design=analysis.design, response=response
    )
    sentences, bands = [], False
    for rule in analysis.rules:
        table = figures.curves(analysis.records, rule=rule, design=analysis.design, response=response)
        bands = bands or bool(table["low"].notna().any())
        ends = table[table["step"] == table["step"].max()].set_index("layer")["mean"]
        signal = "signal" if rule != "bp" else "runs' untaught feedback"
        start, final = _mean_at(analysis, rule, response, table["step"].min()), analysis.final(rule, response)
        end = final.estimate if final else float("nan")
        name = sentence(rule_name(rule))
        text = f"{name}'s {signal} goes from {level(start, response)} to {level(end, response)} on average"
        if len(ends) > 1:
            best = ends.idxmin() if response.endswith("_deg") else ends.idxmax()
            text += f", layer {best} ending closest to BP ({level(ends[best], response)})"
        sentences.append(text + ".")
    cells = _cells(analysis, analysis.design)
    how = f"Mean over {_seeds(analysis)} of each seed's mean over {cells}"
    how = how if _several_seeds(analysis) else f"Mean over {cells}, of one seed"
    how += "; bands: 95% t intervals over seeds" if bands else ""
    how = f"{how}. {_where(analysis, analysis.design)}".strip()
    if _depths(analysis) > 1:
        how += (
            " A layer's line averages the networks that are deep enough to have it; the average of the first sentence "
            "is over all networks, each by the mean of its own layers."
        )
    runs = analysis.records.runs
    if runs.loc[in_design(runs, analysis.design), "diverged"].any():
        how += " A run that diverged is in no mean from that step on."
    if "bp" in analysis.records.study.rules and "bp" not in analysis.rules:
        how += " Dashed: the same measure in the BP runs, for a feedback that never teaches."
    return Chart("alignment_over_training", "Alignment over training", " ".join(sentences), how, figure)


def _factors(analysis: Analysis, rule: str) -> Chart:
    response = _alignment(analysis)
    design = _design_for(analysis, rule)
    effects = _effects(analysis, rule, design)
    figure = figures.alignment_by_factor(analysis.records, effects, rule=rule, design=design, response=response)
    largest = max(effects, key=lambda effect: abs(effect.estimate))
    clear = sum(effect.p_adjusted < 0.05 for effect in effects)
    see = (
        f"The largest effect is that of {figures.row_label(largest.factor, largest.levels)}: "
        f"{with_interval(change(largest.estimate, response), change_interval(largest.interval, response))}. "
        f"{clear} of {count(len(effects), 'effect')} {'has' if clear == 1 else 'have'} an adjusted p below .05."
    )
    how = (
        f"The {label_of(response)} at the end of training, averaged over hidden layers and over the other factors. "
        f"Thin lines: one for each of {_seeds(analysis)}; thick: their mean. In brackets: the 95% t interval of the "
        f"difference within seeds. {_where(analysis, design)}"
    )
    name = "alignment_by_factor" if rule == analysis.rules[0] else f"alignment_by_factor_{slug(rule)}"
    return Chart(name, f"Alignment by factor, {rule_name(rule)}", see, how, figure)


def _width(analysis: Analysis) -> Chart:
    design = analysis.width_design
    response = "signal_cosine" if _recorded(analysis, "signal_cosine") else _alignment(analysis)
    figure = figures.width_curve(analysis.records, rules=analysis.rules, design=design, response=response)
    table = figures.final_values(analysis.records, rule=analysis.rules[0], design=design, response=response)
    means = table.assign(at=pd.to_numeric(table["width"], errors="coerce")).groupby("at")["value"].mean().dropna()
    see = (
        f"From {means.index[0]:g} to {means.index[-1]:g} units a layer, the mean {label_of(response)} goes from "
        f"{level(means.iloc[0], response)} to {level(means.iloc[-1], response)} under {rule_name(analysis.rules[0])}."
    )
    how = f"Dots: single seeds; lines: means over {_seeds(analysis)}, layer by layer, at the end of training."
    if response == "signal_cosine" and _recorded(analysis, "ceiling_cosine"):
        how += (
            " Dashed, layer by layer: the cosine of the BP signal with its projection on what the feedback can send, "
            "the best possible."
        )
    return Chart("width_curve", "The width curve", see, f"{how} {_where(analysis, str(design))}", figure)


def _gap(analysis: Analysis, rules: tuple[str, ...]) -> Chart:
    response = _alignment(analysis)
    factor = _strongest_factor(analysis, rules[0])
    figure = figures.accuracy_gap_against_alignment(
        analysis.records,
        rules=rules,
        design=analysis.design,
        response=response,
        colour_by=factor if len(rules) == 1 else None,
    )
    final = analysis.final(rules[0], "accuracy_gap")
    gap = f"{rule_name(rules[0])} ends {level(abs(final.estimate), 'accuracy_gap')} " if final else ""
    see = f"{gap}{'below' if final and final.estimate < 0 else 'above'} BP in test accuracy on average. " if gap else ""
    association = _association(analysis, rules[0], response)
    if association:
        see += association
    dots = "Faint dots: runs; large dots: means of cells over seeds." if _several_seeds(analysis) else "Dots: runs."
    how = (
        f"{dots} The gap is the test accuracy of a run minus that of the BP run with the same cell and seed. Alignment "
        "was not randomised: this is an association, and no cause can be read from it. "
        f"{_where(analysis, analysis.design)}"
    ).strip()
    return Chart("accuracy_gap", "Accuracy gap against alignment", see.strip(), how, figure)


def _forest(analysis: Analysis, rule: str) -> Chart:
    design = _design_for(analysis, rule)
    found = analysis.effects_of(rule, design)
    by_response = dict(found.by_response) if found else {}
    # The gap to BP already holds what a factor does to BP itself.
    dropped = "test_accuracy" if "accuracy_gap" in by_response else "accuracy_gap"
    groups = {response: effects for response, effects in by_response.items() if response != dropped}
    claims = analysis.records.study.claims
    smallest = {(claim.factor, claim.response): claim.smallest_effect for claim in claims if claim.rule == rule}
    figure = figures.forest(
        groups, smallest=smallest, title=f"{rule_name(rule)}: effect of each change, with 95% intervals"
    )
    see = "Each change in one line: left of zero the response falls, right of it it rises."
    how = (
        "Estimates and 95% t intervals of differences within seeds, averaged over the other factors; filled dots have "
        f"an adjusted p below .05 (exact sign-flip test, Holm within a column). {_where(analysis, design)}"
    )
    if any((effect.factor, response) in smallest for response, effects in groups.items() for effect in effects):
        how += " Grey bands: effects too small to matter, as the claims declare them."
    name = "effects" if rule == analysis.rules[0] else f"effects_{slug(rule)}"
    return Chart(name, f"All effects, {rule_name(rule)}", see, how, figure)


def _alignment(analysis: Analysis) -> str:
    if analysis.alignment is None:
        raise AnalysisError("expected an alignment measure; none was recorded")
    return analysis.alignment


def _design_for(analysis: Analysis, rule: str) -> str:
    """The main design, or the first that varies a factor under this rule."""
    for design in (analysis.design, *analysis.designs):
        if analysis.effects_of(rule, design):
            return design
    return analysis.design


def _effects(analysis: Analysis, rule: str, design: str) -> tuple[Contrast, ...]:
    found = analysis.effects_of(rule, design)
    effects = found.by_response.get(_alignment(analysis), ()) if found else ()
    if not effects:
        raise AnalysisError("no two levels of a factor can be compared on it")
    return effects


def _strongest_factor(analysis: Analysis, rule: str) -> str | None:
    found = analysis.effects_of(rule, analysis.design)
    effects = found.by_response.get(_alignment(analysis), ()) if found else ()
    if effects:
        return max(effects, key=lambda effect: abs(effect.estimate)).factor
    varying = varying_factors(analysis.records, rule=rule, design=analysis.design)
    return varying[0] if varying else None


def _association(analysis: Analysis, rule: str, response: str) -> str:
    """The correlation over cells within each seed: the seed stays the unit."""
    table = figures.final_values(analysis.records, rule=rule, design=analysis.design, response=response)
    gap = figures.final_values(analysis.records, rule=rule, design=analysis.design, response="accuracy_gap")
    table = table.assign(gap=gap["value"]).dropna(subset=["value", "gap"])
    correlations = [
        np.corrcoef(part["value"], part["gap"])[0, 1]
        for _, part in table.groupby("seed")
        if len(part) >= 4 and part["value"].std() > 0 and part["gap"].std() > 0
    ]
    if len(correlations) < 2:
        return ""
    result = paired_test(correlations)
    low, high = result.interval
    return (
        f"Over the cells of a seed, gap and {label_of(response)} correlate by {number(result.estimate, 2)} "
        f"[{number(low, 2)}, {number(high, 2)}]."
    )


def _mean_at(analysis: Analysis, rule: str, response: str, step: int) -> float:
    """The mean over a design's runs at a checkpoint, each by the mean of its layers: as the report's lead has it."""
    runs = analysis.records.runs
    runs = runs[(runs["rule"] == rule) & in_design(runs, analysis.design)]
    layers = analysis.records.layers
    by_run = runs.set_index("run_id").assign(mean=layers[layers["step"] == step].groupby("run_id")[response].mean())
    return float(by_run.groupby("seed")["mean"].mean().mean())


def _several_seeds(analysis: Analysis) -> bool:
    return bool(analysis.records.runs["seed"].nunique() > 1)


def _recorded(analysis: Analysis, measure: str) -> bool:
    return bool(analysis.records.layers[measure].notna().any())


def _depths(analysis: Analysis) -> int:
    runs = analysis.records.runs
    chosen = runs.loc[in_design(runs, analysis.design), "run_id"]
    layers = analysis.records.layers
    return int(layers[layers["run_id"].isin(chosen)].groupby("run_id")["layer"].max().nunique())


def _seeds(analysis: Analysis) -> str:
    return count(int(analysis.records.runs["seed"].nunique()), "seed")


def _cells(analysis: Analysis, design: str) -> str:
    runs = analysis.records.runs
    return count(int(runs.loc[in_design(runs, design) & (runs["rule"] == analysis.rules[0]), "cell"].nunique()), "cell")


def _where(analysis: Analysis, design: str) -> str:
    """The design in words: what varies in it."""
    varying = varying_factors(analysis.records, rule=analysis.rules[0], design=design)
    if not varying:
        return ""
    runs = analysis.records.runs
    names = [
        f"{name.replace('_', ' ')} ({len(level_order(runs.loc[in_design(runs, design), name]))} levels)"
        if len(varying) == 1
        else name.replace("_", " ")
        for name in varying
    ]
    return f"Design {design}: {listed(names)}; {_cells(analysis, design)}."
