"""How far a study is, as it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from alignkit.training.cohorts import Cohort


@dataclasses.dataclass(frozen=True)
class Status:
    """How far an execution is: runs finished, runs in all, the share of the whole cost that is done, and
    what is running."""

    runs_done: int
    runs: int
    share: float
    running: tuple[str, ...]


OnStatus = Callable[[Status], None]


class _Tracker:
    """Turns the progress of single cohorts into the status of the whole."""

    def __init__(self, planned: Sequence[Cohort], todo: Sequence[Cohort], on_status: OnStatus | None) -> None:
        self._on_status = on_status
        self._todo = todo
        self._total = sum(cohort.cost for cohort in planned)
        self._before = self._total - sum(cohort.cost for cohort in todo)
        self._runs = sum(len(cohort.runs) for cohort in planned)
        self._runs_before = self._runs - sum(len(cohort.runs) for cohort in todo)

    def report(self, shares: Sequence[float]) -> None:
        if self._on_status is None:
            return
        done = self._before + sum(share * cohort.cost for share, cohort in zip(shares, self._todo, strict=True))
        runs = self._runs_before + sum(len(c.runs) for share, c in zip(shares, self._todo, strict=True) if share >= 1)
        running = tuple(c.label for share, c in zip(shares, self._todo, strict=True) if 0 < share < 1)
        self._on_status(Status(runs, self._runs, done / self._total, running))
