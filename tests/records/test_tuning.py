"""From runs at several learning rates to one number per replicate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.records.tuning import chosen_rates, edge_counts, is_tuned, per_replicate

RATES = [0.1, 0.3, 1.0]


def _runs(accuracy: dict[int, list[float]], *, diverged: set[tuple[int, float]] = frozenset(), n: int = 100):
    rows = [
        {
            "run_id": f"{seed}-{lr}", "replicate": f"r{seed}", "bp_replicate": f"b{seed}", "bp_run_id": "",
            "rule": "dfa", "cell": "", "designs": "study", "seed": seed, "lr": lr, "output_lr": lr,
            "validation_accuracy": a, "validation_loss": 1 - a, "validation_loss_error": 0.05, "test_accuracy": a,
            "validation_samples": float(n), "diverged": (seed, lr) in diverged,
        }
        for seed, each in accuracy.items()
        for lr, a in zip(RATES, each, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _rates(runs: pd.DataFrame, rates) -> dict[int, list[float]]:
    return runs[chosen_rates(runs, rates)].groupby("seed")["lr"].agg(list).to_dict()


def test_rates_within_one_standard_error_of_a_seeds_own_best_count():
    # of 100 samples the error at .9 is .03, at .5 .05
    runs = _runs({0: [0.86, 0.88, 0.9], 1: [0.5, 0.46, 0.44]})
    assert _rates(runs, "within") == {0: [0.3, 1.0], 1: [0.1, 0.3]}
    assert _rates(runs, "best") == {0: [1.0], 1: [0.1]}
    assert _rates(runs, 0.3) == {0: [0.3], 1: [0.3]}


def test_the_common_best_rate_is_that_of_the_mean_over_seeds():
    runs = _runs({0: [0.8, 0.7, 0.9], 1: [0.8, 0.85, 0.1]})
    assert _rates(runs, "common") == {0: [0.1], 1: [0.1]}
    # a rate that one seed alone tried is common to none
    assert _rates(runs[runs["run_id"] != "1-0.1"], "common") == {0: [0.3], 1: [0.3]}


def test_a_rate_that_diverged_is_out_for_its_seed():
    runs = _runs({0: [0.5, 0.7, 0.9], 1: [0.5, 0.7, 0.9]}, diverged={(0, 1.0)})
    assert _rates(runs, "best") == {0: [0.3], 1: [1.0]}
    assert _rates(runs, 1.0) == {1: [1.0]}


def test_a_replicate_that_diverged_everywhere_is_one_row_without_a_value():
    runs = _runs({0: [0.5, 0.7, 0.9]}, diverged={(0, lr) for lr in RATES})
    table, value = per_replicate(runs, runs["test_accuracy"])
    assert len(table) == 1
    assert table["diverged"].tolist() == [True]
    assert value.isna().all()


def test_a_replicates_value_is_the_mean_over_the_rates_that_count():
    runs = _runs({0: [0.86, 0.88, 0.9], 1: [0.5, 0.46, 0.1]})
    table, value = per_replicate(runs, pd.Series(np.arange(6.0), runs.index))
    assert table["run_id"].tolist() == ["r0", "r1"]
    assert table["bp_run_id"].tolist() == ["b0", "b1"]
    assert value.tolist() == [1.5, 3.5]
    assert table["test_accuracy"].tolist() == pytest.approx([0.89, 0.48])
    assert table["lr"].tolist() == pytest.approx([np.sqrt(0.3), np.sqrt(0.03)])


def test_a_value_that_is_missing_at_a_rate_that_counts_is_not_averaged_around():
    runs = _runs({0: [0.1, 0.88, 0.9]})
    _, value = per_replicate(runs, pd.Series([1.0, np.nan, 3.0], runs.index))
    assert value.isna().all()
    _, value = per_replicate(runs, pd.Series([np.nan, 2.0, 3.0], runs.index))
    assert value.tolist() == [2.5]


def test_a_regression_chooses_by_the_standard_error_of_its_loss():
    runs = _runs({0: [0.80, 0.86, 0.9]}).assign(validation_accuracy=np.nan)
    assert _rates(runs, "within") == {0: [0.3, 1.0]}


def test_rows_that_are_a_run_each_are_not_tuned():
    runs = _runs({0: [0.1, 0.2, 0.3]})
    assert is_tuned(runs)
    assert not is_tuned(runs.assign(replicate=runs["run_id"]))
    assert not is_tuned(runs.drop(columns="replicate"))


def test_edges_are_counted_by_the_best_rate_of_each_replicate():
    found = edge_counts(_runs({0: [0.1, 0.2, 0.3], 1: [0.1, 0.3, 0.2], 2: [0.3, 0.3, 0.1]}))
    assert found["edge"].tolist() == [True, False, False]
    assert found["best"].tolist() == [1.0, 0.3, 0.1]


def test_an_unknown_way_to_choose_is_refused():
    with pytest.raises(AnalysisError, match='"within", "best", "common" or a learning rate'):
        chosen_rates(_runs({0: [0.1, 0.2, 0.3]}), "median")
