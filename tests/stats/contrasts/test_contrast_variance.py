"""Variance components of a contrast against R's REML, identities and simulated truth."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.contrast_variance import ContrastVariance, contrast_variance
from alignkit.stats.contrasts.per_seed import seed_contrasts

ORACLES = Path(__file__).parents[2] / "oracles"


def pilot(generator: np.random.Generator, *, seeds: int, cells: int, seed_by_factor_sd: float = 1.0) -> pd.DataFrame:
    """Seeds, cells and their interaction with the levels; a run's own sd is 1.5."""
    rows = []
    for seed in range(seeds):
        block, effect = generator.normal(0, 3), 2 + generator.normal(0, seed_by_factor_sd)
        for cell, level in itertools.product(range(cells), (0, 1)):
            value = block + cell + level * (effect + 0.5 * cell) + generator.normal(0, 1.5)
            rows.append({"seed": seed, "cell": cell, "level": level, "value": value})
    return pd.DataFrame(rows)


def fraction(generator: np.random.Generator, seeds: int) -> pd.DataFrame:
    """A 2^(5-1) fraction; every factor has an effect of each seed's own (sd 1), a run's sd is 1.5."""
    names = list("abcde")
    rows = []
    for seed in range(seeds):
        own = generator.normal(0, 1.0, 5)
        for picks in itertools.product((0, 1), repeat=4):
            cell = [*picks, sum(picks) % 2]
            rows.append({"seed": seed, **dict(zip(names, cell, strict=True)), "value": own @ cell})
    table = pd.DataFrame(rows)
    return table.assign(value=table["value"] + generator.normal(0, 1.5, len(table)))


def of_pilot(table: pd.DataFrame) -> ContrastVariance:
    return contrast_variance(table, factor="level", levels=(0, 1), within=["cell"])


def test_components_are_those_of_reml_in_r() -> None:
    oracle = json.loads((ORACLES / "power.json").read_text())["pilot"]
    result = contrast_variance(
        pd.read_csv(ORACLES / "power_pilot.csv"),
        factor="norm",
        levels=("none", "batch"),
        within=["width", "dropout"],
        response="angle",
    )
    assert result.seed_by_factor == pytest.approx(oracle["seed_by_factor"], rel=1e-5)
    assert result.run == pytest.approx(oracle["difference_noise"] / 2, rel=1e-5)
    assert result.sd() == pytest.approx(oracle["sd"]) and result.df == (6, 30) and result.cells == 6


def test_at_the_pilot_s_own_size_the_sd_is_that_of_the_contrasts() -> None:
    """And the upper bound is the chi-square bound."""
    table = pilot(np.random.default_rng(1), seeds=6, cells=4, seed_by_factor_sd=2.0)
    result = of_pilot(table)
    observed = seed_contrasts(table, factor="level", levels=(0, 1), response="value", within=["cell"]).differences
    assert result.sd() == pytest.approx(observed.std()) and result.estimate == pytest.approx(observed.mean())
    bound = observed.std() * np.sqrt(5 / scipy_stats.chi2.ppf(0.2, 5))
    assert result.sd_upper() == pytest.approx(bound)
    assert result.sd(100) < result.sd() < result.sd(1) and result.sd(1e9) ** 2 == pytest.approx(result.seed_by_factor)
    assert {"sd", "sd_upper", "seed_by_factor", "run", "df_run"} <= set(result.to_frame())


def test_a_fraction_agrees_with_its_contrasts() -> None:
    table = fraction(np.random.default_rng(2), seeds=5)
    result = contrast_variance(table, factor="c", levels=(0, 1), within=list("abcde"))
    observed = seed_contrasts(table, factor="c", levels=(0, 1), response="value", within=list("abcde")).differences
    assert result.noise_per_seed == pytest.approx(2 * result.run / 8) and result.cells == 8
    assert result.seed_by_factor + result.noise_per_seed == pytest.approx(observed.var())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "grid with holes", "fraction"])
