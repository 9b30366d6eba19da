"""In which order events come: layer after layer, or one phase of training after another, within runs.

Times are compared on log2(1 + time) and restricted: what is censored counts at the end of training.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.multiplicity import holm
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.curves.page import page_trend
from alignkit.stats.curves.phases import CENSORED
from alignkit.stats.tables.checks import float_column, require_columns, require_seed_column, without_index_names
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.inference import inference_of

NAN = float("nan")


@shown()
@dataclass(frozen=True)
class PhaseLag:
    """How much later one event comes than another, in doublings of time: log2(1 + later) - log2(1 + earlier).

    `p` is the exact sign-flip p over seeds, `p_adjusted` that within its family. Of `n_runs`, `n_censored` have
    one of the two events censored (the lag is then a bound on one side) and `n_ties` both (the lag is 0).
    """

    event: str
    comparison: str
    estimate: float
    interval: tuple[float, float]
    p: float
    p_adjusted: float
    df: int
    n_seeds: int
    n_runs: int
    n_censored: int
    n_ties: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, *(name for name in vars(self) if name != "interval"), "interval")


def phase_lag(
    earlier: pd.DataFrame, later: pd.DataFrame, *, comparison: str = "", run: str = "run_id", seed: str = "seed"
) -> PhaseLag:
    """How much later the events of one table come than those of another, within runs, one lag per seed.

    Both tables are rows of `phase_times` or `memorisation_times`; a run with several rows (its layers) counts with
    the mean of their log2 times. Times are restricted: a censored event counts at the end of training, so lags are
    shrunk towards 0 by censoring, never inflated. Runs in which one event is undefined are left out and counted.

    >>> start = pd.DataFrame({"run_id": range(6), "seed": range(6), "event": "onset", "time": 3.0, "state": "observed"})
    >>> phase_lag(start, start.assign(time=15.0)).estimate
    2.0
    """
    sides = [_restricted(table, run, seed) for table in (earlier, later)]
    both = sides[0].add_suffix("_a").join(sides[1].add_suffix("_b"), how="inner")
    kept = both.dropna()
    alone = len(sides[0].index.symmetric_difference(sides[1].index))
    undefined = len(both) - len(kept)
    warnings = [f"{alone} runs left out: they have only one of the two"] if alone else []
    if undefined:
        warnings.append(f"{undefined} of {len(both)} runs left out: one of the two times is undefined")
    if kept.empty:
        raise AnalysisError("expected runs in which both events are defined; got none. Choose other events or runs")
    lag = kept["log_b"] - kept["log_a"]
    test = paired_test(lag.groupby(kept["seed_a"]).mean())
    once, twice = kept["censored_a"] ^ kept["censored_b"], kept["censored_a"] & kept["censored_b"]
    events = [", ".join(dict.fromkeys(map(str, table["event"]))) for table in (earlier, later)]
    return PhaseLag(
        event=events[1] if events[0] == events[1] else f"{events[0]}, {events[1]}",
        comparison=comparison or f"{events[1]} after {events[0]}",
        **inference_of(test),
        p_adjusted=test.p,
        n_runs=len(kept),
        n_censored=int(once.sum()),
        n_ties=int(twice.sum()),
        method=f"per-seed mean lag of log2(1 + time), censored at the end; {test.method}",
        warnings=(*warnings, *test.warnings),
    )


@shown()
@dataclass(frozen=True)
class LayerOrder:
    """Whether lower layers have an event first.

    `estimate` is the mean lag of a run's last layer behind its first, in doublings of time: positive where the
    lower is first; `p` its exact sign-flip p. `pairs` holds that lag and those of neighbours, adjusted by Holm
    among the neighbours. `page_l` and `page_p` are those of `page_trend` over the seeds' mean times.
    """

    event: str
    estimate: float
    interval: tuple[float, float]
    p: float
    df: int
    n_seeds: int
    n_layers: int
    page_l: float
    page_p: float
    pairs: tuple[PhaseLag, ...]
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per pair of layers: first to last, then neighbours."""
        return pd.concat([pair.to_frame() for pair in self.pairs], ignore_index=True)


def layer_order(
    times: pd.DataFrame,
    *,
    event: Literal["onset", "saturation"] = "onset",
    run: str = "run_id",
    layer: str = "layer",
    seed: str = "seed",
) -> LayerOrder:
    """Whether an event reaches lower layers first, tested within seeds.

    `times` is as `phase_times` gives it. Runs of several depths may be given: the first layer is then compared with
    each run's own last, neighbours wherever both exist, and Page's test, which needs equal rows, is not made.
    """
    require_columns(times, "event", "time", "state", run, layer, seed)
    rows = without_index_names(times[times["event"] == event])
    if rows.empty or rows.groupby(run)[layer].nunique().max() < 2:
        raise AnalysisError(
            f'expected the event "{event}" in two layers of a run; '
            f"events: {', '.join(map(str, times['event'].unique())) or 'none'}"
        )
    first, last = (rows[layer] == rows.groupby(run)[layer].transform(how) for how in ("min", "max"))
    deep = first ^ last  # a run of one hidden layer has no order
    labels = sorted(rows[layer].unique())
    ends = phase_lag(rows[first & deep], rows[last & deep], comparison="last after first", run=run, seed=seed)
    at = {label: rows[rows[layer] == label] for label in labels}
    neighbours = []
    for low, high in itertools.pairwise(labels):
        shared = set(at[low][run]) & set(at[high][run])
        lower, upper = (at[label][at[label][run].isin(shared)] for label in (low, high))
        neighbours.append(phase_lag(lower, upper, comparison=f"{high} after {low}", run=run, seed=seed))
    adjusted = holm([pair.p for pair in neighbours])
    pairs = [ends, *(replace(pair, p_adjusted=float(p)) for pair, p in zip(neighbours, adjusted, strict=True))]
    depths = sorted({int(depth) for depth in rows.groupby(run)[layer].nunique()})
    warnings = list(ends.warnings)
    page_l, page_p = NAN, NAN
    if len(depths) > 1:
        warnings.append(f"no Page test: runs have {' and '.join(map(str, depths))} layers; choose runs of one depth")
    else:
        logs = np.log2(1 + rows["time"])
        complete = logs.groupby(rows[run]).transform(lambda values: values.notna().all())
        table = logs[complete].groupby([rows[seed], rows[layer]]).mean().unstack()
        page_l, page_p = page_trend(table.to_numpy(float))
    return LayerOrder(
        event=event,
        **inference_of(ends),
        n_layers=len(labels),
        page_l=page_l,
        page_p=page_p,
        pairs=tuple(pairs),
        method=f"{ends.method}; Page's trend test over seeds, ties kept",
        warnings=tuple(warnings),
    )


def _restricted(table: pd.DataFrame, run: str, seed: str) -> pd.DataFrame:
    """Per run: the mean log2 time over its rows, NaN where one is undefined, and whether one is censored."""
    require_columns(table, "event", "time", "state", run, seed)
    require_seed_column(table[seed])
    table = without_index_names(table)
    log = pd.Series(1 + float_column(table["time"], "time"), table.index).map(np.log2)
    grouped = log.groupby(table[run])
    return pd.DataFrame(
        {
            "seed": table.groupby(run)[seed].first(),
            "log": grouped.mean().mask(log.isna().groupby(table[run]).any()),
            "censored": (table["state"] == CENSORED).groupby(table[run]).any(),
        }
    )
