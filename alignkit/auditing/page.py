"""The page of an audit, its table and its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from alignkit.auditing.figure import shown_questions, specification_curve
from alignkit.auditing.result import ALPHA, Audit, ClaimAudit, words_of
from alignkit.claims.verdict import GRADES
from alignkit.columns import digits_of, label_of
from alignkit.figures.style import save_svg
from alignkit.records.files import write_bytes
from alignkit.report.html import page_text
from alignkit.report.svg import inline_svg
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim
from alignkit.text import (
    ABSENT,
    change,
    change_interval,
    count,
    for_spreadsheets,
    interval_text,
    listed,
    p_text,
    row_label,
    rule_name,
    sentence,
    signed,
    slug,
)

TEMPLATES = Path(__file__).parent / "templates"
FILES = ("audit.html", "audit.csv", "audit.json")


def write_audit(audit: Audit, out_dir: str | Path, *, title: str = "") -> Path:
    """Write audit.html, audit.csv and audit.json below `out_dir` and return the path of the page.

    The page is one file, without a script. The same audit gives the same bytes.
    """
    out_dir = Path(out_dir)
    table = audit.to_frame().drop(columns=["why", "verdict"], errors="ignore")
    csv = for_spreadsheets(table).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    content = {
        "audit.html": render(audit, title=title),
        "audit.csv": csv,
        "audit.json": json.dumps(audit.to_dict(), indent=1, ensure_ascii=False) + "\n",
    }
    for name in FILES:
        write_bytes(out_dir / name, content[name].encode())
    return out_dir / "audit.html"


def render(audit: Audit, *, title: str = "") -> str:
    """The page as text."""
    return page_text(
        "audit.html",
        folder=TEMPLATES,
        title=title or audit.study,
        study=audit.study,
        lead=lead(audit),
        claims=[_context(each, number) for number, each in enumerate(audit.claims, start=1)],
        grades=GRADES,
        alpha=f"{ALPHA:.0%}",
    )


def lead(audit: Audit) -> list[str]:
    """What an audit found, in sentences."""
    robust = [each for each in audit.claims if each.grade == "robust"]
    judged = [each for each in audit.claims if each.has_a_side]
    asked = sum(each.asked for each in audit.claims)
    least = min((each.asked for each in audit.claims if each.asked), default=0)
    lines = [
        f"{count(asked, 'question')} were asked of {count(len(audit.claims), 'claim')}, at least {least:,} of each "
        "that could be asked."
    ]
    if not robust:
        lines.append("No verdict is graded robust.")
    elif audit.contradicted:
        lines.append(
            f"Of {count(len(robust), 'verdict')} graded robust, {len(audit.contradicted)} "
            f"{'meets' if len(audit.contradicted) == 1 else 'meet'} an opposite answer beyond chance: "
            f"{listed(audit.contradicted)}."
        )
    else:
        which = "The one verdict" if len(robust) == 1 else f"None of {len(robust)} verdicts"
        lines.append(f"{which} graded robust meets {'no' if len(robust) == 1 else 'an'} opposite answer beyond chance.")
    others = [each.claim.name for each in judged if each.grade != "robust" and len(each.contradictions)]
    if others:
        lines.append(f"Verdicts of other grades that meet one: {listed(others)}.")
    return lines


def _context(each: ClaimAudit, number: int) -> dict[str, Any]:
    claim = each.claim
    context: dict[str, Any] = {
        "claim": claim,
        "id": f"claim-{slug(claim.name)}",
        "comparison": row_label(claim.factor, _levels(claim)),
        "response": label_of(claim.response),
        "rule": rule_name(claim.rule),
        "verdict": each.verdict,
        "grade": each.grade,
        "effect": change(each.estimate, claim.response),
        "interval": change_interval(each.interval, claim.response),
        "contradicted": each.contradicted,
        "reason": each.reason,
        "asked": f"{each.asked:,}" if each.asked else ABSENT,
        "same": ABSENT, "opposite": ABSENT, "beyond": ABSENT, "told": "", "figure": None, "listing": [], "certain": [],
        "moderators": [], "notes": list(each.lacks),
    }  # fmt: skip
    if not each.asked:
        return context
    if each.has_a_side:
        context |= {side: f"{len(each.on_side(side)):,}" for side in ("same", "opposite")}
        context["beyond"] = f"{len(each.contradictions):,}"
    context["told"] = " ".join(_told(each))
    svg = save_svg(specification_curve(each), name=context["id"])
    description = f"Specification curve of the claim {claim.name}: {context['told']}"
    context["figure"] = {
        "number": number,
        "svg": Markup(inline_svg(svg, name=context["id"], description=description)),
        "see": sentence(_see(each)),
        "how": "A dot is one question, with its 95% interval over seeds, not adjusted; dots share their seeds and "
        "runs, so many that agree are not many pieces of evidence. Below, the darker, the larger the share of the "
        "questions there that made this choice. Questions on other scales (cosine, log, rank) are in the table alone.",
    }
    opposite = each.on_side("opposite").sort_values("p_opposite", na_position="last", kind="stable")
    context["listing"] = [_line(row, claim.response) for row in opposite.itertuples(index=False)]
    context["certain"] = _certain(each)
    context["moderators"] = _moderators(each)
    apart = each.questions[~each.questions["comparable"]]
    if len(apart):
        context["notes"].append(
            f"{count(len(apart), 'question')} {'is' if len(apart) == 1 else 'are'} not comparable, shown and not "
            f"tested: {apart['why'].iloc[0]}."
        )
    if each.coincide:
        context["notes"].append(
            f"{count(each.coincide, 'question')} more had the very answers of another, seed by seed, and are left out."
        )
    return context


def _levels(claim: Claim) -> tuple[str, str]:
    low, high = (level_text(level) or "none" for level in claim.levels)
    return low, high


def _told(each: ClaimAudit) -> list[str]:
    if not each.has_a_side:
        return [f"{count(each.asked, 'question')}. There is no verdict to be opposite to: signs are set beside the "
                f"declared estimate's, {len(each.on_side('same')):,} the same and {len(each.on_side('opposite')):,} "
                "opposite."]  # fmt: skip
    beyond, opposite = len(each.contradictions), len(each.on_side("opposite"))
    kind = "lie beyond the smallest effect" if each.verdict == "equivalent" else "have the opposite sign"
    lines = [f"{count(each.asked, 'question')}: {opposite:,} {kind}, {beyond:,} beyond chance."]
    if each.contradicted:
        lines.append("The verdict is graded robust and is contradicted.")
    elif beyond and each.grade:
        lines.append(f"The verdict is graded {each.grade}, and so claims not to hold everywhere.")
    elif beyond:
        lines.append("The verdict is not graded.")
    return lines


def _see(each: ClaimAudit) -> str:
    table = shown_questions(each)
    low, middle, high = table["estimate"].quantile([0.05, 0.5, 0.95])
    digits = digits_of(each.claim.response)
    size = f"{signed(low, digits)} and {signed(high, digits)}"
    return f"nine in ten of {len(table):,} estimates lie between {size}, the middle one is {signed(middle, digits)}."


def _line(row: Any, response: str) -> dict[str, str]:
    digits = 1 if row.scale == "rank" else digits_of(response) if row.scale in ("degrees", "points") else 3
    return {
        "question": words_of(row),
        "estimate": signed(row.estimate, digits),
        "interval": interval_text((row.low, row.high), digits),
        "p": p_text(row.p_opposite) if row.tested else ("not comparable" if not row.comparable else "not tested"),
        "seeds": str(row.n_seeds),
        "cells": str(row.n_cells),
        "beyond": "yes" if row.tested and row.p_opposite < ALPHA else "",
    }


def _certain(each: ClaimAudit) -> list[dict[str, str]]:
    """Where the answers lie that are opposite beyond chance: by place, layer and rates."""
    found = each.contradictions
    if found.empty or not each.has_a_side:
        return []
    keys = ["place", "mode", "layer", "rates"]
    rows: list[dict[str, str]] = []
    for key, part in found.groupby(keys, sort=False):
        first = part.iloc[0]
        line = _line(next(part.head(1).itertuples(index=False)), each.claim.response)
        place, mode, layer, rates = map(str, key if isinstance(key, tuple) else (key,))
        rows.append(
            {"place": ", ".join(text for text in (place, mode) if text), "layer": layer or ABSENT, "rates": rates,
             "plateau": ABSENT if first["plateau"] != first["plateau"] else f"{first['plateau']:.0%}",
             "count": str(len(part)), "surest": f"{line['estimate']} {line['interval']}", "scale": str(first["scale"]),
             "p": line["p"]}
        )  # fmt: skip
    return rows


def _moderators(each: ClaimAudit) -> list[dict[str, str]]:
    response = each.claim.response
    rows: list[dict[str, str]] = []
    table: pd.DataFrame = each.moderators
    for row in table.itertuples(index=False):
        estimate, low, high = (float(getattr(row, name)) for name in ("estimate", "low", "high"))
        rows.append(
            {"factor": str(row.factor).replace("_", " "), "level": str(row.level), "effect": change(estimate, response),
             "interval": change_interval((low, high), response), "p": p_text(float(str(row.p))),
             "cells": str(row.n_cells), "turns": "turns over" if row.turns_over else ""}
        )  # fmt: skip
    return rows
