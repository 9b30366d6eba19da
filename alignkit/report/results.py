"""The report's tables: verdicts, effects, final measures, and what went wrong."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.effects import DesignEffects
from alignkit.claims.reading import hangs_on, seed_note, simultaneous_interval
from alignkit.claims.verdict import Verdict, grade_name, verdict_frame
from alignkit.claims.wording import ACCURACY, chance_text, deciding_p, ranked, standing
from alignkit.columns import LAYERS, label_of
from alignkit.report.tables import Table
from alignkit.stats.contrasts.contrasts import Contrast, contrast_frame
from alignkit.text import (
    ABSENT,
    bare_change,
    change,
    change_interval,
    count,
    in_unit,
    level,
    listed,
    number,
    p_text,
    row_label,
    rule_name,
    sentence,
    slug,
)

SHOWN = (
    "signal_angle_deg", "centred_angle_deg", "gradient_angle_deg", "signal_cosine", "delta_cosine", "gradient_cosine",
    "step_cosine", "weight_cosine", "jacobian_cosine", "ceiling_cosine", "signal_gain", "gate", "common_mode",
    "effective_rank",
)  # fmt: skip
SHORT = {
    "signal_angle_deg": "angle", "signal_cosine": "signal cos", "delta_cosine": "delta cos",
    "gradient_cosine": "gradient cos", "step_cosine": "step cos", "weight_cosine": "weight cos",
    "jacobian_cosine": "Jacobian cos", "centred_angle_deg": "centred angle", "gradient_angle_deg": "gradient angle",
    "ceiling_cosine": "ceiling", "signal_gain": "gain", "gate": "gate",
    "common_mode": "common mode", "effective_rank": "eff. rank",
}  # fmt: skip


def verdict_table(verdicts: list[Verdict], *, family_size: int) -> Table:
    together = {id(verdict): simultaneous_interval(verdict, family_size=family_size) for verdict in verdicts}
    low, high = ([interval[end] for interval in together.values()] for end in (0, 1))
    data = verdict_frame(verdicts).assign(simultaneous_low=low, simultaneous_high=high)
    caption = (
        "The study's claims and their verdicts. Effects go from the first level to the second. The 95% interval is of "
        f"each claim alone; the simultaneous one goes with the adjusted p (Bonferroni, "
        f"{count(family_size, 'hypothesis', 'hypotheses')} in the confirmatory family)."
    )
    return Table.each("verdicts", caption, verdicts, data, words=3, columns=[
        ("claim", lambda verdict: verdict.claim.statement),
        ("verdict", lambda verdict: verdict.verdict),
        ("grade", lambda verdict: grade_name(verdict) or ABSENT),
        ("effect", lambda verdict: change(verdict.estimate, verdict.claim.response)),
        ("95% interval", lambda verdict: change_interval(verdict.interval, verdict.claim.response)),
        ("simultaneous", lambda verdict: change_interval(together[id(verdict)], verdict.claim.response)),
        ("adjusted p", deciding_p),
        ("seeds", lambda verdict: str(verdict.n_seeds) if verdict.n_seeds else ABSENT),
    ])  # fmt: skip


def first_screen(analysis: Analysis) -> list[dict[str, str]]:
    """A row for each claim: what to do, how sure, and what it hangs on, in the study's order."""
    accuracy = {entry["claim"]: entry for entry in analysis.recommendations}
    apart = analysis.without_each_seed()
    rows = []
    for place, verdict in enumerate(analysis.verdicts):
        claim, entry = verdict.claim, accuracy.get(verdict.claim.name)
        on_accuracy = entry if entry is not None and claim.response != ACCURACY else None
        note = (
            seed_note(verdict, {seed: others[place] for seed, others in apart.items()}) if grade_name(verdict) else ""
        )
        rows.append(
            {
                "practice": claim.practice or claim.statement,
                "comparison": row_label(claim.factor, verdict.levels),
                "measure": label_of(claim.response),
                "verdict": verdict.verdict,
                "grade": grade_name(verdict),
                "effect": change(verdict.estimate, claim.response),
                "interval": change_interval(verdict.interval, claim.response),
                "accuracy": change(known(on_accuracy["accuracy_effect"]), ACCURACY) if on_accuracy else ABSENT,
                "accuracy_interval": (
                    change_interval(bounds(on_accuracy["accuracy_interval"]), ACCURACY) if on_accuracy else ABSENT
                ),
                "hangs_on": hangs_on(verdict),
                "seeds": f"{sentence(note)}." if note else "",
                "family": "exploratory" if claim.family == "exploratory" else "",
            }
        )
    return rows


