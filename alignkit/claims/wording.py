"""What is said of a practice: a recommendation in sentences, and the list of them as Markdown and JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from alignkit.claims.reading import on_moderators
from alignkit.claims.verdict import Verdict
from alignkit.columns import digits_of, label_of
from alignkit.stats.contrasts.contrasts import Contrast
from alignkit.text import change_interval, in_markdown, number, p_text, sizes, unit

NO_EVIDENCE = "no evidence"
ACCURACY = "test_accuracy"


def to_json(entries: list[dict[str, Any]]) -> str:
    """The recommendations as JSON text, ending in a newline; numbers have six significant digits."""
    return json.dumps(_rounded(entries), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    """Six digits outlast any reading and hide the last bit's noise; sentences are made from the number itself."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def to_markdown(entries: list[dict[str, Any]]) -> str:
    """The recommendations as a Markdown document, ready to be pasted."""
    lines = ["# Recommendations", ""]
    for entry in entries:
        response, held_out = entry["response"], entry["held_out"]
        effects = [f"{label_of(response)} {effect_text(entry['effect'], entry['interval'], response)}"]
        if response != ACCURACY:
            accuracy = effect_text(entry["accuracy_effect"], entry["accuracy_interval"], ACCURACY)
            p = entry["accuracy_p_adjusted"]
            effects.append(f"test accuracy {accuracy}" + ("" if p is None else f", adjusted p {number(p, 3)}"))
        sure = []
        if entry["p_better"] is not None:
            pair = " against ".join(reversed(entry["levels"]))
            regret = _size(entry["expected_regret"], response)
            sure.append(f"P(better) {chance_text(entry['p_better'])} ({pair}), expected regret {regret}")
        if ranked(entry):
            regret = _size(entry["expected_regret_of_all"], response)
            of_all = f"P(best of all {len(entry['all_levels'])} levels) {chance_text(entry['p_best_of_all'])}"
            sure.append(f"{of_all}, expected regret {regret}")
            sure.append(f"best level {entry['best_level']}, P(best) {chance_text(entry['p_best_level'])}")
        if held_out["n_seeds"]:
            sure.append(
                f"{held_out['status'] or 'not judged'} on {held_out['n_seeds']} held-out seeds "
                f"({effect_text(held_out['effect'], held_out['interval'], response)})"
            )
        lines += [f"- **{entry['practice']}** — *{standing(entry)}*. {entry['summary']}"]
        lines += [f"  It hangs on this: {entry['hangs_on']}"] if entry["grade"] else []
        lines += [f"  {'; '.join(effects)}."] + ([f"  {'; '.join(sure)}."] if sure else [])
        lines += [f"  {over_cells(entry)}."] if entry["cells"] else []
        lines += [f"  {at_stake(entry['stake'])}."] if entry["stake"] else []
        lines += [f"  Scope: {scope_text(entry['scope'])}."]
        lines += [f"  {caveat[0].upper()}{caveat[1:]}." for caveat in entry["caveats"]]
    return "\n".join(map(in_markdown, lines)) + "\n"


def over_cells(entry: dict[str, Any]) -> str:
    """How far a practice's effect differs between cells."""
    cells, response = entry["cells"], entry["response"]
    low, high = cells["a_cell_like_these"]
    return (
        f"Over {cells['n_cells']} cells the effect has an sd of {_size(cells['sd'], response)}; in a network like "
        f"these it lies in {change_interval((low, high), response)}"
    )


def at_stake(stake: dict[str, Any]) -> str:
    """What a practice's effect on an angle is worth."""
    size = effect_text(stake["points"], stake["interval"], ACCURACY)
    nil = ", less than a point either way" if stake["nil"] else ""
    return f"By the dose\N{EN DASH}response curve ({stake['curve']}) the angle is worth {size} of test accuracy{nil}"


def standing(entry: dict[str, Any]) -> str:
    """The verdict, and whether the claim was one to confirm: "supported", "supported, robust", "supported,
    exploratory"."""
    graded = ", ".join(part for part in (entry["verdict"], entry["grade"]) if part)
    if not entry["declared"]:
        return f"{graded}, not declared before the runs"
    return graded + (", exploratory" if entry["family"] == "exploratory" else "")


def ranked(entry: dict[str, Any]) -> bool:
    """Whether the practice's factor has more levels than the claim compares, and they could be ranked."""
    return len(entry["all_levels"]) > 2 and entry["p_best_of_all"] is not None


def scope_text(scope: dict[str, Any]) -> str:
    """Where a recommendation was seen, in words."""
    hidden = ""
    if scope["widths"]:
        hidden = f"{sizes(scope['depths'])} hidden layers of {sizes(scope['widths'])} units"
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


def chance_text(p: float) -> str:
    """A probability to two digits, never 0 or 1.

    >>> chance_text(0.97), chance_text(0.9996), chance_text(0.001)
    ('0.97', '>0.99', '<0.01')
    """
    return ">0.99" if p > 0.99 else "<0.01" if p < 0.01 else f"{p:.2f}"


