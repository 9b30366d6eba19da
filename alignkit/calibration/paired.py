"""The paired methods on thousands of simulated studies at once, beside two that are common and err.

All that alignkit offers is computed by the functions that its results for one study call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special, stats

from alignkit.calibration.rates import Tally, tally
from alignkit.calibration.scenarios import Scenario, paired_runs, run_table
from alignkit.stats.contrasts.arrays import (
    EXACT_UP_TO,
    matched_differences,
    moments,
    sign_flip_p_values,
    t_interval,
    t_p,
    tost_p,
)
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.equivalence import equivalence_test
from alignkit.stats.contrasts.multiplicity import holm, holm_joint
from alignkit.stats.contrasts.paired import minimum_seeds

ALPHA = 0.05
FAMILY = 10
MARGIN = 5.0
"""The margin in standard errors of the mean contrast: enough that the size of TOST at the margin is alpha itself."""
CHECKED = 3
"""Studies of each batch that the public functions analyse as well, from a table."""
RESAMPLES = 1_999


def evaluate_paired(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Each paired method's rates over `studies` simulated families of ten claims."""
    runs = paired_runs(scenario, studies, FAMILY, generator)
    differences = matched_differences(runs[..., 0, :], runs[..., 1, :])
    margin = MARGIN * scenario.contrast_sd / np.sqrt(scenario.n_seeds)
    p = sign_flip_p_values(differences)
    return [
        *_single_claims(scenario, differences, p, margin),
        *_families(scenario, differences, p, margin),
        *_bootstraps(differences[:, 0], generator),
        _pooled(runs[:, 0]),
        _agreement(runs[:CHECKED, 0], p[:CHECKED, 0], margin),
    ]


def _single_claims(scenario: Scenario, differences: np.ndarray, p: np.ndarray, margin: float) -> list[Tally]:
    """Tests and intervals of one claim alone; every claim of a family is a trial."""
    n, effect = scenario.n_seeds, scenario.contrast_sd
    of, shifted = moments(differences), moments(differences + effect)
    not_equivalent = tost_p(moments(differences + margin), margin=margin)
    low, high = t_interval(of)
    # Under a true effect one claim of each family is enough: what is reported there is power.
    p_power = sign_flip_p_values(differences[:, 0] + effect)
    return [
        tally("one claim", "sign-flip test", "type I error", p < ALPHA, target=attainable_size(n), side="equal"),
        tally("one claim", "t interval", "coverage", (low <= 0) & (high >= 0), target=1 - ALPHA, side="equal"),
        tally("one claim", "TOST", "size at the margin", not_equivalent < ALPHA, target=ALPHA, side="equal"),
        tally("power", "sign-flip test", "power at 1 sd", p_power < ALPHA),
        tally("power", "t test", "power at 1 sd", t_p(shifted) < ALPHA, **known_power(scenario, 1.0)),
        tally("power", "TOST", "power at no effect", tost_p(of, margin=margin) < ALPHA),
    ]  # fmt: skip


def known_power(scenario: Scenario, effect: float) -> dict[str, Any]:
    """Target and side of the power of a t test of `effect`, in sds of a complete normal contrast: noncentral t."""
    if scenario.missing or scenario.skewed:
        return {}
    n, shift = scenario.n_seeds, effect * np.sqrt(scenario.n_seeds)
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    return {"target": float(power), "side": "equal"}


def attainable_size(n_seeds: int, alpha: float = ALPHA) -> float:
    """The chance that an exact sign-flip test of `n_seeds` symmetric differences has p < alpha.

    >>> attainable_size(6), attainable_size(10)
    (0.03125, 0.048828125)
    """
    if n_seeds > EXACT_UP_TO:
        return alpha
    patterns = 2 ** (n_seeds - 1)
    return float((np.ceil(alpha * patterns) - 1) / patterns)


def _families(scenario: Scenario, differences: np.ndarray, p: np.ndarray, margin: float) -> list[Tally]:
    """Errors over a family of ten: with no effect at all, and with half of the effects at the margin."""
    needed = minimum_seeds(FAMILY, ALPHA)
    methods = (
        ("Holm, differences", "any rejection, no effects"),
        ("joint Holm, verdicts", "any supported or refuted, no effects"),
        ("joint Holm, verdicts", "any false verdict, half at the margin"),
    )
    if scenario.n_seeds < needed:
        return [
            Tally("family", *method, hits=0, trials=0, note=f"refused: needs ≥ {needed} seeds") for method in methods
        ]
    p_equivalence = tost_p(moments(differences), margin=margin)
    none = [holm(p), holm_joint(p, p_equivalence)[0]]
    at_margin = np.arange(FAMILY) >= FAMILY // 2
    p_half, p_equivalence_half = p.copy(), p_equivalence.copy()
    p_half[:, at_margin] = sign_flip_p_values(differences[:, at_margin] + margin)
    p_equivalence_half[:, at_margin] = tost_p(moments(differences[:, at_margin] + margin), margin=margin)
    half = np.where(at_margin, *reversed(holm_joint(p_half, p_equivalence_half)))
    return [
        tally("family", *method, (adjusted < ALPHA).any(axis=-1), target=ALPHA, side="at most")
        for method, adjusted in zip(methods, (*none, half), strict=True)
    ]


