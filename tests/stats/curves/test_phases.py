"""Onset and saturation against curves whose times are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.curves.phases import memorisation_times, phase_summaries, phase_times

ANGLE: dict[str, Any] = {"response": "angle_deg", "better": "lower", "chance": 90.0, "margin": 2.0}
STEPS = (0, 1, 3, 11, 37, 111, 222, 333, 444)
DENSE = tuple(np.unique(np.geomspace(1, 4096, 600).round(3)) - 1)


def tables(curves: dict[tuple[int, int], Any], steps: Any = STEPS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A `runs` and a `layers` table: curves[seed, layer] are the values over the steps."""
    rows = [
        {"run_id": f"r{seed}", "step": step, "layer": layer, "angle_deg": value}
        for (seed, layer), values in curves.items()
        for step, value in zip(steps, values, strict=True)
    ]
    seeds = sorted({seed for seed, _ in curves})
    return pd.DataFrame({"run_id": [f"r{seed}" for seed in seeds], "seed": seeds}), pd.DataFrame(rows)


def times_of(values: Any, steps: Any = STEPS, **options: Any) -> dict[str, tuple[float, str]]:
    found = phase_times(*tables({(0, 1): values}, steps), **{**ANGLE, **options})
    return {event: (time, state) for event, time, state in found[["event", "time", "state"]].itertuples(index=False)}


def test_exponential_alignment_has_the_times_of_its_formula() -> None:
    tau, drop = 100.0, 40.0
    steps = np.array(DENSE)
    values = 90 - drop * (1 - np.exp(-steps / tau))
    reached = drop * (1 - np.exp(-steps[-1] / tau))
    found = times_of(values, steps)
    for event, share in (("onset", 0.1), ("saturation", 0.9)):
        assert found[event] == (pytest.approx(-tau * np.log(1 - share * reached / drop), rel=1e-3), "observed")


def test_times_are_free_of_the_scale_of_the_response_and_of_its_direction() -> None:
    angles = np.array([90, 89, 88, 80, 70, 60, 58, 57, 57.0])
    expected = times_of(angles)
    assert expected["onset"][1] == expected["saturation"][1] == "observed"
    stretched = times_of(3 * angles, chance=270, margin=6)
    mirrored = times_of((90 - angles) / 100, better="higher", chance=0, margin=0.02)
    for event, (time, state) in expected.items():
        for found in (stretched[event], mirrored[event]):
            assert found == (pytest.approx(time), state)


def test_a_checkpoint_on_the_interpolating_line_changes_no_time() -> None:
    values = [90, 90, 89, 85, 75, 60, 58, 57, 57]
    middle = 2 ** ((np.log2(38) + np.log2(112)) / 2) - 1
    more = [*values[:5], 67.5, *values[5:]]
    sparse, dense = times_of(values), times_of(more, [*STEPS[:5], middle, *STEPS[5:]])
    for event in sparse:
        assert dense[event][0] == pytest.approx(sparse[event][0])


def test_a_passing_dip_is_no_onset_and_lost_alignment_undoes_none() -> None:
    plain = times_of([90, 90, 90, 90, 80, 60, 60, 60, 60])
    assert times_of([90, 86, 90, 90, 80, 60, 60, 60, 60])["onset"] == plain["onset"]
    assert times_of([90, 90, 90, 90, 80, 60, 70, 89, 89]) == plain


@pytest.mark.parametrize(
    "values",
    [
        [100, 99, 97, 95, 92, 91, 90, 90, 90],  # back to chance from a bad draw
        [80, 80, 80, 79.5, 79, 79, 79, 79, 79],  # a lucky draw that improves by less than the margin
        [90, 91, 92, 93, 94, 95, 96, 97, 98],
        [90] * 9,
    ],
)
def test_what_never_aligns_is_censored_at_the_end(values: list[float]) -> None:
    assert times_of(values) == {"onset": (444.0, "censored"), "saturation": (444.0, "censored")}


