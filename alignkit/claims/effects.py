"""What every factor does: the contrasts of each rule in each design, whether a claim names them or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignkit.columns import GAP, label_of
from alignkit.errors import AnalysisError
from alignkit.records.rows import final_values, rows_of
from alignkit.records.store import Records
from alignkit.settings.study_options import SECTIONS
from alignkit.stats.contrasts.contrasts import Contrast, contrasts
from alignkit.stats.tables.levels import level_order
from alignkit.study.designs import column_name
from alignkit.text import rule_name

STREAMS = "streams_"
"""What the columns of factors that are draws of randomness begin with."""


@dataclass(frozen=True)
class DesignEffects:
    """The contrasts of one rule in one design, by response."""

    rule: str
    design: str
    by_response: dict[str, tuple[Contrast, ...]]


def design_effects(
    records: Records, designs: Sequence[str], alignment: str | None
) -> tuple[tuple[DesignEffects, ...], tuple[str, ...]]:
    """Every factor's effects on alignment and accuracy, and a sentence for each that cannot be had."""
    by_design: list[DesignEffects] = []
    notes: list[str] = []
    for design in designs:
        for rule in sorted(records.study.rules, key=lambda rule: rule == "bp"):
            factors = varying_factors(records, rule=rule, design=design)
            effects = _effects(records, rule, design, factors, alignment, notes)
            if any(effects.values()):
                by_design.append(DesignEffects(rule, design, effects))
    return tuple(by_design), tuple(dict.fromkeys(notes))


def varying_factors(records: Records, *, rule: str, design: str) -> list[str]:
    """The factors that vary in a design under a rule; seeds of single streams do not count."""
    return [name for name in _varying(records, rule, design) if not name.startswith(STREAMS)]


def crossed_streams(records: Records, *, rule: str, design: str) -> list[str]:
    """The streams of randomness that a design varies: no level of one is better than another."""
    return [name for name in _varying(records, rule, design) if name.startswith(STREAMS)]


def _varying(records: Records, rule: str, design: str) -> list[str]:
    runs = rows_of(records.runs, rule=rule, design=design)
    return [factor for factor in records.factors if len(level_order(runs[factor])) > 1]


def _effects(
    records: Records, rule: str, design: str, factors: list[str], alignment: str | None, notes: list[str]
) -> dict[str, tuple[Contrast, ...]]:
    place = f"Design {design}, {rule_name(rule)}"
    responses = [*([alignment] if alignment else []), "test_accuracy", *([GAP] if rule != "bp" else [])]
    by_response: dict[str, tuple[Contrast, ...]] = {}
    without: dict[tuple[str, str], list[str]] = {}
    for response in responses if factors else []:
        table = final_values(records, rule=rule, design=design, response=response)
        if not table["value"].notna().any():
            continue
        try:
            results = contrasts(table, factors, base=_first_levels(records, design))
        except AnalysisError as error:
            notes.append(f"{place}: {error}.")
            continue
        by_response[response] = tuple(replace(result, response=response) for result in results if result.n_seeds)
        for result in results:
            if not result.n_seeds:
                change = f"{result.factor}, {result.levels[0]} to {result.levels[1]}"
                without.setdefault((change, "; ".join(result.warnings)), []).append(label_of(response))
    if by_response and not any(by_response.values()):
        notes.append(f"{place}: no effect of {', '.join(factors)} can be had, since none of them changes alone.")
    else:
        notes += [
            f"{place}: the effect of {change} on {', '.join(on)} cannot be had: {why}."
            for (change, why), on in without.items()
        ]
    idle = _idle(by_response)
    if idle:
        notes.append(f"{place}: runs are the same at all levels of {', '.join(idle)}, which are left out.")
        by_response = {name: tuple(e for e in effects if e.factor not in idle) for name, effects in by_response.items()}
    return by_response


def _idle(by_response: Mapping[str, Sequence[Contrast]]) -> list[str]:
    """Factors at whose levels a rule's runs are identical: it does not use them. (Its BP twins may.)"""
    own = [effect for name, effects in by_response.items() if name != GAP for effect in effects]
    moved = {effect.factor for effect in own if any(effect.differences)}
    return sorted({effect.factor for effect in own} - moved)


def _first_levels(records: Records, design: str) -> dict[str, Any]:
    """The level that a study names first for each factor of a design: what the others are compared with."""
    declared = records.study.designs.get(design)
    return {name: levels[0] for name, levels in _declared(declared.factors)} if declared else {}


def _declared(factors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    for key, value in factors.items():
        path = f"{prefix}{key}"
        if isinstance(value, list) and value:
            yield column_name(path), value
        elif isinstance(value, dict) and path.split(".")[0] in SECTIONS:
            yield from _declared(value, f"{path}.")
        elif isinstance(value, dict) and value:
            yield key, list(value)
