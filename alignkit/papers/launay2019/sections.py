"""The sections of the report on the paper, each from the records of its studies."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from alignkit.claims.verdict import Verdict
from alignkit.claims.wording import deciding_p
from alignkit.papers.launay2019 import findings
from alignkit.papers.launay2019.figures import bottleneck_figure, ceiling_figure
from alignkit.papers.launay2019.findings import All
from alignkit.papers.launay2019.markdown import cosine_text, effect_text, rows_of, table_lines
from alignkit.papers.launay2019.published import HYPOTHESES, Hypothesis
from alignkit.records.rows import layers_of
from alignkit.records.store import Records
from alignkit.stats.tables.levels import level_column, level_order, level_text
from alignkit.text import ABSENT, change, change_interval, count, interval_text, number, signed

Tables = dict[str, pd.DataFrame]

INITIALISATIONS = {"pytorch": "standard", "pre_aligned": "pre-aligned"}
FACTORIAL = (
    ("second_layer", ("wide", "narrow")),
    ("feedback_rank", ("10", "2")),
    ("weights", ("free", "frozen")),
    ("signals", ("whole", "masked")),
)
FREEDOM = (("weight_sharing", ("true", "false")), ("channels", ("4", "16")), ("feedback_rank", ("2", "10")))


def claims(studies: All, tables: Tables) -> str:
    """Every practice and hypothesis: one seed as published, the verdict as corrected."""
    rows, kept, part_of = [], [], ""
    for hypothesis in HYPOTHESES:
        reading, verdict = findings.reading(studies, hypothesis), findings.verdict_on(studies, hypothesis)
        published = ABSENT
        if reading is not None and all(map(math.isfinite, reading.cosines)):
            agrees = (reading.cosines[1] > reading.cosines[0]) == hypothesis.rises
            low, high = map(cosine_text, reading.cosines)
            published = f"{low} → {high}: {'as claimed' if agrees else 'not so'}"
        title = f"… {hypothesis.title}" if hypothesis.part_of and hypothesis.part_of == part_of else hypothesis.whole
        part_of = hypothesis.part_of
        rows.append([title, published, *_corrected(verdict)])
        kept.append(_claim_row(hypothesis, reading, verdict))
    tables["claims"] = pd.DataFrame(kept)
    head = [
        "practice or hypothesis",
        "as published: cosine, one seed",
        "corrected: change of the angle",
        "p",
        "verdict",
    ]
    return "\n".join(
        [
            "## The claims",
            "",
            *table_lines(head, rows),
            "",
            "As published, the cosine is that of the seed with the best training accuracy, averaged over the hidden "
            "layers where feedback enters: one number, without an interval. Corrected, the change is in degrees (a "
            "smaller angle is better aligned), with a 95% interval over seeds, at rates tuned for each arm; p is "
            "adjusted within the study's family. A dash: not run, or left out by the profile. The bottleneck's rows go "
            "from the standard network to the narrow one, the others to the practice that the paper recommends. † The "
            "two levels learn best at other rates, or take steps of another length: the comparison is one of those too "
            "(`alignkit report` of the study says how much).",
        ]
    )


def _corrected(verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return [ABSENT, ABSENT, ABSENT]
    response = verdict.claim.response
    effect = f"{change(verdict.estimate, response)} {change_interval(verdict.interval, response)}"
    confounded = verdict.learning_rates or any("step length" in warning for warning in verdict.warnings)
    return [effect, deciding_p(verdict), f"**{verdict.verdict}**" + " †" * bool(confounded)]


def _claim_row(hypothesis: Hypothesis, reading: findings.Reading | None, verdict: Verdict | None) -> dict[str, Any]:
    row: dict[str, Any] = {"hypothesis": hypothesis.whole}
    row["published_from"], row["published_to"] = reading.cosines if reading else (math.nan, math.nan)
    row["study"], row["claim"] = hypothesis.corrected
    if verdict is not None:
        row |= {"estimate": verdict.estimate, "low": verdict.interval[0], "high": verdict.interval[1]}
        row |= {"p_adjusted": verdict.p_adjusted, "n_seeds": verdict.n_seeds, "verdict": verdict.verdict}
    return row


def bottleneck(studies: All, tables: Tables, figures: dict[str, Figure]) -> str:
    """The bottleneck experiment beside the figures of the paper."""
    name = "as_published_bottleneck"
    if name not in studies:
        return ""
    table = tables["bottleneck"] = findings.bottleneck(studies[name])
    figures["bottleneck"] = bottleneck_figure(table)
    rows = []
    for row in rows_of(table):
        cells = [str(row["size"]), INITIALISATIONS[row["initialisation"]]]
        for column in ("train", "test"):
            cells.append(_both(row, column, lambda value: number(value, 1)))
        cells += [_both(row, f"layer{k}", cosine_text) for k in (1, 2, 3)]
        rows.append(cells)
    cosine, accuracy, known = findings.bottleneck_distance(table)
    runs = studies[name].runs
    everywhere = runs[runs["bottleneck"].isna()]
    lines = [
        "## The bottleneck, as it was published",
        "",
        "![Cosines against the size of the bottleneck](figures/bottleneck.svg)",
        "",
        *table_lines(["b", "initialisation", "train, %", "test, %", "layer 1", "layer 2", "layer 3"], rows),
        "",
        "Each entry: here (published). "
        + (
            f"Over the {known} published rows that were run, the median distance of a cosine is {cosine:.3f} and the "
            f"largest of a test accuracy {number(accuracy, 1)} points. " * bool(known)
        )
        + "One seed, and other test images than the paper's. Training accuracy is that of the trained network, the "
        "paper's is a running mean over the last epoch, in training mode. No feedback enters at layer 1: it learns by "
        "back-propagation below layer 2, and signal and reference there are under masks of their own, which alone "
        "shortens its cosine to a share of b/800.",
    ]
    if len(everywhere):
        ids = everywhere["run_id"]
        layers = layers_of(studies[name])
        last = layers[layers["run_id"].isin(ids) & (layers["step"] == layers["step"].max())].sort_values("layer")
        lines += [
            "",
            f"With feedback at every hidden layer instead, the cosines are "
            f"{', '.join(map(cosine_text, last['signal_cosine']))}, test accuracy "
            f"{number(100 * float(everywhere['test_accuracy'].mean()), 1)}%.",
        ]
    return "\n".join(lines)


def _both(row: dict[str, Any], column: str, text: Any) -> str:
    published = row.get(f"published_{column}", math.nan)
    here = text(row[f"here_{column}"])
    return here if not math.isfinite(published) else f"{here} ({text(published)})"


def taken_apart(studies: All, tables: Tables, figures: dict[str, Figure]) -> str:
    """Which part of a bottleneck prevents alignment, and whether through the ceiling."""
    name = "corrected_bottleneck"
    if name not in studies:
        return ""
    records = studies[name]
    table = tables["bottleneck_ceilings"] = findings.ceilings(records, FACTORIAL, (None, 1, 2, 3))
    if table.empty:
        return ""
    cells = tables["bottleneck_cells"] = findings.cells(records)
    figures["taken_apart"] = ceiling_figure(table, "Which part of the bottleneck prevents alignment?", "layer")
    ordered = rows_of(cells.sort_values("signal_cosine_2"))
    best, worst = ordered[-1], ordered[0]
    return "\n".join(
        [
            "## The bottleneck, taken apart",
            "",
            "![What each part does to the cosine, its ceiling and the share reached](figures/taken_apart.svg)",
            "",
            *_effect_lines(table, "layer"),
            "",
            "Changes with 95% intervals over seeds, averaged over the other factors. The ceiling is the best cosine "
            "that any use of the layer's feedback could reach; the share says how much of it the network learned to "
            "use. If a part lowers the cosine through the ceiling, the ceiling falls and the share stays; if it keeps "
            "the network from learning, the share falls.",
            "",
            f"Layer 2's cosine is highest, {cosine_text(best['signal_cosine_2'])}, in {_cell_words(records, best)}, "
            f"and lowest, {cosine_text(worst['signal_cosine_2'])}, in {_cell_words(records, worst)} "
            "(`tables/bottleneck_cells.csv` has all cells).",
        ]
    )


def _cell_words(records: Records, row: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {level_text(row[name])}" for name in records.factors)


def _effect_lines(table: pd.DataFrame, layer_word: str) -> list[str]:
    """A table of what `findings.ceilings` found."""
    rows = [
        [
            f"{row['factor'].replace('_', ' ')}: {row['from']} → {row['to']}",
            "all" if row["layer"] == "mean" else str(row["layer"]),
            *(effect_text(row, response) for response in ("signal_cosine", "ceiling_cosine", "share")),
        ]
        for row in rows_of(table)
    ]
    return table_lines(["factor", layer_word, "cosine", "ceiling", "share of the ceiling"], rows)


def convolutions(studies: All, tables: Tables, figures: dict[str, Figure]) -> str:
    """Convolutions against locally connected blocks, and many channels against few."""
    name = "convolutions"
    if name not in studies:
        return ""
    records = studies[name]
    factors = list(records.factors)
    table = findings.cells(records)
    table = tables["convolutions"] = table.sort_values(factors, key=_places, ignore_index=True)
    effects = tables["convolutions_ceilings"] = findings.ceilings(records, FREEDOM, (1, 2, 3))
    rows = [
        [
            *(str(level_text(row[factor])) for factor in factors),
            *(_of_ceiling(row[f"signal_cosine_{k}"], row[f"ceiling_cosine_{k}"]) for k in (1, 2, 3)),
            f"{number(row['test_accuracy'], 1)}%",
        ]
        for row in table.to_dict("records")
    ]
    head = [*(factor.replace("_", " ") for factor in factors), "block 1", "block 2", "block 3", "test accuracy"]
    lines = [
        "## Do convolutions fail for the same reason?",
        "",
        *table_lines(head, rows),
        "",
        "Cosine at the end of training, of the ceiling that the feedback's row space sets, mean over seeds. A "
        "locally connected block (no weight sharing) has the shapes, the feedback and the rank of a "
        "convolution, and a kernel of its own at every position.",
    ]
    if not effects.empty:
        figures["convolutions"] = ceiling_figure(effects, "What lets convolution blocks align?", "block")
        lines += [
            "",
            "![What freedom does to the cosine, its ceiling and the share reached](figures/convolutions.svg)",
            "",
            *_effect_lines(effects, "block"),
            "",
            "Changes with 95% intervals over seeds, averaged over the other factors. A block that lacks freedom gains "
            "by a kernel of its own at every position in both ways: the signal that back-propagation sends comes "
            "nearer to what its feedback can say (the ceiling), and it learns to use more of that (the share).",
        ]
    return "\n".join(lines)


def _of_ceiling(cosine: float, ceiling: float) -> str:
    return f"{cosine_text(cosine)} of {cosine_text(ceiling)}" if math.isfinite(cosine) else ABSENT


def _places(column: pd.Series) -> pd.Series:
    """Where each level of a factor stands among them."""
    return level_column(column).map(level_order(column).index)


def accuracy(studies: All) -> str:
    """Whether runs that align better are more accurate."""
    name = "corrected_fc"
    if name not in studies:
        return ""
    lines = ["## Does alignment predict accuracy?", ""]
    for within, where in ((False, "between the practices of a seed"), (True, "between seeds of the same practice")):
        result = findings.accuracy_association(studies[name], within_cells=within)
        if result is None:
            lines.append(f"- {where[0].upper()}{where[1:]}: too few seeds to tell.")
            continue
        slope, correlation = result.slope, result.correlation
        lines.append(
            f"- {where[0].upper()}{where[1:]}: correlation of angle and test accuracy "
            f"{signed(correlation.estimate, 2)} {interval_text(correlation.interval, 2)}; a degree goes with "
            f"{signed(slope.estimate, 2)} points {interval_text(slope.interval, 2)} ({result.n_seeds} seeds)."
        )
    lines += [
        "",
        "Practices change rates, noise and capacity as well as angles, so the first line is no effect of alignment; "
        "the study `dose_response`, which imposes the angle, is.",
    ]
    return "\n".join(lines)


def defects(studies: All, tables: Tables) -> str:
    """What measuring as published adds to the cosines."""
    lines = ["## What the measurement adds", ""]
    if "defects" in tables:
        table = tables["defects"]
        rows = []
        for (trained, measured), own in table.groupby(["trained", "measured"], sort=False):
            if (own["change"].abs() < 5e-4).all():
                continue
            by_layer = {row["layer"]: row for row in own.to_dict("records")}
            cells = [
                f"{cosine_text(by_layer[layer]['one_pass'])} → {cosine_text(by_layer[layer]['cosine'])}"
                for layer in (1, 2, 3, "output")
            ]
            rows.append([str(trained).replace("_", " "), str(measured).replace("_", " "), *cells])
        head = ["network", "measured", "layer 1", "layer 2", "layer 3", "output"]
        lines += [
            *table_lines(head, rows),
            "",
            "The same trained networks, measured in one pass under the same masks and in other ways; mean over "
            f"{count(int(table['seeds'].max()), 'seed')}. At the output the two gradients are one and the same, so "
            "that any cosine below 1 there is the defect itself. Ways that change no cosine by .0005 are left out.",
        ]
    for name in ("corrected_fc", "corrected_bottleneck"):
        if name in studies:
            samples, seeds = findings.spreads(studies[name])
            lines += [
                "",
                f"One seed: in `{name}` the cosine's standard deviation over the samples of one network is "
                f"{samples:.3f} (median over arms and layers), that over seeds {seeds:.3f}. The first is what tables "
                "of one seed print; only the second says how far another network may be.",
            ]
            break
    return "\n".join(lines) if len(lines) > 2 else ""
