"""Which configurations may be the best: whole networks, not single practices."""

from __future__ import annotations

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.configurations import ACCURACY, Configurations
from alignkit.columns import label_of
from alignkit.figures.configurations import chart
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.text import ABSENT, count, level, reading, rule_name, sentence

MOST_ROWS = 20
METHOD = (
    "A network is left out where it is rejected, at 5%, that it is the best: the largest t of any other network's lead "
    "over it, by joint sign flips of the seeds. So the network that is truly best is in a set with 95%, whatever the "
    "networks of a seed share. What is true of every network of a set is true of the best one with the same 95%."
)


def configurations(analysis: Analysis) -> Answer | None:
    """The cells of each design that may be the best aligned and the most accurate, and what they have in common."""
    found = analysis.configurations()
    if not found:
        return None
    largest = max(found, key=lambda one: (len(one.rankings), len(one.levels)))
    notes = [METHOD, *(f"{sentence(_name(one, found))}: {note}." for one in found for note in one.warnings)]
    others = [f"{sentence(_name(one, found))}: {' '.join(one.sentences())}" for one in found if one is not largest]
    charts = []
    if len(largest.rankings) == 2:
        charts.append(
            chart(
                largest.to_frame(), alignment=largest.rankings[0].response, accuracy=ACCURACY,
                see=_counts(largest), design=_name(largest, found), n_seeds=largest.n_seeds,
            )
        )  # fmt: skip
    return Answer(tuple(largest.sentences()), (_table(found),), tuple(charts), (*others, *notes))


def _name(one: Configurations, found: list[Configurations]) -> str:
    several_rules = len({each.rule for each in found}) > 1
    return one.design.replace("_", " ") + (f", {rule_name(one.rule)}" if several_rules else "")


def _counts(one: Configurations) -> str:
    aligned, accurate = (ranking.size for ranking in one.rankings)
    both = one.both
    n_both = 0 if both is None else int(both.sum())
    return (
        f"Of {count(len(one.levels), 'network')}, {aligned} may be the best aligned, {accurate} the most accurate, and "
        f"{n_both or 'none'} both."
    )


def _table(found: list[Configurations]) -> Table:
    data = pd.concat([one.to_frame() for one in found], ignore_index=True)
    rows = [row for one in found for row in _rows(one, found)]
    alignment = next((one.rankings[0].response for one in found if one.rankings[0].response != ACCURACY), "")
    columns: tuple[str, ...] = ("design", "network", *([label_of(alignment)] if alignment else []), "behind the best",
               label_of(ACCURACY), "behind the most accurate", "may be the best in")  # fmt: skip
    if not alignment:
        columns = tuple(name for name in columns if name != "behind the best")
        rows = [(*row[:2], *row[4:]) for row in rows]
    if len(found) == 1:
        columns, rows = columns[1:], [row[1:] for row in rows]
    left = len(rows) - MOST_ROWS
    caption = "The networks that may be the best in alignment or in accuracy, the best of both first." + (
        f" {left} more, and all that were left out, are in the CSV." if left > 0 else " The CSV has all networks."
    )
    return Table(
        "configurations", caption, columns, tuple(rows[:MOST_ROWS]), data, frozenset(columns[1:-1]) - {"network"}
    )


def _rows(one: Configurations, found: list[Configurations]) -> list[tuple[str, ...]]:
    """The members of the sets of one design, as text."""
    rankings = {ranking.response == ACCURACY: ranking for ranking in one.rankings}
    kept = []
    for cell, name in enumerate(one.names):
        best_in, numbers, rank = [], [], 0.0
        for accuracy, word in ((False, "alignment"), (True, "accuracy")):
            ranking = rankings.get(accuracy)
            if ranking is None:
                numbers += [ABSENT, ABSENT]
                continue
            means, behind = ranking.found.means[cell], ranking.found.behind[cell]
            numbers += [reading(means, ranking.response), level(behind, ranking.response)]
            if ranking.found.members[cell]:
                best_in.append(word)
                rank = rank or behind
        if best_in:
            order = (-len(best_in), best_in[0] != "alignment", rank)
            kept.append((order, (_name(one, found), name, *numbers, " and ".join(best_in))))
    return [row for _, row in sorted(kept, key=lambda pair: pair[0])]
