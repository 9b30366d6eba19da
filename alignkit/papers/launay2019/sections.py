"""The sections of the report on the paper, each from the records of its studies."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alignkit.claims.panel import Panel, panel_frame, row_text
from alignkit.claims.verdicts import panels_of
from alignkit.figures.chart import Chart
from alignkit.papers.launay2019 import findings
from alignkit.papers.launay2019.cells import cosine_text, effect_text, rows_of, words
from alignkit.papers.launay2019.figures import bottleneck_figure, ceiling_figure, ladder_figure, panel_figure
from alignkit.papers.launay2019.findings import All
from alignkit.records.rows import layers_of
from alignkit.records.store import Records
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.stats.tables.levels import level_column, level_order, level_text
from alignkit.text import ABSENT, count, interval_text, listed, number, signed

INITIALISATIONS = {"pytorch": "standard", "pre_aligned": "pre-aligned"}
FACTORIAL = (
    ("second_layer", ("wide", "narrow")),
    ("feedback_rank", ("10", "2")),
    ("weights", ("free", "frozen")),
    ("signals", ("whole", "masked")),
)
FREEDOM = (("weight_sharing", ("true", "false")), ("channels", ("4", "16")), ("feedback_rank", ("2", "10")))


def _table(
    name: str, caption: str, head: list[str], rows: list[list[str]], data: pd.DataFrame, numbers: int = 1
) -> Table:
    """A table whose columns after the first `numbers` are numbers."""
    return Table(name, caption, tuple(head), tuple(map(tuple, rows)), data, frozenset(head[numbers:]))


def bottleneck(studies: All) -> Answer | None:
    """The bottleneck experiment beside the figures of the paper."""
    name = "as_published_bottleneck"
    if name not in studies:
        return None
    data = findings.bottleneck(studies[name])
    rows = []
    for row in rows_of(data):
        cells = [str(row["size"]), INITIALISATIONS[row["initialisation"]]]
        for column in ("train", "test"):
            cells.append(_both(row, column, lambda value: number(value, 1)))
        rows.append([*cells, *(_both(row, f"layer{k}", cosine_text) for k in (1, 2, 3))])
    cosine, accuracy, known = findings.bottleneck_distance(data)
    head = ["b", "initialisation", "train, %", "test, %", "layer 1", "layer 2", "layer 3"]
    table = _table("bottleneck", "Here, and in brackets as published.", head, rows, data, 2)
    sentences = []
    if known:
        sentences.append(
            f"Over the {known} published rows that were run, the median distance of a cosine is {cosine:.3f} and the "
            f"largest of a test accuracy {number(accuracy, 1)} points."
        )
    notes = [
        "One seed, and other test images than the paper's. Training accuracy is that of the trained network; the "
        "paper's is a running mean over the last epoch, in training mode.",
        "No feedback enters at layer 1: it learns by back-propagation below layer 2, and its cosine near 1 without a "
        "bottleneck says nothing about direct feedback alignment. Signal and reference there are under masks of their "
        "own, which alone shortens the cosine to a share of b/800.",
    ]
    runs = studies[name].runs
    everywhere = runs[runs["bottleneck"].isna()]
    if len(everywhere):
        layers = layers_of(studies[name])
        last = layers[layers["run_id"].isin(everywhere["run_id"]) & (layers["step"] == layers["step"].max())]
        sentences.append(
            "With feedback at every hidden layer instead, the cosines are "
            f"{listed(map(cosine_text, last.sort_values('layer')['signal_cosine']))}, test accuracy "
            f"{number(100 * float(everywhere['test_accuracy'].mean()), 1)}%."
        )
    chart = Chart(
        "bottleneck", "The published bottleneck", (
            f"Cosines lie {number(cosine, 3)} from the paper's, in the median." if known
            else "Cosines by size of the bottleneck."
        ),
        "Cosine at each layer's output against the size b of the bottleneck, in evaluation mode, against the BP "
        "signal in training mode under other masks; crosses are published values.", bottleneck_figure(data),
    )  # fmt: skip
    return Answer(tuple(sentences), (table,), (chart,), tuple(notes))


def _both(row: dict[str, Any], column: str, text: Any) -> str:
    published = row.get(f"published_{column}", math.nan)
    here = str(text(row[f"here_{column}"]))
    return here if not math.isfinite(published) else f"{here} ({text(published)})"


def panels(studies: All) -> Answer | None:
    """The corrected claims of the studies whose seeds tune themselves, asked in every defensible way."""
    tables, charts, sentences = [], [], []
    for name, records in studies.items():
        if records.study.tuning is None or records.missing:
            continue
        found = [panel for panel in panels_of(records) if any(answer.answered for answer in panel.answers)]
        if not found:
            continue
        sentences += [f"{panel.claim.statement} ({words(name)}): {panel.grade or 'no grade'}, {panel.reason}."
                      for panel in found if panel.reason]  # fmt: skip
        charts.append(
            Chart(
                f"panel_{name}",
                f"Panels, {words(name)}",
                _hangs_on(found),
                "The claim as declared comes first. Left of zero: better aligned. Filled: a core row, in which a "
                "robust verdict must hold; 95% intervals over seeds, tuning included, each of its row alone.",
                panel_figure(found),
            )
        )
        tables.append(_panel_table(name, found))
    return Answer(tuple(sentences), tuple(tables), tuple(charts)) if tables else None


def _hangs_on(panels: list[Panel]) -> str:
    robust = sum(panel.grade == "robust" for panel in panels)
    return f"{count(robust, 'verdict')} of {len(panels)} {'holds' if robust == 1 else 'hold'} wherever it is asked."


def _panel_table(name: str, panels: list[Panel]) -> Table:
    rows = [
        [
            panel.claim.name, answer.question.label, row_text(answer), answer.verdict or ABSENT,
            "core" if answer.question.core else "graded" if answer.question.graded else "shown",
        ]
        for panel in panels
        for answer in panel.answers
        if answer.answered
    ]  # fmt: skip
    head = ["claim", "asked", "change [95%]", "says", "row"]
    return _table(f"panel_{name}", f"The panels of {words(name)}.", head, rows, panel_frame(panels), len(head))


def ladder(studies: All) -> Answer | None:
    """The way from the released protocol to the corrected one, a change at a time."""
    if "ladder" not in studies or studies["ladder"].missing:
        return None
    values = findings.ladder_values(studies)
    data = findings.ladder(values)
    said = {**findings.PROTOCOLS, **{step: text for step, (text, _, _) in findings.TUNED.items()}}
    plain = values[values["practice"] == "plain"].groupby("step")[["cosine", "test_accuracy"]].mean()
    rows = []
    practices = list(dict.fromkeys(data["practice"]))
    for place, step in enumerate(dict.fromkeys(data["step"])):
        at = {row["practice"]: row for row in rows_of(data[data["step"] == step])}
        rows.append(
            [
                f"{place + 1}. {said[str(step)]}", cosine_text(plain.loc[step, "cosine"]),
                number(100 * plain.loc[step, "test_accuracy"], 1),
                *(_step_cell(at[practice]) if practice in at else ABSENT for practice in practices),
            ]
        )  # fmt: skip
    head = ["step", "plain net: cosine", "its test accuracy, %", *practices]
    table = _table(
        "ladder",
        "Change of the cosine, averaged over hidden layers: mean over seeds [95%]. =: a step that changes neither the "
        "networks nor their measure, so that the number above stands.",
        head, rows, data,
    )  # fmt: skip
    chart = Chart(
        "ladder", "From the released protocol to the corrected one", _largest_steps(data, said),
        "Right of zero: the practice aligns better. Steps are numbered as in the table.",
        ladder_figure(data, findings.SHORT),
    )  # fmt: skip
    spread = data[data["step"] == "own_feedback"]
    notes = [
        f"{count(int(spread['n_seeds'].max()), 'seed')} up to step 5, "
        + (f"{int(data['n_seeds'].max())} from step 6" if (data["step"] == "own_rate").any() else "and no step further")
        + "; crosses are the first seed alone, which is all that a published table of one seed has. The last change is "
        "to take the mean over seeds, with its interval.",
        "The masked network keeps 24% of layer 2's weights and of the signal below it, as the bottleneck of 191 "
        "units did. It has no tuned counterpart here; corrected_bottleneck has one.",
        "From step 6 a validation split is set aside, and the output layer has the rate .03 for .0005.",
    ]
    return Answer(tuple(_steps_in_words(data, said)), (table,), (chart,), tuple(notes))


def _step_cell(row: dict[str, Any]) -> str:
    return "=" if row["same"] else _step_size(row)


def _step_size(row: dict[str, Any]) -> str:
    return f"{signed(row['mean'], 3)} {interval_text((row['low'], row['high']), 3)}"


def _moves(data: pd.DataFrame) -> pd.DataFrame:
    """How far each step moves each practice's number."""
    order = list(dict.fromkeys(data["step"]))
    table = data.pivot(index="step", columns="practice", values="mean").loc[order]
    return table.diff().iloc[1:]


