"""The report on the paper: a page in Markdown, its tables and its figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from alignkit.claims.recommendations import recommendations
from alignkit.claims.revision import notice
from alignkit.claims.verdicts import evaluate
from alignkit.claims.wording import to_json, to_markdown
from alignkit.errors import RecordsError
from alignkit.figures.style import save_figure
from alignkit.papers.launay2019 import findings, sections
from alignkit.papers.launay2019.findings import All
from alignkit.papers.launay2019.markdown import rows_of, table_lines
from alignkit.papers.launay2019.published import HYPOTHESES, STUDIES, Hypothesis
from alignkit.records.files import write_bytes
from alignkit.records.store import Records, load
from alignkit.settings.data import Images
from alignkit.text import count, for_spreadsheets, in_markdown, signed


def write_paper_report(directory: str | Path) -> Path:
    """Write README.md, tables/ and figures/ from the records of the paper's studies in `directory`/<study>, and
    return the page. Studies that were not run are named; the same records give the same bytes.

    Raises `RecordsError` where none was run.
    """
    directory = Path(directory)
    studies = {name: load(directory / name) for name in STUDIES if (directory / name / "records").is_dir()}
    for name, records in studies.items():
        if records.study.name != name:
            raise RecordsError(
                f"{directory / name}: expected records of the study {name}; got those of {records.study.name}. Move "
                "them to a folder of their own name"
            )
    if not studies:
        raise RecordsError(
            f"{directory}: expected records of the paper's studies, in folders called {', '.join(STUDIES)}; got none. "
            f"Run one: alignkit run launay2019/{STUDIES[0]} --data path/to/cifar10 --out {directory / STUDIES[0]}"
        )
    tables: dict[str, pd.DataFrame] = {}
    figures: dict[str, Figure] = {}
    entries = _recommendations(studies)
    if "defects" in studies:
        tables["defects"] = findings.defect_effects(studies["defects"])
    parts = [
        _opening(studies),
        _in_short(studies, tables),
        sections.claims(studies, tables),
        sections.bottleneck(studies, tables, figures),
        sections.taken_apart(studies, tables, figures),
        sections.convolutions(studies, tables, figures),
        sections.accuracy(studies),
        sections.defects(studies, tables),
        _advice(entries),
        _what_ran(studies, tables),
        _notes(directory),
    ]
    for name, figure in figures.items():
        for suffix, content in zip(("svg", "pdf"), save_figure(figure, name=name), strict=True):
            write_bytes(directory / "figures" / f"{name}.{suffix}", content)
    for name, table in tables.items():
        text = for_spreadsheets(table).to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_bytes(directory / "tables" / f"{name}.csv", text.encode())
    for suffix, written in (("json", to_json), ("md", to_markdown)):
        path = directory / f"recommendations.{suffix}"
        if entries:
            write_bytes(path, written(entries).encode())
        else:
            path.unlink(missing_ok=True)  # an earlier report's
    page = directory / "README.md"
    write_bytes(page, ("\n\n".join(part for part in parts if part) + "\n").encode())
    return page


def _opening(studies: All) -> str:
    lines = [
        "# Launay, Poli and Krzakala (2019), checked claim by claim",
        "",
        'What "Principled Training of Neural Networks with Direct Feedback Alignment" (arXiv:1906.04554) says, beside '
        "what its protocol gives when it is followed to the letter (*as published*) and what the same experiments give "
        "when they are measured right (*corrected*: both signals from one pass under the same masks, feedback at every "
        "hidden layer, a rate of its own for every arm, seeds as replicates, a twin that learns by back-propagation).",
    ]
    revised = notice(claim for records in studies.values() for claim in records.study.claims)
    if revised:
        lines[1:1] = ["", f"> **{revised[0]}** {' '.join(revised[1:])}"]
    smaller = {name: records.study.profile for name, records in studies.items() if records.study.profile}
    if smaller:
        lines += [
            "",
            "**Not the whole of it.** These studies ran in a smaller profile: "
            + "; ".join(f"`{name}` ({_profile_words(studies[name])})" for name in smaller)
            + ". What they show is early training, where it is fewer epochs; the full studies are those without "
            "`--profile`.",
        ]
    absent = [name for name in STUDIES if name not in studies]
    if absent:
        lines += ["", f"Not run: {', '.join(f'`{name}`' for name in absent)}."]
    return "\n".join(lines)


def _profile_words(records: Records) -> str:
    study = records.study
    epochs = count(study.training.epochs, "epoch")
    data = study.data
    images = f" of {data.train_samples:,} images" if isinstance(data, Images) and data.train_samples else ""
    return f"{epochs}{images}, {count(len(study.seed_list), 'seed')}"


def _in_short(studies: All, tables: dict[str, pd.DataFrame]) -> str:
    """What held up, what did not, and where one seed, measured as published, says something else."""
    judged = [(hypothesis, findings.verdict_on(studies, hypothesis)) for hypothesis in HYPOTHESES]
    words = {
        "supported": "Held up",
        "refuted": "The opposite was found",
        "equivalent": "No effect that matters",
        "undecided": "Undecided",
    }
    lines = []
    for name, title in words.items():
        so = [hypothesis for hypothesis, verdict in judged if verdict and verdict.verdict == name]
        if so:
            lines.append(f"- **{title}:** {_listed(so)}.")
    misleading = []
    for hypothesis, verdict in judged:
        reading = findings.reading(studies, hypothesis)
        if reading is None or verdict is None or verdict.verdict == "undecided":
            continue
        if not all(map(math.isfinite, reading.cosines)):
            continue
        says = (reading.cosines[1] > reading.cosines[0]) == hypothesis.rises
        if says != (verdict.verdict == "supported"):
            misleading.append(f"{hypothesis.whole} (read as {'true' if says else 'false'}, {verdict.verdict})")
    if misleading:
        lines.append(f"- **One seed, measured as published, says otherwise of:** {'; '.join(misleading)}.")
    if "defects" in tables:
        table = tables["defects"]
        worst = rows_of(table.iloc[[int(table["change"].abs().argmax())]])[0]
        lines.append(
            f"- **Artefacts:** the largest that a way of measuring adds to a cosine is {signed(worst['change'], 3)}, "
            f"{worst['measured'].replace('_', ' ')}, "
            + (f"layer {worst['layer']}" if worst["layer"] != "output" else "at the output")
            + f" of the network with {str(worst['trained']).replace('_', ' ')}."
        )
    return "\n".join(["## In short", "", *lines]) if lines else ""


def _listed(hypotheses: Sequence[Hypothesis]) -> str:
    """Hypotheses in a line, the parts of one together."""
    titled: list[str] = []
    for whole, parts in itertools.groupby(hypotheses, key=lambda hypothesis: hypothesis.part_of):
        titles = [part.title for part in parts]
        titled += [f"{whole} ({', '.join(titles)})"] if whole else titles
    return "; ".join(titled)


def _recommendations(studies: All) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for name in STUDIES:
        if name in studies and studies[name].study.claims and name != "defects":
            entries += recommendations(studies[name], evaluate(studies[name]))
    return entries


def _advice(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return ""
    lines = ["## What to do", ""]
    lines += [
        in_markdown(f"- **{entry['practice']}** ({entry['scope']['network'].upper()}): {entry['summary']}")
        for entry in entries
    ]
    lines += ["", "With scope, intervals and caveats: [recommendations.md](recommendations.md)."]
    return "\n".join(lines)


def _what_ran(studies: All, tables: dict[str, pd.DataFrame]) -> str:
    rows = []
    for name, records in studies.items():
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
            *table_lines(list(table.columns), text),
            "",
            "Pilots that tuned the rates are not counted. The page is made from the records beside it by "
            "`alignkit paper`, without training.",
        ]
    )


def _notes(directory: Path) -> str:
    """What those who ran the studies have to say, of their copy of the data for instance: notes.md beside the page."""
    notes = directory / "notes.md"
    try:
        return notes.read_text(encoding="utf-8").strip() if notes.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RecordsError(f"{notes}: expected readable text in UTF-8; got: {error}") from None
