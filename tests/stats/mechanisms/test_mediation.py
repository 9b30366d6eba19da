"""Mediation against ordinary least squares, simulated paths, and identities."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.mechanisms.association import within_association
from alignkit.stats.mechanisms.mediation import Mediation, mediation

SITES = ("p", "q", "r")


def runs_table(
    seeds: int = 10, *, sites: tuple[str, ...] = SITES, a: float = 2.0, b: float = 1.5, direct: float = 1.0,
    b_high: float | None = None, rho: float = 0.0, spread: float = 0.4, noise: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A grid of arms and sites per seed; the paths a and direct vary from seed to seed, `rho` confounds."""
    generator = np.random.default_rng(noise)
    rows = []
    for seed in range(seeds):
        level_m, level_y = generator.normal(0, 2, 2)
        a_seed, direct_seed = a + spread * generator.normal(), direct + spread * generator.normal()
        for site, arm in itertools.product(sites, (0, 1)):
            e_m, e_y = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
            m = level_m + 3 * sites.index(site) + a_seed * arm + e_m
            slope = b_high if arm and b_high is not None else b
            y = level_y - 5 * sites.index(site) + direct_seed * arm + slope * m + e_y
            rows.append({"seed": seed, "site": site, "arm": arm, "angle": m, "points": y})
    return pd.DataFrame(rows)


def mediate(table: pd.DataFrame, **options: Any) -> Mediation:
    given: dict[str, Any] = {"levels": (0, 1), "within": ["site"], **options}
    return mediation(table, factor="arm", mediator="angle", outcome="points", **given)


def test_paths_are_those_of_ordinary_least_squares() -> None:
    table = runs_table()
    result = mediate(table)
    with_mediator = smf.ols("points ~ arm * C(site, Sum) + C(seed) + angle", table).fit().params
    total = smf.ols("points ~ arm * C(site, Sum) + C(seed)", table).fit().params["arm"]
    on_mediator = smf.ols("angle ~ arm * C(site, Sum) + C(seed)", table).fit().params["arm"]
    effects = result.effects
    assert effects["mediator on outcome"].estimate == pytest.approx(with_mediator["angle"])
    assert effects["direct"].estimate == pytest.approx(with_mediator["arm"])
    assert effects["total"].estimate == pytest.approx(total)
    assert effects["factor on mediator"].estimate == pytest.approx(on_mediator)
    assert result.estimate == pytest.approx(on_mediator * with_mediator["angle"])


def test_total_is_direct_plus_indirect_and_the_contrast_of_the_outcome() -> None:
    table = runs_table(noise=1)
    result = mediate(table)
    effects = result.effects
    assert effects["total"].estimate == pytest.approx(effects["direct"].estimate + effects["indirect"].estimate)
    for name, response in (("total", "points"), ("factor on mediator", "angle")):
        oracle = contrast(table, factor="arm", levels=(0, 1), response=response, within=["site"])
        assert (effects[name].estimate, *effects[name].interval, effects[name].p) == pytest.approx(
            (oracle.estimate, *oracle.interval, oracle.p)
        )


def test_the_slope_is_jackknifed_over_whole_seeds() -> None:
    table = runs_table(7, noise=2)

    def slope(part: pd.DataFrame) -> float:
        return float(smf.ols("points ~ C(arm) * C(site) + C(seed) + angle", part).fit().params["angle"])

    without = np.array([slope(table[table["seed"] != seed]) for seed in range(7)])
    sd = np.sqrt(6 / 7 * ((without - without.mean()) ** 2).sum())
    quantile = scipy_stats.t.ppf(0.975, 6)
    effect = mediate(table).effects["mediator on outcome"]
    assert effect.interval == pytest.approx((slope(table) - quantile * sd, slope(table) + quantile * sd))
    assert effect.p == pytest.approx(2 * scipy_stats.t.sf(abs(slope(table)) / sd, 6))


