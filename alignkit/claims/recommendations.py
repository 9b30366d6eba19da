"""From verdicts to practices: what to do, what it changes, where it was seen, how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from alignkit.claims.cells import cells_entry
from alignkit.claims.reading import hangs_on, seed_note
from alignkit.claims.responses import response_bounds
from alignkit.claims.stakes import nil_sentence, nil_stake, stake_entry
from alignkit.claims.tables import claim_factors, claim_table
from alignkit.claims.verdict import Verdict
from alignkit.claims.verdicts import ALPHA, evaluate, without_each_seed
from alignkit.claims.wording import (
    ACCURACY,
    NO_EVIDENCE,
    advice,
    best_of_all,
    conditions,
    effect_text,
    standing,
    tentative_note,
    unconfirmed,
)
from alignkit.columns import label_of
from alignkit.display import block, head_html, rows_html, tight
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.choice import SURE, Choice, choose, confirm
from alignkit.stats.contrasts.contrasts import Contrast, contrast, level_means
from alignkit.stats.contrasts.multiplicity import holm
from alignkit.stats.sensitivity.attrition import worst_case_bounds
from alignkit.stats.tables.levels import level_order
from alignkit.text import count

NAN = float("nan")


@dataclass(frozen=True)
class _Accuracy:
    """What a practice does to test accuracy. `p` holds whatever runs without an accuracy would have shown."""

    contrast: Contrast
    p: float
    p_adjusted: float = NAN
    caveats: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it may be said that accuracy rises or falls."""
        return self.p_adjusted < ALPHA


class Recommendations(list[dict[str, Any]]):
    """Recommendations, ready for JSON: a list that a notebook shows as a table."""

    def __repr__(self) -> str:
        each = [f"{entry['practice']}: {standing(entry)}" for entry in self]
        return f"Recommendations({'; '.join(each)})"

    def _repr_html_(self) -> str:
        rows = [
            (
                entry["practice"], standing(entry),
                tight(effect_text(entry["effect"], entry["interval"], entry["response"])),
                tight(effect_text(entry["accuracy_effect"], entry["accuracy_interval"], ACCURACY)), entry["summary"],
            )
            for entry in self
        ]  # fmt: skip
        columns = ("practice", "verdict", "effect [95%]", "on test accuracy [95%]", "in words")
        words = count(len(self), "practice")
        return block(head_html("Recommendations", words), rows_html(rows, head=columns, badge="verdict"))


def recommendations(records: Records, verdicts: Iterable[Verdict] | None = None) -> Recommendations:
    """One entry for each claim that names a practice, in the study's order; ready for JSON.

    `verdicts` are those of `evaluate(records)` unless others are given.


    `effect` and `interval` are the claim's contrast in `unit`, `accuracy_effect` the same contrast of test
    accuracy in points, with a 95% interval of its own. `verdict` is that of the claim, with "no evidence" in
    the place of undecided: silence about a practice is never advice for or against it. A claim that is
    exploratory, or was not `declared` before the runs, is never advice either: its summary "suggests". So is one whose
    `grade` is not robust and that has no `conditions`; a contested one says what it hangs on.

    A summary says that accuracy rises or falls only where `accuracy_p_adjusted` is below 5%: the exact sign-flip
    p, the largest over all that runs without an accuracy could have had, Holm-adjusted over all entries. So the
    chance of any such sentence in a report on practices of which none changes accuracy is at most 5%.

    `p_better` is the probability that the practice is the better of the claim's two levels, `expected_regret`
    what following it costs on average if it is not, in the response's unit; the same for accuracy. Where runs
    at the two levels have no value, both are taken in the worst case for the practice, and are None where the
    missing values could decide which is better. `p_best_of_all` and `expected_regret_of_all` weigh it against all
    levels of its factor, `all_levels`, of which `best_level` is the best with probability `p_best_level`; they
    are over the cells that all levels have, and None where runs are missing.

    `cells` says how far the effect differs between the cells that it is averaged over: the sd of the true effects, and
    the interval of the effect in another cell like these; None where that cannot be had.

    `stake` says what the effect on an angle is worth in points of accuracy by a dose-response curve of a like network;
    None where there is none. No smallest effect in degrees is made of it.

    `held_out` says whether seeds that took no part in the verdict confirm it: an effect that was chosen because it
    looked large looks larger than it is. `caveats` are what else a reader must know before following. `scope`
    says where this was seen; nothing here speaks of other data, networks or rates.
    """
    verdicts = evaluate(records) if verdicts is None else verdicts
    named = [verdict for verdict in verdicts if verdict.claim.practice]
    accuracy = [_on_accuracy(records, verdict) for verdict in named]
    adjusted = holm([effect.p if effect else NAN for effect in accuracy])
    return Recommendations(
        _recommendation(records, verdict, replace(effect, p_adjusted=float(p)) if effect else None)
        for verdict, effect, p in zip(named, accuracy, adjusted, strict=True)
    )


