"""The command line. Exit status 0; 1 where an audit contradicts a robust verdict; 2 where the input is at fault, with
one message; 130 after Ctrl-C, 143 after SIGTERM."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from alignkit.cli.arguments import (
    DataOption,
    DeviceOption,
    DirectoryArgument,
    ProfileOption,
    StudyArgument,
    WorkersOption,
    path_argument,
    path_option,
)
from alignkit.cli.bench import bench
from alignkit.cli.ending import Stopped, one_message
from alignkit.cli.tables import print_audit, print_costs, print_power, print_verdicts, verdict_notes
from alignkit.cli.terminal import console, planning, say, study_progress
from alignkit.errors import AlignkitError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        from alignkit import __version__

        console.print(f"alignkit {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Measure, test and explain how far learning signals point the way that back-propagation would."""


@app.command()
def reproduce(
    out: Annotated[Path, path_option("--out", "Where the records and the report go.")] = Path("reports/quick"),
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run the quick study, analyse it and write its report."""
    run("quick", out=out, workers=workers, device=device)
    report(out)


def notes_on(study: Any, *, source: str, data: Iterable[Any]) -> tuple[str, ...]:
    """What is odd about a study and its data, though they can be used."""
    from alignkit.data.loading import notes
    from alignkit.study.defects import defects
    from alignkit.study.seed_notes import seed_notes

    different = {section.model_dump_json(): section for section in data}.values()
    return (
        *defects(study, source=source).values(),
        *seed_notes(study),
        *(note for section in different for note in notes(section)),
    )


@app.command()
def run(
    study: StudyArgument,
    out: Annotated[Path, path_option("--out", "The directory for the records.")],
    data: DataOption = None,
    profile: ProfileOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run a study, or go on with one that was stopped."""
    from alignkit.execution.run_study import open_study, run_study
    from alignkit.records.store import finished_run_ids

    with planning():
        source = open_study(study, data_path=data, profile=profile)
        for note in notes_on(source.study, source=str(source.path), data=[source.study.data]):
            say(note)
        with study_progress(f"{source.study.name}") as begin:
            try:
                records = run_study(source, out, workers=workers, device=device, on_stage=begin)
            except (KeyboardInterrupt, Stopped) as stop:
                status = stop.status if isinstance(stop, Stopped) else 130
                raise Stopped(
                    f"Stopped. What had finished is kept in {out}; the same command goes on from there.", status
                ) from None
    diverged = int(records.runs["diverged"].sum())
    say(f"{len(records.runs)} runs in {out}" + (f", {diverged} of them diverged" if diverged else ""))
    held_out = 0 if records.held_out is None else len(records.held_out.runs)
    if strays := len(finished_run_ids(out)) - len(records.runs) - held_out:
        say(f"{strays:,} more runs there are of no cell and seed of the study as it now is: they are kept, in no table")


@app.command()
def report(
    directory: DirectoryArgument,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Add what takes minutes: effects at equal training loss, mediation, the models compared, "
            "specification curves.",
        ),
    ] = False,
    section: Annotated[
        list[str] | None, typer.Option("--section", help="A section of your own, my_module:my_section. Repeatable.")
    ] = None,
    figure: Annotated[
        list[str] | None, typer.Option("--figure", help="A figure of your own, my_module:my_figure. Repeatable.")
    ] = None,
) -> None:
    """Analyse a study's records and write its report beside them."""
    from alignkit.claims.verdicts import evaluate
    from alignkit.records.store import load
    from alignkit.report.page import write_report

    if (section or figure) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # modules of one's own may lie here
    records = load(directory)
    with console.status("Analysing and drawing…"):
        verdicts = evaluate(records)
        page = write_report(records, directory, full=full, sections=section or (), figures=figure or ())
    print_verdicts(verdicts)
    for line in verdict_notes(records, verdicts):
        say(line)
    say(f"Report: {page}")


@app.command()
def audit(directory: DirectoryArgument) -> None:
    """Ask a study's claims in every defensible way, and say which verdicts meet an opposite answer.

    Writes audit.html, audit.csv and audit.json beside the records. Exit status 1 where a verdict graded robust is
    contradicted beyond chance.
    """
    from alignkit.auditing.audit import audit as audited
    from alignkit.auditing.page import write_audit
    from alignkit.records.store import load

    records = load(directory)
    with console.status("Asking…"):
        found = audited(records)
        page = write_audit(found, directory, title=records.study.title)
    print_audit(found)
    say(f"{found.in_words()}.")
    say(f"Audit: {page}")
    if found.contradicted:
        raise typer.Exit(1)


