"""Paired inference against slow and independent oracles."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from alignkit.errors import AliasedError, AnalysisError
from alignkit.records.confounding import rate_note, step_note
from alignkit.stats.contrasts.contrasts import contrast, contrast_frame, contrasts, level_means
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm
from alignkit.stats.contrasts.paired import minimum_seeds, paired_test, require_seeds, sign_flip_p
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.tables.levels import level_order, level_text


def draws(n: int, *, noise: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(noise).normal(shift, 1.0, n)


def grid_table(seeds: int = 6, *, effect: float = 2.0, noise: int = 0) -> pd.DataFrame:
    """A table that alignkit did not make: a 2 x 3 grid, one row per block and cell."""
    generator = np.random.default_rng(noise)
    rows = []
    for block, dose, site in itertools.product(range(seeds), ("low", "high"), ("a", "b", "c")):
        value = 10 * block + effect * (dose == "high") + 5 * ord(site) + generator.normal(0, 0.1)
        rows.append({"block": block, "dose": dose, "site": site, "yield": value})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12])
def test_sign_flip_p_is_that_of_brute_force(n: int) -> None:
    values = draws(n, noise=n, shift=0.4)
    signs = np.array(list(itertools.product((-1, 1), repeat=n)))
    means = np.abs((signs * values).mean(axis=1))
    expected = np.mean(means >= abs(values.mean()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_p_is_that_of_scipy() -> None:
    values = draws(10, noise=3, shift=0.5)
    oracle = scipy_stats.permutation_test(
        (values,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(oracle.pvalue)


def test_sign_flip_p_counts_ties_in_spite_of_rounding() -> None:
    assert sign_flip_p([0.1, 0.2, 0.3]) == sign_flip_p([1.0, 2.0, 3.0]) == 0.25
    assert sign_flip_p([0.0, 0.0]) == 1.0


def test_many_seeds_are_drawn_repeatably_and_close_to_exact() -> None:
    values = draws(17, noise=5, shift=0.5)
    sums = values[:1]
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9)
    p = sign_flip_p(values)
    assert p == sign_flip_p(values)
    assert abs(p - exact) < 4 * np.sqrt(exact * (1 - exact) / 99_999) + 1e-5
    assert sign_flip_p(draws(40) + 100) == 1 / 100_000  # never 0
    assert "99,999 draws" in paired_test(values).method


def test_interval_and_t_are_those_of_statsmodels() -> None:
    values = draws(8, noise=7, shift=0.3)
    result = paired_test(values, level=0.9)
    oracle = DescrStatsW(values)
    assert result.interval == pytest.approx(oracle.tconfint_mean(alpha=0.1))
    assert result.p_t == pytest.approx(oracle.ttest_mean()[1])
    assert (result.estimate, result.df, result.n_seeds) == (pytest.approx(values.mean()), 7, 8)
    frame = result.to_frame()
    assert len(frame) == 1 and {"estimate", "low", "high", "p", "df", "n_seeds", "method", "warnings"} <= set(frame)


def test_one_seed_gives_an_estimate_and_says_that_it_is_alone() -> None:
    result = paired_test([3.0])
    assert result.estimate == 3.0 and result.p == 1.0 and np.isnan(result.interval).all()
    assert "one seed" in result.warnings[0]


def test_identical_differences_have_no_interval() -> None:
    result = paired_test([0.3] * 6)
    assert np.isnan(result.interval).all() and result.p == 2 / 2**6
    assert "same difference" in result.warnings[0]


def test_missing_differences_are_counted_and_none_is_reported() -> None:
    assert "2 missing differences" in paired_test([1.0, np.nan, 2.0, np.nan]).warnings[0]
    empty = paired_test([np.nan])
    assert empty.n_seeds == 0 and np.isnan(empty.estimate) and "nothing can be estimated" in empty.warnings[-1]


@pytest.mark.parametrize(("family", "needed"), [(1, 6), (2, 7), (10, 9), (25, 10)])
def test_minimum_seeds(family: int, needed: int) -> None:
    assert minimum_seeds(family) == needed
    assert 2 / 2**needed * family <= 0.05 < 2 / 2 ** (needed - 1) * family


def test_a_test_that_cannot_reject_is_refused() -> None:
    message = "an exact paired test needs ≥ 6 seeds to reach p < .05; got 5. Add seeds, or report the estimate alone"
    with pytest.raises(AnalysisError) as error:
        paired_test(draws(5), alpha=0.05)
    assert str(error.value) == message
    with pytest.raises(AnalysisError, match=r"Holm family of 10 needs ≥ 9 seeds.*got 8.*declare fewer claims"):
        require_seeds(8, family_size=10)
    paired_test(draws(6), alpha=0.05)


def test_tost_is_that_of_statsmodels() -> None:
    values = draws(9, noise=11) * 0.4
    result = equivalence_test(values, margin=0.5)
    p, *_ = ttost_paired(values, np.zeros(9), -0.5, 0.5)
    assert result.p == pytest.approx(p)
    assert result.equivalent == (max(map(abs, result.interval)) < 0.5)
    assert result.interval == pytest.approx(DescrStatsW(values).tconfint_mean(alpha=0.1))


def test_tost_refuses_a_margin_of_nothing_and_says_when_it_cannot_tell() -> None:
    with pytest.raises(AnalysisError, match="margin above 0"):
        equivalence_test([1.0, 2.0], margin=0.0)
    result = equivalence_test([0.1], margin=1.0)
    assert np.isnan(result.p) and not result.equivalent and result.warnings


def test_holm_and_bh_leave_missing_tests_missing_but_count_them() -> None:
    p = [0.01, np.nan, 0.04]
    np.testing.assert_allclose(holm(p), [0.03, np.nan, 0.08])
    np.testing.assert_allclose(holm(p, count_missing=False), [0.02, np.nan, 0.04])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, np.nan, 0.04])
    assert np.isnan(holm([np.nan])).all() and len(holm([])) == 0


@pytest.mark.parametrize(("adjust", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_values_are_those_of_statsmodels(adjust: Any, method: str) -> None:
    for noise in range(3):
        p = np.round(np.random.default_rng(noise).uniform(0, 0.3, 1 + 5 * noise), 2)  # rounded: ties
        np.testing.assert_allclose(adjust(p), multipletests(p, method=method)[1])


def test_levels_compare_across_types() -> None:
    assert level_text(True) == level_text("True") == level_text(np.True_) == "true"
    assert level_text(64) == level_text(64.0) == level_text("64") == level_text(np.int64(64)) == "64"
    assert level_text([64, 32]) == level_text("64-32") == level_text("[64, 32]") == "64-32"
    assert level_text(None) is None and level_text(float("nan")) is None and level_text(pd.NA) is None
    assert level_text(1e-3) == level_text("0.001") and level_text("1_0") == "1_0"
    assert level_order([0.1, 0.0, None, 0.1]) == ["0", "0.1"]


def test_contrast_on_a_table_that_alignkit_did_not_make() -> None:
    table = grid_table()
    result = contrast(table, factor="dose", levels=("low", "high"), response="yield", seed="block", within=["site"])
    wide = table.pivot_table(index="block", columns="dose", values="yield")
    by_hand = wide["high"] - wide["low"]
    assert result.estimate == pytest.approx(by_hand.mean())
    np.testing.assert_allclose(result.differences, by_hand)
    assert result.level_means == pytest.approx((wide["low"].mean(), wide["high"].mean()))
    assert result.n_cells == 3 and "matched" in result.method
    assert result.pairing_correlation == pytest.approx(np.corrcoef(wide["low"], wide["high"])[0, 1])
    assert list(contrast_frame([result])["level_to"]) == ["high"]


def test_a_missing_value_takes_its_counterpart_along_in_that_seed() -> None:
    table = grid_table(effect=2.0)
    lost = (table["block"] == 0) & (table["site"] == "c") & (table["dose"] == "high")
    table.loc[lost, "yield"] = np.nan
    result = seed_contrasts(
        table, factor="dose", levels=("low", "high"), response="yield", seed="block", within=["site"]
    )
    assert result.differences[0] == pytest.approx(2.0, abs=0.3)  # a naive difference of means would be far off
    assert "1 of 18 pairs" in result.warnings[0]


def test_a_row_that_is_absent_is_missing_too() -> None:
    table = grid_table().query("not (block == 0 and site == 'c' and dose == 'high')")
    result = seed_contrasts(
        table, factor="dose", levels=("low", "high"), response="yield", seed="block", within=["site"]
    )
    assert "1 of 18 pairs" in result.warnings[0] and result.differences[0] == pytest.approx(2.0, abs=0.3)


def test_a_seed_without_any_pair_is_left_out_and_counted() -> None:
    table = grid_table()
    table.loc[(table["block"] == 2) & (table["dose"] == "low"), "yield"] = np.nan
    result = seed_contrasts(
        table, factor="dose", levels=("low", "high"), response="yield", seed="block", within=["site"]
    )
    assert 2 not in result.differences.index and len(result.differences) == 5
    assert any("1 seed left out" in warning for warning in result.warnings)


def fraction_table(seeds: int = 5) -> pd.DataFrame:
    """The 2^(3-1) fraction c = ab: no cell has a counterpart. Effects 1, -2 and 4, additive."""
    generator = np.random.default_rng(1)
    rows = []
    for seed, a, b in itertools.product(range(seeds), (0, 1), (0, 1)):
        c = (a + b) % 2
        value = seed + 1.0 * a - 2.0 * b + 4.0 * c + generator.normal(0, 0.01)
        rows.append({"seed": seed, "a": a, "b": b, "c": c, "value": value})
    return pd.DataFrame(rows)


def test_a_fraction_takes_the_difference_of_level_means() -> None:
    table = fraction_table()
    for factor, effect in {"a": 1.0, "b": -2.0, "c": 4.0}.items():
        result = seed_contrasts(table, factor=factor, levels=(0, 1), response="value", within=["a", "b", "c"])
        means = table.groupby(["seed", factor])["value"].mean().unstack()
        np.testing.assert_allclose(result.differences, means[1] - means[0])
        assert result.differences.mean() == pytest.approx(effect, abs=0.05) and not result.warnings


def test_a_fraction_with_a_hole_is_not_biased() -> None:
    """Two replicates of a fraction, so that main effects can be fitted around the hole."""
    rows = []
    for seed, a, b, c in itertools.product(range(4), (0, 1), (0, 1), (0, 1)):
        d = (a + b + c) % 2
        rows.append({"seed": seed, "a": a, "b": b, "c": c, "d": d, "value": 10.0 * a + 3.0 * b + c + 7.0 * d + seed})
    table = pd.DataFrame(rows)
    table.loc[(table["seed"] == 1) & (table["a"] == 1) & (table["d"] == 1) & (table["b"] == 0), "value"] = np.nan
    result = seed_contrasts(table, factor="a", levels=(0, 1), response="value", within=["b", "c", "d"])
    np.testing.assert_allclose(result.differences, 10.0)
    assert "least squares" in result.method and "1 of 32 values are missing" in result.warnings[0]


def test_a_factor_that_another_one_mirrors_is_refused() -> None:
    table = fraction_table().assign(mirror=lambda t: t["a"])
    with pytest.raises(AliasedError, match="cannot be told apart"):
        seed_contrasts(table, factor="a", levels=(0, 1), response="value", within=["b", "c", "mirror"])
    with pytest.raises(AnalysisError, match="several at"):  # what else is wrong is no contrast without an estimate
        contrasts(pd.concat([table, table]), ["a", "b", "c", "mirror"])
    found = contrasts(table, ["a", "b", "c", "mirror"])
    assert {result.factor for result in found if result.n_seeds} == {"b", "c"}
    # What cannot be had stays in its place, and in the family, with the reason.
    aliased = {result.factor: result for result in found if not result.n_seeds}
    assert set(aliased) == {"a", "mirror"} and np.isnan(aliased["a"].p_adjusted)
    assert "cannot be told apart" in aliased["a"].warnings[0] and "(b, c, mirror)" in aliased["a"].warnings[0]
    expected = holm([result.p for result in found])
    np.testing.assert_array_equal([result.p_adjusted for result in found], expected)


def levels_table(truth: dict[tuple[str, int], float], seeds: int = 6) -> pd.DataFrame:
    """A value per seed, norm and width: `truth`, and a deviation that each seed has of its own."""
    rows = [(seed, norm, width, value + seed) for seed in range(seeds) for (norm, width), value in truth.items()]
    return pd.DataFrame(rows, columns=["seed", "norm", "width", "value"])


NORM: dict[str, Any] = {"factor": "norm", "within": ["width"]}
THREE = ["none", "batch", "layer"]


def test_levels_are_ranked_over_the_cells_that_all_of_them_have() -> None:
    """No norm does anything, and wide layers have 5 less: neither lacking them nor losing them is a merit."""
    nothing = {(norm, width): 60.0 - 5 * (width == 64) for norm in THREE for width in (8, 64)}
    absent = levels_table({key: value for key, value in nothing.items() if key != ("batch", 64)})
    lost = levels_table(nothing)
    lost.loc[(lost["norm"] == "batch") & (lost["width"] == 64) & (lost["seed"] > 0), "value"] = np.nan
    for table, kept in ((absent, "6 of 12"), (lost, "7 of 12")):
        found = level_means(table, levels=THREE, **NORM)
        assert all(np.allclose(found.means[level], found.means["none"]) for level in THREE)
        assert f"over {kept} cells by seed" in found.warnings[0]
        # Whatever else differs, two levels have the difference of their own contrast.
        pair = level_means(table, levels=["none", "batch"], **NORM).means
        own = seed_contrasts(table, levels=("none", "batch"), response="value", **NORM)
        np.testing.assert_allclose(pair["batch"] - pair["none"], own.differences)
    assert (level_means(absent, levels=THREE, **NORM).missing, level_means(lost, levels=THREE, **NORM).missing) == (
        0,
        5,
    )
    whole = level_means(levels_table(nothing), levels=THREE, **NORM)
    assert not whole.warnings and whole.means.loc[2, "layer"] == 57.5 + 2


def test_a_level_is_not_ranked_by_an_effect_that_it_has_in_other_cells() -> None:
    """Layer norm helps by 3 in wide layers alone, where batch norm was not tried: at width 8 batch norm is best."""
    truth = {("none", 8): 60.0, ("batch", 8): 59, ("layer", 8): 60, ("none", 64): 60, ("layer", 64): 57}
    means = level_means(levels_table(truth), levels=THREE, **NORM).means.mean()
    assert means["batch"] - means["none"] == pytest.approx(-1) and means["layer"] == pytest.approx(means["none"])


def test_levels_without_a_common_cell_go_by_their_contrast_with_the_first() -> None:
    truth = {("none", 8): 60.0, ("none", 64): 50, ("batch", 8): 58, ("layer", 64): 49}
    found = level_means(levels_table(truth), levels=THREE, **NORM)
    np.testing.assert_allclose(found.means.sub(found.means["none"], axis="index").iloc[0], [0, -2, -1])
    assert "no cell has a value at every level" in found.warnings[0]
    fraction = fraction_table()
    means = level_means(fraction, factor="a", levels=["0", "1"], within=["b", "c"])
    expected = fraction.pivot_table(index="seed", columns="a", values="value")
    np.testing.assert_allclose(means.means, expected)
    assert not means.warnings


def test_one_factor_at_a_time_compares_with_the_base_alone() -> None:
    rows = []
    for seed in range(6):
        for width, norm in ((8, "none"), (16, "none"), (32, "none"), (8, "batch")):
            rows.append(
                {"seed": seed, "width": width, "norm": norm, "value": seed + np.log2(width) + 5 * (norm == "batch")}
            )
    table = pd.DataFrame(rows)
    found = contrasts(table, ["width", "norm"])
    alone = table[table["norm"] == "none"]
    assert [(r.factor, r.levels, round(r.estimate, 6)) for r in found] == [
        ("width", ("8", "16"), 1.0), ("width", ("8", "32"), 2.0), ("norm", ("none", "batch"), 5.0),
    ]  # fmt: skip
    assert all(result.p_adjusted == pytest.approx(3 / 32) for result in found)
    assert found[0].warnings[0] == (
        "1 cell without a counterpart at the other level left aside: the effect is averaged over 1 pair of cells, none "
        "at norm = batch"
    )
    base = contrasts(alone, ["width"], base={"width": 16})
    assert base[0].levels == ("16", "8") and not any("left aside" in note for note in base[0].warnings)


def test_a_cell_that_no_seed_has_is_said_to_be_missing_from_the_average() -> None:
    """The effect is 1 at site a, 2 at b and 6 at c: without c it is 1.5 and no longer 3."""
    rows = [
        {"seed": seed, "dose": dose, "site": site, "value": seed + effect * dose}
        for seed, dose, (site, effect) in itertools.product(range(6), (0, 1), (("a", 1), ("b", 2), ("c", 6)))
    ]
    table = pd.DataFrame(rows)
    options: dict[str, Any] = {"factor": "dose", "levels": (0, 1), "within": ["site"]}
    whole = contrast(table, **options)
    assert whole.estimate == pytest.approx(3.0) and not any("left aside" in note for note in whole.warnings)
    hole = contrast(table[(table["dose"] == 0) | (table["site"] != "c")], **options)
    assert hole.estimate == pytest.approx(1.5) and hole.n_cells == 2
    assert "1 cell without a counterpart" in hole.warnings[0] and hole.warnings[0].endswith("none at site = c")
    # A cell that one seed alone lacks is a missing pair of that seed, and its level stays in the average.
    lacking = contrast(table[(table["dose"] == 0) | (table["site"] != "c") | (table["seed"] > 0)], **options)
    assert lacking.estimate == pytest.approx((1.5 + 5 * 3.0) / 6) and "1 of 18 pairs" in lacking.warnings[0]


def test_levels_match_whatever_type_the_column_has() -> None:
    table = grid_table().assign(flag=lambda t: t["dose"].map({"low": False, "high": True}).astype(object))
    for levels in ((False, True), ("false", "True")):
        result = contrast(table, factor="flag", levels=levels, response="yield", seed="block", within=["site"])
        assert result.estimate == pytest.approx(2.0, abs=0.1)


def test_errors_name_what_was_expected() -> None:
    table = grid_table()
    with pytest.raises(AnalysisError, match='column "doze"; did you mean "dose"'):
        seed_contrasts(table, factor="doze", levels=("low", "high"), response="yield", seed="block")
    with pytest.raises(AnalysisError, match="the level mid, which no run has; its levels: low, high"):
        contrast(table, factor="dose", levels=("low", "mid"), response="yield", seed="block")
    with pytest.raises(AnalysisError, match="one row per block and cell"):
        contrast(table, factor="dose", levels=("low", "high"), response="yield", seed="block")
    with pytest.raises(AnalysisError, match="two different levels"):
        contrast(table, factor="dose", levels=("low", "low"), response="yield", seed="block", within=["site"])


def test_rate_note_speaks_only_of_rates_that_differ() -> None:
    table = pd.DataFrame({"norm": ["none", "batch"], "lr": [0.1, 0.03], "output_lr": [0.1, 0.1]})
    note = rate_note(table, factor="norm", levels=("none", "batch"), tuned=True)
    assert note == "confounded with the learning rate: lr 0.1 vs 0.03, each arm's own tuned rate"
    assert rate_note(table.assign(lr=0.1), factor="norm", levels=("none", "batch"), tuned=True) == ""
    assert rate_note(table, factor="lr", levels=(0.1, 0.03), tuned=False) == ""


def test_rate_note_compares_rates_cell_by_cell() -> None:
    """Batch norm has rates 3 and 0.75 times as large, 1.5 on average, whatever else was run at one level alone."""
    cells = [("none", 8, 0.1), ("batch", 8, 0.3), ("none", 64, 1.0), ("batch", 64, 0.75), ("none", 512, 30.0)]
    table = pd.DataFrame(cells, columns=["norm", "width", "lr"])
    options: dict[str, Any] = {"factor": "norm", "tuned": True, "within": ["norm", "width"]}
    note = rate_note(table, levels=("none", "batch"), **options)
    assert "lr is on average 1.5 times larger at batch than at none, each arm's own tuned rate" in note
    assert rate_note(table, levels=("batch", "none"), **options) == note
    # As often larger as smaller, and by as much: nothing that an average over the cells would carry.
    balanced = table.assign(lr=[0.1, 0.3, 0.3, 0.1, 30.0])
    assert rate_note(balanced, levels=("none", "batch"), **options) == ""


def test_step_note_speaks_of_long_steps_at_equal_rates() -> None:
    table = pd.DataFrame({"normalised": [False, False, True, True], "value": [0.1, 0.4, 0.01, 0.04]})
    note = step_note(table, factor="normalised", levels=(False, True))
    assert note.endswith("|dW|/|W| is 10 times longer at false than at true")
    assert step_note(table, factor="normalised", levels=(False, True), threshold=11) == ""
    assert step_note(table.assign(value=np.nan), factor="normalised", levels=(False, True)) == ""


def test_type_one_error_and_coverage_with_seed_by_factor_variance() -> None:
    """A pooled regression rejects 20% here; one difference per seed must hold 5% (99% Monte Carlo bounds)."""
    generator = np.random.default_rng(2)
    studies, seeds, cells = 1500, 10, 16
    per_seed = generator.normal(0, 0.3, (studies, seeds)) + generator.normal(0, np.sqrt(2 / cells), (studies, seeds))
    results = [paired_test(differences) for differences in per_seed]
    rejected = np.mean([result.p < 0.05 for result in results])
    covered = np.mean([result.interval[0] <= 0 <= result.interval[1] for result in results])
    bound = 2.576 * np.sqrt(0.05 * 0.95 / studies)
    assert abs(rejected - 0.05) < bound and abs(covered - 0.95) < bound


def test_stats_needs_no_torch() -> None:
    script = (
        "import sys, alignkit.stats; assert 'torch' not in sys.modules and 'alignkit.study.study' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