def _largest_steps(data: pd.DataFrame, said: dict[str, str]) -> str:
    moves = _moves(data).abs()
    step = str(moves.max(axis="columns").idxmax())
    return f"The step that moves a number most: {said[step].removeprefix('… ')} ({moves.loc[step].idxmax()})."


def _steps_in_words(data: pd.DataFrame, said: dict[str, str]) -> list[str]:
    moves, order = _moves(data), list(dict.fromkeys(data["step"]))
    lines = []
    for practice, rows in data.groupby("practice", sort=False):
        own = moves[practice].dropna()
        step = str(own.abs().idxmax())
        at = {row["step"]: row for row in rows_of(rows)}
        before, after = at[order[order.index(step) - 1]], at[step]
        lines.append(
            f"{str(practice)[0].upper()}{str(practice)[1:]}: the largest change comes with step "
            f"{order.index(step) + 1} ({said[step].removeprefix('… ')}), from {_step_size(before)} to "
            f"{_step_size(after)}."
        )
    return lines


def taken_apart(studies: All) -> Answer | None:
    """Which part of a bottleneck prevents alignment, and whether through the ceiling."""
    name = "corrected_bottleneck"
    if name not in studies:
        return None
    records = studies[name]
    data = findings.ceilings(records, FACTORIAL, (None, 1, 2, 3))
    if data.empty:
        return None
    cells = findings.cells(records)
    ordered = rows_of(cells.sort_values("signal_cosine_2"))
    best, worst = ordered[-1], ordered[0]
    chart = Chart(
        "taken_apart", "Which part of the bottleneck prevents alignment?",
        _lowers_most(data), "Changes with 95% intervals over seeds, averaged over "
        "the other factors, layer by layer.",
        ceiling_figure(data, "Which part of the bottleneck prevents alignment?", "layer"),
    )  # fmt: skip
    return Answer(
        (
            f"Layer 2's cosine is highest, {cosine_text(best['signal_cosine_2'])}, with "
            f"{_cell_words(records, best)}, and lowest, {cosine_text(worst['signal_cosine_2'])}, with "
            f"{_cell_words(records, worst)}.",
        ),
        (
            _effects("bottleneck_ceilings", data, "layer"),
            _cells(records, cells),
        ),
        (chart,),
        (
            "The ceiling is the best cosine that any use of the layer's feedback could reach; the share says how "
            "much of it the network learned to use. If a part lowers the cosine through the ceiling, the ceiling "
            "falls and the share stays; if it keeps the network from learning, the share falls.",
        ),
    )