def test_components_are_unbiased(kind: str) -> None:
    generator = np.random.default_rng(3)
    found = []
    for _ in range(40):
        if kind == "fraction":
            table = fraction(generator, seeds=6)
            result = contrast_variance(table, factor="a", levels=(0, 1), within=list("abcde"))
        else:
            table = pilot(generator, seeds=6, cells=5)
            if kind == "grid with holes":
                table.loc[generator.choice(len(table), 8, replace=False), "value"] = np.nan
            result = of_pilot(table)
        found.append((result.seed_by_factor, result.run))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean - [1.0, 1.5**2]) < 3 * error).all()


@pytest.mark.parametrize("cells", [1, 5, 40])
def test_the_upper_bound_covers_as_often_as_it_says(cells: int) -> None:
    """The mean squares of a balanced pilot are independent chi-squares, so the results can be drawn directly."""
    generator = np.random.default_rng(4)
    truth = np.sqrt(0.5 + 2 * 1.0 / cells)
    covered = []
    for _ in range(2000):
        run = generator.chisquare(20) / 20
        between = (0.5 + 2 / 5) * generator.chisquare(5) / 5
        result = ContrastVariance(
            "f", ("a", "b"), "value", 0.0, between - 2 * run / 5, run, 2 * run / 5, 1.0, 5.0, 6, (5, 20), ""
        )
        covered.append(result.sd_upper(cells) >= truth)
    # Exact at the pilot's own size (5); elsewhere the method is known to err on the safe side.
    assert 0.77 < np.mean(covered) < (0.83 if cells == 5 else 0.9)


def test_the_sd_of_another_design_is_the_sd_it_has() -> None:
    generator = np.random.default_rng(6)
    result = of_pilot(pilot(generator, seeds=60, cells=4))
    large = pilot(generator, seeds=60, cells=16)
    observed = seed_contrasts(large, factor="level", levels=(0, 1), response="value", within=["cell"]).differences
    assert result.sd(16) == pytest.approx(observed.std(), rel=0.25)


def test_what_is_missing_or_negative_is_said() -> None:
    table = pilot(np.random.default_rng(8), seeds=4, cells=3, seed_by_factor_sd=0.0)
    table.loc[0, "value"] = np.nan
    for noise in range(20):
        table["value"] += np.random.default_rng(noise).normal(0, 1.0, len(table))
        result = of_pilot(table)
        if result.seed_by_factor < 0:
            break
    assert result.seed_by_factor < 0
    assert any("below 0" in warning for warning in result.warnings)
    assert any("1 of 12 pairs" in warning for warning in result.warnings)
    assert any("4 seeds know a variance poorly" in warning for warning in result.warnings)
    assert result.sd() == pytest.approx(np.sqrt(2 * result.run / 3)) and result.sd_upper() >= result.sd()


def test_one_cell_knows_the_sd_of_its_own_design_alone() -> None:
    table = pilot(np.random.default_rng(9), seeds=5, cells=3)
    result = of_pilot(table[table["cell"] == 0])
    observed = table[table["cell"] == 0].pivot(index="seed", columns="level", values="value").diff(axis=1)[1].std()
    assert result.sd() == result.sd(1) == pytest.approx(observed)
    assert result.sd_upper() == pytest.approx(observed * np.sqrt(4 / scipy_stats.chi2.ppf(0.2, 4)))
    bare = contrast_variance(table[table["cell"] == 0].drop(columns="cell"), factor="level", levels=(0, 1))
    assert bare.sd() == pytest.approx(observed)
    assert np.isnan(result.run) and "too few cells" in result.warnings[0]
    for question in (result.sd, result.sd_upper):
        with pytest.raises(AnalysisError, match="several cells at each level, to say what 4 would give"):
            question(4)


def test_a_pilot_that_cannot_tell_is_refused() -> None:
    table = pilot(np.random.default_rng(9), seeds=5, cells=3)
    with pytest.raises(AnalysisError, match=r"two seeds or more.*got 1"):
        of_pilot(table[table["seed"] == 0])
    with pytest.raises(AnalysisError, match="got 5, of which 4 can be compared"):
        of_pilot(table[(table["seed"] > 0) == (table["cell"] > 0)])  # seed 0 shares no cell with another
    with pytest.raises(AnalysisError, match="one cell or more"):
        of_pilot(table).sd(0)
