"""What the verdicts hang on: each claim asked in every way, and at each level of its moderators."""

from __future__ import annotations

from math import isfinite

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.panel import Answer as PanelAnswer
from alignkit.claims.panel import Panel, panel_frame
from alignkit.claims.reading import hangs_on
from alignkit.claims.verdict import Verdict, grade_name
from alignkit.columns import label_of
from alignkit.figures.panel import chart, kind_of
from alignkit.report.section import Answer, Fold
from alignkit.report.tables import Table
from alignkit.study.hypotheses import layers_note
from alignkit.text import ABSENT, change, change_interval, count, listed, p_text, sentence, slug


def panels(analysis: Analysis) -> Answer | None:
    """Each claim's panel, where one has two rows with an answer or more, and the levels of its moderators."""
    found = [
        (panel, verdict)
        for panel, verdict in zip(analysis.panels, analysis.verdicts, strict=True)
        if sum(answer.answered for answer in panel.answers) > 1
    ]
    if not found:
        return None
    tables = [_overview(found), *_levels([verdict for _, verdict in found])]
    notes = [
        "The intervals are of each row alone. A claim is robust by the largest p over its core rows, adjusted within "
        "the family, and contested by a row that says the opposite beyond what random signs of the seeds explain, all "
        "graded rows taken together.",
        *(
            f"{verdict.claim.name}: {note}."
            for _, verdict in found
            if (note := layers_note(verdict.claim, analysis.study))
        ),
    ]
    return Answer(_sentences(found), tuple(tables), notes=tuple(notes), folds=tuple(_fold(*each) for each in found))


def _sentences(found: list[tuple[Panel, Verdict]]) -> tuple[str, ...]:
    graded: dict[str, list[str]] = {}
    for _, verdict in found:
        if grade_name(verdict):
            graded.setdefault(grade_name(verdict), []).append(verdict.claim.name)
    rows = sum(len(panel.answers) for panel, _ in found)
    first = f"{count(len(found), 'claim')} asked in {rows} ways."
    each = [f"{sentence(grade)}: {listed(names)}." for grade, names in graded.items()]
    return (first, *each)


def _overview(found: list[tuple[Panel, Verdict]]) -> Table:
    caption = (
        "Each claim's panel: in how many core rows the verdict holds, the largest adjusted p over them, and which "
        "rows do not say the same. The CSV has every row of every panel."
    )
    data = panel_frame([panel for panel, _ in found])
    return Table.each("panels", caption, found, data, words=4, columns=[
        ("claim", lambda each: each[1].claim.name),
        ("verdict", lambda each: each[1].verdict),
        ("grade", lambda each: grade_name(each[1]) or ABSENT),
        ("not shown in", lambda each: _others(each[0])),
        ("core rows that hold", lambda each: _holding(*each)),
        ("largest p", lambda each: p_text(each[0].p_robust)),
    ])  # fmt: skip


def _holding(panel: Panel, verdict: Verdict) -> str:
    core = panel.core
    if verdict.verdict in ("undecided", "not identifiable"):
        return ABSENT
    return f"{sum(answer.verdict == verdict.verdict for answer in core)} of {len(core)}"


def _others(panel: Panel) -> str:
    names = [f"{name} (the opposite)" for name in panel.opposite]
    names += [name for name in panel.fails if name not in panel.opposite]
    return listed(names) or ABSENT


def _fold(panel: Panel, verdict: Verdict) -> Fold:
    claim = verdict.claim
    see = sentence(hangs_on(verdict))
    table = Table.each(
        f"panels_{slug(claim.name)}",
        f"{sentence(claim.statement)}: change of the {label_of(claim.response)} unless the row says where else.",
        panel.answers, panel.to_frame(), words=3, columns=[
            ("question", lambda answer: answer.question.label),
            ("counts as", _counts_as),
            ("says", lambda answer: answer.verdict or ABSENT),
            ("effect", lambda answer: change(answer.estimate, answer.question.response)),
            ("95% interval", lambda answer: change_interval(answer.interval, answer.question.response)),
            ("p", lambda answer: p_text(answer.p)),
            ("seeds", lambda answer: str(answer.n_seeds) if answer.n_seeds else ABSENT),
        ],
    )  # fmt: skip
    whys = dict.fromkeys(
        f"{sentence(answer.question.label)}: {why}." for answer in panel.answers
        if (why := answer.reason or answer.question.why)
    )  # fmt: skip
    badge = ", ".join(part for part in (verdict.verdict, grade_name(verdict)) if part)
    return Fold(f"{claim.practice or claim.statement}: {badge}", (table,), (chart(panel, see=see),), tuple(whys))


def _counts_as(answer: PanelAnswer) -> str:
    question = answer.question
    kind = kind_of({"core": question.core, "graded": question.graded})
    return kind if question.comparable else f"{kind}, not comparable"


def _levels(verdicts: list[Verdict]) -> list[Table]:
    """The effect at each level of each moderator, and the p of what was asked of every two levels.

    What else belongs beside a marginal effect, as its spread over cells, goes into this table's rows.
    """
    rows = [(verdict, effect) for verdict in verdicts for effect in verdict.level_effects]
    if not rows:
        return []
    data = pd.DataFrame(
        {
            "claim": verdict.claim.name, "moderator": effect.moderator, "level": effect.level,
            "estimate": effect.estimate, "low": effect.interval[0], "high": effect.interval[1], "p": effect.p,
            "p_equivalence": effect.p_equivalence, "n_seeds": effect.n_seeds, "average": verdict.estimate,
        }
        for verdict, effect in rows
    )  # fmt: skip
    caption = (
        "The effect at each level of what it may depend on, beside its average. The intervals are of each level alone. "
        f"{_hypotheses(verdicts)}"
    )
    return [
        Table.each("panels_levels", caption, rows, data, words=2, columns=[
            ("claim", lambda each: each[0].claim.name),
            ("at", lambda each: f"{each[1].moderator.replace('_', ' ')} {each[1].level}"),
            ("effect", lambda each: change(each[1].estimate, each[0].claim.response)),
            ("95% interval", lambda each: change_interval(each[1].interval, each[0].claim.response)),
            ("p", lambda each: p_text(each[1].p)),
            ("average", lambda each: change(each[0].estimate, each[0].claim.response)),
            ("seeds", lambda each: str(each[1].n_seeds)),
        ])
    ]  # fmt: skip


def _hypotheses(verdicts: list[Verdict]) -> str:
    """The smallest adjusted p of each kind of dependence, claim by claim."""
    said = []
    for verdict in verdicts:
        smallest: dict[str, float] = {}
        for one in verdict.moderations:
            if isfinite(one.p_adjusted):
                smallest[one.hypothesis.kind] = min(one.p_adjusted, smallest.get(one.hypothesis.kind, 1.0))
        if smallest:
            each = listed(f"{kind} p {p_text(p)}" for kind, p in smallest.items())
            said.append(f"{verdict.claim.name}: {each}")
    return f"Whether it turns over or differs in size, adjusted within the family: {'; '.join(said)}." if said else ""