def _bootstraps(differences: np.ndarray, generator: np.random.Generator) -> list[Tally]:
    """Coverage of two bootstrap intervals over seeds, from ten seeds on."""
    if differences.shape[1] < 10:
        return []
    blocks = []
    for start in range(0, len(differences), 100):
        # New resamples for every hundred studies: their luck must not be shared by all.
        blocks.append(bootstrap_intervals(differences[start : start + 100], generator))
    tallies = []
    for kind, name in enumerate(("percentile bootstrap", "BCa bootstrap")):
        low, high = np.concatenate([intervals[kind] for intervals in blocks], axis=1)
        covered, defined = (low <= 0) & (high >= 0), np.isfinite(low)
        tallies.append(tally("comparison", name, "coverage", covered, target=1 - ALPHA, side="equal", defined=defined))
    return tallies


def bootstrap_intervals(
    differences: np.ndarray, generator: np.random.Generator, *, resamples: int = RESAMPLES, level: float = 1 - ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile and BCa intervals [2, studies] of mean differences [studies, seeds]; NaN where one is missing.

    Shown here, and not offered: with few seeds both are too short (Efron 1987 for BCa).
    """
    studies, n = differences.shape
    weights = generator.multinomial(n, np.full(n, 1 / n), size=resamples).T / n
    means = np.sort(differences @ weights, axis=1)
    estimate = differences.mean(axis=1, keepdims=True)
    deviations = differences - estimate
    below = ((means < estimate).sum(axis=1) + 0.5 * (means == estimate).sum(axis=1)) / resamples
    bias = special.ndtri(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    with np.errstate(invalid="ignore"):
        acceleration = (deviations**3).sum(axis=1) / (6 * (deviations**2).sum(axis=1) ** 1.5)
    intervals = []
    for adjust in (False, True):
        ends = []
        for side in ((1 - level) / 2, (1 + level) / 2):
            z = np.full(studies, special.ndtri(side))
            if adjust:
                z = bias + (bias + z) / (1 - acceleration * (bias + z))
            place = np.clip(special.ndtr(z) * (resamples + 1) - 1, 0, resamples - 1)
            under = np.nan_to_num(np.floor(place)).astype(int)
            lower, upper = (
                np.take_along_axis(means, np.minimum(under + step, resamples - 1)[:, None], axis=1)[:, 0]
                for step in (0, 1)
            )
            ends.append(lower + (place - under) * (upper - lower))
        intervals.append(np.array(ends))
    return intervals[0], intervals[1]


def pooled_t(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """t and df of the factor in least squares over all runs [studies, seeds, 2, cells], seeds and cells as blocks."""
    studies, n_seeds, _, cells = runs.shape
    seed, at, cell = (axis.ravel() for axis in np.indices((n_seeds, 2, cells)))
    x = np.column_stack([at, seed[:, None] == np.arange(n_seeds), cell[:, None] == np.arange(1, cells)]).astype(float)
    p = x.shape[1]
    present = np.isfinite(runs).reshape(studies, -1)
    y = np.where(present, runs.reshape(studies, -1), 0.0)
    gram = (present.astype(float) @ (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)).reshape(studies, p, p)
    moment = y @ x
    coefficients = np.linalg.solve(gram, moment[..., None])[..., 0]
    df = present.sum(axis=1) - p
    residual = np.where(present, y - coefficients @ x.T, 0.0)
    variance = (residual**2).sum(axis=1) / df * np.linalg.inv(gram)[:, 0, 0]
    return coefficients[:, 0] / np.sqrt(variance), df


def _pooled(runs: np.ndarray) -> Tally:
    t, df = pooled_t(runs)
    rejected = 2 * special.stdtr(df, -np.abs(t)) < ALPHA
    return tally("comparison", "pooled OLS + C(seed)", "type I error", rejected, target=ALPHA, side="at most")


def _agreement(runs: np.ndarray, p: np.ndarray, margin: float) -> Tally:
    """Whether the functions for one study find the same, to rounding, in the tidy table of the same runs."""
    of = moments(matched_differences(runs[:, :, 0], runs[:, :, 1]))
    low, high = t_interval(of)
    expected = np.column_stack([of.n, of.mean, low, high, p, tost_p(of, margin=margin)])
    results = []
    for study in runs:
        table = run_table(study, ("level", "cell"))
        one = contrast(table, factor="level", levels=(0, 1), within=["cell"])
        equivalence = equivalence_test(one.differences, margin=margin)
        results.append([one.n_seeds, one.estimate, *one.interval, one.p, equivalence.p])
    same = np.isclose(results, expected, rtol=1e-9, atol=1e-12).all(axis=1)
    return tally("one claim", "functions for one study", "same numbers", same, target=1.0, side="equal")
