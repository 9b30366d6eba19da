"""From verdicts to practices: what to do, what it changes, where it was seen, how sure it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Literal

import pandas as pd

from alignkit.claims import Verdict, claim_factors, claim_table
from alignkit.errors import AnalysisError
from alignkit.stats import Contrast, contrast, digits_of, label_of, level_order, unit_of
from alignkit.stats.choice import Choice, choose, confirm
from alignkit.stats.contrasts import level_means
from alignkit.store import Records

NO_EVIDENCE = "no evidence"
ACCURACY = "test_accuracy"


def recommendations(records: Records, verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """One entry for each claim that names a practice, in the study's order; ready for JSON.

    `effect` and `interval` are the claim's contrast in `unit`, `accuracy_effect` the same contrast of test
    accuracy in points. `verdict` is that of the claim, with "no evidence" in the place of undecided:
    silence about a practice is never advice for or against it. `p_best` is the probability that the practice
    is the better of the two levels (of all levels of its factor: `p_best_of_all`), and `expected_regret` what
    following it costs on average if it is not, in the response's unit; the same for accuracy. `held_out` says
    whether seeds that took no part in the verdict confirm it: an effect that was chosen because it looked
    large looks larger than it is. `scope` says where this was seen; nothing here speaks of other data,
    networks or rates.
    """
    return [_recommendation(records, verdict) for verdict in verdicts if verdict.claim.practice]


def to_markdown(entries: list[dict[str, Any]]) -> str:
    """The recommendations as a Markdown document, ready to be pasted."""
    lines = ["# Recommendations", ""]
    for entry in entries:
        response, held_out = entry["response"], entry["held_out"]
        effects = [f"{label_of(response)} {_effect(entry['effect'], entry['interval'], response)}"]
        if response != ACCURACY:
            effects.append(f"test accuracy {_effect(entry['accuracy_effect'], entry['accuracy_interval'], ACCURACY)}")
        sure = []
        if entry["p_best"] is not None:
            sure.append(f"P(best) {entry['p_best']:.2f}")
            sure.append(f"expected regret {entry['expected_regret']:.{digits_of(response)}f}{_after(response)}")
        if held_out["n_seeds"]:
            sure.append(
                f"{held_out['status'] or 'not judged'} on {held_out['n_seeds']} held-out seeds "
                f"({_effect(held_out['effect'], held_out['interval'], response)})"
            )
        lines += [f"- **{entry['practice']}** — *{entry['verdict']}*. {entry['summary']}"]
        lines += [f"  {'; '.join(effects)}."] + ([f"  {'; '.join(sure)}."] if sure else [])
        lines += [f"  Scope: {scope_text(entry['scope'])}."]
        lines += [f"  {caveat[0].upper()}{caveat[1:]}." for caveat in entry["caveats"]]
    return "\n".join(lines) + "\n"


def scope_text(scope: dict[str, Any]) -> str:
    """Where a recommendation was seen, in words."""
    hidden = ""
    if scope["widths"]:
        widths, depths = (
            " to ".join(str(size) for size in sorted({min(s), max(s)})) for s in (scope["widths"], scope["depths"])
        )
        hidden = f"{depths} hidden layers of {widths} units"
    seeds = f"{scope['seeds']} seeds" if scope["seeds"] else ""
    parts = (
        scope["data"],
        scope["network"].upper(),
        hidden,
        f"rule {scope['rule']}",
        f"{scope['epochs']} epochs",
        seeds,
    )
    return ", ".join(part for part in parts if part)


def to_json(entries: list[dict[str, Any]]) -> str:
    """The recommendations as JSON text, ending in a newline."""
    return json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _recommendation(records: Records, verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    accuracy = _on_accuracy(records, verdict)
    held_out = _held_out(records, verdict)
    lower = claim.direction == "decrease"
    chosen = _choice(records, verdict, response=None, better="lower" if lower else "higher")
    on_accuracy = _choice(records, verdict, response=ACCURACY, better="higher")
    found = NO_EVIDENCE if verdict.verdict == "undecided" else verdict.verdict
    caveats = [*([verdict.learning_rates] if verdict.learning_rates else []), *verdict.warnings]
    return {
        "practice": claim.practice,
        "verdict": found,
        "summary": " ".join([_advice(verdict, found, accuracy), *_unconfirmed(held_out, claim.response)]),
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
        **chosen,
        "p_best_accuracy": on_accuracy["p_best"],
        "expected_regret_accuracy": on_accuracy["expected_regret"],
        "held_out": held_out,
        "declared": verdict.declared,
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
        result = contrast(table, factor=claim.factor, levels=claim.levels, within=claim_factors(records, claim))
    except AnalysisError:
        return None
    return result if result.n_seeds else None


def _choice(
    records: Records, verdict: Verdict, *, response: str | None, better: Literal["lower", "higher"]
) -> dict[str, Any]:
    """How sure the practice is to be the better level, and of all levels of its factor; None where unknown."""
    claim = verdict.claim
    nothing = {"p_best": None, "expected_regret": None, "best_level": None, "p_best_of_all": None}
    try:
        table = claim_table(records, claim, response=response)
        practice, alternative = verdict.levels[1], verdict.levels[0]
        levels = [alternative, *(text for text in level_order(table[claim.factor]) if text != alternative)]
        if practice not in levels:
            return nothing
        means = level_means(table, factor=claim.factor, levels=levels, within=claim_factors(records, claim)).means
        margin = claim.smallest_effect
        two = choose(means[[alternative, practice]], better=better, margin=margin)
        every = choose(means.dropna(axis="columns", how="all"), better=better, margin=margin)
    except AnalysisError:
        return nothing
    return {
        "p_best": _of_level(two, practice, "p_best"),
        "expected_regret": _of_level(two, practice, "expected_regret"),
        "best_level": every.best,
        "p_best_of_all": _of_level(every, practice, "p_best"),
    }


def _of_level(choice: Choice, level: str, column: str) -> float | None:
    return _number(float(choice.levels.loc[choice.levels["level"] == level, column].iloc[0]))


def _held_out(records: Records, verdict: Verdict) -> dict[str, Any]:
    """What the held-out seeds say of the verdict; status None where there are none, or nothing to confirm."""
    claim, apart = verdict.claim, records.held_out
    found: dict[str, Any] = {"status": None, "effect": None, "interval": [None, None], "shrinkage": None, "n_seeds": 0}
    if apart is None:
        return found
    try:
        result = contrast(
            claim_table(apart, claim), factor=claim.factor, levels=claim.levels, within=claim_factors(records, claim)
        )
    except AnalysisError:
        return found
    found |= {
        "effect": _number(result.estimate),
        "interval": [_number(bound) for bound in result.interval],
        "n_seeds": result.n_seeds,
    }
    if verdict.verdict == "undecided":
        return found
    try:
        outcome = confirm(verdict.estimate, result.differences, margin=claim.smallest_effect, verdict=verdict.verdict)
    except AnalysisError:
        return found
    return {**found, "status": outcome.status, "shrinkage": _number(outcome.shrinkage)}


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


def _unconfirmed(held_out: dict[str, Any], response: str) -> list[str]:
    """A sentence where held-out seeds do not bear the finding out: an effect that was picked looks too large."""
    if held_out["status"] not in ("not confirmed", "contradicted"):
        return []
    said = "do not confirm" if held_out["status"] == "not confirmed" else "contradict"
    size = _effect(held_out["effect"], held_out["interval"], response)
    return [f"{held_out['n_seeds']} held-out seeds {said} it: {size}."]


def _moves(change: float, response: str) -> str:
    size = f"{abs(change):.{digits_of(response)}f}{_after(response)}"
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


def _effect(effect: float | None, interval: list[float | None], response: str) -> str:
    if effect is None:
        return "not measured"
    digits, unit = digits_of(response), _after(response)
    low, high = interval
    bounds = "" if low is None or high is None else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{effect:+.{digits}f}{unit}{bounds}".replace("-", "\N{MINUS SIGN}")


def _after(response: str) -> str:
    unit = unit_of(response)
    return unit if unit in ("", "°") else f" {unit}"


def _number(value: float) -> float | None:
    # JSON knows no NaN; six significant digits outlast any reading and hide the last bit's noise.
    return None if not math.isfinite(value) else float(f"{value:.6g}")
