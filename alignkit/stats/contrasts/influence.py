"""How much of a finding hangs on single seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import minimum_seeds, paired_test
from alignkit.stats.tables.checks import float_column

Finding = Literal["increases", "decreases", "equivalent", "undecided"]


@shown()
@dataclass(frozen=True)
class LeaveOneOut:
    """A contrast without each seed in turn.

    `frame` has one row per seed left out: `estimate`, `low`, `high`, `p`, `verdict` of the others, the
    `change` of the estimate, and Cook's distance. `most_influential` is the seed whose absence moves the
    estimate most. `stable` says whether every verdict is that of all seeds; `jackknife_sd` is the
    jackknife's standard error, which for a mean is the usual one.
    """

    estimate: float
    verdict: Finding
    stable: bool
    most_influential: Any
    jackknife_sd: float
    frame: pd.DataFrame
    n_seeds: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per seed left out."""
        return self.frame


def leave_one_seed_out(
    differences: pd.Series | Sequence[float] | np.ndarray,
    *,
    margin: float | None = None,
    alpha: float = 0.05,
    family_size: int = 1,
) -> LeaveOneOut:
    """Whether a contrast's estimate, p and verdict stand without any one of its seeds.

    `differences` are one per seed; the index of a Series names the seeds. With `margin`, a verdict may be
    "equivalent" (TOST). Verdicts use the level alpha / `family_size`, the first step of Holm's procedure,
    and the exact sign-flip p where one seed fewer can still reach it; else the t test's p, for all seeds
    and for all but one alike, and `warnings` says so.

    A verdict that one seed overturns is fragile, not false: with few seeds, some borderline finding
    always is. Do not drop a seed because it is influential.

    Cook's distance is that of a mean, change² / (sd² / n): 1 means that leaving the seed out moves the
    estimate by one standard error. Influence on the coefficients of a factorial model is in that fit's
    own diagnostics.

    >>> leave_one_seed_out([3.0, 2.5, 3.5, 3.0, 2.0, 2.8, 9.0], margin=1.0).verdict
    'increases'
    """
    series = pd.Series(differences)
    series = pd.Series(float_column(series, "differences"), series.index)
    kept = series[np.isfinite(series)]
    warnings = []
    if len(kept) < len(series):
        warnings.append(f"{len(series) - len(kept)} of {len(series)} differences missing, left out")
    n = len(kept)
    if n < 3:
        raise AnalysisError(f"expected three seeds or more, to leave one out and compare the rest; got {n}. Add seeds")
    level = alpha / family_size
    exact = n - 1 >= minimum_seeds(family_size, alpha)
    if not exact:
        warnings.append(
            f"{n - 1} seeds cannot reach p < {level:g} by random signs: verdicts here use the t test's p, "
            "which supposes normal differences"
        )
    whole, whole_verdict = _judged(kept.to_numpy(), margin, level, exact)
    rows: list[dict[str, Any]] = []
    for position, name in enumerate(kept.index):
        result, verdict = _judged(np.delete(kept.to_numpy(), position), margin, level, exact)
        rows.append({"seed": name, **result, "change": result["estimate"] - whole["estimate"], "verdict": verdict})
    variance = float(kept.var()) / n
    # Differences that are all the same leave nothing to measure a change by.
    cook = [row["change"] ** 2 / variance if variance > 0 else np.nan for row in rows]
    frame = pd.DataFrame(rows).assign(cook=cook)
    return LeaveOneOut(
        estimate=whole["estimate"],
        verdict=whole_verdict,
        stable=bool((frame["verdict"] == whole_verdict).all()),
        most_influential=kept.index[int(frame["change"].abs().argmax())],
        jackknife_sd=float(np.sqrt((n - 1) / n * np.sum((frame["estimate"] - frame["estimate"].mean()) ** 2))),
        frame=frame,
        n_seeds=n,
        method=f"leave one seed out; {'exact sign-flip' if exact else 't'} p at {level:g}",
        warnings=tuple(warnings),
    )


def _judged(values: np.ndarray, margin: float | None, level: float, exact: bool) -> tuple[dict[str, float], Finding]:
    test = paired_test(values)
    p = test.p if exact else test.p_t
    row = {"estimate": test.estimate, "low": test.interval[0], "high": test.interval[1], "p": p}
    if margin is not None and equivalence_test(values, margin=margin, alpha=level).equivalent:
        return row, "equivalent"
    if p < level:
        return row, "increases" if test.estimate > 0 else "decreases"
    return row, "undecided"