def _recommendation(records: Records, verdict: Verdict, accuracy: _Accuracy | None) -> dict[str, Any]:
    claim = verdict.claim
    held_out = _held_out(records, verdict)
    two, notes = _better(records, verdict, response=claim.response, better=_better_way(verdict))
    accurate, accuracy_notes = _better(records, verdict, response=ACCURACY, better="higher")
    levels = level_order(claim_table(records, claim)[claim.factor]) if verdict.n_seeds else []
    best, best_notes = _best(records, verdict, levels) if len(levels) > 2 else (two, [])
    practice = verdict.levels[1]
    choice = {
        "p_better": _of_level(two, practice, "p_best"),
        "expected_regret": _of_level(two, practice, "expected_regret"),
        "all_levels": levels,
        "best_level": best.best if best else None,
        "p_best_level": _number(best.p_best) if best else None,
        "p_best_of_all": _of_level(best, practice, "p_best"),
        "expected_regret_of_all": _of_level(best, practice, "expected_regret"),
        "p_better_accuracy": _of_level(accurate, practice, "p_best"),
        "expected_regret_accuracy": _of_level(accurate, practice, "expected_regret"),
    }
    contrast_of = accuracy.contrast if accuracy else None
    finding = NO_EVIDENCE if verdict.verdict == "undecided" else verdict.verdict
    at_stake = stake_entry(records, claim) if verdict.n_seeds else None
    summary = [
        advice(
            verdict,
            finding,
            contrast_of,
            changes=accuracy is not None and accuracy.changes,
            contradicted=held_out["status"] == "contradicted",
        ),
        *best_of_all(verdict, choice),
        *unconfirmed(held_out, claim.response),
        *nil_sentence({"stake": at_stake, "verdict": finding}),
    ]
    # The accuracy of a claim that is about it is the response: what may be said of its levels was said.
    aside = [*(accuracy.caveats if accuracy else ()), *accuracy_notes] if claim.response != ACCURACY else []
    warnings = [note for note in verdict.warnings if note != nil_stake(records, verdict)]  # the summary says it
    caveats = [
        tentative_note(verdict), "" if verdict.grade else verdict.grade_reason, verdict.learning_rates,
        *warnings, _fragile(records, verdict), *notes, *best_notes, *aside,
    ]  # fmt: skip
    return {
        "practice": claim.practice,
        "verdict": finding,
        "grade": verdict.grade,
        "grade_reason": verdict.grade_reason,
        "conditions": conditions(verdict),
        "hangs_on": hangs_on(verdict),
        "levels_of_moderators": [
            {
                "moderator": each.moderator,
                "level": each.level,
                "effect": _number(each.estimate),
                "interval": [_number(bound) for bound in each.interval],
            }
            for each in verdict.level_effects
        ],
        "summary": " ".join(summary),
        "effect": _number(verdict.estimate),
        "interval": [_number(bound) for bound in verdict.interval],
        "response": claim.response,
        "unit": verdict.unit,
        "smallest_effect": claim.smallest_effect,
        "p": _number(verdict.p),
        "p_adjusted": _number(verdict.p_adjusted),
        "accuracy_effect": _number(contrast_of.estimate) if contrast_of else None,
        "accuracy_interval": [_number(bound) for bound in contrast_of.interval] if contrast_of else [None, None],
        "accuracy_p": _number(accuracy.p) if accuracy else None,
        "accuracy_p_adjusted": _number(accuracy.p_adjusted) if accuracy else None,
        "accuracy_unit": "points",
        "cells": cells_entry(records, claim) if verdict.n_seeds else None,
        "stake": at_stake,
        **choice,
        "held_out": held_out,
        "declared": verdict.declared,
        "claim": claim.name,
        "family": claim.family,
        "factor": claim.factor,
        "levels": list(verdict.levels),
        "reason": verdict.reason,
        "caveats": [caveat for caveat in dict.fromkeys(caveats) if caveat],
        "scope": _scope(records, verdict),
    }


