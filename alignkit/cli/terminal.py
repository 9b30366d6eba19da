"""What the command line writes on: consoles, plain lines, progress, and times and sizes in words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import rich.markup
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alignkit.errors import printable

NARROW = 60
"""Columns below which a table is printed as lines."""

console = Console()
errors = Console(stderr=True)


@contextmanager
def planning(*, after: float = 5.0) -> Iterator[None]:
    """A line after a few seconds of planning a large study, and more of them ever less often."""
    from alignkit.study.watch import watched

    last = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last, after
        if time.monotonic() - last >= after:
            last, after = time.monotonic(), min(1.5 * after, 60.0)
            complain(f"{what}: {done:,} of {total:,}")

    with watched(tell):
        yield


def complain(text: str) -> None:
    """A line on the stream of errors, as it is."""
    errors.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line as it is: no markup, no colours, no breaks."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    """A text for a table: no markup in it, and nothing that a terminal would obey."""
    return rich.markup.escape(printable(text))


@contextmanager
def study_progress(name: str) -> Iterator[Any]:
    """Live progress: what runs, how many runs are done, how long it will take yet."""
    if not console.is_terminal:
        yield lambda stage: _plain_progress(f"{name}: {stage}")
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"),
        TimeElapsedColumn(), TextColumn("{task.fields[left]}"), TextColumn("[dim]{task.fields[running]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:

        def begin(stage: str) -> Any:
            task = bar.add_task(f"{name}: {stage}", total=None, left="", running="")
            clock = _Clock()

            def show(status: Any) -> None:
                for note in status.notes:
                    complain(note)
                running = "; ".join(status.running[:2])
                left = clock.left(status.share)
                bar.update(task, completed=status.runs_done, total=status.runs, left=left, running=running)

            return show

        yield begin


def _plain_progress(title: str, *, every: float = 10.0) -> Any:
    """Progress for a log: a line at the start and the end, and one every few seconds between."""
    clock, log = _Clock(), _Log(title, every=every)

    def show(status: Any) -> None:
        for note in status.notes:
            complain(note)
        parts = [f"{status.runs_done}/{status.runs} runs", clock.left(status.share), "; ".join(status.running[:2])]
        log.line(", ".join(part for part in parts if part), at_once=status.runs_done >= status.runs)

    return show


class _Log:
    """Lines of a log, one every few seconds."""

    def __init__(self, title: str, *, every: float) -> None:
        self._title, self._every, self._last = title, every, -math.inf

    def line(self, text: str, *, at_once: bool) -> None:
        if not at_once and time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        with suppress(BrokenPipeError):  # the work goes on when nobody reads
            print(f"{self._title}: {text}", flush=True)


class _Clock:
    """Estimates the time left from the share of the cost that was done since it started."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first: float | None = None

    def left(self, share: float) -> str:
        if self._first is None:
            self._first = share
        elapsed, done = time.monotonic() - self._started, share - self._first
        if share >= 1 or done <= 0.005 or elapsed < 2:
            return ""
        return f"{duration(elapsed * (1 - share) / done)} left"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


@contextmanager
def share_progress(title: str, *, every: float = 10.0) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal; in a log a line every few seconds."""
    if not console.is_terminal:
        log = _Log(title, every=every)
        yield lambda share, what: log.line(f"{share:.0%}, {what}", at_once=share >= 1)
        return
    columns = (
        TextColumn(title), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("[dim]{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)
