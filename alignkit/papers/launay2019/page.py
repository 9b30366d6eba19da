"""The report on the paper: a page of the same make as a study's, its tables and its figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from alignkit.claims.verdict import GRADES, VERDICTS
from alignkit.errors import RecordsError
from alignkit.figures.style import save_figure
from alignkit.papers.launay2019 import sections
from alignkit.papers.launay2019.cells import words
from alignkit.papers.launay2019.claims import PILOTED, UNGRADED, claim_rows, claims_table, in_short
from alignkit.papers.launay2019.findings import All
from alignkit.papers.launay2019.published import STUDIES
from alignkit.records.files import write_bytes
from alignkit.records.store import load
from alignkit.report.html import page_text
from alignkit.report.section import Answer
from alignkit.report.svg import inline_svg
from alignkit.report.tables import Table
from alignkit.settings.data import Images
from alignkit.study.study import Study
from alignkit.text import count, listed

TITLE = "Launay, Poli and Krzakala (2019), checked claim by claim"
QUESTIONS: tuple[tuple[str, str, Callable[[All], Answer | None]], ...] = (
    ("bottleneck", "The bottleneck, as it was published", sections.bottleneck),
    ("panels", "The corrected claims, asked in every way", sections.panels),
    ("ladder", "From the released protocol to the corrected one", sections.ladder),
    ("apart", "The bottleneck, taken apart", sections.taken_apart),
    ("convolutions", "Do convolutions fail for the same reason?", sections.convolutions),
    ("accuracy", "Does alignment predict accuracy?", sections.accuracy),
    ("defects", "What the measurement adds", sections.defects),
)
POINTER = (
    "# Launay, Poli and Krzakala (2019), checked claim by claim\n\nThe page is [index.html](index.html), made by "
    "`alignkit paper` from the records beside it; [notes.md](notes.md) says how they were made.\n"
)


def write_paper_report(directory: str | Path) -> Path:
    """Write index.html, tables/ and figures/ from the records of the paper's studies in `directory`/<study>, and
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
    rows = claim_rows(studies)
    found = [(name, title, answer(studies)) for name, title, answer in QUESTIONS]
    answers = [(name, title, answer) for name, title, answer in found if answer is not None]
    answers += [("ran", "Exactly what ran", what_ran(studies)), ("left-out", "What was left out", left_out(studies))]
    tables = [claims_table(rows), *(table for _, _, answer in answers for table in answer.tables)]
    files: dict[Path, bytes] = {}
    inline: dict[str, dict[str, Any]] = {}
    for chart in (chart for _, _, answer in answers for chart in answer.charts):
        svg, pdf = save_figure(chart.figure, name=chart.name)
        files[directory / "figures" / f"{chart.name}.svg"] = svg
        files[directory / "figures" / f"{chart.name}.pdf"] = pdf
        markup = Markup(inline_svg(svg, name=chart.name, description=f"{chart.title}. {chart.see}"))
        inline[chart.name] = {
            "name": chart.name, "see": chart.see, "how": chart.how, "number": len(inline) + 1, "svg": markup,
        }  # fmt: skip
    for table in tables:
        files[directory / "tables" / f"{table.name}.csv"] = table.to_csv().encode()
        files[directory / "tables" / f"{table.name}.tex"] = table.to_latex().encode()
    content = _render(studies, rows, answers, inline, _notes(directory)).encode()
    for path, written in files.items():
        write_bytes(path, written)
    _remove_stale(directory, {path.name for path in files})
    write_bytes(directory / "README.md", POINTER.encode())
    page = directory / "index.html"
    write_bytes(page, content)
    return page


