"""`alignkit bench`: how often alignkit's own tests err."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignkit.errors import AlignkitError


def bench(
    calibration: Annotated[
        bool,
        typer.Option("--calibration", help="Simulate studies with a known truth and count the errors of every test."),
    ] = False,
    replicates: Annotated[
        int, typer.Option(min=1, help="Simulated studies per scenario, for the paired methods.")
    ] = 10_000,
    mixed_replicates: Annotated[
        int, typer.Option(min=0, help="The same for the models, and up to a quarter of it for what takes longer.")
    ] = 1_000,
    out: Annotated[Path, typer.Option(help="The directory for the tables and the figure.")] = Path(
        "reports/calibration"
    ),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
) -> None:
    """Check alignkit itself: the error rates of its tests and intervals, by simulation."""
    if not calibration:
        raise AlignkitError("bench: expected what to check; got nothing. Add --calibration")
    from alignkit.calibration import calibrate, write_calibration
    from alignkit.cli import console

    with _progress(console) as show:
        result = calibrate(
            replicates=replicates,
            model_replicates=mixed_replicates,
            workers=workers or os.cpu_count() or 1,
            on_progress=show,
        )
    page = write_calibration(result, out)
    for rate in result.outside:
        line = (
            f"{rate.method}, {rate.quantity}, {rate.scenario.label}: {rate.rate:.2%} [{rate.low:.2%}, {rate.high:.2%}]"
        )
        console.print(f"out of bounds: {line}", markup=False, highlight=False, soft_wrap=True)
    said = f"{len(result.outside)} of {result.tested} figures out of simultaneous {result.confidence:.0%} bounds"
    console.print(f"{said}. Table: {page}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(console: Console, *, every: float = 10.0) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal; in a log a line every few seconds."""
    if not console.is_terminal:
        last = time.monotonic() - every

        def line(share: float, what: str) -> None:
            nonlocal last
            if time.monotonic() - last >= every or share >= 1:
                last = time.monotonic()
                with suppress(BrokenPipeError):  # the work goes on when nobody reads
                    print(f"calibration: {share:.0%}, {what}", flush=True)

        yield line
        return
    columns = (
        TextColumn("calibration"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("[dim]{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)