def test_the_indirect_interval_is_that_of_a_product_of_t_variables() -> None:
    result = mediate(runs_table(8, a=1.0, b=0.5, noise=3))
    a, b = (result.effects[name] for name in ("factor on mediator", "mediator on outcome"))
    sd_a, sd_b = (np.diff(effect.interval)[0] / 2 / scipy_stats.t.ppf(0.975, 7) for effect in (a, b))
    generator = np.random.default_rng(0)
    drawn = (a.estimate + sd_a * generator.standard_t(7, 400_000)) * (
        b.estimate + sd_b * generator.standard_t(7, 400_000)
    )
    assert result.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)
    assert result.p == pytest.approx(2 * min(np.mean(drawn < 0), np.mean(drawn > 0)), abs=0.005)


def test_the_indirect_interval_excludes_zero_just_when_p_is_below_alpha() -> None:
    table = runs_table(8, a=1.0, b=0.5, noise=3)
    p = mediate(table).p
    assert 0.001 < p < 0.5
    inside, outside = mediate(table, level=1 - 0.98 * p), mediate(table, level=1 - 1.02 * p)
    assert inside.interval[0] < 0 < outside.interval[0]


def test_simulated_paths_are_found() -> None:
    result = mediate(runs_table(40, noise=5))
    truth = {"total": 4.0, "direct": 1.0, "indirect": 3.0, "factor on mediator": 2.0, "mediator on outcome": 1.5}
    for name, value in truth.items():
        low, high = result.effects[name].interval
        assert low < value < high and high - low < 1.5, name
    assert result.proportion == pytest.approx(0.75, abs=0.1)
    low, high = result.proportion_interval
    assert low < 0.75 < high
    assert result.df == 39 and result.n_seeds == 40 and result.n_runs == 240 and not result.warnings


def test_the_ends_of_fiellers_interval_are_just_rejected() -> None:
    table = runs_table(10, noise=6)
    result = mediate(table)
    quantile = scipy_stats.t.ppf(0.975, 9)
    for ratio in result.proportion_interval:
        gaps = []
        for seed in (None, *range(10)):
            part = table if seed is None else table[table["seed"] != seed]
            fit = smf.ols("points ~ arm * C(site, Sum) + C(seed) + angle", part).fit().params
            total = smf.ols("points ~ arm * C(site, Sum) + C(seed)", part).fit().params["arm"]
            gaps.append(total - fit["arm"] - ratio * total)
        without = np.array(gaps[1:])
        sd = np.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
        assert abs(gaps[0]) / sd == pytest.approx(quantile)


def test_with_one_pair_a_seed_the_slope_is_that_of_the_differences() -> None:
    table = runs_table(9, sites=("p",), noise=7)
    wide = table.pivot(index="seed", columns="arm", values=["angle", "points"])
    m, y = (wide[name][1] - wide[name][0] for name in ("angle", "points"))
    result = mediate(table, within=())
    assert result.effects["mediator on outcome"].estimate == pytest.approx(np.polyfit(m, y, 1)[0])
    assert result.association.correlation.estimate == pytest.approx(np.corrcoef(m, y)[0, 1])


def test_units_of_the_mediator_cancel() -> None:
    table = runs_table(noise=8)
    plain, scaled = mediate(table), mediate(table.assign(angle=-10 * table["angle"] + 3))
    assert scaled.effects["mediator on outcome"].estimate == pytest.approx(
        -plain.effects["mediator on outcome"].estimate / 10
    )
    assert (scaled.estimate, *scaled.interval, scaled.p, scaled.proportion) == pytest.approx(
        (plain.estimate, *plain.interval, plain.p, plain.proportion), abs=1e-6
    )


def test_sensitivity_undoes_a_confounder_of_known_strength() -> None:
    result = mediate(runs_table(60, rho=0.6, noise=9))
    assert result.interval[0] > 3.0  # confounded: the true indirect effect is 3
    assert result.indirect_at(0.6) == pytest.approx(3.0, abs=0.5)
    assert result.indirect_at(0.0) == pytest.approx(result.estimate)
    assert result.indirect_at(result.rho) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(AnalysisError, match="between -1 and 1; got 1"):
        result.indirect_at(1.0)


