"""The first table of the page: each claim as published, as published here, and corrected here."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alignkit.claims.panel import Answer
from alignkit.claims.wording import deciding_p
from alignkit.papers.launay2019 import findings
from alignkit.papers.launay2019.cells import cosine_text, words
from alignkit.papers.launay2019.findings import All, Judged
from alignkit.papers.launay2019.published import HYPOTHESES, Hypothesis
from alignkit.records.store import Records
from alignkit.report.tables import Table
from alignkit.settings.data import Images
from alignkit.text import ABSENT, change, change_interval, count, listed, number

UNGRADED = "ungraded"
PILOTED = "rates come from a pilot on other seeds, so that tuning is in no interval"


def claim_rows(studies: All) -> list[dict[str, Any]]:
    """A row for each of the paper's claims, in words."""
    return [_row(hypothesis, studies) for hypothesis in HYPOTHESES]


def _row(hypothesis: Hypothesis, studies: All) -> dict[str, Any]:
    reading, judged = findings.reading(studies, hypothesis), findings.judged(studies, hypothesis)
    here, agrees = ABSENT, ""
    if reading is not None and all(map(math.isfinite, reading.cosines)):
        low, high = map(cosine_text, reading.cosines)
        here = f"{low} → {high}"
        agrees = "as claimed" if says(hypothesis, reading) else "not as claimed"
    row: dict[str, Any] = {
        "hypothesis": hypothesis, "title": hypothesis.title, "part_of": hypothesis.part_of,
        "claim": hypothesis.claim, "here": here, "agrees": agrees,
        "effect": ABSENT, "interval": "", "accuracy": "", "where": "", "verdict": "", "grade": "", "reason": "Not run.",
        "p": "", "reading": reading, "judged": judged[0] if judged else None,
    }  # fmt: skip
    if hypothesis.a_rate:
        return row | {"verdict": "not identifiable", "reason": _sentence(hypothesis.a_rate)}
    if judged:
        row |= _corrected(judged[0])
        row["reason"] = " ".join([row["reason"], *(_also(other) for other in judged[1:])])
    return row


def says(hypothesis: Hypothesis, reading: findings.Reading) -> bool:
    """Whether one seed, measured as published, says what the paper claims."""
    return (reading.cosines[1] > reading.cosines[0]) == hypothesis.rises


def _corrected(judged: Judged) -> dict[str, str]:
    verdict = judged.verdict
    response = verdict.claim.response
    accuracy = judged.accuracy
    return {
        "effect": change(verdict.estimate, response) if verdict.n_seeds else ABSENT,
        "interval": change_interval(verdict.interval, response) if verdict.n_seeds else "",
        "accuracy": _accuracy(accuracy),
        "where": f"{words(judged.study)}, {place_words(judged)}",
        "verdict": verdict.verdict,
        "grade": verdict.grade or UNGRADED,
        "reason": _sentence(_reason(judged)),
        "p": deciding_p(verdict),
    }


def _accuracy(accuracy: Answer) -> str:
    if not accuracy.answered:
        return ""
    text = f"{change(accuracy.estimate, 'test_accuracy')} {change_interval(accuracy.interval, 'test_accuracy')}"
    return f"test accuracy {text}"


PLACES = {"signal": "at h", "delta": "at z", "gradient": "at the weight gradient", "step": "at the step"}


def place_words(judged: Judged) -> str:
    """Where a study's claim takes its angle, and in which mode."""
    claim, study = judged.verdict.claim, judged.records.study
    place = PLACES.get(claim.response.split("_")[0], words(claim.response))
    mode = {"batch": "batch statistics", "eval": "evaluation mode", "train": "training mode"}
    return f"{place}, {mode[claim.mode or study.probe.mode]}"


def scale_words(records: Records) -> str:
    """Epochs, images, widths and seeds of a study."""
    study = records.study
    data = study.data
    images = f" of {data.train_samples:,} images" if isinstance(data, Images) and data.train_samples else ""
    return f"{count(study.training.epochs, 'epoch')}{images}, {count(len(study.seed_list), 'seed')}"