def recommendation_table(entries: list[dict[str, Any]]) -> Table:
    """A practice a row: what it changes, how sure that is, and whether held-out seeds confirm it."""
    rows = []
    for entry in entries:
        held_out, response = entry["held_out"], entry["response"]
        rows.append(
            (
                entry["practice"],
                standing(entry),
                change(known(entry["effect"]), response),
                change_interval(bounds(entry["interval"]), response),
                change(known(entry["accuracy_effect"]), ACCURACY),
                change_interval(bounds(entry["accuracy_interval"]), ACCURACY),
                *(ABSENT if entry[p] is None else chance_text(entry[p]) for p in ("p_better", "p_better_accuracy")),
                chance_text(entry["p_best_of_all"]) if ranked(entry) else ABSENT,
                f"{entry['best_level']} ({chance_text(entry['p_best_level'])})" if ranked(entry) else ABSENT,
                held_out["status"] or ABSENT,
            )
        )
    columns = (
        "practice", "verdict", "effect", "95% interval", "accuracy", "95% interval of accuracy", "P(better)",
        "P(better) accuracy", "P(best of all)", "best level", "held-out seeds",
    )  # fmt: skip
    caption = (
        "Practices: effects on alignment and on test accuracy, and the probability of being the better of the two "
        "levels for each. Where the factor has more levels: the probability of being the best of all, and the level "
        "that looks best with its own."
    )
    flat = [
        {key: value for key, value in entry.items() if not isinstance(value, dict | list)}
        | {"low": entry["interval"][0], "high": entry["interval"][1]}
        | {"accuracy_low": entry["accuracy_interval"][0], "accuracy_high": entry["accuracy_interval"][1]}
        | {"caveats": "; ".join(entry["caveats"])}
        | {f"held_out_{key}": value for key, value in entry["held_out"].items() if not isinstance(value, list)}
        for entry in entries
    ]
    return Table("recommendations", caption, columns, tuple(rows), pd.DataFrame(flat), frozenset(columns[2:9]))


def known(value: float | None) -> float:
    """A number of a recommendation, NaN where it has none."""
    return float("nan") if value is None else value


def bounds(interval: list[float | None]) -> tuple[float, float]:
    return known(interval[0]), known(interval[1])


def effect_tables(analysis: Analysis) -> list[Table]:
    """One table for each design: a row for each rule and contrast."""
    tables = []
    for design in analysis.designs:
        found = [effects for effects in analysis.effects if effects.design == design]
        if found:
            tables.append(_effect_table(analysis, design, found))
    return tables