@app.command()
def paper(
    directory: Annotated[Path, path_argument("Where the paper's studies ran: DIRECTORY/<study>.")],
) -> None:
    """Write the report on Launay, Poli and Krzakala (2019) from the records of its studies (launay2019/…)."""
    from alignkit.papers.launay2019.page import write_paper_report

    with console.status("Analysing and drawing…"):
        page = write_paper_report(directory)
    say(f"Report: {page}")


@app.command()
def records(
    directory: DirectoryArgument,
    table: Annotated[str, typer.Option(help="runs, checkpoints or layers.")] = "runs",
    format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    output: Annotated[
        Path | None, path_option("--output", "A file; by default the terminal (CSV alone).", metavar="FILE")
    ] = None,
) -> None:
    """Write one of the three tables as CSV or Parquet."""
    from alignkit.errors import nearest
    from alignkit.records.files import TABLES, writing
    from alignkit.records.store import load, whole_table
    from alignkit.text import for_spreadsheets

    if table not in TABLES:
        raise AlignkitError(f'--table: no table is called "{table}"; {nearest(table, TABLES)}')
    if format not in ("csv", "parquet"):
        raise AlignkitError(f'--format: expected csv or parquet; got "{format}"')
    if format == "parquet" and output is None:
        raise AlignkitError("--format parquet: Parquet is no text for a terminal. Name a file with --output")
    frame = whole_table(load(directory), table)
    if format == "csv":
        frame = for_spreadsheets(frame)
    if output is None:
        try:
            frame.to_csv(sys.stdout, index=False, lineterminator="\n")
        except BrokenPipeError:
            sys.stderr.close()  # the reader (head, say) has seen enough
        return
    with writing(output):
        if format == "parquet":
            frame.to_parquet(output, index=False)
        else:
            frame.to_csv(output, index=False, lineterminator="\n")


@app.command()
def validate(
    study: StudyArgument,
    data: DataOption = None,
    profile: ProfileOption = None,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Import no module of the study's: its own rules stay unchecked.")
    ] = False,
) -> None:
    """Check a study and its data, without training anything.

    Where the study names rules of its own ("module:Class"), their modules are imported, which runs their code. Give
    --no-import for a study that you do not trust.
    """
    from alignkit.execution.checks import plan_cohorts
    from alignkit.execution.pilot import pilot_plan
    from alignkit.execution.run_study import open_study, study_plan
    from alignkit.execution.tuning import check_tuning
    from alignkit.settings.modules import module_file, own_names
    from alignkit.study.hypotheses import panel_notes
    from alignkit.study.plan import every_settings

    with planning():
        source = open_study(study, data_path=data, profile=profile, own_modules=not no_import)
        own = own_names(source.study.options())
        if no_import and own:
            cells = sum(1 for _ in every_settings(source.study, source=str(source.path), own_modules=False))
            say(
                f"{source.path}: valid, as far as that shows without its own modules. {cells:,} cells. "
                f"Not imported, so not checked: {', '.join(own)}"
            )
            return
        planned = study_plan(source, rates=None)
        plan_cohorts(planned, device="cpu")
        if source.study.pilot is not None:
            pilot_plan(source.study, source=str(source.path))
        check_tuning(planned)
        data_sections = [run.settings.data for run in planned.runs]
        notes = notes_on(source.study, source=str(source.path), data=data_sections) + panel_notes(source.study)
    say(f"{source.path}: valid. {planned.cells:,} cells, {len(planned.runs):,} runs")
    for name in own:
        say(f"Imported {name} from {module_file(name.partition(':')[0])}")
    for note in notes:
        say(note)


