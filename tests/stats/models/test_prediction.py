"""Held-out prediction error against refitting by hand with statsmodels, and against what theory says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from alignkit.errors import AnalysisError
from alignkit.stats.models.prediction import prediction_error


def grid_table(
    seeds: int = 6, *, interaction: float = 0.0, seed_sd: float = 1.0, sd: float = 0.5, noise: int = 0
) -> pd.DataFrame:
    generator = np.random.default_rng(noise)
    level = generator.normal(0, seed_sd, seeds)
    rows = [
        {
            "seed": seed, "width": width, "norm": norm, "dropout": dropout,
            "value": 60 + level[seed] - 2 * np.log2(width) + 3 * (norm == "batch") + dropout * 10
            + interaction * np.log2(width) * (norm == "batch") + generator.normal(0, sd),
        }
        for seed, width, norm, dropout in itertools.product(range(seeds), (8, 16, 32, 64), ("none", "batch"), (0.0, 0.1))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_leaving_out_a_seed_is_refitting_without_it() -> None:
    table = grid_table()
    result = prediction_error(table, "log2(width) * norm", held="seed")
    errors = pd.Series(np.nan, index=table.index)
    means = errors.copy()
    for seed in range(6):
        train, test = table[table["seed"] != seed], table[table["seed"] == seed]
        fit = smf.ols("value ~ np.log2(width) * norm", train).fit()
        errors[test.index] = test["value"] - fit.predict(test)
        means[test.index] = test["value"] - train["value"].mean()
    np.testing.assert_allclose(result.errors["error"], errors, atol=1e-9)
    assert result.rmse == pytest.approx(np.sqrt((errors**2).mean()))
    assert result.rmse_mean == pytest.approx(np.sqrt((means**2).mean()))
    assert result.r2 == pytest.approx(1 - (errors**2).sum() / (means**2).sum())
    assert (result.n_seeds, result.n_folds, result.df) == (6, 6, 5) and not result.warnings


def test_leaving_out_cells_is_refitting_without_them_under_every_seed() -> None:
    table = grid_table().drop(index=[3, 40])
    result = prediction_error(table, "log2(width) + norm + dropout", held="cells", folds=4)
    folds = result.errors["fold"]
    cells = table[["width", "norm", "dropout"]].astype(str).agg("|".join, axis="columns")
    assert (folds.groupby(cells).nunique() == 1).all() and folds.nunique() == 4
    for fold in range(4):
        train, test = table[folds != fold], table[folds == fold]
        fit = smf.ols("value ~ np.log2(width) + norm + dropout + C(seed)", train).fit()
        np.testing.assert_allclose(result.errors.loc[test.index, "predicted"], fit.predict(test), atol=1e-9)
    again = prediction_error(table, "log2(width) + norm + dropout", held="cells", folds=4)
    pd.testing.assert_frame_equal(again.errors, result.errors)


def test_the_cell_mean_is_that_of_the_other_seeds() -> None:
    table = grid_table()
    result = prediction_error(table, "norm * width * dropout", held="seed")
    cells = ["width", "norm", "dropout"]
    others = (table.groupby(cells)["value"].transform("sum") - table["value"]) / 5
    assert result.rmse_cell_mean == pytest.approx(np.sqrt(((table["value"] - others) ** 2).mean()))
    # The saturated model predicts a new seed by exactly that.
    assert result.rmse == pytest.approx(result.rmse_cell_mean) and result.r2 == pytest.approx(result.r2_cell_mean)


def test_the_cell_mean_of_held_out_cells_has_the_seeds_own_level() -> None:
    table = grid_table(seeds=4).query("width < 64").reset_index(drop=True)
    result = prediction_error(table, "width + norm + dropout", held="cells")
    errors = []
    for row in table.index:
        rest = table.drop(index=row)
        fit = smf.ols("value ~ C(width):norm:C(dropout) + C(seed)", rest).fit()
        errors.append(table.loc[row, "value"] - fit.predict(table.loc[[row]]).iloc[0])
    assert result.rmse_cell_mean == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_a_missing_interaction_costs_and_noise_terms_do_not_help() -> None:
    table = grid_table(seeds=10, interaction=1.5, seed_sd=0.3)
    for held in ("seed", "cells"):
        additive = prediction_error(table, "log2(width) + norm + dropout", held=held)  # type: ignore[arg-type]
        right = prediction_error(table, "log2(width) * norm + dropout", held=held)  # type: ignore[arg-type]
        assert right.rmse < 0.75 * additive.rmse and right.r2 > additive.r2
        assert (
            right.interval[0] < right.rmse < right.interval[1]
            and right.r2_interval[0] < right.r2 < right.r2_interval[1]
        )
    noise = grid_table(seeds=10, noise=5).assign(value=np.random.default_rng(3).normal(size=160))
    assert prediction_error(noise, ["width", "norm", "dropout"], held="seed").r2 < 0


def test_the_interval_covers_the_error_that_new_seeds_have() -> None:
    """50 studies of 8 seeds; the expected squared error of a new seed is known in a balanced additive design."""
    seeds, p, cells, seed_sd, sd = 8, 2, 16, 0.6, 0.5
    expected = np.sqrt(seed_sd**2 * (1 + 1 / (seeds - 1)) + sd**2 * (1 + p / (cells * (seeds - 1))))
    covered = 0
    squared = []
    for noise in range(50):
        table = grid_table(seeds, seed_sd=seed_sd, sd=sd, noise=noise)
        table["value"] += 2 * np.log2(table["width"]) - 10 * table["dropout"]
        result = prediction_error(table, "norm", held="seed")
        squared.append(result.rmse**2)
        covered += result.interval[0] <= expected <= result.interval[1]
    assert np.sqrt(np.mean(squared)) == pytest.approx(expected, rel=0.08)
    assert covered / 50 > 0.75  # 88% in the long run: squared errors of eight seeds are skewed


def test_a_cell_that_the_others_do_not_determine_is_counted() -> None:
    table = grid_table()
    table = table[(table["width"] != 64) | ((table["norm"] == "none") & (table["dropout"] == 0.0))]
    result = prediction_error(table, "width + norm + dropout", held="cells")
    assert any(warning.startswith("1 of 13 cells left out (6 rows)") for warning in result.warnings)
    assert int(result.errors["error"].isna().sum()) == 6 and np.isfinite(result.rmse)
    with pytest.raises(AnalysisError, match="held-out rows that the others determine"):
        prediction_error(grid_table(), "width * norm * dropout", held="cells")


def test_a_constant_response_has_no_r2() -> None:
    result = prediction_error(grid_table().assign(value=0.1), "norm", held="seed")
    assert (
        result.rmse == pytest.approx(0, abs=1e-12)
        and np.isnan([result.r2, result.r2_cell_mean, *result.r2_interval]).all()
    )


def test_bad_input_is_refused() -> None:
    table = grid_table()
    with pytest.raises(AnalysisError, match='held to be "seed" or "cells"'):
        prediction_error(table, "norm", held="rows")  # type: ignore[arg-type]
    with pytest.raises(AnalysisError, match="at least three seeds, to leave one out and have two; got 2"):
        prediction_error(table[table["seed"] < 2], "norm", held="seed")
    with pytest.raises(AnalysisError, match="at least three cells in two folds or more; got 2 cells"):
        prediction_error(table, "norm", held="cells")


def test_the_frame_has_one_row() -> None:
    frame: Any = prediction_error(grid_table(), "norm + width", held="seed").to_frame()
    assert len(frame) == 1 and {"rmse", "low", "high", "r2", "n_seeds", "method", "warnings"} <= set(frame)
