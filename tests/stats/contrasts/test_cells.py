"""The spread of effects over cells, against R's lme4, a slow form, and simulated truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.cells import cell_spread

ORACLES = Path(__file__).parents[2] / "oracles"


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    rows = pd.read_csv(ORACLES / "cells.csv")
    return rows.pivot(index="seed", columns="cell", values="value").to_numpy(float)


def test_lme4_finds_the_same_spread_and_the_same_pooled_effects(table: np.ndarray) -> None:
    oracle = json.loads((ORACLES / "cells.json").read_text(encoding="utf-8"))
    found = cell_spread(table)
    assert found.estimate == pytest.approx(oracle["mean"], rel=1e-9)
    assert found.sd == pytest.approx(oracle["sd"]["cell"], rel=1e-4)
    np.testing.assert_allclose(found.pooled, oracle["pooled"], atol=1e-4)


def test_mean_and_interval_are_those_of_the_seeds_means(table: np.ndarray) -> None:
    found, seeds = cell_spread(table), table.mean(axis=1)
    assert found.estimate == pytest.approx(seeds.mean())
    half = 2.364624 * seeds.std(ddof=1) / 8**0.5
    assert found.interval == pytest.approx((seeds.mean() - half, seeds.mean() + half), rel=1e-5)
    low, high = found.prediction
    assert low < found.interval[0] < found.interval[1] < high


def test_what_a_seed_adds_to_all_cells_changes_neither_spread_nor_its_interval(table: np.ndarray) -> None:
    found = cell_spread(table)
    moved = cell_spread(table + np.random.default_rng(0).normal(0, 100, (8, 1)))
    assert (moved.sd, *moved.sd_interval) == pytest.approx((found.sd, *found.sd_interval))
    scaled = cell_spread(-10 * table)
    assert (scaled.sd, *scaled.sd_interval) == pytest.approx([10 * each for each in (found.sd, *found.sd_interval)])


def simulated(sd: float, kind: str, *, seeds: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """Effects whose errors are equal, correlated over cells, or larger in some cells."""
    errors = generator.normal(0, 1, (seeds, cells))
    if kind == "correlated":
        sides = np.where(np.arange(cells) < cells // 2, 0.8, -0.8)
        errors = 0.5 * errors + generator.normal(0, 1, (seeds, 1)) * sides
    if kind == "unequal":
        errors = errors * np.linspace(0.3, 2.0, cells)
    return 1 + generator.normal(0, sd, cells) + generator.normal(0, 1, (seeds, 1)) + errors


@pytest.mark.parametrize("kind", ["equal", "correlated", "unequal"])
@pytest.mark.parametrize("sd", [0.2, 1.0])
def test_intervals_hold_what_they_say(kind: str, sd: float) -> None:
    generator, n = np.random.default_rng(1), 300
    inside = predicted = 0
    variances = []
    for _ in range(n):
        found = cell_spread(simulated(sd, kind, seeds=8, cells=16, generator=generator))
        inside += found.sd_interval[0] <= sd <= found.sd_interval[1]
        predicted += found.prediction[0] <= 1 + generator.normal(0, sd) <= found.prediction[1]
        variances.append(found.sd**2)
    slack = 3 * (0.95 * 0.05 / n) ** 0.5
    assert inside / n >= 0.94 - slack
    assert predicted / n >= 0.94 - slack
    assert abs(np.mean(variances) - sd**2) < 0.15 * sd**2 + 0.03


def test_cells_of_one_effect_have_no_spread() -> None:
    generator = np.random.default_rng(2)
    zero = sum(cell_spread(simulated(0, "equal", seeds=8, cells=16, generator=generator)).sd_interval[0] == 0
               for _ in range(200))  # fmt: skip
    assert zero >= 186


def test_effects_without_any_noise() -> None:
    found = cell_spread(np.tile([1.0, 2.0, 6.0], (4, 1)))
    assert found.sd == pytest.approx(np.std([1, 2, 6], ddof=1))
    np.testing.assert_allclose(found.pooled, [1, 2, 6])
    same = cell_spread(np.full((4, 3), 2.5))
    assert (same.sd, same.sd_interval, same.opposite) == (0.0, (0.0, 0.0), 0)


def test_cells_of_the_other_sign_are_counted() -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, (6, 4))
    found = cell_spread(noise + np.array([-5.0, -4.0, -6.0, 3.0]))
    assert found.opposite == 1
    assert found.to_frame()["pooled"].iloc[3] > 0
    assert repr(found).startswith("CellSpread(sd 4.0")


@pytest.mark.parametrize("effects", [np.zeros((2, 5)), np.zeros((5, 2)), np.zeros(5)])
def test_too_few_seeds_or_cells_are_refused(effects: np.ndarray) -> None:
    with pytest.raises(AnalysisError, match="≥ 3 seeds and ≥ 3 cells"):
        cell_spread(effects)


def test_missing_effects_are_refused() -> None:
    with pytest.raises(AnalysisError, match="missing"):
        cell_spread([[1, 2, np.nan], [1, 2, 3], [2, 3, 4]])
