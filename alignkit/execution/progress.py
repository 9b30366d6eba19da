"""How far a study is, as it trains."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from alignkit.training.cohorts import Cohort


@dataclasses.dataclass(frozen=True)
class Status:
    """How far an execution is: runs finished, runs in all, the share of the whole cost that is done, and
    what is running. `notes` are sentences that somebody should read."""

    runs_done: int
    runs: int
    share: float
    running: tuple[str, ...]
    notes: tuple[str, ...] = ()


OnStatus = Callable[[Status], None]
QUIET_SECONDS = 30.0


class _Tracker:
    """Turns the progress of single cohorts into the status of the whole."""

    def __init__(self, planned: Sequence[Cohort], todo: Sequence[Cohort], on_status: OnStatus | None) -> None:
        self._on_status = on_status
        self._todo = todo
        self._total = sum(cohort.cost for cohort in planned)
        self._before = self._total - sum(cohort.cost for cohort in todo)
        self._runs = sum(len(cohort.runs) for cohort in planned)
        self._runs_before = self._runs - sum(len(cohort.runs) for cohort in todo)

    def report(self, shares: Sequence[float], notes: tuple[str, ...] = ()) -> None:
        if self._on_status is None:
            for note in notes:
                logging.getLogger("alignkit").warning(note)
            return
        done = self._before + sum(share * cohort.cost for share, cohort in zip(shares, self._todo, strict=True))
        runs = self._runs_before + sum(len(c.runs) for share, c in zip(shares, self._todo, strict=True) if share >= 1)
        running = tuple(c.label for share, c in zip(shares, self._todo, strict=True) if 0 < share < 1)
        self._on_status(Status(runs, self._runs, done / self._total, running, notes))


class Silence:
    """Which cohorts' workers have given no sign of life for long, said again whenever that time has doubled."""

    def __init__(self, cohorts: Sequence[Cohort], *, after: float = QUIET_SECONDS) -> None:
        self._cohorts = cohorts
        self._next = [after] * len(cohorts)
        self._after = after
        self._asked: float | None = None
        self._since = float("-inf")

    def notes(self, signs: Sequence[float], processes: Sequence[float], now: float) -> tuple[str, ...]:
        """What there is to say: `signs` are the times of each cohort's last one, 0 where none works on it."""
        if self._asked is None or now - self._asked > self._after / 4:
            self._since = now  # this process was not there itself, and cannot tell
        self._asked = now
        notes = []
        for index, cohort in enumerate(self._cohorts):
            quiet = now - max(signs[index], self._since) if signs[index] else 0.0
            if quiet < self._after:
                self._next[index] = self._after
            elif quiet >= self._next[index]:
                self._next[index] = 2 * quiet
                notes.append(
                    f"{cohort.label}: its worker, process {processes[index]:.0f}, has given no sign of life for "
                    f"{quiet:.0f} s. If it is stopped, kill -CONT lets it go on; the other cohorts do not wait for it"
                )
        return tuple(notes)
