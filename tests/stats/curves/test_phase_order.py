"""The order of layers and phases: simulated truth, brute force and scipy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.curves.phase_order import layer_order, phase_lag


def times_table(
    seeds: int = 10, layers: int = 3, cells: int = 2, *, lag: float = 1.0, end: float = np.inf, noise: int = 0
) -> pd.DataFrame:
    """Onsets that come `lag` doublings later from layer to layer, and are censored at `end`."""
    generator = np.random.default_rng(noise)
    rows = []
    for seed, cell in itertools.product(range(seeds), range(cells)):
        base = 4 + generator.normal(0, 0.5)
        for layer in range(1, layers + 1):
            time = 2 ** (base + lag * (layer - 1) + generator.normal(0, 0.3)) - 1
            state = "censored" if time > end else "observed"
            rows.append({"run_id": f"{seed}-{cell}", "seed": seed, "layer": layer, "event": "onset",
                         "time": min(time, end), "state": state})  # fmt: skip
    return pd.DataFrame(rows)


def test_the_order_of_layers_is_found_with_its_size() -> None:
    order = layer_order(times_table())
    assert order.interval[0] < 2.0 < order.interval[1] and order.p < 0.01 and order.page_p < 1e-4
    first_last, *neighbours = order.pairs
    assert first_last.estimate == order.estimate
    assert sum(pair.estimate for pair in neighbours) == pytest.approx(order.estimate)
    assert [pair.comparison for pair in order.pairs] == ["last after first", "2 after 1", "3 after 2"]
    assert [pair.p_adjusted for pair in neighbours] == pytest.approx([2 * pair.p for pair in neighbours])
    frame = order.to_frame()
    assert len(frame) == 3 and {"low", "high", "p_adjusted", "n_censored", "n_ties"} <= set(frame)


def test_reversing_the_layers_reverses_the_sign_alone() -> None:
    table = times_table(lag=0.2)
    forward, backward = layer_order(table), layer_order(table.assign(layer=4 - table["layer"]))
    assert backward.estimate == pytest.approx(-forward.estimate)
    assert (backward.p, backward.page_p) == pytest.approx((forward.p, forward.page_p))


def test_censoring_shrinks_lags_and_counts_ties() -> None:
    free, cut = layer_order(times_table()), layer_order(times_table(end=60.0))
    assert 0 < cut.estimate < free.estimate
    pair = cut.pairs[0]
    late = times_table(end=60.0).pivot(index="run_id", columns="layer", values="state") == "censored"
    assert pair.n_ties == (late[1] & late[3]).sum() and pair.n_censored == (late[1] ^ late[3]).sum() > 0


def test_a_lag_is_the_paired_test_of_seed_means() -> None:
    table = times_table()
    wide = np.log2(1 + table.pivot(index=["seed", "run_id"], columns="layer", values="time"))
    oracle = paired_test((wide[3] - wide[1]).groupby("seed").mean())
    lag = phase_lag(table[table["layer"] == 1], table[table["layer"] == 3])
    assert (lag.estimate, *lag.interval, lag.p, lag.df) == pytest.approx(
        (oracle.estimate, *oracle.interval, oracle.p, 9)
    )


def test_layers_of_a_run_are_averaged_before_phases_are_compared() -> None:
    table = times_table(layers=2, lag=2.0, noise=4)
    memorised = table[table["layer"] == 1].assign(event="memorisation", time=lambda t: 8 * (1 + t["time"]) - 1)
    lag = phase_lag(table, memorised)
    each = [phase_lag(table[table["layer"] == layer], memorised).estimate for layer in (1, 2)]
    assert lag.estimate == pytest.approx(np.mean(each)) and each[0] == pytest.approx(3.0)
    assert (lag.event, lag.comparison) == ("onset, memorisation", "memorisation after onset")


def test_undefined_times_take_their_run_with_them_and_are_counted() -> None:
    table = times_table()
    table.loc[0, ["time", "state"]] = [np.nan, "undefined"]
    order = layer_order(table)
    assert order.pairs[0].n_runs == 19 and "1 of 20 runs left out" in order.warnings[0]
    assert order.pairs[2].n_runs == 20 and not np.isnan(order.page_p)


def test_runs_of_two_depths_are_compared_first_to_last_without_page() -> None:
    deep, shallow = times_table(layers=3), times_table(layers=2, noise=1)
    table = pd.concat([deep, shallow.assign(run_id="s" + shallow["run_id"])])
    order = layer_order(table)
    assert np.isnan(order.page_p) and "choose runs of one depth" in order.warnings[-1]
    assert [pair.n_runs for pair in order.pairs] == [40, 40, 20]


def test_bad_input_says_what_was_expected() -> None:
    table = times_table()
    with pytest.raises(AnalysisError, match='event "saturation" in two layers'):
        layer_order(table, event="saturation")
    with pytest.raises(AnalysisError, match="in two layers of a run"):
        layer_order(table[table["layer"] == 1])
    with pytest.raises(AnalysisError, match="both events are defined"):
        phase_lag(table, table.assign(time=np.nan))
    bad: Any = table.drop(columns="state")
    with pytest.raises(AnalysisError, match='expected a column "state"'):
        phase_lag(bad, table)
