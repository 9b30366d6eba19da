"""How many seeds a claim needs, and what a given number of seeds can show.

Power is that of the tests as alignkit makes them: one contrast per seed, judged by the exact sign-flip
test (or by two one-sided t tests for equivalence), at the level that the smallest p of a Holm family of
`family_size` has to reach, alpha / family_size. The sd of the contrast comes from `contrast_variance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from scipy import optimize, stats

from alignkit.display import shown
from alignkit.errors import AnalysisError, quoted
from alignkit.stats.contrasts.arrays import EXACT_UP_TO, moments, sign_flip_p_values, t_p
from alignkit.stats.contrasts.paired import minimum_seeds, require_seeds
from alignkit.stats.tables.checks import is_number
from alignkit.stats.tables.frames import one_row

MOST_SEEDS = 100_000
REPLICATES = 20_000
# Sums of signed differences that one simulation may form: with 16 seeds each replicate has 32,768.
SUMS = 2**23


@shown()
@dataclass(frozen=True)
class Power:
    """The chance that `n_seeds` seeds give the verdict, when the truth is `effect`.

    For a difference, the verdict is a rejection in the effect's own direction; for equivalence, that the
    effect lies within `margin` (NaN for a difference). `effect`, `margin` and `sd` (of the contrast over
    seeds) share the response's unit. `simulation_error` is the standard error of `power` that comes from
    simulating it, 0 where it was computed.
    """

    test: Literal["difference", "equivalence"]
    n_seeds: int
    power: float
    effect: float
    margin: float
    sd: float
    alpha: float
    family_size: int
    simulation_error: float
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def standardised(self) -> float:
        """The effect (for equivalence, the margin) in standard deviations of the per-seed contrast."""
        return (self.effect if self.test == "difference" else self.margin) / self.sd

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(
            self, "test", "n_seeds", "power", "effect", "margin", "sd", "standardised", "alpha", "family_size",
            "simulation_error", "method", "warnings",
        )  # fmt: skip


def difference_power(
    n_seeds: int, *, effect: float, sd: float, alpha: float = 0.05, family_size: int = 1, seed: int = 0
) -> Power:
    """The chance that an effect is found with the right sign, by the exact sign-flip test.

    With few seeds the attainable p-values are coarse (multiples of 2/2^n), and the t test's formula
    promises too much: six seeds reject at 5% only where all six have the same sign. Up to 16 seeds the
    power is therefore simulated with normal differences, the t test on the same draws serving as control
    variate; beyond, it is that of the t test, from which the sign-flip test then differs by about a point.

    The level is that of the first step of Holm's procedure, so in a family whose other claims are false
    too the power is a little higher. Raises `AnalysisError` where so few seeds cannot reject at all.

    >>> round(difference_power(10, effect=1.0, sd=1.0).power, 2)
    0.8
    """
    _check(effect=effect, sd=sd, alpha=alpha, family_size=family_size)
    require_seeds(n_seeds, family_size=family_size, alpha=alpha)
    power, error, method = _difference(n_seeds, abs(effect) / sd, alpha / family_size, seed)
    return Power("difference", n_seeds, power, effect, float("nan"), sd, alpha, family_size, error, method)


def equivalence_power(
    n_seeds: int, *, margin: float, sd: float, effect: float = 0.0, alpha: float = 0.05, family_size: int = 1
) -> Power:
    """The chance that two one-sided t tests place the effect within the margin; exact for normal differences.

    `effect` is the true one, 0 by default: an effect at half the margin needs four times the seeds. The
    power is the probability, integrated over the sd's chi distribution, that the interval of level
    1 - 2 alpha / family_size lies inside the margin (Schuirmann 1987; Phillips 1990).

    >>> round(equivalence_power(10, margin=1.0, sd=1.0).power, 2)
    0.8
    """
    _check(effect=margin, sd=sd, alpha=alpha, family_size=family_size, name="margin")
    if n_seeds < 2:
        raise AnalysisError(f"expected two seeds or more, to have a variance; got {n_seeds}. Add seeds")
    if not abs(effect) < margin:
        raise AnalysisError(
            f"expected a true effect inside the margin of {margin:g}; got {effect:g}. "
            "Equivalence cannot be planned for where it does not hold"
        )
    power = _equivalence(n_seeds, margin / sd, effect / sd, alpha / family_size)
    method = "paired TOST at the first Holm step, exact for normal differences"
    return Power("equivalence", n_seeds, power, effect, margin, sd, alpha, family_size, 0.0, method)


def seeds_needed(
    *, effect: float, sd: float, power: float = 0.8, alpha: float = 0.05, family_size: int = 1, seed: int = 0
) -> Power:
    """The fewest seeds with which an effect is found with the chance `power`, by the exact sign-flip test.

    `effect` is the smallest effect that matters and `sd` that of the per-seed contrast, in one unit; see
    `contrast_variance` for the sd. A pilot's sd is itself uncertain: plan with its upper bound beside the
    plug-in value, since half of all pilots underestimate it.

    Do not put the pilot's estimated effect in the place of the smallest one that matters: a pilot that
    looked promising overstates it.

    >>> seeds_needed(effect=2.0, sd=1.0).n_seeds, seeds_needed(effect=2.0, sd=1.0, family_size=10).n_seeds
    (6, 9)
    """
    _check(effect=effect, sd=sd, alpha=alpha, family_size=family_size, power=power)
    standardised, level = abs(effect) / sd, alpha / family_size
    # No unbiased test of normal differences beats the t test, so the search starts where that one suffices.
    n = _fewest(lambda n: _t_power(n, standardised, level), power, at_least=minimum_seeds(family_size, alpha))
    while _difference(n, standardised, level, seed)[0] < power:
        n += 1
    return difference_power(n, effect=effect, sd=sd, alpha=alpha, family_size=family_size, seed=seed)


def seeds_for_equivalence(
    *,
    margin: float,
    sd: float,
    effect: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
    family_size: int = 1,
) -> Power:
    """The fewest seeds with which an effect smaller than the margin is declared so, with the chance `power`.

    Never fewer than `minimum_seeds`, below which a claim is not judged at all.

    >>> seeds_for_equivalence(margin=1.0, sd=1.0).n_seeds
    11
    """
    _check(effect=margin, sd=sd, alpha=alpha, family_size=family_size, power=power, name="margin")
    least = minimum_seeds(family_size, alpha)
    # Also refuses a true effect outside the margin.
    equivalence_power(least, margin=margin, sd=sd, effect=effect, alpha=alpha, family_size=family_size)
    n = _fewest(lambda n: _equivalence(n, margin / sd, effect / sd, alpha / family_size), power, at_least=least)
    return equivalence_power(n, margin=margin, sd=sd, effect=effect, alpha=alpha, family_size=family_size)


def detectable_effect(
    n_seeds: int, *, sd: float, power: float = 0.8, alpha: float = 0.05, family_size: int = 1, seed: int = 0
) -> Power:
    """The smallest effect that `n_seeds` seeds find with the chance `power`; it is the result's `effect`.

    >>> round(detectable_effect(10, sd=3.0).effect, 1)
    3.0
    """
    _check(effect=1.0, sd=sd, alpha=alpha, family_size=family_size, power=power)
    require_seeds(n_seeds, family_size=family_size, alpha=alpha)
    standardised = _detectable(n_seeds, power, alpha / family_size, seed)
    return difference_power(n_seeds, effect=standardised * sd, sd=sd, alpha=alpha, family_size=family_size, seed=seed)


@lru_cache(maxsize=256)
def _detectable(n_seeds: int, power: float, level: float, seed: int) -> float:
    """The detectable effect in standard deviations: the same for every claim of a family."""

    def lacking(effect: float, power_at: Callable[[float], float]) -> float:
        return power_at(effect) - power

    def exact(effect: float) -> float:
        return _difference(n_seeds, effect, level, seed)[0]

    high = 1.0
    while _t_power(n_seeds, high, level) < power:
        high *= 2
    smooth = optimize.brentq(lacking, 0.0, high, args=(lambda effect: _t_power(n_seeds, effect, level),))
    low, high = 0.95 * smooth, 1.25 * smooth
    while exact(low) > power:
        low *= 0.95
    while exact(high) < power:
        high *= 1.25
    return float(optimize.brentq(lacking, low, high, args=(exact,), xtol=1e-3 * smooth, rtol=1e-3))


def nested_power(
    n_seeds: int,
    *,
    effect: float,
    seed_by_factor_sd: float,
    run_sd: float,
    cells: int,
    layer_sd: float = 0.0,
    layers: int = 1,
    missing: float = 0.0,
    alpha: float = 0.05,
    family_size: int = 1,
    replicates: int = 4_000,
    seed: int = 0,
) -> Power:
    """The power of a whole nested design, by simulating it: seeds, runs within seeds, layers within runs.

    Every seed has its own effect (sd `seed_by_factor_sd` around `effect`); each of `cells` matched pairs
    of runs adds the deviations of two runs (`run_sd`, and `layer_sd` averaged over `layers`). Each run is
    lost with the chance `missing`, at random, and takes its partner along; a seed without pairs is lost.
    The result's `sd` is that of the contrast with nothing lost. Every sd is in the unit of the effect.

    Without losses this is `difference_power` at that sd; it is of use where runs get lost, and as a check.
    It says nothing of runs lost because of the factor: see `worst_case_bounds`.

    >>> whole = nested_power(10, effect=1.0, seed_by_factor_sd=0.8, run_sd=1.0, cells=4)
    >>> lossy = nested_power(10, effect=1.0, seed_by_factor_sd=0.8, run_sd=1.0, cells=4, missing=0.3)
    >>> whole.power > lossy.power
    True
    """
    sizes = (cells, layers, seed_by_factor_sd, run_sd, layer_sd)
    if not all(map(is_number, sizes)) or min(sizes[:2]) < 1 or not 0 <= missing < 1 or min(sizes[2:]) < 0:
        raise AnalysisError(
            "expected cells and layers of 1 or more, standard deviations of 0 or more and a missing share in "
            f"[0, 1); got cells={quoted(cells)}, layers={quoted(layers)}, "
            f"seed_by_factor_sd={quoted(seed_by_factor_sd)}, run_sd={quoted(run_sd)}, "
            f"layer_sd={quoted(layer_sd)}, missing={missing}"
        )
    run_variance = run_sd**2 + layer_sd**2 / layers
    sd = float(np.sqrt(seed_by_factor_sd**2 + 2 * run_variance / cells))
    _check(effect=effect, sd=sd, alpha=alpha, family_size=family_size)
    require_seeds(n_seeds, family_size=family_size, alpha=alpha)
    generator = np.random.default_rng(seed)
    shape = (replicates, n_seeds)
    pairs = generator.binomial(cells, (1 - missing) ** 2, shape)
    noise = np.sqrt(seed_by_factor_sd**2 + 2 * run_variance / np.maximum(pairs, 1))
    differences = np.where(pairs > 0, abs(effect) + noise * generator.standard_normal(shape), np.nan)
    power = float(_found(differences, alpha / family_size).mean())
    error = float(np.sqrt(power * (1 - power) / replicates))
    method = f"simulation of {replicates:,} nested designs; {_test_used(n_seeds)}"
    return Power("difference", n_seeds, power, effect, float("nan"), sd, alpha, family_size, error, method)


@lru_cache(maxsize=1024)
def _difference(n: int, standardised: float, level: float, seed: int) -> tuple[float, float, str]:
    """Power of the sign-flip test, its simulation error, and how it was made."""
    smooth = _t_power(n, standardised, level)
    if n > EXACT_UP_TO:
        return smooth, 0.0, f"{_test_used(n)} at the first Holm step"
    replicates = min(REPLICATES, SUMS // 2 ** (n - 1))
    differences = standardised + np.random.default_rng(seed).standard_normal((replicates, n))
    # The t test's power is known, so that only where the two tests disagree does chance enter.
    of = moments(differences)
    by_t = (t_p(of) < level) & (of.mean > 0)
    disagreement = _found(differences, level).astype(float) - by_t
    error = float(disagreement.std() / np.sqrt(replicates))
    power = float(np.clip(smooth + disagreement.mean(), 0.0, 1.0))
    return power, error, f"{_test_used(n)} at the first Holm step, {replicates:,} simulated samples"


def _test_used(n: int) -> str:
    return "exact sign-flip test" if n <= EXACT_UP_TO else "paired t test in the place of the sign-flip test"


def _found(differences: np.ndarray, level: float) -> np.ndarray:
    """Which rows [replicates, seeds] reject towards a positive mean; NaN is a seed that was lost."""
    of = moments(differences)
    p = sign_flip_p_values(differences) if differences.shape[1] <= EXACT_UP_TO else t_p(of)
    return np.asarray((p < level) & (of.mean > 0))


def _t_power(n: int, standardised: float, level: float) -> float:
    """The chance of a two-sided t test to reject towards the effect."""
    if n < 2:
        return 0.0
    return float(stats.nct.sf(stats.t.isf(level / 2, n - 1), n - 1, standardised * np.sqrt(n)))


def _equivalence(n: int, margin: float, effect: float, level: float) -> float:
    """The chance that mean ± t s/√n lies inside the margin; margin and effect in units of the sd."""
    df, root = n - 1, float(np.sqrt(n))
    critical = float(stats.t.isf(level, df))
    # No mean at all puts the interval inside the margin once s is larger than margin √n / t.
    low, high = np.sqrt(stats.chi2.ppf([1e-12, 1 - 1e-12], df) / df)
    high = min(high, margin * root / critical)
    if high <= low:
        return 0.0
    nodes, weights = np.polynomial.legendre.leggauss(200)
    s = low + (high - low) * (nodes + 1) / 2
    inside = stats.norm.cdf((margin - effect) * root - critical * s) - stats.norm.cdf(
        (-margin - effect) * root + critical * s
    )
    density = stats.chi.pdf(s * np.sqrt(df), df) * np.sqrt(df)
    return float(np.clip((high - low) / 2 * (weights @ (inside * density)), 0.0, 1.0))


def _fewest(power_at: Callable[[int], float], power: float, *, at_least: int) -> int:
    low, high = at_least - 1, at_least
    while power_at(high) < power:
        if high > MOST_SEEDS:
            raise AnalysisError(
                f"expected an effect that {MOST_SEEDS:,} seeds or fewer can show; this one needs more. "
                "State a larger smallest effect, or lower the sd with more cells per seed"
            )
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high


def _check(
    *, effect: float, sd: float, alpha: float, family_size: int, power: float = 0.5, name: str = "effect"
) -> None:
    if not (is_number(effect) and np.isfinite(effect) and effect != 0 and (name == "effect" or effect > 0)):
        above = "other than 0" if name == "effect" else "above 0"
        raise AnalysisError(
            f"expected a finite {name} {above}; got {quoted(effect)}. State the smallest effect that matters"
        )
    if not (is_number(sd) and np.isfinite(sd) and sd > 0):
        raise AnalysisError(
            f"expected an sd of the per-seed contrast above 0; got {quoted(sd)}. Estimate it from a pilot"
        )
    if not 0 < alpha < 1 or family_size < 1 or not is_number(family_size):
        raise AnalysisError(
            f"expected alpha in (0, 1) and a family of 1 or more; got {quoted(alpha)} and {quoted(family_size)}"
        )
    if not alpha / family_size < power < 1:
        raise AnalysisError(f"expected a power between alpha and 1; got {power}. 0.8 and 0.9 are usual")