def _lowers_most(data: pd.DataFrame) -> str:
    mean = data[data["layer"] == "mean"].set_index("factor")
    if mean.empty:
        return "What each part does, layer by layer."
    worst = str(mean["share"].idxmin())
    return f"What lowers the share of the ceiling most: {words(worst)} {level_text(mean.loc[worst, 'to'])}."


def _cells(records: Records, data: pd.DataFrame) -> Table:
    factors = list(records.factors)
    rows = [
        [
            *(str(level_text(row[name])) for name in factors),
            *(_of_ceiling(row[f"signal_cosine_{k}"], row[f"ceiling_cosine_{k}"]) for k in (1, 2, 3)),
            number(row["test_accuracy"], 1),
        ]
        for row in rows_of(data)
    ]
    head = [*map(words, factors), "layer 1", "layer 2", "layer 3", "test accuracy, %"]
    return _table(
        "bottleneck_cells", "All cells: cosine, of its ceiling, mean over seeds.", head, rows, data, len(factors)
    )


def _cell_words(records: Records, row: dict[str, Any]) -> str:
    return ", ".join(f"{words(name)} {level_text(row[name])}" for name in records.factors)


def _effects(name: str, data: pd.DataFrame, layer_word: str) -> Table:
    """A table of what `findings.ceilings` found."""
    rows = [
        [
            f"{words(row['factor'])}: {row['from']} → {row['to']}",
            "all" if row["layer"] == "mean" else str(row["layer"]),
            *(effect_text(row, response) for response in ("signal_cosine", "ceiling_cosine", "share")),
        ]
        for row in rows_of(data)
    ]
    head = ["factor", layer_word, "cosine", "ceiling", "share of the ceiling"]
    return _table(name, "Changes with 95% intervals over seeds, averaged over the other factors.", head, rows, data)