def _effect_table(analysis: Analysis, design: str, found: list[DesignEffects]) -> Table:
    shown = [name for name in (analysis.alignment, "test_accuracy") if name]
    shown = [name for name in shown if any(effects.by_response.get(name) for effects in found)]
    columns = ["rule", "change"]
    for name in shown:
        columns += [SHORT.get(name, label_of(name)) + in_unit(name), "95% interval", "p"]
    columns.append("seeds")
    rows = []
    for effects in found:
        changes: dict[tuple[str, tuple[str, str]], dict[str, Contrast]] = {}
        for name, members in effects.by_response.items():
            for effect in members:
                changes.setdefault((effect.factor, effect.levels), {})[name] = effect
        for (factor, levels), by_response in changes.items():
            row = [rule_name(effects.rule), row_label(factor, levels)]
            for name in shown:
                found_effect = by_response.get(name)
                row += _effect_cells(found_effect, name) if found_effect else [ABSENT] * 3
            row.append(str(max(effect.n_seeds for effect in by_response.values())))
            rows.append(tuple(row))
    frames = [
        contrast_frame(members).assign(rule=effects.rule, design=design)
        for effects in found
        for members in effects.by_response.values()
        if members
    ]
    data = pd.concat(frames, ignore_index=True)
    data = data[["design", "rule", *(name for name in data.columns if name not in ("design", "rule"))]]
    caption = (
        f"Design {design}: effect of each change on {listed(map(label_of, shown))}, averaged over the other factors. "
        "p: exact sign-flip test, Holm within rule and response."
    )
    if any(effects.rule == "bp" and analysis.alignment in effects.by_response for effects in found):
        caption += " BP's alignment is that of a feedback that never taught it."
    return Table(f"effects_{slug(design)}", caption, tuple(columns), tuple(rows), data, frozenset(columns[2:]))


def _effect_cells(effect: Contrast, response: str) -> list[str]:
    interval = change_interval(effect.interval, response)
    return [bare_change(effect.estimate, response), interval, p_text(effect.p_adjusted)]


def final_table(analysis: Analysis) -> Table | None:
    """Every recorded measure at the end of training, by rule and layer: mean over seeds of the mean over cells."""
    own = [name for name in analysis.measures if name not in LAYERS]
    measures = [name for name in (*SHOWN, *own) if analysis.recorded(name)]
    if not measures:
        return None
    rows = analysis.at_the_end(measures, design=analysis.design)
    seeds = rows.groupby(["rule", "signal", "layer", "seed"])[measures].mean()
    means = seeds.groupby(["rule", "signal", "layer"]).mean().dropna(how="all")
    order = {rule: place for place, rule in enumerate(analysis.study.rules)}
    data = means.reset_index().sort_values("rule", key=lambda column: column.map(order), kind="stable")
    data = data.reset_index(drop=True)
    text = [
        (
            rule_name(str(row["rule"])),
            str(row["signal"]),
            str(row["layer"]),
            *(level(row[name], name) if name.endswith("_deg") else number(row[name], 2) for name in measures),
        )
        for row in data.to_dict("records")
    ]
    columns = ("rule", "signal", "layer", *(SHORT.get(name, label_of(name)) for name in measures))
    caption = (
        f"Design {analysis.design}: measures at the end of training, means over seeds and cells. "
        "Bystander: a feedback that never taught."
    )
    return Table("final_measures", caption, columns, tuple(text), data, frozenset(columns[2:]))


def diverged_table(analysis: Analysis) -> Table | None:
    runs = analysis.runs
    failed = runs[runs["diverged"].fillna(False).astype(bool)]
    if failed.empty:
        return None
    groups = failed.groupby(["rule", "cell"], sort=False)
    data = groups.agg(
        runs=("run_id", "size"),
        first_step=("diverged_step", "min"),
        seeds=("seed", lambda s: " ".join(map(str, sorted(s)))),
    ).reset_index()
    rows = tuple(
        (
            rule_name(str(row["rule"])), str(row["cell"]) or "the study's options", str(row["runs"]),
            str(row["seeds"]), _step(row["first_step"]),
        )
        for row in data.to_dict("records")
    )  # fmt: skip
    columns = ("rule", "cell", "runs", "seeds", "first step")
    caption = "Runs that diverged: their measures are missing from the step on, and their pairs from every comparison."
    return Table("diverged", caption, columns, rows, data, frozenset({"runs", "first step"}))


def _step(value: Any) -> str:
    return ABSENT if pd.isna(value) or not math.isfinite(value) else f"{int(value):,}"
