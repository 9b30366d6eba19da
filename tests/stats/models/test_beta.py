"""The Beta model with whole seeds left out: against the likelihood written out, and simulated truth."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special
from scipy import stats as scipy_stats

from alignkit.errors import AnalysisError
from alignkit.stats.models.beta import BetaContrast, beta_contrast


def shares(
    generator: np.random.Generator, *, seeds: int = 6, effect: float = 0.4, seed_by_factor_sd: float = 0.0
) -> pd.DataFrame:
    rows = []
    for seed in range(seeds):
        block, own = generator.normal(0, 0.5), generator.normal(effect, seed_by_factor_sd)
        for width, level in itertools.product((0, 1, 2), ("no", "yes")):
            mean = special.expit(0.3 + block + 0.2 * width + own * (level == "yes"))
            value = generator.beta(200 * mean, 200 * (1 - mean))
            rows.append({"seed": seed, "width": width, "level": level, "value": value})
    return pd.DataFrame(rows)


def of(table: pd.DataFrame) -> BetaContrast:
    return beta_contrast(table, factor="level", levels=("no", "yes"), within=["width"])


def by_likelihood(table: pd.DataFrame) -> float:
    """The factor's effect, by maximising scipy's Beta density."""
    design = np.column_stack(
        [table["level"] == "yes", pd.get_dummies(table["seed"]), pd.get_dummies(table["width"], drop_first=True)]
    ).astype(float)

    def cost(parameters: np.ndarray) -> float:
        mean, precision = special.expit(design @ parameters[:-1]), np.exp(parameters[-1])
        return -float(scipy_stats.beta.logpdf(table["value"], mean * precision, (1 - mean) * precision).sum())

    start = np.append(np.linalg.lstsq(design, special.logit(table["value"]), rcond=None)[0], 4.0)
    return float(optimize.minimize(cost, start, method="BFGS", options={"gtol": 1e-4}).x[0])


def test_the_estimate_and_its_jackknife_are_those_of_the_likelihood() -> None:
    table = shares(np.random.default_rng(1), seeds=4, seed_by_factor_sd=0.2)
    result = of(table)
    estimate = by_likelihood(table)
    assert result.estimate == pytest.approx(estimate, abs=1e-4)
    without = np.array([by_likelihood(table[table["seed"] != seed]) for seed in range(4)])
    np.testing.assert_allclose(result.pseudo_values, 4 * estimate - 3 * without, atol=2e-3)
    error = np.sqrt(3 / 4 * np.sum((without - without.mean()) ** 2))
    t = scipy_stats.t(3)
    assert result.interval == pytest.approx(
        (estimate - t.isf(0.025) * error, estimate + t.isf(0.025) * error), abs=5e-3
    )
    assert result.p == pytest.approx(2 * t.sf(abs(estimate) / error), rel=0.02) and result.df == 3


def by_scoring(share: np.ndarray, design: np.ndarray) -> np.ndarray:
    """The coefficients, by Fisher scoring for them and for the log precision in turn (Ferrari and Cribari-Neto 2004)."""
    odds, log_precision = special.logit(share), 2.0
    coefficients = np.linalg.lstsq(design, odds, rcond=None)[0]
    for _ in range(500):
        precision, mean = np.exp(log_precision), special.expit(design @ coefficients)
        a, b, slope = mean * precision, (1 - mean) * precision, mean * (1 - mean)
        weight = precision * slope**2 * (special.polygamma(1, a) + special.polygamma(1, b))
        score = slope * (odds - special.digamma(a) + special.digamma(b))
        step = np.linalg.solve(design.T @ (weight[:, None] * design), design.T @ score)
        coefficients = coefficients + step
        mean = special.expit(design @ coefficients)
        a, b = mean * precision, (1 - mean) * precision
        slack = special.digamma(precision) - mean * special.digamma(a) - (1 - mean) * special.digamma(b)
        slack = precision * np.sum(slack + mean * np.log(share) + (1 - mean) * np.log1p(-share))
        information = mean**2 * special.polygamma(1, a) + (1 - mean) ** 2 * special.polygamma(1, b)
        information = precision**2 * np.sum(information - special.polygamma(1, precision))
        change = float(np.clip(slack / information, -1, 1))
        log_precision += change
        if np.abs(step).max() < 1e-9 and abs(change) < 1e-7:
            return coefficients
    raise AssertionError("scoring did not converge")


@pytest.mark.parametrize("precision", [5, 200, 1e5])
def test_the_estimate_is_that_of_fisher_scoring(precision: float) -> None:
    generator = np.random.default_rng(6)
    table = shares(generator, seed_by_factor_sd=0.3)
    mean = table["value"].clip(0.05, 0.95).to_numpy()
    table["value"] = generator.beta(precision * mean, precision * (1 - mean)).clip(0.001, 0.999)
    design = np.column_stack([table["level"] == "yes", *(pd.get_dummies(table["seed"]).T.to_numpy())]).astype(float)
    design = np.hstack([design, pd.get_dummies(table["width"], drop_first=True).to_numpy(float)])
    assert of(table).estimate == pytest.approx(by_scoring(table["value"].to_numpy(), design)[0], rel=1e-6)


def test_what_does_not_converge_is_refused() -> None:
    table = shares(np.random.default_rng(8))
    fixed = 0.3 + 0.1 * (table["level"] == "yes")  # no spread, so no precision
    with pytest.raises(AnalysisError, match="did not converge"):
        of(table.assign(value=fixed))


@pytest.mark.slow
def test_the_jackknife_holds_where_the_effect_varies_between_seeds() -> None:
    """The likelihood's own error takes runs as independent, and rejects a true null far too often."""
    generator = np.random.default_rng(2)
    studies = [of(shares(generator, effect=0.0, seed_by_factor_sd=0.3)) for _ in range(40)]
    rejected = np.mean([study.p < 0.05 for study in studies])
    assert rejected < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)
    errors = np.array([(study.interval[1] - study.interval[0]) / 2 / scipy_stats.t.isf(0.025, 5) for study in studies])
    spread = np.std([study.estimate for study in studies])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.3)


