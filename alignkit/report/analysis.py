"""All that a report says, worked out before a word of it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignkit.claims.recommendations import recommendations
from alignkit.claims.verdicts import Verdict, evaluate
from alignkit.columns import GAP, MEASURE_COLUMNS, label_of
from alignkit.errors import AnalysisError
from alignkit.records.rows import final_values
from alignkit.records.store import Records
from alignkit.settings.study_options import SECTIONS
from alignkit.stats.contrasts.contrasts import Contrast, contrasts
from alignkit.stats.contrasts.paired import PairedResult, paired_test
from alignkit.stats.tables.levels import in_design, level_order, numeric_levels
from alignkit.study.designs import column_name
from alignkit.text import rule_name

RESPONSES = (
    "signal_angle_deg", "signal_cosine", "delta_cosine", "gradient_cosine", "weight_cosine", "jacobian_cosine",
    "step_cosine",
)  # fmt: skip
"""What a report calls alignment: the first of these that was recorded."""
IMPOSED = frozenset({"imposed_angle"})
"""Rules whose alignment is set, not found."""
STREAMS = "streams_"
"""What the columns of factors that are draws of randomness begin with."""


@dataclass(frozen=True)
class Effects:
    """The contrasts of one rule in one design, by response."""

    rule: str
    design: str
    by_response: dict[str, tuple[Contrast, ...]]


@dataclass(frozen=True)
class Analysis:
    """A study's records, judged.

    `alignment` is the measure that stands for alignment (None where none was recorded); `rules` are the
    rules that have it, the taught ones if there are any; `design` is the one with most runs.
    """

    records: Records
    verdicts: list[Verdict]
    recommendations: list[dict[str, Any]]
    alignment: str | None
    rules: tuple[str, ...]
    design: str
    designs: tuple[str, ...]
    width_design: str | None
    effects: tuple[Effects, ...]
    notes: tuple[str, ...]

    def effects_of(self, rule: str, design: str) -> Effects | None:
        return next((found for found in self.effects if (found.rule, found.design) == (rule, design)), None)

    def final(self, rule: str, response: str) -> PairedResult | None:
        """The mean over seeds at the end of training, each seed averaged over the main design's cells."""
        try:
            table = final_values(self.records, rule=rule, design=self.design, response=response)
        except AnalysisError:
            return None
        means = table.dropna(subset=["value"]).groupby("seed")["value"].mean()
        # Its p would test a mean of zero, which is no question here: only estimate and interval are used.
        return paired_test(means) if len(means) else None


def analyse(records: Records) -> Analysis:
    """Verdicts, recommendations and every factor's effects; whatever cannot be had is left out."""
    verdicts = evaluate(records)
    alignment, rules = _alignment(records)
    designs = tuple(dict.fromkeys(name for names in records.runs["designs"] for name in str(names).split("+")))
    sizes = {design: int(in_design(records.runs, design).sum()) for design in designs}
    main = max(designs, key=lambda design: sizes[design])
    notes: list[str] = []
    effects = tuple(_effects(records, designs, alignment, notes))
    return Analysis(
        records=records,
        verdicts=verdicts,
        recommendations=recommendations(records, verdicts),
        alignment=alignment,
        rules=rules,
        design=main,
        designs=designs,
        width_design=_width_design(records, designs, rules),
        effects=effects,
        notes=tuple(dict.fromkeys(notes)),
    )


def varying_factors(records: Records, *, rule: str, design: str) -> list[str]:
    """The factors of which a design has more than one level under a rule, draws of randomness left aside."""
    return [name for name in _varying(records, rule, design) if not name.startswith(STREAMS)]


def crossed_streams(records: Records, *, rule: str, design: str) -> list[str]:
    """The streams of randomness that a design varies: no level of one is better than another."""
    return [name for name in _varying(records, rule, design) if name.startswith(STREAMS)]


def _varying(records: Records, rule: str, design: str) -> list[str]:
    runs = records.runs[(records.runs["rule"] == rule) & in_design(records.runs, design)]
    return [factor for factor in records.factors if len(level_order(runs[factor])) > 1]