def test_a_bad_draw_must_get_below_chance_and_a_lucky_one_below_itself() -> None:
    bad = times_of([100, 100, 90, 87, 70, 60, 60, 60, 60])
    assert bad["onset"][0] > 3 and bad["onset"][0] == pytest.approx(
        times_of([90, 90, 90, 87, 70, 60, 60, 60, 60])["onset"][0]
    )
    assert times_of([80, 79, 78, 77.9, 77, 60, 60, 60, 60])["onset"][0] == pytest.approx(3)  # 10% of 20 below 80


def test_a_curve_that_still_improves_is_not_saturated() -> None:
    steps = np.linspace(0, 1000, 101)
    line = times_of(90 - steps / 50, steps)
    assert line["onset"][1] == "observed" and line["saturation"] == (1000.0, "censored")
    assert times_of(90 - steps / 50, steps, plateau=0.05)["saturation"][1] == "observed"


def test_a_margin_beyond_the_saturation_level_makes_both_events_one() -> None:
    found = times_of([90, 90, 90, 90, 89, 88.5, 87.95, 87.95, 87.95], plateau=0)
    assert found["onset"][0] == found["saturation"][0] and found["onset"][1] == "observed"


def test_the_margin_may_be_a_column_of_each_curve() -> None:
    runs, layers = tables({(0, 1): [90, 90, 90, 86, 82, 80, 80, 80, 80], (0, 2): [90, 90, 90, 86, 82, 80, 80, 80, 80]})
    layers["band"] = np.where(layers["layer"] == 1, 12.0, 4.0)
    found = phase_times(runs, layers, **{**ANGLE, "margin": "band"}).set_index(["layer", "event"])
    assert found.loc[(1, "onset"), "state"] == "censored"
    assert found.loc[(2, "onset"), "time"] == pytest.approx(11.0)


def test_missing_values_make_a_curve_undefined_unless_no_run_has_them() -> None:
    falling = [90.0, 90, 90, 85, 75, 60, 58, 57, 57]
    runs, layers = tables({(0, 1): falling, (1, 1): [*falling[:6], np.nan, np.nan, np.nan]})
    found = phase_times(runs, layers, **ANGLE)
    assert list(found["state"]) == ["observed"] * 2 + ["undefined"] * 2
    assert found["time"].isna().sum() == 2 and list(found["seed"]) == [0, 0, 1, 1]
    summary = phase_summaries(found)[0]
    assert (summary.n_seeds, summary.n_runs, summary.n_undefined) == (1, 2, 1)
    assert "1 of 2 runs left out" in summary.warnings[0]
    layers.loc[layers["step"] == 0, "angle_deg"] = np.nan
    assert phase_times(runs, layers, **ANGLE)["state"].tolist() == ["observed"] * 2 + ["undefined"] * 2


def test_memorisation_is_the_first_time_at_its_share_of_the_fall() -> None:
    steps = np.array(DENSE)
    runs, layers = tables({(0, 1): 2.3 * np.exp(-steps / 50) + 0.1}, steps)
    row = memorisation_times(runs, layers, loss="angle_deg").iloc[0]
    assert row["time"] == pytest.approx(50 * np.log(10), rel=2e-3) and row["state"] == "observed"
    assert row["improvement"] == pytest.approx(2.3)
    whole = phase_summaries(memorisation_times(runs, layers, loss="angle_deg"), by=None)
    assert [(item.event, item.group, item.estimate) for item in whole] == [("memorisation", "all", row["time"])]
    rising = memorisation_times(*tables({(0, 1): np.arange(9.0)}), loss="angle_deg").iloc[0]
    assert (rising["time"], rising["state"]) == (444.0, "censored")


def summary_of(values: list[float], state: list[str] | None = None, **options: Any) -> Any:
    table = pd.DataFrame({"seed": range(len(values)), "time": values, "layer": 1, "event": "onset"})
    return phase_summaries(table.assign(state=state or ["observed"] * len(values)), **options)[0]


@pytest.mark.parametrize("n", [6, 9, 10, 20])
def test_the_interval_is_that_of_scipys_quantile_test(n: int) -> None:
    values = np.random.default_rng(n).exponential(100, n)
    result = summary_of(list(values))
    assert result.estimate == pytest.approx(np.median(values))
    oracle = scipy_stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert result.interval == pytest.approx((oracle.low, oracle.high))
    assert 0.95 <= result.level < 1


