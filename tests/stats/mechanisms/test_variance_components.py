"""The variance decomposition against R, brute force and simulated truth."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alignkit.errors import AnalysisError
from alignkit.execution.run_study import open_study
from alignkit.stats.mechanisms.variance_components import RESIDUAL, component_coefficients, variance_components
from alignkit.study.plan import expand

ORACLES = Path(__file__).parents[2] / "oracles"
R = json.loads((ORACLES / "variance.json").read_text())
FACTORS = ("weights", "feedback", "order")
SOURCES = [s for size in (1, 2, 3) for s in itertools.combinations(FACTORS, size)]


def crossed(
    variances: dict[tuple[str, ...], float], *, levels: Sequence[int] = (8, 8, 4), replicates: int = 1, noise: int = 0
) -> pd.DataFrame:
    """A balanced table with Gaussian effects of known variance; () is the error of a run."""
    generator = np.random.default_rng(noise)
    names = FACTORS[: len(levels)]
    values = np.zeros((*levels, replicates))
    for term, variance in variances.items():
        shape = [n if name in term else 1 for name, n in zip(names, levels, strict=True)]
        shape = [*levels, replicates] if not term else [*shape, 1]
        values = values + math.sqrt(variance) * generator.standard_normal(shape)
    index = pd.MultiIndex.from_product([range(n) for n in values.shape], names=[*names, "run"])
    return pd.Series(values.ravel(), index=index, name="value").reset_index()


TRUTH = dict(zip([*SOURCES[:-1], ()], (1.0, 0.5, 0.25, 0.16, 0.09, 0.09, 0.36), strict=True))


@pytest.mark.parametrize("name", R)
def test_estimates_are_those_of_lme4_where_none_is_negative(name: str) -> None:
    table = pd.read_csv(ORACLES / f"{name}.csv")
    result = variance_components(table, factors=tuple(table.columns.drop("value")))
    squares = {component.source: component.mean_square for component in result.components}
    df = {component.source: component.df for component in result.components}
    for source, estimate in R[name]["reml"].items():
        ours = RESIDUAL if source == "Residual" else source
        assert result[ours].estimate == pytest.approx(estimate, rel=1e-3)
    for source, square in R[name]["mean_squares"].items():
        ours = RESIDUAL if source == "Residuals" else source
        assert squares[ours] == pytest.approx(square, rel=1e-8) and df[ours] == R[name]["df"][source]
    highest = result.components[-2]
    if len(result.n_seeds) == 2:
        assert result.components[-2].p == pytest.approx(R[name]["p_highest"], rel=1e-6)
    assert highest.mean_square / squares[RESIDUAL] == pytest.approx(R[name]["f_highest"], rel=1e-6)
    assert result.mean == pytest.approx(R[name]["mean"])
    assert result.standard_error == pytest.approx(R[name]["standard_error"], rel=1e-3)


@pytest.mark.parametrize(
    "levels,replicates", [((3, 4), 1), ((3, 4), 2), ((2, 3, 4), 1), ((2, 3, 2), 3), ((2, 3, 2, 3), 1)]
)
def test_expected_mean_squares_are_those_of_the_design_s_projections(levels: tuple[int, ...], replicates: int) -> None:
    """E[MS_S] = trace(P_S V) / df, for V the covariance of each component in turn, with P_S by brute force."""
    names = [f"f{i}" for i in range(len(levels))]
    of = dict(zip(names, levels, strict=True))
    highest = len(names) if replicates > 1 else len(names) - 1
    terms = [s for size in range(1, highest + 1) for s in itertools.combinations(names, size)]
    grid = list(itertools.product(*(range(n) for n in levels), range(replicates)))

    def sharing(term: Sequence[str]) -> np.ndarray:
        """1 where two runs have the same levels of the term's factors: the covariance of its effect."""
        keys = [tuple(run[names.index(name)] for name in term) for run in grid]
        return np.array([[float(a == b) for b in keys] for a in keys])

    spaces, removed = [], np.full((len(grid),) * 2, 1 / len(grid))
    for term in terms:  # averaging over a term's cells, less what lower terms explain
        averaging = sharing(term) / sharing(term).sum(1)
        projection = (np.eye(len(grid)) - removed) @ averaging
        removed = removed + projection
        spaces.append(projection)
    spaces.append(np.eye(len(grid)) - removed)
    components = [sharing(term) for term in terms] + [np.eye(len(grid))]
    expected = np.array([[np.trace(p @ v) / np.trace(p) for v in components] for p in spaces])
    coefficients = component_coefficients([*terms, ()], of, replicates)
    np.testing.assert_allclose(coefficients @ expected, np.eye(len(terms) + 1), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("replicates", [1, 2])
def test_estimates_are_unbiased_negative_ones_included(replicates: int) -> None:
    truth = {("weights",): 0.5, ("weights", "order"): 0.2, (): 1.0} | ({FACTORS: 0.3} if replicates > 1 else {})
    found = [
        variance_components(crossed(truth, levels=(4, 3, 3), replicates=replicates, noise=n), factors=FACTORS, draws=2)
        for n in range(200)
    ]
    estimates = np.array([[component.estimate for component in result.components] for result in found])
    terms = [tuple(c.source.split(":")) if c.source != RESIDUAL else () for c in found[0].components]
    true = np.array([truth.get(term, 0.0) for term in terms])
    df = np.array([component.df for component in found[0].components])
    # mean squares are independent with variance 2 E[MS]^2 / df
    coefficients = component_coefficients(terms, found[0].n_seeds, replicates)
    variance = coefficients**2 @ (2 * np.linalg.solve(coefficients, true) ** 2 / df)
    assert (np.abs(estimates.mean(0) - true) < 4 * np.sqrt(variance / len(found))).all()
    assert (estimates[:, true == 0] < 0).any(0).all()


def _coverage(tables: int, draws: int) -> tuple[dict[str, float], dict[str, float]]:
    total = sum(TRUTH.values())
    inside: dict[str, list[bool]] = {}
    shares: dict[str, list[bool]] = {}
    for noise in range(tables):
        result = variance_components(crossed(TRUTH, noise=noise), factors=FACTORS, draws=draws)
        for component in result.components:
            true = TRUTH[() if component.source == RESIDUAL else tuple(component.source.split(":"))]
            low, high = component.interval
            inside.setdefault(component.source, []).append(low <= true <= high)
            low, high = component.share_interval
            shares.setdefault(component.source, []).append(low <= true / total <= high)
        inside.setdefault("total", []).append(result.interval[0] <= total <= result.interval[1])
    return {k: float(np.mean(v)) for k, v in inside.items()}, {k: float(np.mean(v)) for k, v in shares.items()}


@pytest.mark.parametrize("tables,draws", [(100, 1000), pytest.param(1500, 4000, marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_as_often_as_they_say(tables: int, draws: int) -> None:
    """Within simultaneous 99% Monte Carlo bounds; intervals of shares may be wider than they need."""
    components, shares = _coverage(tables, draws)
    tail = 0.005 / (len(components) + len(shares))
    low, high = stats.binom.ppf([tail, 1 - tail], tables, 0.95) / tables
    assert all(low <= value <= high for value in components.values()), components
    assert all(low <= value for value in shares.values()), shares


def test_shares_are_of_the_total_and_scale_and_shift_free() -> None:
    table = crossed(TRUTH)
    base = variance_components(table, factors=FACTORS)
    moved = variance_components(table.assign(value=7 - 3 * table["value"]), factors=FACTORS)
    frame, scaled = base.to_frame(), moved.to_frame()
    assert frame["share"].sum() == pytest.approx(1) and (frame["share_low"] <= frame["share_high"]).all()
    np.testing.assert_allclose(scaled[["share", "share_low", "p"]], frame[["share", "share_low", "p"]], atol=1e-9)
    np.testing.assert_allclose(scaled[["estimate", "low", "high"]], 9 * frame[["estimate", "low", "high"]])
    assert base.total == pytest.approx(frame["estimate"].sum()) and base.interval[0] < base.total < base.interval[1]


def test_negative_estimates_are_reported_and_count_as_nothing_in_shares() -> None:
    for noise in range(20):
        result = variance_components(crossed({(): 1.0}, levels=(4, 4, 3), noise=noise), factors=FACTORS)
        negative = [component for component in result.components if component.estimate < 0]
        if negative:
            break
    assert all(component.share == 0 and component.sd == 0 for component in negative)
    assert f"negative estimates, 0 in shares: {negative[0].source}" in result.warnings[1]
    assert sum(component.share for component in result.components) == pytest.approx(1)


def test_p_is_the_exact_f_test_for_the_highest_interactions_and_nearly_that_elsewhere() -> None:
    result = variance_components(crossed(TRUTH, levels=(5, 4, 3), noise=2), factors=FACTORS, draws=50_000)
    for component in result.components[3:6]:
        residual = result[RESIDUAL]
        exact = stats.f.sf(component.mean_square / residual.mean_square, component.df, residual.df)
        assert component.p == pytest.approx(exact, rel=1e-9)
    assert np.isnan(result[RESIDUAL].p)
    # with one interaction in the way, a main effect is tested against it exactly: the generalised p agrees
    two = crossed({("weights",): 0.3, ("weights", "feedback"): 0.4, (): 1.0}, levels=(6, 5), replicates=2, noise=1)
    found = variance_components(two, factors=FACTORS[:2])["weights"]
    frame = variance_components(two, factors=FACTORS[:2]).to_frame().set_index("source")
    ratio = frame.loc["weights", "mean_square"] / frame.loc["weights:feedback", "mean_square"]
    assert found.p == pytest.approx(stats.f.sf(ratio, 5, 20), rel=1e-9) and 0.001 < found.p < 0.999


@pytest.mark.slow
def test_generalised_p_under_no_variance_rejects_as_often_as_it_says() -> None:
    """The p of a factor between two interactions has no exact F test; under the null it must not over-reject."""
    truth = {("feedback",): 1.0, ("weights", "feedback"): 0.3, ("weights", "order"): 0.3, (): 1.0}
    p = [
        variance_components(crossed(truth, levels=(6, 5, 4), noise=n), factors=FACTORS, draws=1000)["weights"].p
        for n in range(150)
    ]
    assert np.mean(np.array(p) < 0.05) <= stats.binom.ppf(0.995, 150, 0.05) / 150
    assert np.mean(np.array(p) < 0.5) > 0.3  # and is no constant


def test_what_replicates_is_counted_and_randomness_is_the_caller_s() -> None:
    table = crossed(TRUTH, levels=(4, 3, 2))
    result = variance_components(table, factors=FACTORS)
    assert result.n_seeds == {"weights": 4, "feedback": 3, "order": 2} and result.replicates == 1
    assert result.to_frame()["n_levels"].tolist() == ["4", "3", "2", "4 x 3", "4 x 2", "3 x 2", "4 x 3 x 2"]
    assert "4 weights x 3 feedback x 2 order, 1 run per combination" in result.method
    assert "holds the highest interaction" in result.warnings[0]
    shuffled = table.sample(frac=1, random_state=1).astype({"weights": str, "order": float})
    again = variance_components(shuffled, factors=FACTORS)
    pd.testing.assert_frame_equal(again.to_frame(), result.to_frame(), check_exact=True)
    other = variance_components(table, factors=FACTORS, seed=1)
    assert other.interval != result.interval and other.total == result.total
    with pytest.raises(KeyError, match='did you mean "weights"'):
        result["weight"]


def test_the_shipped_study_crosses_its_streams_in_balance() -> None:
    """Under DFA every draw meets every other; BP, which has no feedback, has one run per start and order."""
    runs = expand(open_study("variance").study, fingerprint=lambda section: "x").runs
    table = pd.DataFrame([{"rule": run.rule, "id": run.run_id, "twin": run.bp_run_id, **run.levels} for run in runs])
    table["value"] = np.random.default_rng(0).normal(size=len(table))
    dfa, bp = (table[table["rule"] == rule] for rule in ("dfa", "bp"))
    assert list(variance_components(dfa).n_seeds.values()) == [8, 8, 4] and dfa["id"].is_unique
    shared = ["streams_initialisation", "streams_order"]
    assert list(variance_components(bp, factors=shared).n_seeds.values()) == [8, 4]
    twins = dfa.merge(bp, left_on="twin", right_on="id", suffixes=("", "_bp"))
    assert len(twins) == 256 and all((twins[name] == twins[f"{name}_bp"]).all() for name in shared)
    assert bp["streams_feedback"].isna().all()


def test_heavy_tails_are_said() -> None:
    table = crossed({("weights",): 1.0}, noise=3)
    heavy = table.assign(value=table["value"] + np.random.default_rng(0).standard_t(2, len(table)))
    assert any("heavy tails" in note for note in variance_components(heavy, factors=FACTORS).warnings)
    light = table.assign(value=table["value"] + np.random.default_rng(0).uniform(-1, 1, len(table)))
    assert not any("heavy tails" in note for note in variance_components(light, factors=FACTORS).warnings)


def test_nothing_varies() -> None:
    result = variance_components(crossed({}).assign(value=3.0), factors=FACTORS)
    assert result.total == 0 and result.to_frame()["share"].isna().all() and result.to_frame()["p"].isna().all()
    assert result.warnings == ("all values are the same: there is no variance to decompose",)


def test_what_is_not_balanced_is_refused_and_named() -> None:
    table = crossed(TRUTH, levels=(3, 3, 2))
    gone = (table["weights"] == 1) & (table["feedback"] == 2) & (table["order"] == 0)
    with pytest.raises(
        AnalysisError,
        match=r"expected 1 runs? at every combination .* 1 have? fewer: weights = 1, feedback = 2, order = 0\. Add",
    ):
        variance_components(table[~gone], factors=FACTORS)
    with pytest.raises(AnalysisError, match=r"expected 2 runs .* \(18 combinations\); 17 have fewer: .* and 12 more"):
        variance_components(pd.concat([table, table[gone]]), factors=FACTORS)
    with pytest.raises(AnalysisError, match=r"1 have none, the first at weights = 1, feedback = 2, order = 0"):
        variance_components(table.assign(value=table["value"].mask(gone)), factors=FACTORS)
    with pytest.raises(AnalysisError, match=r"1 of 18 rows lack one"):
        variance_components(table.assign(weights=table["weights"].mask(gone)), factors=FACTORS)
    with pytest.raises(AnalysisError, match=r'factor "order": expected at least two levels; got 0'):
        variance_components(table[table["order"] == 0], factors=FACTORS)
    with pytest.raises(AnalysisError, match=r"two to four different columns; got \['weights'\]"):
        variance_components(table, factors=("weights",))
    with pytest.raises(AnalysisError, match=r'expected a column "weigths"; did you mean "weights"\?'):
        variance_components(table, factors=("weigths", "order"))