def test_a_slope_that_differs_between_levels_is_found() -> None:
    result = mediate(runs_table(30, b=0.5, b_high=2.0, noise=10))
    low, high = result.effects["interaction"].interval
    assert low < 1.5 < high and result.effects["interaction"].p < 0.01
    assert result.effects["indirect at 0"].estimate == pytest.approx(1.0, abs=0.5)
    assert result.effects["indirect at 1"].estimate == pytest.approx(4.0, abs=0.8)
    assert "differs between the levels" in result.warnings[-1]


def test_no_proportion_without_a_total_and_no_share_of_opposite_signs() -> None:
    nothing = mediate(runs_table(direct=-3.0, noise=11))
    assert np.isnan(nothing.proportion) and np.isnan(nothing.proportion_interval).all()
    assert "no proportion mediated" in nothing.warnings[0]
    opposite = mediate(runs_table(direct=-6.0, noise=11))
    assert opposite.proportion < 0 and "opposite signs" in opposite.warnings[0]


def test_a_run_without_one_value_counts_in_neither() -> None:
    table = runs_table(noise=12)
    table.loc[0, "angle"] = np.nan
    result, dropped = mediate(table), mediate(table.drop(index=0))
    assert result.estimate == pytest.approx(dropped.estimate) and result.n_runs == 59
    assert "1 of 60 runs left out" in result.warnings[0]
    assert any("1 of 30 pairs" in warning for warning in result.warnings)


def test_the_association_of_a_fraction_needs_no_matched_cells() -> None:
    table = runs_table(8, sites=("p", "q"), noise=13)
    fraction = table[(table["arm"] == 1) == (table["site"] == "p")]
    found = within_association(fraction, mediator="angle", outcome="points", within=["arm", "site"])
    oracle = smf.ols("points ~ C(arm) + C(seed) + angle", fraction).fit()
    assert found.slope.estimate == pytest.approx(oracle.params["angle"])
    t = oracle.tvalues["angle"]
    assert found.correlation.estimate == pytest.approx(t / np.sqrt(t**2 + oracle.df_resid))
    low, high = found.correlation.interval
    assert -1 < low < found.correlation.estimate < high < 1 and len(found.to_frame()) == 2


def test_the_frame_has_one_row_per_effect() -> None:
    frame = mediate(runs_table()).to_frame()
    assert {"effect", "estimate", "low", "high", "p", "df", "n_seeds", "method", "warnings"} <= set(frame)
    assert list(frame["effect"])[-2:] == ["proportion mediated", "correlation"] and frame["effect"].is_unique
    assert "not randomised" in mediate(runs_table()).assumption


def test_bad_input_says_what_was_expected() -> None:
    table = runs_table()
    with pytest.raises(AnalysisError, match="≥ 6 seeds"):
        mediate(table[table["seed"] < 5])
    with pytest.raises(AnalysisError, match='"angle" differs at equal seed and cell'):
        mediate(table.assign(angle=table["arm"] + table["seed"]))
    with pytest.raises(AnalysisError, match="level 2, which no run has"):
        mediate(table, levels=(0, 2))
    with pytest.raises(AnalysisError, match='did you mean "points"'):
        mediation(table, factor="arm", levels=(0, 1), mediator="angle", outcome="point", within=["site"])


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (1.0, 0.5), (0.0, 1.0), (2.0, 1.5)])
@pytest.mark.parametrize("seeds", [6, 10])
def test_intervals_cover_the_true_effects(seeds: int, a: float, b: float) -> None:
    replicates = 400
    truth = {"indirect": a * b, "direct": 1.0, "mediator on outcome": b}
    covered = dict.fromkeys(truth, 0)
    for replicate in range(replicates):
        effects = mediate(runs_table(seeds, a=a, b=b, noise=10_000 + replicate)).effects
        for name, value in truth.items():
            covered[name] += effects[name].interval[0] <= value <= effects[name].interval[1]
    for name, count in covered.items():
        assert count / replicates > 0.95 - 3.3 * np.sqrt(0.95 * 0.05 / replicates), (name, count / replicates)