def test_five_seeds_have_a_median_and_no_interval() -> None:
    result = summary_of([1.0, 2, 3, 4, 5])
    assert result.estimate == 3 and np.isnan(result.interval).all() and np.isnan(result.level)
    assert "needs 6" in result.warnings[-1]
    assert not np.isnan(summary_of([1.0, 2, 3, 4, 5], level=0.9).interval).any()


def test_censored_seeds_are_later_than_any_other() -> None:
    values, state = [10.0, 20, 30, 40, 100, 100, 100], ["observed"] * 4 + ["censored"] * 3
    result = summary_of(values, state)
    assert result.estimate == 40 and result.interval[1] == np.inf and result.n_censored == 3
    assert "no upper bound" in result.warnings[-1]
    assert summary_of(values[2:], state[2:]).estimate == np.inf
    assert len(result.to_frame()) == 1 and {"estimate", "low", "high", "level"} <= set(result.to_frame())


def test_a_seed_counts_once_whatever_its_number_of_runs() -> None:
    table = pd.DataFrame({"seed": [0, 0, 0, 1, 2], "time": [1.0, 2, 3, 10, 20], "layer": 1, "event": "onset"})
    result = phase_summaries(table.assign(state="observed"))[0]
    assert (result.estimate, result.n_seeds, result.n_runs) == (10, 3, 5)


def test_the_interval_covers_the_true_median_under_censoring() -> None:
    generator = np.random.default_rng(3)
    covered, replicates = 0, 120
    for _ in range(replicates):
        times = generator.lognormal(5, 1, 10)
        censored = times > np.exp(5.3)  # some 38% of seeds
        result = summary_of(
            list(np.minimum(times, np.exp(5.3))), ["censored" if late else "observed" for late in censored]
        )
        covered += result.interval[0] <= np.exp(5) <= result.interval[1]
    assert abs(covered / replicates - 0.9785) < 3.3 * np.sqrt(0.9785 * 0.0215 / replicates)


def test_bad_input_says_what_was_expected() -> None:
    runs, layers = tables({(0, 1): [90.0] * 9, (1, 1): [80.0] * 9})
    with pytest.raises(AnalysisError, match='expected a column "signal_angle_deg"'):
        phase_times(runs, layers, **{**ANGLE, "response": "signal_angle_deg"})
    with pytest.raises(AnalysisError, match="Choose one signal"):
        phase_times(runs, pd.concat([layers, layers]), **ANGLE)
    with pytest.raises(AnalysisError, match="1 of them without a curve"):
        phase_times(runs, layers[layers["run_id"] == "r0"], **ANGLE)
    with pytest.raises(AnalysisError, match="onset_at < saturation_at"):
        phase_times(runs, layers, **ANGLE, onset_at=0.95)
    with pytest.raises(AnalysisError, match="margin of 0 or more"):
        phase_times(runs, layers, **{**ANGLE, "margin": -1})
    with pytest.raises(AnalysisError, match="undefined in every run"):
        phase_times(runs, layers.assign(angle_deg=np.nan), **ANGLE)
    with pytest.raises(AnalysisError, match='expected better to be "lower" or "higher"; got \'more\''):
        phase_times(runs, layers, **{**ANGLE, "better": "more"})
    with pytest.raises(AnalysisError, match="0 < fraction < 1"):
        memorisation_times(runs, layers, loss="angle_deg", fraction=1.0)


def test_a_level_called_none_is_not_a_missing_one() -> None:
    table = pd.DataFrame(
        {"event": "onset", "time": [1.0, 2, 3, 11, 12, 13], "seed": [0, 1, 2] * 2, "state": "observed"}
    )
    found = phase_summaries(table.assign(norm=["none"] * 3 + [None] * 3), by="norm")
    assert {summary.group: summary.estimate for summary in found} == {"none": 2.0, "missing": 12.0}
