"""What a contrast can still say when values are missing for reasons of their own.

A run that diverged has no angle. Leaving it out is right only where failing has nothing to do with the
value that it would have had; where it has, only bounds are honest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError, quoted
from alignkit.stats.contrasts.arrays import EXACT_UP_TO, Moments, moments, t_interval, t_p, tost_p
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.paired import PairedResult, paired_test, sign_flip_p
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.tables.checks import is_number
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.levels import level_column

NAN = float("nan")
Verdict = Literal["increases", "decreases", "equivalent", "undecided"]


@shown(in_response=True)
@dataclass(frozen=True)
class AttritionBounds:
    """What a contrast can be, whatever the values of the runs that have none.

    `observed` is the contrast without them (right where values are missing at random). `lowest` and
    `highest` bound the estimate, `interval` every t interval that some filling-in gives, and `p` is the
    largest sign-flip p of any, `p_t` the largest p of the t test, `p_equivalence` that of two one-sided t
    tests against `margin` (NaN without one). `verdict` holds for every filling-in, `verdict_observed` for
    what is there; `survives` says whether they agree. `differences` has one row per seed: `observed`,
    `lowest`, `highest`. `missing` counts the runs without a value at each level, of `runs`.
    """

    factor: str
    levels: tuple[str, str]
    response: str
    bounds: tuple[float, float]
    observed: PairedResult
    lowest: float
    highest: float
    interval: tuple[float, float]
    p: float
    p_t: float
    p_equivalence: float
    verdict: Verdict
    verdict_observed: Verdict
    differences: pd.DataFrame
    missing: tuple[int, int]
    runs: int
    n_seeds: int
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def survives(self) -> bool:
        """Whether the verdict is the same whatever the missing values are."""
        return self.verdict == self.verdict_observed

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(
            self, "factor", "levels", "response", "estimate", "lowest", "highest", "interval", "p", "p_t",
            "p_equivalence", "p_observed", "verdict", "verdict_observed", "survives", "missing_from", "missing_to",
            "runs", "n_seeds", "method", "warnings", estimate=self.observed.estimate, p_observed=self.observed.p,
            missing_from=self.missing[0], missing_to=self.missing[1],
        )  # fmt: skip


def worst_case_bounds(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    bounds: tuple[float, float],
    within: Sequence[str] = (),
    response: str = "value",
    seed: str = "seed",
    margin: float | None = None,
    alpha: float = 0.05,
) -> AttritionBounds:
    """Whether a contrast's verdict holds whatever the values of the runs that have none.

    Every missing value is put at either end of `bounds`, the range that the response can have
    (for alignkit's own, `claims.responses.response_bounds`): against the effect, and for it. No assumption is made
    on why values are missing (Manski 1990; Horowitz and Manski 2000), so the bounds are wide; where they
    are too wide to tell, the data do not tell without an assumption.

    The verdict on a difference is sharp: with a positive sum, every sign pattern's sum of flipped
    differences grows with each difference, so the sign-flip p is largest at the lowest filling-in. For
    the t interval and the t tests (also those of equivalence within `margin`) the spread matters too. The
    lower end of an interval is a concave function of the seeds' differences, the upper end a convex one, so
    both are reached where every missing value is at an end of its range; and a t test's p passes a level
    where an end of its interval passes the bound. All these corners are searched, up to 16 incomplete
    seeds; beyond, the largest possible spread is used, which errs on the wide side.

    Every seed is expected to have every cell: a row that is absent is a missing value. With nothing
    missing the result is the contrast itself. The bounds use a run whose counterpart is missing, which
    the observed contrast leaves aside, so that one may lie outside them.

    Raises `AnalysisError` where an observed value lies outside `bounds`.
    """
    low, high = _ends(bounds)
    if margin is not None and not (is_number(margin) and margin > 0):
        raise AnalysisError(f"expected a margin above 0; got {quoted(margin)}. State the smallest effect that matters")
    contrasts = seed_contrasts(table, factor=factor, levels=levels, response=response, seed=seed, within=within)
    wide, cells = _wide(table, factor, contrasts.levels, within, response, seed)
    values = wide.to_numpy()
    _require_within(values, low, high, response)
    weights = _cell_weights(cells, factor, contrasts.levels)
    used = weights != 0
    absent = ~np.isfinite(values) & used
    known = np.where(used, values, 0.0)
    least = np.where(absent, np.where(weights > 0, low, high), known) @ weights
    most = np.where(absent, np.where(weights > 0, high, low), known) @ weights
    observed = paired_test(contrasts.differences)
    frame = pd.DataFrame({"lowest": least, "highest": most}, index=wide.index)
    frame.insert(0, "observed", contrasts.differences.reindex(frame.index))
    p = sign_flip_p(least) if least.sum() > 0 else sign_flip_p(most) if most.sum() < 0 else 1.0
    extremes = _extremes(least, most)
    below, above = t_interval(extremes)
    reaches = max(abs(least.mean()), abs(most.mean()))
    p_equivalence = p_observed = NAN
    if margin is not None:
        p_equivalence = 1.0 if reaches >= margin else float(np.fmax.reduce(tost_p(extremes, margin=margin)))
        p_observed = equivalence_test(contrasts.differences, margin=margin).p
    at_second = (cells[factor] == contrasts.levels[1]).to_numpy()
    warnings = list(contrasts.warnings)
    if absent.any(axis=1).sum() > EXACT_UP_TO:
        warnings.append("many seeds are incomplete: the intervals take the largest possible spread")
    return AttritionBounds(
        factor=factor,
        levels=contrasts.levels,
        response=response,
        bounds=(low, high),
        observed=observed,
        lowest=float(least.mean()),
        highest=float(most.mean()),
        interval=(float(np.fmin.reduce(below)), float(np.fmax.reduce(above))),
        p=p,
        p_t=1.0 if least.sum() <= 0 <= most.sum() else float(np.fmax.reduce(t_p(extremes))),
        p_equivalence=p_equivalence,
        verdict=_verdict(p, p_equivalence, float(least.mean()), alpha),
        verdict_observed=_verdict(observed.p, p_observed, observed.estimate, alpha),
        differences=frame,
        missing=(int(absent[:, ~at_second].sum()), int(absent[:, at_second].sum())),
        runs=int(used.sum()) * len(values),
        n_seeds=len(values),
        method=f"worst cases over [{low:g}, {high:g}]; t intervals; sign-flip p",
        warnings=tuple(warnings),
    )


def _ends(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(bound) if is_number(bound) else np.nan for bound in bounds)
    if not low < high or not np.isfinite([low, high]).all():
        raise AnalysisError(
            f"expected finite bounds, the lower first; got {quoted(bounds)}. State what the response can be"
        )
    return low, high


def _require_within(values: np.ndarray, low: float, high: float, response: str) -> None:
    present = values[np.isfinite(values)]
    if ((present < low) | (present > high)).any():
        raise AnalysisError(
            f'expected every "{response}" within [{low:g}, {high:g}]; got {present.min():g} to {present.max():g}. '
            "State the range that the response can have"
        )


def _verdict(p: float, p_equivalence: float, estimate: float, alpha: float) -> Verdict:
    if p_equivalence < alpha:
        return "equivalent"
    if p < alpha:
        return "increases" if estimate > 0 else "decreases"
    return "undecided"


def _extremes(least: np.ndarray, most: np.ndarray) -> Moments:
    """The fillings-in among which are the widest reach of a t interval and the largest p of a t test."""
    open_seeds = np.flatnonzero(most > least)
    if len(open_seeds) > EXACT_UP_TO:
        n, middle = len(least), (least + most).mean() / 2
        widest = np.sqrt(np.maximum((least - middle) ** 2, (most - middle) ** 2).sum() / (n - 1))
        return Moments(np.full(2, n), np.array([least.mean(), most.mean()]), np.full(2, widest))
    corners = np.array(list(itertools.product((False, True), repeat=len(open_seeds))), dtype=bool)
    filled = np.tile(least, (len(corners), 1))
    filled[:, open_seeds] = np.where(corners, most[open_seeds], least[open_seeds])
    return moments(filled)


def _wide(
    table: pd.DataFrame, factor: str, levels: tuple[str, str], within: Sequence[str], response: str, seed: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values by seed and cell at either level, and what the cells are; both levels' cells side by side."""
    names = [factor, *(name for name in within if name != factor)]
    rows = pd.DataFrame({name: level_column(table[name]).map(str) for name in names})
    rows = rows.assign(_seed=table[seed], _value=table[response].astype(float))[rows[factor].isin(levels)]
    wide = rows.pivot(index="_seed", columns=names, values="_value").sort_index()
    wide.index.name = seed
    return wide, wide.columns.to_frame(index=False)


def _cell_weights(cells: pd.DataFrame, factor: str, levels: tuple[str, str]) -> np.ndarray:
    """The weight of each cell in a complete seed's contrast: what `seed_contrasts` makes of one cell at a time."""
    n = len(cells)
    alone = pd.concat([cells] * n, ignore_index=True)
    alone = alone.assign(_cell=np.repeat(np.arange(n), n), _one=np.eye(n).ravel())
    weights = seed_contrasts(
        alone, factor=factor, levels=levels, response="_one", seed="_cell", within=list(cells.columns)
    )
    return weights.differences.to_numpy()
