"""Where the spread of alignment comes from: initial weights, feedback or data order."""

from __future__ import annotations

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.effects import STREAMS
from alignkit.columns import label_of, unit_of
from alignkit.errors import AnalysisError
from alignkit.figures.variance import chart
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.stats.mechanisms.variance_components import RESIDUAL, VarianceDecomposition, variance_components
from alignkit.text import MINUS, level, listed, p_text, reading, rule_name, sentence, slug

ACCURACY = "test_accuracy"


def variance(analysis: Analysis) -> Answer | None:
    """The variance components of alignment and accuracy, for each rule whose design crosses random streams."""
    found: dict[tuple[str, str], VarianceDecomposition] = {}
    notes: list[str] = []
    for rule in sorted(analysis.study.rules, key=lambda rule: rule == "bp"):
        for design in analysis.designs:
            crossed = analysis.streams(rule, design)
            if len(crossed) < 2:
                continue
            for response in (analysis.response, ACCURACY) if rule in analysis.rules else (ACCURACY,):
                table = analysis.final(response, rule=rule, design=design)
                try:
                    found[rule, response] = variance_components(table, factors=crossed)
                except AnalysisError as error:
                    notes.append(f"{rule_name(rule)}, {label_of(response)}: {error}.")
    if not found:
        return Answer((), notes=tuple(notes)) if notes else None
    answers = tuple(_answer(rule, response, result) for (rule, response), result in found.items())
    tables = tuple(_table(rule, response, result) for (rule, response), result in found.items())
    shares = pd.concat(
        result.to_frame().assign(response=f"{rule_name(rule)}: {label_of(response)}")
        for (rule, response), result in found.items()
    )
    first = next(iter(found.values()))
    names = {source: _in_words(source) for source in shares["source"]}
    drawn = chart(shares, names=names, method=_plain(first.method), see=answers[0])
    replicates = listed(f"{count} {_in_words(name)}" for name, count in first.n_seeds.items())
    notes.append(f"What replicates here are the draws of each stream ({replicates}), not seeds.")
    notes += [f"{_plain(warning)}." for result in found.values() for warning in result.warnings]
    return Answer(answers, tables, (drawn,), tuple(dict.fromkeys(notes)))


def _plain(text: str) -> str:
    """A sentence of the statistics with streams by their names alone."""
    return sentence(text).replace(STREAMS, "")


def _answer(rule: str, response: str, result: VarianceDecomposition) -> str:
    largest = sorted(result.components, key=lambda component: -component.share)[:3]
    parts = listed(
        f"{_in_words(part.source)} ({part.share:.0%} [{part.share_interval[0]:.0%}, {part.share_interval[1]:.0%}])"
        for part in largest
        if part.share >= 0.01
    )
    sd = max(result.total, 0.0) ** 0.5
    return (
        f"Under {rule_name(rule)}, the {label_of(response)} of two runs that share nothing varies with an sd of "
        f"{level(sd, response)}; most of that variance comes from {parts}."
    )


def _table(rule: str, response: str, result: VarianceDecomposition) -> Table:
    caption = (
        f"{rule_name(rule)}: variance components of the {label_of(response)} at the end of training"
        f"{f', in {unit_of(response)} squared' if unit_of(response) else ''}. Mean {reading(result.mean, response)}."
    )
    name = f"variance_{slug(rule)}_{slug(response)}"
    return Table.each(name, caption, result.components, result.to_frame(), columns=[
        ("source", lambda part: _in_words(part.source)),
        ("draws", lambda part: " x ".join(map(str, part.n_levels))),
        ("variance", lambda part: _short(part.estimate)),
        ("95% interval", lambda part: f"[{_short(part.interval[0])}, {_short(part.interval[1])}]"),
        ("sd", lambda part: _short(part.sd)),
        ("share", lambda part: f"{part.share:.0%}"),
        ("95% interval of share", lambda part: f"[{part.share_interval[0]:.0%}, {part.share_interval[1]:.0%}]"),
        ("p", lambda part: p_text(part.p)),
    ])  # fmt: skip


def _short(value: float) -> str:
    """Two significant digits: variance components span orders of magnitude."""
    return f"{value:.2g}".replace("-", MINUS)


def _in_words(source: str) -> str:
    """A source in words: "streams_order" is the data order."""
    words = {"initialisation": "initial weights", "order": "data order", "dropout": "dropout masks"}
    if source == RESIDUAL:
        return "the rest"
    return " x ".join(
        words.get(part.strip().removeprefix(STREAMS), part.strip().removeprefix(STREAMS)) for part in source.split(":")
    )
