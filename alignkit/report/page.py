"""From records to a directory that holds the page, its figures, its tables and the recommendations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignkit.claims.analysis import IMPOSED, Analysis, analyse
from alignkit.claims.configurations import configuration_entries, configurations_markdown
from alignkit.claims.reading import floor_note, simultaneous_interval
from alignkit.claims.revision import notice
from alignkit.claims.verdict import GRADES, UNGRADED, VERDICTS, Verdict, grade_name
from alignkit.claims.wording import ACCURACY, chance_text, deciding_p, ranked, standing, to_json, to_markdown
from alignkit.columns import GAP, label_of
from alignkit.figures.chart import Chart
from alignkit.figures.style import save_figure
from alignkit.records.files import write_bytes, writing
from alignkit.records.store import Records
from alignkit.report import method, outside, results
from alignkit.report.charts import charts
from alignkit.report.contents import ALWAYS, FULL, answered
from alignkit.report.html import page_text
from alignkit.report.results import bounds, known
from alignkit.report.section import Answer, Question
from alignkit.report.svg import inline_svg
from alignkit.report.tables import Table
from alignkit.study.defects import ONE_SEED, defects
from alignkit.study.study import Study
from alignkit.text import (
    ABSENT,
    change,
    change_interval,
    count,
    level,
    level_interval,
    listed,
    named,
    number,
    p_text,
    row_label,
    rule_name,
    sizes,
    with_interval,
)

OWN_NAMES = (
    "alignment_", "width_curve", "accuracy_gap", "effects", "verdicts", "recommendations", "final_measures", "diverged",
    *(question.name for question in (*ALWAYS, *FULL)),
)  # fmt: skip
GRADE_MEANINGS = {**GRADES, UNGRADED: "the records answer the claim in too few ways to grade it"}


def write_report(
    records: Records,
    out_dir: str | Path,
    *,
    full: bool = False,
    sections: Sequence[outside.OwnSection] = (),
    figures: Sequence[outside.OwnFigure] = (),
) -> Path:
    """Write a study's report below `out_dir` and return the path of its page, index.html.

    The page is one file: figures, styles and text, no script, nothing from a network. Beside it lie
    figures/*.svg and *.pdf, tables/*.csv and *.tex, and recommendations.json, .md and .tex. The same records
    give the same bytes. `full` adds what takes minutes rather than seconds. Sections that a study has no
    records for are left out, or say why in a line.

    `sections` and `figures` of your own come after the report's: names as "my_module:my_section", or the functions
    themselves. Each is a function of an `Analysis` that gives an `Answer` (see `question`), or a `Chart` (see
    `drawing`). Raises `ReportError` where one cannot be imported, fails, or gives something else; nothing is written
    then.

    >>> page = write_report(alignkit.load("reports/quick"), "reports/quick")
    >>> page.name
    'index.html'
    """
    out_dir = Path(out_dir)
    own_figures = outside.drawings(figures)
    own_sections = outside.questions(sections, taken=[question.name for question in (*ALWAYS, *FULL)])
    analysis = analyse(records)
    drawn, absent = charts(analysis, own_figures)
    answers, unanswered = answered(analysis, full=full, more=own_sections)
    own_tables = _tables(analysis)
    tables = [*own_tables, *(table for _, answer in answers for table in answer.every_table)]
    every_chart = [*drawn, *(chart for _, answer in answers for chart in answer.every_chart)]
    if sections or figures:
        outside.require_different("table", tables)
        outside.require_different("chart", every_chart)
    files: dict[Path, bytes] = {}
    inline: dict[str, dict[str, Any]] = {}
    for chart in every_chart:
        svg, pdf = save_figure(chart.figure, name=chart.name)
        files[out_dir / "figures" / f"{chart.name}.svg"] = svg
        files[out_dir / "figures" / f"{chart.name}.pdf"] = pdf
        inline[chart.name] = _chart_context(chart, len(inline) + 1, svg)
    for table in tables:
        files[out_dir / "tables" / f"{table.name}.csv"] = table.to_csv().encode()
        files[out_dir / "tables" / f"{table.name}.tex"] = table.to_latex().encode()
    whole = configuration_entries(records)
    files[out_dir / "recommendations.json"] = to_json([*analysis.recommendations, *whole]).encode()
    if analysis.recommendations:
        words = to_markdown(analysis.recommendations) + configurations_markdown(records)
        files[out_dir / "recommendations.md"] = words.encode()
    page = out_dir / "index.html"
    shown = [inline[chart.name] for chart in drawn]
    parts = [_section_context(question, section, inline) for question, section in answers]
    own = {table.name: table for table in own_tables}
    content = render(analysis, shown, [*absent, *unanswered], own, parts).encode()
    for path, written in files.items():  # only now: what fails above leaves an earlier report as it was
        write_bytes(path, written)
    _remove_stale(out_dir / "figures", set(inline), (".svg", ".pdf"))
    _remove_stale(out_dir / "tables", {table.name for table in tables}, (".csv", ".tex"))
    write_bytes(page, content)
    return page


def render(
    analysis: Analysis,
    figures: list[dict[str, Any]],
    absent: list[str],
    tables: dict[str, Table],
    sections: list[dict[str, Any]],
) -> str:
    """The page as text."""
    study = analysis.study
    return page_text(
        "page.html",
        title=study.title or study.name,
        study=study,
        notice=notice(study.claims),
        lead=_lead(analysis),
        summary=summary(analysis)[1:],
        first_screen=results.first_screen(analysis),
        effects_are=_effects_are(analysis),
        grade_meanings=GRADE_MEANINGS,
        verdicts=[_verdict_context(verdict, analysis.family_size) for verdict in analysis.verdicts],
        verdict_meanings=VERDICTS,
        recommendations=[_recommendation_context(entry) for entry in analysis.recommendations],
        figures=figures,
        absent=absent,
        tables=tables,
        sections=sections,
        declaration=declaration(analysis),
        reversed=_reversed(analysis),
        effect_notes=analysis.notes,
        effects=[table for name, table in tables.items() if name.startswith("effects_")],
        facts=method.facts(analysis),
        definitions=method.definitions(analysis),
        diagnostics=method.diagnostics(analysis),
        options=method.options(analysis),
    )


def _lead(analysis: Analysis) -> list[str]:
    """The claims in a sentence, and what makes all of them preliminary."""
    found = summary(analysis)[:1]
    if analysis.missing:
        found.append(f"{count(analysis.missing, 'planned run')} still missing: all of this is preliminary.")
    return found


def _effects_are(analysis: Analysis) -> str:
    """What the effects of the first table are of, said once."""
    responses = dict.fromkeys(label_of(verdict.claim.response) for verdict in analysis.verdicts)
    which = "the claim's own measure" if len(responses) > 1 else f"the {next(iter(responses), '')}"
    return f"Effect: change of {which}, from the first level to the second."


def summary(analysis: Analysis) -> list[str]:
    """The report in a few sentences: the claims, the alignment, the accuracy, then what was run, and how it was
    measured if not as it should."""
    study = analysis.study
    measured = [note for name, note in defects(study).items() if name != ONE_SEED]  # of which the runs' sentence speaks
    found = (_on_claims(analysis), *_on_alignment(analysis), _on_runs(analysis), _on_profile(study), *measured)
    return [text if text.endswith(".") else f"{text}." for text in found if text]


def _on_profile(study: Study) -> str:
    if not study.profile:
        return ""
    description = study.profiles[study.profile].description if study.profile in study.profiles else ""
    return f"This is not the whole study but its profile {study.profile}" + (f": {description}" if description else "")


def _on_claims(analysis: Analysis) -> str:
    confirmatory = [verdict for verdict in analysis.verdicts if verdict.claim.family == "confirmatory"]
    judged = confirmatory or analysis.verdicts
    if not judged:
        return "The study declares no claims: what it shows describes, and p-values are those of unplanned tests."
    counts = Counter(str(verdict.verdict) for verdict in judged)
    kind = "confirmatory" if confirmatory else "exploratory"
    phrases = {
        "supported": ("is supported", "are supported"),
        "refuted": ("is refuted", "are refuted"),
        "equivalent": ("finds no effect that matters", "find no effect that matters"),
        "undecided": ("stays undecided", "stay undecided"),
        "not identifiable": ("cannot be told apart from a rate", "cannot be told apart from a rate"),
    }
    if len(judged) == 1:
        return f"The {kind} claim {phrases[judged[0].verdict][0]}."
    parts = [f"{counts[name]} {phrases[name][counts[name] > 1]}" for name in VERDICTS if counts[name]]
    return f"Of {count(len(judged), f'{kind} claim')}, {listed(parts)}."


def _on_alignment(analysis: Analysis) -> list[str]:
    response = analysis.alignment
    if response is None:
        imposed = IMPOSED & set(analysis.study.rules)
        return [
            "The angle was imposed, so it is no outcome here." if imposed else "No run has a defined alignment measure."
        ]
    sentences = []
    taught = [rule for rule in analysis.rules if rule != "bp"]
    untaught = analysis.mean("bp", response) if "bp" in analysis.study.rules else None
    chance = "90°" if response.endswith("_deg") else "0"
    for rule in taught:
        final = analysis.mean(rule, response)
        if final is None:
            continue
        size = with_interval(level(final.estimate, response), level_interval(final.interval, response))
        where = f"the {count(analysis.n_cells(analysis.design, rule), 'cell')} of the design {analysis.design}"
        text = f"At the end of training, {rule_name(rule)}'s {label_of(response)} is {size} on average over {where}"
        if untaught and rule == taught[0]:
            text += (
                f", where a feedback that never taught has {level(untaught.estimate, response)} and chance is {chance}"
            )
        sentences.append(text + ".")
        gap = analysis.mean(rule, GAP)
        if gap is not None:
            side = "below" if gap.estimate < 0 else "above"
            text = f"Its test accuracy is {number(abs(gap.estimate), 1)} points {side} that of BP"
            sentences.append(with_interval(text, change_interval(gap.interval, GAP)) + ".")
    if not taught and untaught is not None:
        sentences.append(
            f"Only BP ran: at the end, the {label_of(response)} of a feedback that never teaches is "
            f"{level(untaught.estimate, response)}."
        )
    return sentences


def _on_runs(analysis: Analysis) -> str:
    runs, rules, seeds = analysis.runs, analysis.study.rules, analysis.n_seeds
    cells = int(runs.groupby("rule")["cell"].nunique().max())
    text = (
        f"{count(len(runs), 'run')}: {count(cells, 'cell')}, {count(seeds, 'seed')}, "
        f"{named('rule', map(rule_name, rules))}."
    )
    if seeds < 2 and any(_crosses_draws(analysis, rule) for rule in rules):
        text += " All runs share one seed: what replicates are the draws of each stream of randomness."
    elif seeds < 2:
        text += " With one seed there is no uncertainty to report: every number is one draw."
    if analysis.missing:
        worst = ", and verdicts take the worst case over what is still missing" if analysis.verdicts else ""
        text += f" {count(analysis.missing, 'planned run')} still missing: all of this is preliminary{worst}."
    return text


def _crosses_draws(analysis: Analysis, rule: str) -> bool:
    return any(len(analysis.streams(rule, design)) > 1 for design in analysis.designs)


def _reversed(analysis: Analysis) -> str:
    """The claims whose levels go against the order of the effect tables."""
    shown = {(e.factor, e.levels) for found in analysis.effects for es in found.by_response.values() for e in es}
    names = [
        verdict.claim.name for verdict in analysis.verdicts if (verdict.claim.factor, verdict.levels[::-1]) in shown
    ]
    return listed(names)


def declaration(records: Records | Analysis) -> list[str]:
    """When the claims were declared, in sentences: a hash of the analysis plan, and what changed since."""
    registration = records.registration
    if registration is None or not (records.study.claims or registration.declared):
        return []
    notes = list(registration.notes(records.study))
    if registration.declared is not None:
        stands = "" if notes else " and did not change since"
        notes.insert(
            0, f"The analysis plan (hash {registration.declared.hash}) was stored before the first run{stands}."
        )
    return notes


def _tables(analysis: Analysis) -> list[Table]:
    found = [
        *([results.verdict_table(analysis.verdicts, family_size=analysis.family_size)] if analysis.verdicts else []),
        *([results.recommendation_table(analysis.recommendations)] if analysis.recommendations else []),
        *results.effect_tables(analysis),
        results.final_table(analysis),
        results.diverged_table(analysis),
    ]
    return [table for table in found if table is not None]


def _verdict_context(verdict: Verdict, family_size: int) -> dict[str, Any]:
    response = verdict.claim.response
    together = simultaneous_interval(verdict, family_size=family_size)
    return {
        "claim": verdict.claim,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "comparison": row_label(verdict.claim.factor, verdict.levels),
        "response": label_of(response),
        "rule": rule_name(verdict.claim.rule),
        "effect": change(verdict.estimate, response),
        "interval": change_interval(verdict.interval, response),
        "grade": grade_name(verdict),
        "together": change_interval(together, response),
        "p": deciding_p(verdict),
        "seeds": str(verdict.n_seeds) if verdict.n_seeds else ABSENT,
        "floor": floor_note(verdict),
        "notes": [*([verdict.learning_rates] if verdict.learning_rates else []), *verdict.warnings],
    }


def _recommendation_context(entry: dict[str, Any]) -> dict[str, Any]:
    scope, response = entry["scope"], entry["response"]
    hidden = f"{sizes(scope['depths'])} hidden layers of {sizes(scope['widths'])} units" if scope["widths"] else ""
    seeds = count(scope["seeds"], "seed") if scope["seeds"] else ""
    where = (scope["data"], scope["network"].upper(), hidden, rule_name(scope["rule"]), seeds)
    return {
        **entry,
        "where": ", ".join(part for part in where if part),
        "label": label_of(response),
        "size": change(known(entry["effect"]), response),
        "range": change_interval(bounds(entry["interval"]), response),
        "accuracy": change(known(entry["accuracy_effect"]), ACCURACY),
        "accuracy_range": change_interval(bounds(entry["accuracy_interval"]), ACCURACY),
        "accuracy_p_text": p_text(known(entry["accuracy_p_adjusted"])),
        "standing": standing(entry).removeprefix(entry["verdict"]).removeprefix(", "),
        "chances": _chances(entry),
        "of_all": _of_all(entry),
        "confirmed": _confirmed(entry["held_out"], response),
    }


def _chances(entry: dict[str, Any]) -> str:
    """How probably the practice is the better of its two levels, and what following it costs on average if not."""
    if entry["p_better"] is None:
        return ""
    text = f"{chance_text(entry['p_better'])} (regret {level(entry['expected_regret'], entry['response'])})"
    if entry["p_better_accuracy"] is None or entry["response"] == ACCURACY:
        return text
    regret = level(entry["expected_regret_accuracy"], ACCURACY)
    return f"{text}; for accuracy {chance_text(entry['p_better_accuracy'])} ({regret})"


def _of_all(entry: dict[str, Any]) -> str:
    """The same against all levels of its factor, where there are more than two, and which of them looks best."""
    if not ranked(entry):
        return ""
    regret = level(entry["expected_regret_of_all"], entry["response"])
    best = f"best of {len(entry['all_levels'])} levels: {entry['best_level']}, {chance_text(entry['p_best_level'])}"
    return f"{chance_text(entry['p_best_of_all'])} (regret {regret}); {best}"


def _confirmed(held_out: dict[str, Any], response: str) -> str:
    if not held_out["n_seeds"]:
        return ""
    size = f"{change(known(held_out['effect']), response)} {change_interval(bounds(held_out['interval']), response)}"
    return f"{held_out['status'] or 'nothing to confirm'}: {size}, {count(held_out['n_seeds'], 'seed')}"


def _chart_context(chart: Chart, position: int, svg: bytes) -> dict[str, Any]:
    markup = inline_svg(svg, name=chart.name, description=f"{chart.title}. {chart.see}")
    shown = {"name": chart.name, "title": chart.title, "see": chart.see, "how": chart.how}
    return {**shown, "number": position, "svg": Markup(markup)}


def _section_context(question: Question, answer: Answer, inline: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": question.name,
        "title": question.title,
        "answer": answer.sentences,
        "tables": answer.tables,
        "figures": [inline[chart.name] for chart in answer.charts],
        "notes": answer.notes,
        "folds": [
            {
                "title": fold.title,
                "tables": fold.tables,
                "notes": fold.notes,
                "figures": [inline[chart.name] for chart in fold.charts],
            }
            for fold in answer.folds
        ],
    }


def _remove_stale(folder: Path, kept: set[str], suffixes: tuple[str, ...]) -> None:
    """What an earlier report left here and this one does not have would be read as this one's."""
    with writing(folder):
        for path in sorted(folder.glob("*")):
            own = path.suffix in suffixes and path.stem.startswith(OWN_NAMES)
            if own and path.stem not in kept and path.is_file():
                path.unlink()
