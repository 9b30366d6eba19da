"""The report on the paper: a page in Markdown, its tables and its figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from alignkit.advice import to_json, to_markdown
from alignkit.claims import Verdict, evaluate
from alignkit.errors import RecordsError
from alignkit.figures import save_figure
from alignkit.figures.look import ABSENT, interval_text, signed
from alignkit.files import write_bytes
from alignkit.launay2019 import findings
from alignkit.launay2019.figures import bottleneck_figure, ceiling_figure
from alignkit.launay2019.findings import All
from alignkit.launay2019.published import HYPOTHESES, STUDIES, Hypothesis
from alignkit.recommend import recommendations
from alignkit.report.words import change, change_interval, count, deciding_p, number
from alignkit.settings import Images
from alignkit.stats import level_text
from alignkit.store import Records, load

INITIALISATIONS = {"pytorch": "standard", "pre_aligned": "pre-aligned"}
FACTORIAL = (
    ("second_layer", ("wide", "narrow")),
    ("feedback_rank", ("10", "2")),
    ("weights", ("free", "frozen")),
    ("signals", ("whole", "masked")),
)


def write_paper_report(directory: str | Path) -> Path:
    """Write README.md, tables/ and figures/ from the records of the paper's studies in `directory`/<study>, and
    return the page. Studies that were not run are named; the same records give the same bytes.

    Raises `RecordsError` where none was run.
    """
    directory = Path(directory)
    found = {name: load(directory / name) for name in STUDIES if (directory / name / "records").is_dir()}
    if not found:
        raise RecordsError(
            f"{directory}: expected records of the paper's studies, in folders called {', '.join(STUDIES)}; got none. "
            f"Run one: alignkit run launay2019/{STUDIES[0]} --data path/to/cifar10 --out {directory / STUDIES[0]}"
        )
    tables: dict[str, pd.DataFrame] = {}
    figures: dict[str, Figure] = {}
    entries = _recommendations(found)
    parts = [
        _opening(found),
        _in_short(found),
        _claims(found, tables),
        _bottleneck(found, tables, figures),
        _taken_apart(found, tables, figures),
        _convolutions(found, tables),
        _accuracy(found),
        _defects(found, tables),
        _advice(entries),
        _what_ran(found, tables),
        _notes(directory),
    ]
    for name, figure in figures.items():
        for suffix, content in zip(("svg", "pdf"), save_figure(figure, name=name), strict=True):
            write_bytes(directory / "figures" / f"{name}.{suffix}", content)
    for name, table in tables.items():
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_bytes(directory / "tables" / f"{name}.csv", text.encode())
    if entries:
        write_bytes(directory / "recommendations.json", to_json(entries).encode())
        write_bytes(directory / "recommendations.md", to_markdown(entries).encode())
    page = directory / "README.md"
    write_bytes(page, ("\n\n".join(part for part in parts if part) + "\n").encode())
    return page


def _opening(found: All) -> str:
    lines = [
        "# Launay, Poli and Krzakala (2019), checked claim by claim",
        "",
        'What "Principled Training of Neural Networks with Direct Feedback Alignment" (arXiv:1906.04554) says, beside '
        "what its protocol gives when it is followed to the letter (*as published*) and what the same experiments give "
        "when they are measured right (*corrected*: both signals from one pass under the same masks, feedback at every "
        "hidden layer, a rate of its own for every arm, seeds as replicates, a twin that learns by back-propagation).",
    ]
    smaller = {name: records.study.profile for name, records in found.items() if records.study.profile}
    if smaller:
        lines += [
            "",
            "**Not the whole of it.** These studies ran in a smaller profile: "
            + "; ".join(f"`{name}` ({_profile_words(found[name])})" for name in smaller)
            + ". What they show is early training, where it is fewer epochs; the full studies are those without "
            "`--profile`.",
        ]
    absent = [name for name in STUDIES if name not in found]
    if absent:
        lines += ["", f"Not run: {', '.join(f'`{name}`' for name in absent)}."]
    return "\n".join(lines)


def _profile_words(records: Records) -> str:
    study = records.study
    epochs = count(study.training.epochs, "epoch")
    data = study.data
    images = f" of {data.train_samples:,} images" if isinstance(data, Images) and data.train_samples else ""
    return f"{epochs}{images}, {count(len(study.seed_list), 'seed')}"


def _in_short(found: All) -> str:
    """What held up, what did not, and where one seed, measured as published, says something else."""
    judged = [(hypothesis, findings.verdict_on(found, hypothesis)) for hypothesis in HYPOTHESES]
    words = {
        "supported": "Held up",
        "refuted": "The opposite was found",
        "equivalent": "No effect that matters",
        "undecided": "Undecided",
    }
    lines = []
    for name, title in words.items():
        titles = [_plain(hypothesis) for hypothesis, verdict in judged if verdict and verdict.verdict == name]
        if titles:
            lines.append(f"- **{title}:** {'; '.join(titles)}.")
    misleading = []
    for hypothesis, verdict in judged:
        reading = findings.reading(found, hypothesis)
        if reading is None or verdict is None or verdict.verdict == "undecided":
            continue
        says = (reading.cosines[1] > reading.cosines[0]) == hypothesis.rises
        if says != (verdict.verdict == "supported"):
            misleading.append(f"{_plain(hypothesis)} (read as {'true' if says else 'false'}, {verdict.verdict})")
    if misleading:
        lines.append(f"- **One seed, measured as published, says otherwise of:** {'; '.join(misleading)}.")
    if "defects" in found:
        table = findings.defect_effects(found["defects"])
        worst = _rows(table.iloc[[int(table["change"].abs().argmax())]])[0]
        lines.append(
            f"- **Artefacts:** the largest that a way of measuring adds to a cosine is {signed(worst['change'], 3)}, "
            f"{worst['measured'].replace('_', ' ')}, "
            + (f"layer {worst['layer']}" if worst["layer"] != "output" else "at the output")
            + f" of the network with {str(worst['trained']).replace('_', ' ')}."
        )
    return "\n".join(["## In short", "", *lines]) if lines else ""


def _plain(hypothesis: Hypothesis) -> str:
    """A hypothesis that reads well out of its table."""
    return hypothesis.title.replace("… ", "a bottleneck prevents alignment: ")


def _claims(found: All, tables: dict[str, pd.DataFrame]) -> str:
    rows, kept = [], []
    for hypothesis in HYPOTHESES:
        reading, verdict = findings.reading(found, hypothesis), findings.verdict_on(found, hypothesis)
        published = ABSENT
        if reading is not None:
            agrees = (reading.cosines[1] > reading.cosines[0]) == hypothesis.rises
            published = (
                f"{_cosine(reading.cosines[0])} → {_cosine(reading.cosines[1])}: {'as claimed' if agrees else 'not so'}"
            )
        rows.append([hypothesis.title, published, *_corrected(verdict)])
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
            *_table(head, rows),
            "",
            "As published, the cosine is that of the seed with the best training accuracy, averaged over hidden "
            "layers: one number, without an interval. Corrected, the change is in degrees (a smaller angle is better "
            "aligned), with a 95% interval over seeds, at rates tuned for each arm; p is adjusted within the study's "
            "family. A dash: not run, or left out by the profile. The bottleneck's rows go from the standard network "
            "to the narrow one, the others to the practice that the paper recommends.",
        ]
    )


def _corrected(verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return [ABSENT, ABSENT, ABSENT]
    response = verdict.claim.response
    effect = f"{change(verdict.estimate, response)} {change_interval(verdict.interval, response)}"
    return [effect, deciding_p(verdict), f"**{verdict.verdict}**"]


def _claim_row(hypothesis: Hypothesis, reading: findings.Reading | None, verdict: Verdict | None) -> dict[str, Any]:
    row: dict[str, Any] = {"hypothesis": hypothesis.title}
    row["published_from"], row["published_to"] = reading.cosines if reading else (math.nan, math.nan)
    row["study"], row["claim"] = hypothesis.corrected
    if verdict is not None:
        row |= {"estimate": verdict.estimate, "low": verdict.interval[0], "high": verdict.interval[1]}
        row |= {"p_adjusted": verdict.p_adjusted, "n_seeds": verdict.n_seeds, "verdict": verdict.verdict}
    return row


def _bottleneck(found: All, tables: dict[str, pd.DataFrame], figures: dict[str, Figure]) -> str:
    name = "as_published_bottleneck"
    if name not in found:
        return ""
    table = tables["bottleneck"] = findings.bottleneck(found[name])
    figures["bottleneck"] = bottleneck_figure(table)
    rows = []
    for row in _rows(table):
        cells = [str(row["size"]), INITIALISATIONS[row["initialisation"]]]
        for column in ("train", "test"):
            cells.append(_both(row, column, lambda value: number(value, 1)))
        cells += [_both(row, f"layer{k}", _cosine) for k in (1, 2, 3)]
        rows.append(cells)
    cosine, accuracy, known = findings.bottleneck_distance(table)
    everywhere = found[name].runs[found[name].runs["bottleneck"].isna()]
    lines = [
        "## The bottleneck, as it was published",
        "",
        "![Cosines against the size of the bottleneck](figures/bottleneck.svg)",
        "",
        *_table(["b", "initialisation", "train, %", "test, %", "layer 1", "layer 2", "layer 3"], rows),
        "",
        "Each entry: here (published). "
        + (
            f"Over the {known} published rows that were run, the median distance of a cosine is {cosine:.3f} and the "
            f"largest of an accuracy {number(accuracy, 1)} points. " * bool(known)
        )
        + "One seed, and other test images than the paper's. Layer 1 has no feedback: its cosine near 1 without a "
        "bottleneck is that of back-propagation below layer 2, and falls as b/800 because signal and reference are "
        "under masks of their own.",
    ]
    if len(everywhere):
        ids = everywhere["run_id"]
        layers = found[name].layers
        last = layers[layers["run_id"].isin(ids) & (layers["step"] == layers["step"].max())].sort_values("layer")
        lines += [
            "",
            f"With feedback at every hidden layer instead, the cosines are "
            f"{', '.join(map(_cosine, last['signal_cosine']))}, test accuracy "
            f"{number(100 * float(everywhere['test_accuracy'].mean()), 1)}%.",
        ]
    return "\n".join(lines)


def _both(row: dict[str, Any], column: str, text: Any) -> str:
    published = row.get(f"published_{column}", math.nan)
    here = text(row[f"here_{column}"])
    return here if not math.isfinite(published) else f"{here} ({text(published)})"


def _taken_apart(found: All, tables: dict[str, pd.DataFrame], figures: dict[str, Figure]) -> str:
    name = "corrected_bottleneck"
    if name not in found:
        return ""
    records = found[name]
    table = tables["bottleneck_ceilings"] = findings.ceilings(records, FACTORIAL)
    cells = tables["bottleneck_cells"] = findings.cells(records)
    figures["taken_apart"] = ceiling_figure(table)
    rows = [
        [
            f"{row['factor'].replace('_', ' ')}: {row['from']} → {row['to']}",
            "all" if row["layer"] == "mean" else str(row["layer"]),
            *(_effect(row, response) for response in ("signal_cosine", "ceiling_cosine", "share")),
        ]
        for row in _rows(table)
    ]
    ordered = _rows(cells.sort_values("signal_cosine_2"))
    best, worst = ordered[-1], ordered[0]
    head = ["factor", "layer", "cosine", "ceiling", "share of the ceiling"]
    return "\n".join(
        [
            "## The bottleneck, taken apart",
            "",
            "![What each part does to the cosine, its ceiling and the share reached](figures/taken_apart.svg)",
            "",
            *_table(head, rows),
            "",
            "Changes with 95% intervals over seeds, averaged over the other factors. The ceiling is the best cosine "
            "that any use of the layer's feedback could reach; the share says how much of it the network learned to "
            "use. If a part lowers the cosine through the ceiling, the ceiling falls and the share stays; if it keeps "
            "the network from learning, the share falls.",
            "",
            f"Layer 2's cosine is highest, {_cosine(best['signal_cosine_2'])}, in {_cell_words(records, best)}, and "
            f"lowest, {_cosine(worst['signal_cosine_2'])}, in {_cell_words(records, worst)} "
            "(`tables/bottleneck_cells.csv` has all cells).",
        ]
    )


def _cell_words(records: Records, row: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {level_text(row[name])}" for name in records.factors)


def _convolutions(found: All, tables: dict[str, pd.DataFrame]) -> str:
    name = "convolutions"
    if name not in found:
        return ""
    table = tables["convolutions"] = findings.cells(found[name])
    factors = list(found[name].factors)
    rows = [
        [
            *(str(level_text(row[factor])) for factor in factors),
            *(f"{_cosine(row[f'signal_cosine_{k}'])} of {_cosine(row[f'ceiling_cosine_{k}'])}" for k in (1, 2, 3)),
            f"{number(row['test_accuracy'], 1)}%",
        ]
        for row in table.to_dict("records")
    ]
    head = [*(factor.replace("_", " ") for factor in factors), "block 1", "block 2", "block 3", "test accuracy"]
    return "\n".join(
        [
            "## Do convolutions fail for the same reason?",
            "",
            *_table(head, rows),
            "",
            "Cosine at the end of training, of the ceiling that the feedback's row space sets, mean over seeds. A "
            "locally connected block (no weight sharing) has the shapes, the feedback and the ceiling of a "
            "convolution, and a kernel of its own at every position.",
        ]
    )


def _accuracy(found: All) -> str:
    name = "corrected_fc"
    if name not in found:
        return ""
    lines = ["## Does alignment predict accuracy?", ""]
    for within, where in ((False, "between the practices of a seed"), (True, "between seeds of the same practice")):
        result = findings.accuracy_association(found[name], within_cells=within)
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


def _defects(found: All, tables: dict[str, pd.DataFrame]) -> str:
    lines = ["## What the measurement adds", ""]
    if "defects" in found:
        table = tables["defects"] = findings.defect_effects(found["defects"])
        rows = []
        for (trained, measured), own in table.groupby(["trained", "measured"], sort=False):
            if (own["change"].abs() < 5e-4).all():
                continue
            by_layer = {row["layer"]: row for row in own.to_dict("records")}
            cells = [
                f"{_cosine(by_layer[layer]['one_pass'])} → {_cosine(by_layer[layer]['cosine'])}"
                for layer in (1, 2, 3, "output")
            ]
            rows.append([str(trained).replace("_", " "), str(measured).replace("_", " "), *cells])
        head = ["network", "measured", "layer 1", "layer 2", "layer 3", "output"]
        lines += [
            *_table(head, rows),
            "",
            "The same trained networks, measured in one pass under the same masks and in other ways; mean over "
            f"{count(int(table['seeds'].max()), 'seed')}. At the output the two gradients are one and the same, so "
            "that any cosine below 1 there is the defect itself. Ways that change no cosine by .0005 are left out.",
        ]
    for name in ("corrected_fc", "corrected_bottleneck"):
        if name in found:
            samples, seeds = findings.spreads(found[name])
            lines += [
                "",
                f"One seed: in `{name}` the cosine's standard deviation over the samples of one network is "
                f"{samples:.3f} (median over arms and layers), that over seeds {seeds:.3f}. The first is what tables "
                "of one seed print; only the second says how far another network may be.",
            ]
            break
    return "\n".join(lines) if len(lines) > 2 else ""


def _recommendations(found: All) -> list[dict[str, Any]]:
    entries = []
    for name in STUDIES:
        if name in found and found[name].study.claims and name != "defects":
            entries += recommendations(found[name], evaluate(found[name]))
    return entries


def _advice(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return ""
    lines = ["## What to do", ""]
    lines += [
        f"- **{entry['practice']}** ({entry['scope']['network'].upper()}): {entry['summary']}" for entry in entries
    ]
    lines += ["", "With scope, intervals and caveats: [recommendations.md](recommendations.md)."]
    return "\n".join(lines)


def _what_ran(found: All, tables: dict[str, pd.DataFrame]) -> str:
    rows = []
    for name, records in found.items():
        study, timing = records.study, records.timing
        processors = sorted(set(timing["processor"].dropna())) if timing is not None and "processor" in timing else []
        gpus = sorted(set(timing["device"].dropna()) - {"cpu"}) if timing is not None and "device" in timing else []
        seconds = float(timing["seconds"].sum()) if timing is not None else math.nan
        held = 0 if records.held_out is None else len(records.held_out.runs)
        data = study.data
        samples = data.train_samples if isinstance(data, Images) and data.train_samples else "all"
        rows.append(
            {
                "study": name, "profile": study.profile or "full", "epochs": study.training.epochs,
                "training images": samples, "seeds": len(study.seed_list), "runs": len(records.runs) + held,
                "missing": records.missing, "diverged": int(records.runs["diverged"].sum()),
                "hardware": ", ".join(gpus or processors), "minutes of one core": round(seconds / 60, 1),
            }
        )  # fmt: skip
    table = tables["what_ran"] = pd.DataFrame(rows)
    text = [
        [f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in table.to_numpy().tolist()
    ]
    return "\n".join(
        [
            "## Exactly what ran",
            "",
            *_table(list(table.columns), text),
            "",
            "Pilots that tuned the rates are not counted. The page is made from the records beside it by "
            "`alignkit paper`, without training.",
        ]
    )


def _notes(directory: Path) -> str:
    """What those who ran the studies have to say, of their copy of the data for instance: notes.md beside the page."""
    notes = directory / "notes.md"
    return notes.read_text(encoding="utf-8").strip() if notes.is_file() else ""


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _effect(row: dict[str, Any], response: str) -> str:
    interval = (row[f"{response}_low"], row[f"{response}_high"])
    return f"{signed(row[response], 3)} {interval_text(interval, 3)}"


def _cosine(value: float) -> str:
    """A cosine to three decimals, without the leading zero."""
    if not math.isfinite(value):
        return ABSENT
    return number(value, 3).replace("0.", ".", 1)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
