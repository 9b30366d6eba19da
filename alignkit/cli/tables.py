"""The tables that the command line prints of verdicts and of power."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from alignkit.cli.terminal import NARROW, console, duration, escape, say, size
from alignkit.errors import AlignkitError


def print_verdicts(verdicts: Any) -> None:
    from alignkit.claims.verdict import grade_name
    from alignkit.claims.wording import deciding_p
    from alignkit.text import ABSENT, change, change_interval

    if not verdicts:
        console.print("The study declares no claims: the report shows its contrasts.")
        return
    table = Table("claim", "verdict", "grade", "effect", "95% interval", "p (adjusted)", "seeds")
    for verdict in verdicts:
        response = verdict.claim.response
        row = (
            escape(verdict.claim.statement), verdict.verdict, grade_name(verdict) or ABSENT,
            change(verdict.estimate, response),
            escape(change_interval(verdict.interval, response)), deciding_p(verdict), str(verdict.n_seeds),
        )  # fmt: skip
        table.add_row(*row)
        if console.width < NARROW:
            say(f"{verdict.claim.statement}: {', '.join(part for part in row[1:5] if part != ABSENT)}")
    if console.width >= NARROW:
        console.print(table)


def verdict_notes(records: Any, verdicts: Any) -> list[str]:
    """What a reader of the verdicts must know of them: as the page says it."""
    from alignkit.claims.reading import floor_note, hangs_on
    from alignkit.text import count

    missing = [f"{count(records.missing, 'planned run')} still missing: all of this is preliminary."]
    undecided = [f"{verdict.claim.name}: {verdict.reason}." for verdict in verdicts if verdict.verdict == "undecided"]
    graded = [
        f"{verdict.claim.name}: {hangs_on(verdict)}"
        for verdict in verdicts
        if verdict.verdict == "not identifiable" or verdict.grade or verdict.level_effects
    ]
    at_floor = dict.fromkeys(note.split(" (")[0] for verdict in verdicts if (note := floor_note(verdict)))
    registered = records.registration.notes(records.study) if records.registration else ()
    return [*(missing if records.missing else ()), *registered, *undecided, *graded, *(f"{note}." for note in at_floor)]


def print_audit(audit: Any) -> None:
    """The verdicts of an audit, and on which side of them the answers lie."""
    from alignkit.text import ABSENT

    table = Table()
    for head in ("claim", "verdict"):
        table.add_column(head, overflow="fold")
    for head in ("asked", "same sign", "opposite", "beyond chance"):
        table.add_column(head, justify="right", min_width=6)
    for each in audit.claims:
        sides = [f"{len(each.on_side(side)):,}" if each.has_a_side else ABSENT for side in ("same", "opposite")]
        beyond = f"{len(each.contradictions):,}" if each.has_a_side else ABSENT
        verdict = f"{each.verdict}, {each.grade}" if each.grade else each.verdict
        table.add_row(escape(each.claim.name), verdict, f"{each.asked:,}", *sides, beyond)
        if console.width < NARROW:
            say(f"{each.claim.name}: {verdict}; {each.asked:,} asked, {sides[1]} opposite, {beyond} beyond chance")
    if console.width >= NARROW:
        console.print(table)
    for each in audit.claims:
        if each.reason:
            say(f"{each.claim.name}: not asked: {each.reason}")


def print_costs(stages: Any, title: str, *, device: str, workers: int) -> None:
    """What each stage of a study would cost; `stages` are their names and cohorts."""
    from alignkit.execution.estimate import estimate
    from alignkit.text import count

    columns = ("", "runs", "cohorts", "largest cohort", "data", f"time with {count(workers, 'worker')}")
    table = Table(*columns, title=escape(title))
    for name, stage in stages:
        with console.status(f"Timing a few steps of {name}…"):
            cost = estimate(stage, device=device)
        runs = sum(len(cohort.runs) for cohort in stage)
        table.add_row(
            name, f"{runs:,}", str(len(stage)), size(cost.largest_cohort_bytes), size(cost.data_bytes),
            duration(cost.seconds / workers),
        )  # fmt: skip
    console.print(table)


def print_power(planned: Any, directory: Path, effect: float | None) -> None:
    from alignkit.claims.power import claim_power
    from alignkit.columns import digits_of
    from alignkit.records.store import load
    from alignkit.text import after_number, number

    if not planned.study.claims:
        raise AlignkitError(f"{planned.source}: declares no claims, so no number of seeds can be told. Add [[claims]]")
    results = claim_power(planned, load(directory), effect=effect)
    if all(result.reason for result in results):
        reasons = "; ".join(f"{result.claim.name}: {result.reason}" for result in results)
        raise AlignkitError(
            f"{directory}: expected records that tell the variance of a claim of {planned.source}; got none "
            f"({reasons}). Name a pilot that varies the claims' factors"
        )
    seeds = len(planned.study.seed_list)
    table = Table(
        "claim", "effect", "sd (upper 80%)", f"power, {seeds} seeds", "found with 80%", "seeds for 80% (upper)",
        "seeds to show no effect", title=escape(f"{planned.study.name}: seeds, by the variances of {directory}"),
    )  # fmt: skip
    for result in results:
        name = escape(result.claim.name)
        if result.reason:
            table.add_row(name, "", "", "", "", "", "")
            continue
        digits = digits_of(result.claim.response)
        unit = after_number(result.unit)
        table.add_row(
            name, f"{result.effect:g}{unit}",
            f"{number(result.sd, digits)} ({number(result.sd_upper, digits)}){unit}", f"{result.power:.0%}",
            f"{number(result.detectable, digits)}{unit}", f"{result.seeds} ({result.seeds_upper})",
            str(result.seeds_equivalence),
        )  # fmt: skip
    console.print(table)
    for result in results:
        if result.reason:
            say(f"{result.claim.name}: {result.reason}")
    say(
        "The sd is that of one contrast per seed with the planned cells; power is that of the exact sign-flip test "
        "at the first step of the claims' family."
    )