def _fragile(records: Records, verdict: Verdict) -> str:
    """Whether a verdict that says something would say it without each seed; empty where it would."""
    if verdict.verdict in ("undecided", "not identifiable"):
        return ""
    position = [known.claim.name for known in evaluate(records)].index(verdict.claim.name)
    others = {seed: verdicts[position] for seed, verdicts in without_each_seed(records).items()}
    note = seed_note(verdict, others)
    if not note and None in others.values():
        return "whether the verdict stands without any one seed was not examined for every seed"
    return note


def _on_accuracy(records: Records, verdict: Verdict) -> _Accuracy | None:
    claim = verdict.claim
    try:
        table = claim_table(records, claim, response=ACCURACY)
        within = claim_factors(records, claim)
        result = contrast(table, factor=claim.factor, levels=claim.levels, within=within)
        if not result.n_seeds:
            return None
        if not records.missing and table["value"].notna().all():
            return _Accuracy(result, result.p)
        worst = worst_case_bounds(
            table, factor=claim.factor, levels=claim.levels, bounds=response_bounds(ACCURACY), within=within
        )
    except AnalysisError:
        return None
    if not any(worst.missing):
        return _Accuracy(result, result.p)
    # A run without its counterpart counts in the worst case alone, which so may have the other sign.
    same_sign = (worst.lowest if result.estimate > 0 else -worst.highest) > 0
    ends = [effect_text(end, [None, None], ACCURACY) for end in (worst.lowest, worst.highest)]
    note = (
        f"{sum(worst.missing)} of {worst.runs:,} runs have no test accuracy: whatever it would have been, the "
        f"effect on it lies between {ends[0]} and {ends[1]}, and its p is the largest over that"
    )
    return _Accuracy(result, max(result.p, worst.p) if same_sign else 1.0, caveats=(note,))


def _better(
    records: Records, verdict: Verdict, *, response: str, better: Literal["lower", "higher"]
) -> tuple[Choice | None, list[str]]:
    """How sure the practice is to be the better of its two levels, None where unknown; and what to know of it."""
    claim, name = verdict.claim, label_of(response)
    if not verdict.n_seeds:  # the verdict's reason says why
        return None, []
    try:
        table = _table_of(records, verdict, response)
        if not table["value"].notna().any():
            return None, []
        options: dict[str, Any] = {"factor": claim.factor, "levels": verdict.levels}
        options["within"] = claim_factors(records, claim)
        means = level_means(table, **options)
        if not means.missing:
            return choose(means.means, better=better, margin=claim.smallest_effect), []
        bounds = worst_case_bounds(table, bounds=response_bounds(response), **options)
        alternative, practice = verdict.levels
        filled = [
            choose(
                pd.DataFrame({alternative: 0.0, practice: bounds.differences[column]}),
                better=better,
                margin=claim.smallest_effect,
            )
            for column in ("lowest", "highest")
        ]
    except AnalysisError as error:
        return None, [f"no P(better) as to the {name}: {error}"]
    lost = f"{means.missing} of {means.runs:,} runs have no {name}"
    if filled[0].best != filled[1].best or min(choice.p_best for choice in filled) < SURE:
        return None, [f"no P(better): {lost}, and what it would have been could decide"]
    note = f"P(better) and expected regret are those of the worst case for the practice: {lost}"
    return filled[better == "lower"], [note]