def first_levels(records: Records, design: str) -> dict[str, Any]:
    """The level that a study names first for each factor of a design: what the others are compared with."""
    found = records.study.designs.get(design)
    return {name: levels[0] for name, levels in _declared(found.factors)} if found else {}


def _declared(factors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    for key, value in factors.items():
        path = f"{prefix}{key}"
        if isinstance(value, list) and value:
            yield column_name(path), value
        elif isinstance(value, dict) and path.split(".")[0] in SECTIONS:
            yield from _declared(value, f"{path}.")
        elif isinstance(value, dict) and value:
            yield key, list(value)


def _alignment(records: Records) -> tuple[str | None, tuple[str, ...]]:
    runs = records.runs.loc[~records.runs["rule"].isin(IMPOSED), ["run_id", "rule"]]
    if IMPOSED & set(records.study.rules) and set(runs["rule"]) <= {"bp", "shallow"}:
        return None, ()
    rows = records.layers[["run_id", "signal", *MEASURE_COLUMNS]].merge(runs, on="run_id")
    for only in ("teaching", "bystander"):
        part = rows[rows["signal"] == only]
        for response in RESPONSES:
            with_values = set(part.loc[part[response].notna(), "rule"])
            if with_values:
                return response, tuple(rule for rule in records.study.rules if rule in with_values)
    return None, ()


def _effects(records: Records, designs: tuple[str, ...], alignment: str | None, notes: list[str]) -> Iterator[Effects]:
    for design in designs:
        for rule in sorted(records.study.rules, key=lambda rule: rule == "bp"):
            factors = varying_factors(records, rule=rule, design=design)
            wanted = [*([alignment] if alignment else []), "test_accuracy", *([GAP] if rule != "bp" else [])]
            found: dict[str, tuple[Contrast, ...]] = {}
            without: dict[tuple[str, str], list[str]] = {}
            for response in wanted if factors else []:
                table = final_values(records, rule=rule, design=design, response=response)
                if not table["value"].notna().any():
                    continue
                try:
                    results = contrasts(table, factors, base=first_levels(records, design))
                except AnalysisError as error:
                    notes.append(f"Design {design}, {rule_name(rule)}: {error}.")
                    continue
                found[response] = tuple(replace(result, response=response) for result in results if result.n_seeds)
                for result in results:
                    if not result.n_seeds:
                        change = f"{result.factor}, {result.levels[0]} to {result.levels[1]}"
                        without.setdefault((change, "; ".join(result.warnings)), []).append(label_of(response))
            place = f"Design {design}, {rule_name(rule)}"
            if found and not any(found.values()):
                notes.append(
                    f"{place}: no effect of {', '.join(factors)} can be had, since none of them changes alone."
                )
            else:
                notes += [
                    f"{place}: the effect of {change} on {', '.join(on)} cannot be had: {why}."
                    for (change, why), on in without.items()
                ]
            idle = _idle(found)
            if idle:
                notes.append(f"{place}: runs are the same at all levels of {', '.join(idle)}, which are left out.")
                found = {name: tuple(e for e in effects if e.factor not in idle) for name, effects in found.items()}
            if any(found.values()):
                yield Effects(rule, design, found)


def _idle(found: Mapping[str, Sequence[Contrast]]) -> list[str]:
    """Factors at whose levels a rule's runs are identical: it does not use them. (Its BP twins may.)"""
    own = [effect for name, effects in found.items() if name != GAP for effect in effects]
    moved = {effect.factor for effect in own if any(effect.differences)}
    return sorted({effect.factor for effect in own} - moved)


def _width_design(records: Records, designs: tuple[str, ...], rules: tuple[str, ...]) -> str | None:
    """The design with most widths, if it has three or more: two are a contrast, not a curve."""
    if "width" not in records.factors or not rules:
        return None
    levels = {
        design: level_order(
            records.runs.loc[in_design(records.runs, design) & (records.runs["rule"] == rules[0]), "width"]
        )
        for design in designs
    }
    best = max(designs, key=lambda design: len(levels[design]))
    return best if len(levels[best]) >= 3 and numeric_levels(levels[best]) else None