def _reason(judged: Judged) -> str:
    verdict = judged.verdict
    if verdict.verdict == "undecided":
        return verdict.reason
    if judged.records.study.tuning is None:
        return "; ".join(part for part in ("piloted", _elsewhere(judged)) if part)
    parts = [verdict.grade_reason, *verdict.depends]
    if not verdict.depends and verdict.level_effects:
        sizes = [
            f"{effect.level} {change(effect.estimate, verdict.claim.response)}"
            for effect in verdict.level_effects
            if math.isfinite(effect.estimate)
        ]
        parts.append(f"apart, {listed(sizes)}")
    return "; ".join(part for part in parts if part)


def _elsewhere(judged: Judged) -> str:
    """Whether the same contrast says the same at the other places where records of a pilot have cosines."""
    own, found = judged.verdict.verdict, [each for each in judged.places if each.answered][1:]
    same = [PLACES[each.question.response.split("_")[0]] for each in found if each.verdict == own]
    other = [f"{PLACES[each.question.response.split('_')[0]]} {each.verdict}" for each in found if each.verdict != own]
    parts = [f"the same {listed(same)}"] * bool(same) + [listed(other)] * bool(other)
    return ", but ".join(parts) if same else "".join(parts)


def _also(judged: Judged) -> str:
    verdict = judged.verdict
    response = verdict.claim.response
    grade = f", {verdict.grade}" if verdict.grade else ""
    text = (
        f"{change(verdict.estimate, response)} {change_interval(verdict.interval, response)}: {verdict.verdict}{grade}"
    )
    return f"In {words(judged.study)} ({scale_words(judged.records)}), {text}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def claims_table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table of numbers, for machines and for papers."""
    kept = []
    for row in rows:
        hypothesis, reading, judged = row["hypothesis"], row["reading"], row["judged"]
        out: dict[str, Any] = {"hypothesis": hypothesis.whole, "published": hypothesis.claim}
        out["here_from"], out["here_to"] = reading.cosines if reading else (math.nan, math.nan)
        out |= {"study": "", "claim": "", "estimate": math.nan, "low": math.nan, "high": math.nan}
        out |= {"accuracy": math.nan, "p_adjusted": math.nan, "n_seeds": 0, "response": ""}
        if judged is not None:
            verdict = judged.verdict
            out |= {"study": judged.study, "claim": verdict.claim.name, "response": verdict.claim.response}
            out |= {"estimate": verdict.estimate, "low": verdict.interval[0], "high": verdict.interval[1]}
            out |= {"accuracy": judged.accuracy.estimate, "p_adjusted": verdict.p_adjusted, "n_seeds": verdict.n_seeds}
        kept.append(out | {"verdict": row["verdict"], "grade": row["grade"], "reason": row["reason"]})
    columns = (
        ("claim", lambda row: row["hypothesis"].whole), ("published", lambda row: row["claim"]),
        ("as published here", lambda row: " ".join([row["here"], row["agrees"]]).strip()),
        ("corrected here", lambda row: f"{row['effect']} {row['interval']}".strip()),
        ("verdict", lambda row: row["verdict"] or ABSENT), ("grade", lambda row: row["grade"] or ABSENT),
    )  # fmt: skip
    return Table.each(
        "claims", "The claims of the paper: published, as published here, corrected here.", rows, pd.DataFrame(kept),
        columns=columns, words=len(columns),
    )  # fmt: skip


def in_short(rows: list[dict[str, Any]]) -> list[str]:
    """The table in a few sentences."""
    judged = [row for row in rows if row["verdict"]]
    kinds = (
        ("supported", "held up"), ("refuted", "came out the other way"),
        ("equivalent", "made no difference that matters"), ("undecided", "stayed undecided"),
        ("not identifiable", "cannot be told from a learning rate"),
    )  # fmt: skip
    parts = [f"{sum(row['verdict'] == name for row in judged)} {text}" for name, text in kinds
             if any(row["verdict"] == name for row in judged)]  # fmt: skip
    graded = sum(row["grade"] in ("robust", "conditional", "contested") for row in judged)
    misleading = [
        row for row in judged
        if row["agrees"] and row["verdict"] in ("supported", "refuted", "equivalent")
        and (row["agrees"] == "as claimed") != (row["verdict"] == "supported")
    ]  # fmt: skip
    lines = []
    if parts:
        lines.append(
            f"Of {count(len(judged), 'claim')} and parts of claims, {listed(parts)}; {number(graded, 0)} of the "
            "verdicts are graded."
        )
    if misleading:
        lines.append(f"One seed, measured as published, says otherwise of {number(len(misleading), 0)} of them.")
    return lines
