"""`alignkit bench`: how fast alignkit is, and how often its own tests err."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from alignkit.cli.terminal import console, say, share_progress
from alignkit.errors import AlignkitError


def bench(
    published: Annotated[
        list[Path] | None, typer.Option(help="A checkout of a published DFA code to compare with; may be given again.")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu" or a CUDA device.')] = "auto",
    seconds: Annotated[float, typer.Option(min=0.05, help="About how long each contestant of a row is timed.")] = 2.0,
    calibration: Annotated[
        bool,
        typer.Option("--calibration", help="Simulate studies with a known truth and count the errors of every test."),
    ] = False,
    replicates: Annotated[
        int | None,
        typer.Option(min=1, help="With --calibration: studies per scenario, for the paired methods (10,000)."),
    ] = None,
    mixed_replicates: Annotated[
        int | None, typer.Option(min=0, help="The same for the models, and a part of it for what takes longer (1,000).")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The directory for the results: reports/bench, or reports/calibration.")
    ] = None,
) -> None:
    """Check alignkit itself: its speed, against plain loops and published codes, or (--calibration) how often its
    tests and intervals err."""
    if calibration:
        if published:
            raise AlignkitError("bench: --published compares speeds; --calibration counts errors. Give one of the two")
        _calibrate(replicates or 10_000, 1_000 if mixed_replicates is None else mixed_replicates, workers, out)
        return
    if replicates is not None or mixed_replicates is not None:
        raise AlignkitError("bench: --replicates and --mixed-replicates belong to --calibration. Add it, or leave them")
    from alignkit.benchmark.report import row_text, write_speed
    from alignkit.benchmark.speed import measure_speed
    from alignkit.execution.devices import choose_device

    with console.status("") as status:
        speed = measure_speed(
            published=published or (), device=choose_device(device), seconds=seconds, cores=workers,
            on_progress=lambda what: status.update(f"timing: {what}"),
        )  # fmt: skip
    page = write_speed(speed, out or Path("reports/bench"))
    for row in speed.rows:
        say(row_text(row))
    say(f"Table: {page}")


def _calibrate(replicates: int, mixed_replicates: int, workers: int | None, out: Path | None) -> None:
    from alignkit.calibration.report import write_calibration
    from alignkit.calibration.run import calibrate

    with share_progress("calibration") as show:
        workers = workers or os.cpu_count() or 1
        result = calibrate(replicates=replicates, model_replicates=mixed_replicates, workers=workers, on_progress=show)
    page = write_calibration(result, out or Path("reports/calibration"))
    for rate in result.outside:
        rates = f"{rate.rate:.2%} [{rate.low:.2%}, {rate.high:.2%}]"
        say(f"out of bounds: {rate.method}, {rate.quantity}, {rate.scenario.label}: {rates}")
    said = f"{len(result.outside)} of {result.tested} figures out of simultaneous {result.confidence:.0%} bounds"
    say(f"{said}. Table: {page}")