def test_a_fraction_is_modelled_by_main_effects() -> None:
    generator = np.random.default_rng(3)
    rows = []
    for seed, a, b, c in itertools.product(range(5), (0, 1), (0, 1), (0, 1)):
        mean = special.expit(0.5 * a - 0.3 * b + 0.2 * c + 0.1 * seed)
        rows.append(
            {
                "seed": seed,
                "a": a,
                "b": b,
                "c": c,
                "d": (a + b + c) % 2,
                "value": generator.beta(2000 * mean, 2000 * (1 - mean)),
            }
        )
    result = beta_contrast(pd.DataFrame(rows), factor="a", levels=(0, 1), within=["b", "c", "d"])
    assert result.estimate == pytest.approx(0.5, abs=0.05) and result.interval[0] < 0.5 < result.interval[1]


def test_without_other_factors_there_is_one_pair_a_seed() -> None:
    table = shares(np.random.default_rng(7), seeds=8).query("width == 1").drop(columns="width")
    result = beta_contrast(table, factor="level", levels=("no", "yes"))
    odds = special.logit(table.pivot(index="seed", columns="level", values="value"))
    assert result.estimate == pytest.approx((odds["yes"] - odds["no"]).mean(), abs=0.05) and result.df == 7


def test_a_missing_value_takes_its_counterpart_along() -> None:
    table = shares(np.random.default_rng(4))
    table.loc[0, "value"] = np.nan
    keep = ~((table["seed"] == 0) & (table["width"] == 0))
    assert of(table).estimate == pytest.approx(of(table[keep]).estimate)
    assert "1 of 18 pairs" in of(table).warnings[0]


def test_what_the_likelihood_cannot_hold_is_refused() -> None:
    table = shares(np.random.default_rng(5))
    with pytest.raises(AnalysisError, match="1 of 36 values outside or at a bound"):
        of(table.assign(value=table["value"].where(table.index != 3, 1.0)))
    with pytest.raises(AnalysisError, match="three seeds or more"):
        of(table[table["seed"] < 2])