@app.command()
def plan(
    study: StudyArgument,
    data: DataOption = None,
    profile: ProfileOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    cells: Annotated[bool, typer.Option("--cells", help="List the cells too.")] = False,
    pilot_records: Annotated[
        Path | None,
        path_option("--from", "Records of a pilot: say how many seeds each claim needs, from its variances."),
    ] = None,
    effect: Annotated[
        float | None, typer.Option(help="With --from: the effect to find; by default each claim's smallest.")
    ] = None,
) -> None:
    """Show what a study would run, what that would cost on this machine, and how many seeds its claims need."""
    from alignkit.execution.checks import check_device, plan_cohorts
    from alignkit.execution.devices import choose_device, default_workers
    from alignkit.execution.run_study import known_rates, open_study, study_plan
    from alignkit.execution.tuning import check_tuning
    from alignkit.study.hypotheses import panel_notes

    if effect is not None and pilot_records is None:
        raise AlignkitError("--effect: needs a pilot's records to be judged by. Add --from DIR")
    with planning():
        source = open_study(study, data_path=data, profile=profile)
        device = choose_device(device)
        workers = workers or default_workers(device)
        rates = known_rates(source, None)
        planned = study_plan(source, rates=rates)
        if pilot_records is not None:
            print_power(planned, pilot_records, effect)
            return
        stages = [("the study", plan_cohorts(planned, device=device))]
        check_device(planned, device)
        if source.study.pilot is not None and rates is None:
            from alignkit.execution.pilot import pilot_plan

            piloted = pilot_plan(source.study, source=str(source.path))[0]
            stages.insert(0, ("its pilot", plan_cohorts(piloted, device=device)))
        check_tuning(planned)
        data_sections = [run.settings.data for run in planned.runs]
        notes = (*planned.notes, *notes_on(source.study, source=str(source.path), data=data_sections))
        notes += panel_notes(source.study)
    print_costs(stages, source.study.title or source.study.name, device=device, workers=workers)
    say(
        f"{planned.cells} cells over {', '.join(planned.factors) or 'no factors'}; "
        f"rules {', '.join(source.study.rules)}; {len(source.study.seed_list)} seeds; device {device}"
    )
    for note in notes:
        say(note)
    if cells:
        for cell in dict.fromkeys(run.cell for run in planned.runs if run.rule != "bp" or len(source.study.rules) == 1):
            say(f"  {cell or 'the base options'}")


@app.command()
def pilot(
    study: StudyArgument,
    out: Annotated[
        Path | None, path_option("--out", "The directory for the pilot's records; by default a temporary one.")
    ] = None,
    data: DataOption = None,
    profile: ProfileOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Tune every arm's learning rates and write them beside the study, to be committed."""
    import tempfile

    from alignkit.execution.devices import choose_device, default_workers
    from alignkit.execution.pilot import rates_text, read_rates, tune
    from alignkit.execution.run_study import open_study
    from alignkit.records.files import write_text

    source = open_study(study, data_path=data, profile=profile)
    if source.committed_rates is None:
        raise AlignkitError(
            f'{source.path}: [pilot] names no file for its rates. Add rates = "{source.study.name}.rates.json"'
        )
    if not os.access(source.committed_rates.parent, os.W_OK):
        raise AlignkitError(
            f"{source.committed_rates.parent}: cannot be written. Copy the study to a folder of your own"
        )
    committed = source.committed_rates
    before = read_rates(committed) if committed.exists() else None  # what is no outcome of a pilot is not written over
    device = choose_device(device)
    with tempfile.TemporaryDirectory() as temporary, planning(), study_progress(source.study.name) as begin:
        outcome = tune(
            source.study, out or Path(temporary), device=device, workers=workers or default_workers(device),
            on_status=begin("tuning rates"), source=str(source.path),
        )  # fmt: skip
    if before is not None and before.get("pilot") == outcome["pilot"]:  # arms of other data that were tuned alike stay
        arms = {arm["arm"]: arm for arm in [*before["arms"], *outcome["arms"]]}
        outcome["arms"] = sorted(arms.values(), key=lambda arm: arm["arm"])
    write_text(committed, rates_text(outcome))
    edge = sum(arm["at_edge"] for arm in outcome["arms"])
    at_edge = f". {edge} have their best rate at the grid's edge" if edge else ""
    say(f"{len(outcome['arms'])} arms tuned: {committed}{at_edge}")


app.command()(bench)


def main() -> None:
    """The entry point: turns errors of the user's into one message and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show ° still gets its table
    with one_message():
        app()


if __name__ == "__main__":
    main()
