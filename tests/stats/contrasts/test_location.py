"""Robust centres of per-seed differences, against R and scipy."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.location import SEED_MODELS, mean_location, signed_rank, trimmed_mean
from alignkit.stats.contrasts.paired import paired_test

R: dict[str, Any] = json.loads((Path(__file__).parents[2] / "oracles" / "location.json").read_text())


@pytest.mark.parametrize("case", R.values(), ids=list(R))
def test_signed_rank_and_trimmed_mean_are_those_of_r(case: dict[str, list[float]]) -> None:
    for model, name in ((signed_rank, "signed_rank"), (trimmed_mean, "trimmed")):
        result = model(case["values"])
        assert [result.estimate, *result.interval, result.p] == pytest.approx(case[name], rel=1e-9)


def test_ties_and_zeros_have_the_p_of_all_sign_patterns() -> None:
    values = np.array([1.0, -1.0, 2.0, 2.0, 0.0, 3.0, 1.0])
    ranks = scipy_stats.rankdata(np.abs(values)) * (values != 0)
    sums = np.array([ranks @ signs for signs in itertools.product((-1, 1), repeat=len(values))])
    expected = np.mean(np.abs(sums) >= abs(ranks @ np.sign(values)) - 1e-9)
    assert signed_rank(values).p == pytest.approx(expected)


def test_an_interval_that_five_differences_cannot_give_is_infinite() -> None:
    assert signed_rank([1.0, 2.0, 3.0, 4.0, 5.0]).interval == (-np.inf, np.inf)
    assert signed_rank([1.0, 2.0, 3.0, 4.0, 5.0], level=0.9).interval == (1.0, 5.0)
    # 2/2^n is exactly the share outside the range: the widest interval has that level.
    assert signed_rank([1.0, 2.0, 3.0, 4.0, 5.0], level=1 - 2 / 2**5).interval == (1.0, 5.0)


def test_without_trimming_it_is_student_s_test() -> None:
    values = np.random.default_rng(1).normal(0.5, 1.0, 9)
    plain = paired_test(values)
    for result in (trimmed_mean(values, share=0.0), mean_location(values)):
        assert result.estimate == pytest.approx(plain.estimate) and result.interval == pytest.approx(plain.interval)
    assert trimmed_mean(values, share=0.0).p == pytest.approx(plain.p_t) and mean_location(values).p == plain.p


@pytest.mark.parametrize("name", list(SEED_MODELS))
def test_every_model_turns_with_the_sign_and_scales_with_the_unit(name: str) -> None:
    values = np.random.default_rng(2).normal(0.7, 1.0, 10)
    result, turned = SEED_MODELS[name](values), SEED_MODELS[name](-3 * values)
    assert turned.estimate == pytest.approx(-3 * result.estimate) and turned.p == pytest.approx(result.p)
    assert turned.interval == pytest.approx((-3 * result.interval[1], -3 * result.interval[0]))
    assert len(result.to_frame()) == 1
    with_gap = SEED_MODELS[name]([*values, np.nan])
    assert with_gap.estimate == result.estimate and "missing" in with_gap.warnings[0]


@pytest.mark.parametrize("model", [signed_rank, trimmed_mean])
def test_one_wild_seed_does_not_move_them(model: Any) -> None:
    values = np.random.default_rng(3).normal(1.0, 0.2, 10)
    wild = np.append(values[:-1], 1000.0)
    assert abs(model(wild).estimate - 1.0) < 0.4 and wild.mean() > 90


@pytest.mark.parametrize(("model", "least"), [(signed_rank, 0.95), (trimmed_mean, 0.935)])
def test_intervals_cover_as_often_as_they_say(model: Any, least: float) -> None:
    generator = np.random.default_rng(4)
    ends = np.array([model(generator.standard_t(4, 10)).interval for _ in range(500)])
    covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    assert least - 2.576 * np.sqrt(0.05 * 0.95 / 500) < covered < 0.99


def test_what_has_no_centre_is_refused_or_said() -> None:
    with pytest.raises(AnalysisError, match="one difference or more; got 2, none of them finite"):
        signed_rank([np.nan, np.nan])
    with pytest.raises(AnalysisError, match="share to trim"):
        trimmed_mean([1.0, 2.0], share=0.5)
    same = trimmed_mean([2.0] * 6)
    assert same.estimate == 2.0 and np.isnan(same.p) and "no variance" in same.warnings[0]
