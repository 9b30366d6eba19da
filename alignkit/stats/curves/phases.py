"""When a layer's alignment begins and when it saturates, and in which order layers, or phases, come.

A run's curve gives two events a layer, onset and saturation, and one for its training loss. What has not
happened by the end of training is right-censored there; a curve with a hole gives no event at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.location import median_interval
from alignkit.stats.contrasts.paired import minimum_seeds
from alignkit.stats.curves.rows import curve_rows
from alignkit.stats.tables.checks import (
    float_column,
    require_choice,
    require_columns,
    require_level,
    require_number,
    require_seed_column,
    without_index_names,
)
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.levels import level_column
from alignkit.text import count

NAN = float("nan")
OBSERVED, CENSORED, UNDEFINED = "observed", "censored", "undefined"


def phase_times(
    runs: pd.DataFrame,
    layers: pd.DataFrame,
    *,
    response: str,
    better: Literal["lower", "higher"],
    chance: float,
    margin: float | str,
    onset_at: float = 0.1,
    saturation_at: float = 0.9,
    plateau: float = 0.2,
    run: str = "run_id",
    layer: str = "layer",
    time: str = "step",
) -> pd.DataFrame:
    """When each layer of each run begins to align, and when it has made most of its improvement.

    The improvement D is measured from a reference r, the worse bound that a layer must leave behind: the
    better of its value at the first checkpoint and `chance`. So a layer that starts at 100 degrees and comes
    back to 90 has not improved, and one that starts at 80 by luck must fall below 80. With the angle (lower is
    better) D = r - min over checkpoints, and

    - *onset* is when the curve passes r - max(`onset_at` D, `margin`) for good, that is for the last time before
      its best value: a passing dip is no onset, and alignment that is lost after its best does not undo one;
    - *saturation* is the first time from the onset on at which it has made `saturation_at` of D.

    Times lie between checkpoints, by linear interpolation on log2(1 + `time`), the scale on which checkpoints
    are spread. An onset is censored at the last checkpoint where D < `margin` (never aligned). A saturation is
    censored there too, and where it falls in the last `plateau` share of training: the curve is still improving,
    and its own best is no measure of where it would end. Both are undefined (NaN) where the curve has a missing
    value, as after divergence, unless the value is missing in every run at that checkpoint.

    Parameters
    ----------
    runs, layers
        One row per run; one row per run, layer and checkpoint (choose one `signal` where runs carry two).
    response, better, chance
        The curve, which way is better, and its value under chance: "lower" and 90 of an angle, "higher" and 0 of a
        cosine.
    margin
        The least improvement that counts, in the unit of the response (say 2 degrees); or the name of a column of
        `layers` whose first value in each curve is that margin (for instance the half-width of a chance band).

    Returns
    -------
    The columns of `runs`, and `layer`, `event` ("onset" or "saturation"), `time`, `state` ("observed", "censored"
    or "undefined"), `horizon` (the last checkpoint), `start`, `improvement` (D): one row per run, layer and event.

    Do not read saturation as the end of learning: it is 90% of what this run achieved in the time it had.
    """
    require_choice("better", better, ("lower", "higher"))
    require_columns(layers, run, layer, time, response, *([margin] if isinstance(margin, str) else []))
    if not isinstance(margin, str):
        require_number("margin", margin)
    require_number("chance", chance)
    require_columns(runs, run)
    if not 0 < onset_at < saturation_at < 1 or not 0 <= plateau < 1:
        raise AnalysisError(
            "expected 0 < onset_at < saturation_at < 1 and 0 <= plateau < 1; "
            f"got {onset_at}, {saturation_at} and {plateau}"
        )
    sign = 1.0 if better == "lower" else -1.0
    rows = []
    for (name, at), curve in curve_rows(runs, layers, [run, layer], time, response).groupby([run, layer], sort=False):
        times, values = curve[time].to_numpy(float), sign * curve[response].to_numpy(float)
        least = float(float_column(curve[margin], margin)[0]) if isinstance(margin, str) else float(margin)
        if not least >= 0 and np.isfinite(values).all():
            raise AnalysisError(f"expected a margin of 0 or more, in the unit of {response}; got {least}")
        reference = min(values[0], sign * chance)
        events = _events(times, values, reference, least, (onset_at, saturation_at), plateau)
        rows += [
            {run: name, layer: at, "event": event, "time": when, "state": state, "horizon": times[-1],
             "start": sign * values[0], "improvement": reference - values.min()}
            for event, when, state in events
        ]  # fmt: skip
    return _with_runs(runs, rows, run)


def memorisation_times(
    runs: pd.DataFrame,
    checkpoints: pd.DataFrame,
    *,
    loss: str = "train_loss",
    fraction: float = 0.9,
    plateau: float = 0.2,
    run: str = "run_id",
    time: str = "step",
) -> pd.DataFrame:
    """When each run's training loss has made `fraction` of its fall from the first checkpoint to its lowest value.

    One row per run, of the form that `phase_times` gives, with the event "memorisation". It is censored as a
    saturation is: where the loss never falls, and where that share is reached only in the last `plateau` share of
    training, when the fall is still going on.

    In "align, then memorise" (Refinetti et al., ICML 2021) a network under direct feedback alignment aligns
    before it fits the data: compare with the alignment's saturation by `phase_lag`.
    """
    require_columns(checkpoints, run, time, loss)
    require_columns(runs, run)
    if not 0 < fraction < 1 or not 0 <= plateau < 1:
        raise AnalysisError(f"expected 0 < fraction < 1 and 0 <= plateau < 1; got {fraction} and {plateau}")
    rows = []
    for name, curve in curve_rows(runs, checkpoints, [run], time, loss).groupby(run, sort=False):
        times, values = curve[time].to_numpy(float), curve[loss].to_numpy(float)
        when, state = _fall(times, values, fraction, plateau)
        rows.append(
            {run: name, "event": "memorisation", "time": when, "state": state, "horizon": times[-1],
             "start": values[0], "improvement": values[0] - values.min()}
        )  # fmt: skip
    return _with_runs(runs, rows, run)


@shown()
@dataclass(frozen=True)
class PhaseSummary:
    """The median time of an event over seeds, with an interval from order statistics.

    `estimate` and the bounds are in the unit of the times; infinity is "not by the end of training". `level` is
    the interval's exact coverage, at least what was asked for. Runs are counted by state.
    """

    event: str
    group: str
    estimate: float
    interval: tuple[float, float]
    level: float
    n_seeds: int
    n_runs: int
    n_censored: int
    n_undefined: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, *(name for name in vars(self) if name != "interval"), "interval")


def phase_summaries(
    times: pd.DataFrame, *, by: str | None = "layer", seed: str = "seed", level: float = 0.95
) -> tuple[PhaseSummary, ...]:
    """The median time over seeds of each event, for each value of `by` (None: for all), honest under censoring.

    `times` is as `phase_times` gives it. A seed counts once, with the median of its runs, in which a censored run
    is later than any observed one. The interval runs between two order statistics of the seeds and inverts the
    sign test (Thompson 1936): it supposes nothing of the distribution, and needs six seeds for 95%.

    Do not compare medians by whether intervals overlap: `layer_order` and `phase_lag` compare within seeds.
    """
    require_columns(times, "event", "time", "state", seed, *([] if by is None else [by]))
    require_seed_column(times[seed])
    require_level(level)
    results = []
    group_of = pd.Series("all", times.index) if by is None else level_column(times[by])
    # A run without the factor is a group of its own, beside a level that is called "none".
    for (event, group), part in times.groupby([times["event"], group_of], sort=False, dropna=False):
        defined = part[part["state"] != UNDEFINED]
        late = defined["time"].mask(defined["state"] == CENSORED, np.inf)
        seeds = np.sort([_median(values.to_numpy(float)) for _, values in late.groupby(defined[seed])])
        n, warnings = len(seeds), []
        undefined = len(part) - len(defined)
        if undefined:
            warnings.append(f"{undefined} of {len(part)} runs left out: their curve has missing values")
        interval, attained = median_interval(seeds, level)
        if np.isnan(attained):
            warnings.append(
                f"no {level:.0%} interval from {count(n, 'seed')}: it needs {minimum_seeds(alpha=1 - level)}"
            )
        if interval[1] == np.inf:
            warnings.append("the interval has no upper bound: too many seeds are censored")
        results.append(
            PhaseSummary(
                str(event), group if isinstance(group, str) else "missing", _median(seeds) if n else NAN, interval,
                attained, n, len(part),
                int((part["state"] == CENSORED).sum()), undefined,
                "median over seeds of each seed's median run; sign-test interval", tuple(warnings),
            )
        )  # fmt: skip
    return tuple(results)


def _events(
    times: np.ndarray, values: np.ndarray, reference: float, margin: float, shares: tuple[float, float], plateau: float
) -> list[tuple[str, float, str]]:
    """Onset and saturation of a curve that falls: (event, time, state)."""
    names = ("onset", "saturation")
    if not np.isfinite(values).all():
        return [(name, NAN, UNDEFINED) for name in names]
    best = int(values.argmin())
    improvement = reference - values[best]
    if improvement <= 0 or improvement < margin:
        return [(name, float(times[-1]), CENSORED) for name in names]
    # The first value is at or above the reference, so that there always is a last one above this level.
    level = reference - max(shares[0] * improvement, margin)
    last = int(np.flatnonzero(values[: best + 1] > level)[-1])
    onset = _passing(times, values, level, last + 1)
    level = min(level, reference - shares[1] * improvement)
    passed = last + 1 + int(np.flatnonzero(values[last + 1 :] <= level)[0])
    return [("onset", onset, OBSERVED), ("saturation", *_ended(times, _passing(times, values, level, passed), plateau))]


def _fall(times: np.ndarray, values: np.ndarray, fraction: float, plateau: float) -> tuple[float, str]:
    """When a curve first has made a fraction of its fall, and the state of that event."""
    if not np.isfinite(values).all():
        return NAN, UNDEFINED
    level = values[0] - fraction * (values[0] - values.min())
    if values.min() == values[0]:
        return float(times[-1]), CENSORED
    return _ended(times, _passing(times, values, level, int(np.flatnonzero(values <= level)[0])), plateau)


def _passing(times: np.ndarray, values: np.ndarray, level: float, after: int) -> float:
    """The time at which a curve falls through a level between the checkpoints `after` - 1 and `after`."""
    high, low = values[after - 1], values[after]
    share = (high - level) / (high - low)
    log = np.log2(1 + times[after - 1 : after + 1])
    return float(2 ** (log[0] + share * (log[1] - log[0])) - 1)


def _ended(times: np.ndarray, when: float, plateau: float) -> tuple[float, str]:
    """The time, or the end of training where what it ends was still going on in the last `plateau` share."""
    start, end = float(times[0]), float(times[-1])
    return (end, CENSORED) if when > end - plateau * (end - start) else (when, OBSERVED)


def _with_runs(runs: pd.DataFrame, rows: list[dict[str, Any]], run: str) -> pd.DataFrame:
    events = pd.DataFrame(rows)
    others = without_index_names(runs).drop(columns=[name for name in events.columns if name != run], errors="ignore")
    return others.merge(events, on=run)


def _median(values: np.ndarray) -> float:
    """The median, infinite where a middle value is."""
    ordered = np.sort(values)
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(middle[0] if middle[0] == middle[1] else sum(middle) / 2)