def advice(
    verdict: Verdict, finding: str, accuracy: Contrast | None, *, changes: bool, contradicted: bool = False
) -> str:
    """One or two sentences: what to do, by how much, and what it does to test accuracy where that `changes`.

    `finding` is the verdict, with "no evidence" in the place of undecided. What held-out seeds have `contradicted` is
    no advice.
    """
    response = verdict.claim.response
    change = accuracy.estimate if accuracy and changes and response != ACCURACY else 0.0
    on_accuracy = f"test accuracy {_moves(change, ACCURACY)}" if change else ""
    tentative = tentative_note(verdict) or contradicted or not _is_sure(verdict)
    if finding == "not identifiable":
        return f"Not identifiable apart from the learning rate: {verdict.reason}."
    if verdict.grade == "contested":
        return f"No recommendation: {finding} as declared, but {verdict.grade_reason}."
    if finding == NO_EVIDENCE:
        text = f"No evidence for or against it, as to the {label_of(response)}"
        return f"{text}; the claim is not about test accuracy, but {on_accuracy}." if on_accuracy else f"{text}."
    if finding == "equivalent":
        makes = "Suggests that it makes" if tentative else "It makes"
        text = f"{makes} no difference that matters to the {label_of(response)}"
        return f"{text}, but {on_accuracy}." if on_accuracy else f"{text}."
    moved = f"the {label_of(response)} {_moves(verdict.estimate, response)}{_perhaps_small(verdict)}"
    follow = finding == "supported"
    if tentative:
        advice = f"Suggests that it {'helps' if follow else 'harms'}"
    else:
        advice = "Recommended" if follow else "Advised against"
    alignment = " alignment" if tentative else " for alignment"
    if accuracy is None or "accuracy" in response:
        said = f"{advice}: {moved}."
    elif not on_accuracy:
        said = f"{advice}{alignment}: {moved}. There is no evidence that test accuracy changes."
    elif (change > 0) == follow:
        said = f"{advice}: {moved}, and {on_accuracy}."
    else:
        said = f"{advice}{alignment} alone: {moved}, but {on_accuracy}."
    return " ".join([said, *conditions(verdict), *(() if verdict.depends else on_moderators(verdict))])


def _is_sure(verdict: Verdict) -> bool:
    """Whether a verdict may be said as advice: its panel agrees, or it is known what it hangs on."""
    return verdict.grade == "robust" or bool(conditions(verdict))


def conditions(verdict: Verdict) -> list[str]:
    """What a verdict holds under, a sentence each: what it depends on, and where it was not shown."""
    found = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in verdict.depends]
    if verdict.grade == "conditional" and verdict.grade_reason:
        found.append(f"{verdict.grade_reason[0].upper()}{verdict.grade_reason[1:]}.")
    return found


def tentative_note(verdict: Verdict) -> str:
    """Why a verdict is a suggestion, and no advice; empty where it is one that was to be confirmed."""
    if not verdict.declared:
        return "the claim was not declared before the runs: a suggestion to be tested, not advice"
    if verdict.claim.family == "exploratory":
        return "the claim is exploratory: a suggestion to be tested, not advice"
    return ""


def best_of_all(verdict: Verdict, choice: dict[str, Any]) -> list[str]:
    """A sentence where the better of two levels was found, and the factor has more: which of all is best."""
    count = len(choice["all_levels"])
    if verdict.verdict not in ("supported", "refuted") or count <= 2:
        return []
    winner, loser = verdict.levels[::-1] if verdict.verdict == "supported" else verdict.levels
    of_all = f"of all {count} levels of {verdict.claim.factor.replace('_', ' ')}"
    pair = f"{winner} {'looks' if tentative_note(verdict) else 'is'} better than {loser}"
    best, p = choice["best_level"], choice["p_best_level"]
    if best is None:
        return [f"{pair}; which {of_all} is best, these runs do not tell."]
    if best == winner:
        return [f"{pair}, and looks best {of_all} (P(best) {chance_text(p)})."]
    practice = f"; {verdict.levels[1]}: {chance_text(choice['p_best_of_all'])}" if best != verdict.levels[1] else ""
    return [f"{pair}; {of_all} {best} looks best (P(best) {chance_text(p)}{practice})."]


def unconfirmed(held_out: dict[str, Any], response: str) -> list[str]:
    """A sentence where held-out seeds do not bear the finding out: an effect that was picked looks too large."""
    if held_out["status"] not in ("not confirmed", "contradicted"):
        return []
    said = "do not confirm" if held_out["status"] == "not confirmed" else "contradict"
    size = effect_text(held_out["effect"], held_out["interval"], response)
    return [f"{held_out['n_seeds']} held-out seeds {said} it: {size}."]


def effect_text(effect: float | None, interval: list[float | None], response: str) -> str:
    if effect is None:
        return "not measured"
    digits = digits_of(response)
    low, high = interval
    bounds = "" if low is None or high is None else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{effect:+.{digits}f}{unit(response)}{bounds}".replace("-", "\N{MINUS SIGN}")


def _perhaps_small(verdict: Verdict) -> str:
    """What an effect may be that is there, but whose interval reaches below the smallest that matters."""
    low, high = verdict.worst_case if math.isfinite(verdict.worst_case[0]) else verdict.interval
    smallest = verdict.claim.smallest_effect
    if low >= smallest or high <= -smallest:
        return ""
    return f" (perhaps by less than {smallest:g}{unit(verdict.claim.response)}, the smallest effect that matters)"


def _moves(change: float, response: str) -> str:
    return f"{'rises' if change > 0 else 'falls'} by {_size(abs(change), response)}"


def _size(value: float, response: str) -> str:
    return f"{value:.{digits_of(response)}f}{unit(response)}"


def deciding_p(verdict: Verdict) -> str:
    """The adjusted p that a verdict rests on; it names the test where that is the one of equivalence."""
    if verdict.verdict == "equivalent":
        return f"{p_text(verdict.p_equivalence_adjusted)} (equivalence)"
    return p_text(verdict.p_adjusted)