def _best(records: Records, verdict: Verdict, levels: list[str]) -> tuple[Choice | None, list[str]]:
    """How sure each of a factor's levels is to be the best of all, None where unknown; and what to know of it."""
    claim = verdict.claim
    try:
        table = claim_table(records, claim)
        means = level_means(table, factor=claim.factor, levels=levels, within=claim_factors(records, claim))
        if means.missing:
            lost = f"{means.missing} of {means.runs:,} runs have no {label_of(claim.response)}"
            return None, [f"no P(best of all): {lost}"]
        choice = choose(means.means, better=_better_way(verdict), margin=claim.smallest_effect)
    except AnalysisError as error:
        return None, [f"no P(best of all): {error}"]
    return choice, [f"P(best of all): {note}" for note in means.warnings]


def _better_way(verdict: Verdict) -> Literal["lower", "higher"]:
    return "lower" if verdict.claim.direction == "decrease" else "higher"


def _table_of(records: Records, verdict: Verdict, response: str) -> pd.DataFrame:
    return claim_table(records, verdict.claim, response=None if response == verdict.claim.response else response)


def _of_level(choice: Choice | None, level: str, column: str) -> float | None:
    if choice is None:
        return None
    return _number(float(choice.levels.loc[choice.levels["level"] == level, column].iloc[0]))


def _held_out(records: Records, verdict: Verdict) -> dict[str, Any]:
    """What the held-out seeds say of the verdict; status None where there are none, or nothing to confirm."""
    claim, apart = verdict.claim, records.held_out
    answer: dict[str, Any] = {"status": None, "effect": None, "interval": [None, None], "shrinkage": None, "n_seeds": 0}
    if apart is None:
        return answer
    try:
        result = contrast(
            claim_table(apart, claim), factor=claim.factor, levels=claim.levels, within=claim_factors(records, claim)
        )
    except AnalysisError:
        return answer
    answer |= {
        "effect": _number(result.estimate),
        "interval": [_number(bound) for bound in result.interval],
        "n_seeds": result.n_seeds,
    }
    if verdict.verdict == "undecided" or verdict.verdict == "not identifiable":
        return answer
    try:
        outcome = confirm(verdict.estimate, result.differences, margin=claim.smallest_effect, verdict=verdict.verdict)
    except AnalysisError:
        return answer
    return {**answer, "status": outcome.status, "shrinkage": _number(outcome.shrinkage)}


def _scope(records: Records, verdict: Verdict) -> dict[str, Any]:
    study = records.study
    try:
        table = claim_table(records, verdict.claim)
    except AnalysisError:
        table = records.runs.iloc[:0]
    data = study.data.name + (" with shuffled labels" if study.data.shuffle_labels else "")
    others = {
        name: level_order(table[name])
        for name in records.factors
        if name != verdict.claim.factor and len(level_order(table[name])) > 1
    }
    return {
        "data": data,
        "network": study.network.kind,
        "widths": _sizes(records, table, "width"),
        "depths": _sizes(records, table, "depth"),
        "rule": verdict.claim.rule,
        "optimiser": study.training.optimiser,
        "epochs": study.training.epochs,
        "seeds": verdict.n_seeds,
        "design": verdict.design,
        "averaged_over": others,
    }


def _sizes(records: Records, table: pd.DataFrame, name: str) -> list[int]:
    """The widths or depths of the hidden layers that were trained, as recorded layer by layer."""
    runs = records.runs.loc[records.runs["replicate"].isin(table["replicate"]), "run_id"]
    layers = records.layers.loc[records.layers["run_id"].isin(runs), ["run_id", "layer", "width"]]
    if layers.empty:
        return []
    sizes = layers["width"] if name == "width" else layers.groupby("run_id")["layer"].max()
    return sorted(int(size) for size in sizes.unique())


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON knows no NaN