def _render(
    studies: All,
    rows: list[dict[str, Any]],
    answers: Sequence[tuple[str, str, Answer]],
    inline: dict[str, dict[str, Any]],
    notes: list[tuple[str, list[Markup]]],
) -> str:
    parts = [
        {
            "name": name, "title": title, "answer": answer.sentences, "tables": answer.tables, "notes": answer.notes,
            "folds": (),
            "figures": [inline[chart.name] for chart in answer.charts],
        }
        for name, title, answer in answers
    ]  # fmt: skip
    grades = {name: meaning for name, meaning in GRADES.items() if any(row["grade"] == name for row in rows)}
    if any(row["grade"] == UNGRADED for row in rows):
        grades[UNGRADED] = f"{PILOTED} (piloted), or the records answer the claim in too few ways"
    shown = {row["verdict"] for row in rows}
    return page_text(
        "page_of_paper.html",
        folder=Path(__file__).parent,
        title=TITLE,
        rows=rows,
        in_short=in_short(rows),
        verdict_meanings={name: meaning for name, meaning in VERDICTS.items() if name in shown},
        grade_meanings=grades,
        sections=parts,
        notes=notes,
    )


def what_ran(studies: All) -> Answer:
    """Which runs the page rests on, what each study judges by, and how its rates were found."""
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
                "judges by": _responses(study), "rates": tuning_words(study),
                "hardware": ", ".join(gpus or processors), "minutes of one core": round(seconds / 60, 1),
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    text = [tuple(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()) for row in rows]
    numeric = frozenset({"epochs", "training images", "seeds", "runs", "missing", "diverged", "minutes of one core"})
    table = Table(
        "what_ran", "The studies, what their claims are judged by, and how their rates were found.",
        tuple(map(str, frame)), tuple(text), frame, numeric,
    )  # fmt: skip
    note = "Pilots are not counted. The page is made from the records beside it by alignkit paper, without training."
    return Answer((), (table,), notes=(note,))


def _responses(study: Study) -> str:
    used = list(dict.fromkeys(claim.response for claim in study.claims))
    return ", ".join(used) if used else "signal_cosine"


def tuning_words(study: Study) -> str:
    """How a study's learning rates were found."""
    tuning = study.tuning
    if tuning is not None:
        by = f" by runs of {count(tuning.epochs, 'epoch')}" if tuning.epochs else ""
        output = f", output rate {tuning.output_lr:g}" if tuning.output_lr else ""
        return f"each seed tunes each arm itself over {len(tuning.lr)} rates{by}{output}"
    if study.pilot is not None:
        return f"piloted on {count(len(study.pilot.seeds), 'other seed')}: tuning is in no interval"
    return "one rate for every arm"


def left_out(studies: All) -> Answer:
    """What the page lacks: studies, sizes, profiles, claims."""
    lines = []
    absent = [name for name in STUDIES if name not in studies or studies[name].missing]
    if absent:
        lines.append(f"Not run, or not finished: {listed(absent)}.")
    for name, records in studies.items():
        study = records.study
        if study.profile:
            description = study.profiles[study.profile].description if study.profile in study.profiles else ""
            lines.append(
                f"{words(name)} ran in its profile {study.profile}" + (f": {description}." if description else ".")
            )
    return Answer((), notes=tuple(lines) or ("Nothing: every study ran in full.",))


def _notes(directory: Path) -> list[tuple[str, list[Markup]]]:
    """What those who ran the studies have to say, of their copy of the data for instance: notes.md beside the page, its
    headings with their paragraphs."""
    notes = directory / "notes.md"
    try:
        text = notes.read_text(encoding="utf-8").strip() if notes.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RecordsError(f"{notes}: expected readable text in UTF-8; got: {error}") from None
    found: list[tuple[str, list[Markup]]] = []
    for block in re.split(r"\n\s*\n", text) if text else []:
        heading = re.match(r"#+ +(.+)", block)
        if heading:
            found.append((heading[1].strip(), []))
            block = block[heading.end() :].strip()
        if block:
            if not found:
                found.append(("Notes", []))
            found[-1][1].append(Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(" ".join(block.split()))))))
    return found


def _remove_stale(directory: Path, kept: set[str]) -> None:
    """Figures, tables and recommendations of an earlier page, which would be read as this one's."""
    stale = [*directory.glob("figures/*.svg"), *directory.glob("figures/*.pdf")]
    stale += [*directory.glob("tables/*.csv"), *directory.glob("tables/*.tex"), *directory.glob("recommendations.*")]
    for path in stale:
        if path.name not in kept:
            path.unlink()