def convolutions(studies: All) -> Answer | None:
    """Convolutions against locally connected blocks, and many channels against few."""
    name = "convolutions"
    if name not in studies:
        return None
    records = studies[name]
    factors = list(records.factors)
    data = findings.cells(records).sort_values(factors, key=_places, ignore_index=True)
    rows = [
        [
            *(str(level_text(row[factor])) for factor in factors),
            *(_of_ceiling(row[f"signal_cosine_{k}"], row[f"ceiling_cosine_{k}"]) for k in (1, 2, 3)),
            number(row["test_accuracy"], 1),
        ]
        for row in rows_of(data)
    ]
    head = [*map(words, factors), "block 1", "block 2", "block 3", "test accuracy, %"]
    tables = [
        _table(
            name,
            "Cosine at the end of training, of the ceiling that the feedback's row space sets, mean over seeds.",
            head,
            rows,
            data,
            len(factors),
        )
    ]
    notes = [
        "A locally connected block (no weight sharing) has the shapes, the feedback and the rank of a convolution, "
        "and a kernel of its own at every position; so it has many times the parameters."
    ]
    charts = []
    effects = findings.ceilings(records, FREEDOM, (1, 2, 3))
    if not effects.empty:
        title = "What lets convolution blocks align?"
        charts.append(
            Chart(
                name,
                title,
                _freedom_words(effects),
                "Changes with 95% intervals over seeds, averaged over the other factors, block by block.",
                ceiling_figure(effects, title, "block"),
            )
        )
        tables.append(_effects("convolutions_ceilings", effects, "block"))
        notes.append(
            "A block that lacks freedom gains by a kernel of its own at every position in both ways: the signal that "
            "back-propagation sends comes nearer to what its feedback can say (the ceiling), and it learns to use "
            "more of that (the share)."
        )
    return Answer((), tuple(tables), tuple(charts), tuple(notes))


def _freedom_words(effects: pd.DataFrame) -> str:
    own = effects[effects["factor"] == "weight_sharing"]
    if own.empty:
        return "What freedom does to each block."
    changes = listed(f"{signed(row['signal_cosine'], 2)} at block {row['layer']}" for row in rows_of(own))
    return f"With a kernel of its own at every position, the cosine changes by {changes}."


def _of_ceiling(cosine: float, ceiling: float) -> str:
    return f"{cosine_text(cosine)} of {cosine_text(ceiling)}" if math.isfinite(cosine) else ABSENT


def _places(column: pd.Series) -> pd.Series:
    """Where each level of a factor stands among them."""
    return level_column(column).map(level_order(column).index)


def accuracy(studies: All) -> Answer | None:
    """Whether runs that align better are more accurate."""
    name = "corrected_fc"
    if name not in studies or studies[name].missing:
        return None
    lines = []
    for within, where in ((False, "Between the practices of a seed"), (True, "Between seeds of the same practice")):
        result = findings.accuracy_association(studies[name], within_cells=within)
        if result is None:
            lines.append(f"{where}: too few seeds to tell.")
            continue
        slope, correlation = result.slope, result.correlation
        lines.append(
            f"{where}, the correlation of angle and test accuracy is {signed(correlation.estimate, 2)} "
            f"{interval_text(correlation.interval, 2)}; a degree goes with {signed(slope.estimate, 2)} points "
            f"{interval_text(slope.interval, 2)} ({count(result.n_seeds, 'seed')})."
        )
    note = (
        "Practices change rates, noise and capacity as well as angles, so the first sentence is no effect of "
        "alignment; the study dose_response, which imposes the angle, is."
    )
    return Answer(tuple(lines), notes=(note,))


def defects(studies: All) -> Answer | None:
    """What measuring as published adds to the cosines."""
    sentences, tables, notes = [], [], []
    if "defects" in studies:
        data = findings.defect_effects(studies["defects"])
        rows = []
        for (trained, measured), own in data.groupby(["trained", "measured"], sort=False):
            if (own["change"].abs() < 5e-4).all():
                continue
            by_layer = {row["layer"]: row for row in own.to_dict("records")}
            cells = [
                f"{cosine_text(by_layer[layer]['one_pass'])} → {cosine_text(by_layer[layer]['cosine'])}"
                for layer in (1, 2, 3, "output")
            ]
            rows.append([words(trained), words(measured), *cells])
        worst = rows_of(data.iloc[[int(data["change"].abs().argmax())]])[0]
        where = f"layer {worst['layer']}" if worst["layer"] != "output" else "at the output"
        sentences.append(
            f"The largest that a way of measuring adds to a cosine is {signed(worst['change'], 3)}: "
            f"{words(worst['measured'])}, {where} of the network with {words(worst['trained'])}."
        )
        seeds = count(int(data["seeds"].max()), "seed")
        tables.append(
            _table(
                "defects",
                f"The same networks, measured in one pass under the same masks → in another way; mean over {seeds}.",
                ["network", "measured", "layer 1", "layer 2", "layer 3", "output"],
                rows,
                data,
                2,
            )
        )
        notes.append(
            "At the output the two gradients are one and the same, so that any cosine below 1 there is the defect "
            "itself. Ways that change no cosine by .0005 are left out."
        )
    name = "corrected_bottleneck"
    if name in studies:
        samples, seeds_sd = findings.spreads(studies[name])
        notes.append(
            f"One seed: in {name} the cosine's standard deviation over the samples of one network is {samples:.3f} "
            f"(median over arms and layers), that over seeds {seeds_sd:.3f}. The first is what tables of one seed "
            "print; only the second says how far another network may be."
        )
    return Answer(tuple(sentences), tuple(tables), (), tuple(notes)) if sentences or notes else None
