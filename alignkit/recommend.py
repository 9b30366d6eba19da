"""From verdicts to practices: what to do, what it changes, where it was seen, how sure it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from alignkit.claims import Verdict, claim_table
from alignkit.errors import AnalysisError
from alignkit.stats import Contrast, contrast, digits_of, label_of, level_order, unit_of
from alignkit.store import Records

NO_EVIDENCE = "no evidence"
ACCURACY = "test_accuracy"


def recommendations(records: Records, verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """One entry for each claim that names a practice, in the study's order; ready for JSON.

    `effect` and `interval` are the claim's contrast in `unit`, `accuracy_effect` the same contrast of test
    accuracy in points. `verdict` is that of the claim, with "no evidence" in the place of undecided:
    silence about a practice is never advice for or against it. `scope` says where this was seen;
    nothing here speaks of other data, networks or rates.
    """
    return [_recommendation(records, verdict) for verdict in verdicts if verdict.claim.practice]


def to_json(entries: list[dict[str, Any]]) -> str:
    """The recommendations as JSON text, ending in a newline."""
    return json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _recommendation(records: Records, verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    accuracy = _on_accuracy(records, verdict)
    found = NO_EVIDENCE if verdict.verdict == "undecided" else verdict.verdict
    caveats = [*([verdict.learning_rates] if verdict.learning_rates else []), *verdict.warnings]
    return {
        "practice": claim.practice,
        "verdict": found,
        "summary": _advice(verdict, found, accuracy),
        "effect": _number(verdict.estimate),
        "interval": [_number(bound) for bound in verdict.interval],
        "response": claim.response,
        "unit": verdict.unit,
        "smallest_effect": claim.smallest_effect,
        "p": _number(verdict.p),
        "p_adjusted": _number(verdict.p_adjusted),
        "accuracy_effect": _number(accuracy.estimate) if accuracy else None,
        "accuracy_interval": [_number(bound) for bound in accuracy.interval] if accuracy else [None, None],
        "accuracy_p": _number(accuracy.p) if accuracy else None,
        "accuracy_unit": "points",
        "claim": claim.name,
        "family": claim.family,
        "factor": claim.factor,
        "levels": list(verdict.levels),
        "reason": verdict.reason,
        "caveats": caveats,
        "scope": _scope(records, verdict),
    }


def _on_accuracy(records: Records, verdict: Verdict) -> Contrast | None:
    claim = verdict.claim
    try:
        table = claim_table(records, claim, response=ACCURACY)
        result = contrast(table, factor=claim.factor, levels=claim.levels, within=records.factors)
    except AnalysisError:
        return None
    return result if result.n_seeds else None


def _advice(verdict: Verdict, found: str, accuracy: Contrast | None) -> str:
    """One or two sentences: what to do, by how much, and what it does to test accuracy."""
    response = verdict.claim.response
    bounds = accuracy.interval if accuracy else (math.nan, math.nan)
    known = accuracy is not None and response != ACCURACY and all(map(math.isfinite, bounds))
    changes = known and not bounds[0] <= 0 <= bounds[1]
    on_accuracy = f"test accuracy {_moves(accuracy.estimate, ACCURACY)}" if accuracy and changes else ""
    if found == NO_EVIDENCE:
        text = f"No evidence for or against it, as to the {label_of(response)}"
        return f"{text}; the claim is not about test accuracy, but {on_accuracy}." if on_accuracy else f"{text}."
    if found == "equivalent":
        text = f"It makes no difference that matters to the {label_of(response)}"
        return f"{text}, but {on_accuracy}." if on_accuracy else f"{text}."
    moved = f"the {label_of(response)} {_moves(verdict.estimate, response)}"
    advice = "Recommended" if found == "supported" else "Advised against"
    if accuracy is None or not known or "accuracy" in response:
        return f"{advice}: {moved}."
    if not changes:
        return f"{advice} for alignment: {moved}. There is no evidence that test accuracy changes."
    if (accuracy.estimate > 0) == (found == "supported"):
        return f"{advice}: {moved}, and {on_accuracy}."
    return f"{advice} for alignment alone: {moved}, but {on_accuracy}."


def _moves(change: float, response: str) -> str:
    unit = unit_of(response)
    size = f"{abs(change):.{digits_of(response)}f}{unit if unit in ('', '°') else f' {unit}'}"
    return f"{'rises' if change > 0 else 'falls'} by {size}"


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
    layers = records.layers.loc[records.layers["run_id"].isin(table["run_id"]), ["run_id", "layer", "width"]]
    if layers.empty:
        return []
    sizes = layers["width"] if name == "width" else layers.groupby("run_id")["layer"].max()
    return sorted(int(size) for size in sizes.unique())


def _number(value: float) -> float | None:
    # JSON knows no NaN; six significant digits outlast any reading and hide the last bit's noise.
    return None if not math.isfinite(value) else float(f"{value:.6g}")
