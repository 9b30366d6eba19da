"""Does alignment carry the effect on accuracy? Mediation, and why it is no proof."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from alignkit.claims.analysis import RESPONSES, Analysis
from alignkit.claims.verdict import Verdict
from alignkit.columns import EXCESS, label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer
from alignkit.report.sections.attempts import attempted, said_once
from alignkit.report.tables import Table
from alignkit.stats.mechanisms.mediation import Mediation
from alignkit.stats.mechanisms.mediation import mediation as mediate
from alignkit.study.claim import Claim
from alignkit.text import (
    bare_change,
    change,
    change_interval,
    count,
    in_unit,
    interval_text,
    listed,
    p_text,
    row_label,
    signed,
)

OUTCOME = "test_accuracy"
ALPHA = 0.05
NOT_RANDOMISED = (
    "Alignment was not randomised: these are associations, and whatever moves alignment and accuracy together from run "
    "to run is counted as going through alignment. Only imposing the angle answers whether alignment is a cause: the "
    "study dose_response does."
)


@dataclass(frozen=True)
class Path:
    """A claim's practice, and how its effect on accuracy divides over alignment and all else."""

    claim: Claim
    result: Mediation


def mediation(analysis: Analysis) -> Answer | None:
    """For each claim on alignment: the practice's total, direct and indirect effect on accuracy, and their frailty."""
    verdicts = [
        verdict
        for verdict in analysis.verdicts
        if verdict.claim.response.removesuffix(EXCESS) in RESPONSES and verdict.claim.rule != "bp"
    ]
    if not verdicts:
        return None
    found, failed = attempted(verdicts, lambda verdict: _mediation(analysis, verdict))
    reasons = said_once((verdict.claim.name, why) for verdict, why in failed)
    if not found:
        raise AnalysisError("; ".join(reasons))
    warned = said_once((path.claim.name, warning) for path in found for warning in path.result.warnings)
    notes = [f"{line}." for line in (*reasons, *warned)]
    notes += _slopes(found)
    notes.append(
        "That slope comes from runs of the same cell that differ by chance, seeds accounted for; claims on the same "
        "runs share it. Noise in a run's alignment draws it, and the indirect effect, towards 0. p-values are those of "
        "single tests."
    )
    return Answer((_answer(found), NOT_RANDOMISED), (_table(found),), notes=tuple(dict.fromkeys(notes)))


def _mediation(analysis: Analysis, verdict: Verdict) -> Path:
    claim = verdict.claim
    if not verdict.n_seeds:
        raise AnalysisError(verdict.reason)
    table = analysis.claim_rows(claim)
    accuracy = analysis.claim_rows(claim, response=OUTCOME)["value"]
    result = mediate(
        table.assign(alignment=table["value"], accuracy=accuracy),
        factor=claim.factor,
        levels=claim.levels,
        mediator="alignment",
        outcome="accuracy",
        within=analysis.claim_factors(claim),
    )
    return Path(claim, result)


def _answer(found: list[Path]) -> str:
    moved = [path for path in found if path.result.effects["total"].p < ALPHA]
    text = (
        f"Of {count(len(found), 'practice')}, {len(moved)} {'changes' if len(moved) == 1 else 'change'} test accuracy "
        "beyond what random signs over seeds explain. "
    )
    clear = [path for path in found if path.result.p < ALPHA]
    if clear:
        parts = []
        for path in clear:
            total, indirect = path.result.effects["total"], path.result.effects["indirect"]
            size = f"{change(indirect.estimate, OUTCOME)} {change_interval(indirect.interval, OUTCOME)}"
            parts.append(f"{path.claim.name} ({size} of {change(total.estimate, OUTCOME)})")
        text += f"An indirect effect through alignment is seen for {listed(parts)}."
    else:
        text += "No indirect effect through alignment is clearly different from zero."
    opposed = [path for path in moved if _opposed(path)]
    if opposed:
        text += (
            f" {len(opposed)} of the {len(moved)} ({listed(path.claim.name for path in opposed)}) "
            f"{'moves' if len(opposed) == 1 else 'move'} alignment and accuracy opposite ways: more accurate though "
            "worse aligned, or the reverse."
        )
    return text


def _slopes(found: list[Path]) -> list[str]:
    """The slope of accuracy on alignment behind each claim's indirect effect."""
    slopes = []
    for path in found:
        slope = path.result.effects["mediator on outcome"]
        per = "degree" if unit_of(path.claim.response) == "°" else "unit of cosine"
        text = f"{change(slope.estimate, OUTCOME)} {change_interval(slope.interval, OUTCOME)} per {per}"
        slopes.append((path.claim.name, f"the slope of accuracy on alignment is {text}."))
    return said_once(slopes)


def _opposed(path: Path) -> bool:
    on_alignment, total = (path.result.effects[name] for name in ("factor on mediator", "total"))
    better = -on_alignment.estimate if unit_of(path.claim.response) == "°" else on_alignment.estimate
    return on_alignment.p < ALPHA and better * total.estimate < 0


def _table(found: list[Path]) -> Table:
    columns = (
        "claim", "change", f"total{in_unit(OUTCOME)}", "95% interval", f"through alignment{in_unit(OUTCOME)}",
        "95% interval", "p", f"direct{in_unit(OUTCOME)}", "95% interval", "rho", "95% interval", "seeds", "runs",
    )  # fmt: skip
    rows = []
    for path in found:
        cells = [path.claim.name, row_label(path.claim.factor, path.result.levels)]
        for name in ("total", "indirect", "direct"):
            effect = path.result.effects[name]
            cells += [bare_change(effect.estimate, OUTCOME), change_interval(effect.interval, OUTCOME)]
            cells += [p_text(effect.p)] if name == "indirect" else []
        rho = path.result.association.correlation
        cells += [signed(rho.estimate, 2), interval_text(rho.interval, 2), str(path.result.n_seeds)]
        rows.append((*cells, f"{path.result.n_runs:,}"))
    measures = listed(dict.fromkeys(label_of(path.claim.response) for path in found))
    caption = (
        f"What each practice does to test accuracy, in all, through alignment ({measures}) and otherwise. Rho: the "
        "correlation between what is left of alignment and accuracy that an unmeasured common cause would have to "
        "bring about for the indirect effect to vanish; the nearer to 0, the less it takes."
    )
    data = pd.concat([path.result.to_frame().assign(claim=path.claim.name) for path in found], ignore_index=True)
    return Table("mediation", caption, columns, tuple(rows), data, frozenset(columns[2:]))
