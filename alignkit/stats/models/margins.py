"""Marginal means of a fitted model, and contrasts of them: simple effects, trends and interactions.

All are linear combinations of the coefficients over a reference grid, which holds every combination of
the factors' levels once, so that each cell weighs the same however many rows it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError, nearest
from alignkit.stats.contrasts.contrasts import ADJUSTMENTS
from alignkit.stats.models.linear import LinearFit, t_columns
from alignkit.stats.tables.checks import names_of, require_choice, require_number
from alignkit.stats.tables.levels import level_text
from alignkit.text import count

Kind = Literal["reference", "pairwise", "polynomial"]
Adjust = Literal["holm", "bh", "none"]

DEGREES = ("linear", "quadratic", "cubic")


def _words(margins: Margins) -> str:
    seeds = count(margins.n_seeds, "seed")
    return f"{', '.join(map(str, margins.labels))}: {count(len(margins.estimate), 'estimate')}, {seeds}"


@shown(words=_words)
@dataclass(frozen=True, eq=False)
class Margins:
    """Linear combinations of a fit's coefficients, in the unit of the response.

    labels : a row per combination that says which it is; weights : [m, p], the combinations themselves.
    estimate, se, low, high, df, t, p, p_adjusted : [m] each; t and p are those of the difference from
        `null`, p_adjusted is p within the family of all m rows. NaN where nothing was `tested`.
    """

    labels: pd.DataFrame
    weights: np.ndarray
    estimate: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    df: np.ndarray
    t: np.ndarray
    p: np.ndarray
    p_adjusted: np.ndarray
    n_seeds: int
    method: str
    warnings: tuple[str, ...] = ()
    tested: bool = True

    def to_frame(self) -> pd.DataFrame:
        """One row per combination: its labels, estimate, se, low, high, df, n_seeds; t, p, p_adjusted if tested."""
        frame = self.labels.assign(estimate=self.estimate, se=self.se, low=self.low, high=self.high, df=self.df)
        if self.tested:
            frame = frame.assign(t=self.t, p=self.p, p_adjusted=self.p_adjusted)
        return frame.assign(n_seeds=self.n_seeds)


def marginal_means(
    fit: LinearFit,
    factors: str | Sequence[str],
    *,
    by: str | Sequence[str] = (),
    at: Mapping[str, float] | None = None,
    null: float | None = None,
    level: float = 0.95,
) -> Margins:
    """The model's mean response at each level of `factors`, all other factors averaged with equal weights.

    `by` adds factors that are crossed with `factors` instead of averaged over. Covariates are held at
    their means, or where `at` puts them. Where a `null` is given (90 degrees, say, for an angle of no
    alignment), t and p compare each mean with it; they are not adjusted.

    Equal weights answer "what if every combination were as common as any other". Where the levels occur
    with frequencies that matter, average predictions over the rows instead. Combinations that no row has
    are predicted by the model alone, which a warning counts.

    >>> from alignkit.stats.models.factorial import fit_factorial
    >>> rows = [(s, w, n, w + s * (n == "yes")) for s in range(4) for w in (1, 2) for n in ("no", "yes")]
    >>> fit = fit_factorial(pd.DataFrame(rows, columns=["seed", "width", "norm", "value"]), "width + norm")
    >>> [round(float(mean), 9) for mean in marginal_means(fit, "norm").estimate]
    [1.5, 3.0]
    """
    chosen = [*names_of("by", by), *names_of("factors", factors)]
    labels, weights, notes = _means(fit, chosen, at)
    return _combinations(fit, labels, weights, notes, null=null, level=level, adjust="none")


def marginal_contrasts(
    fit: LinearFit,
    factor: str,
    *,
    by: str | Sequence[str] = (),
    kind: Kind = "reference",
    reference: Any = None,
    scores: Sequence[float] | None = None,
    at: Mapping[str, float] | None = None,
    adjust: Adjust = "holm",
    level: float = 0.95,
) -> Margins:
    """How the marginal means of a factor differ: from a reference level, pair by pair, or as a trend.

    kind : "reference", each level minus `reference` (by default the first); "pairwise", the later minus the
        earlier of every pair; "polynomial", orthogonal components of up to third degree, of which "linear"
        is the least-squares slope of the means per unit of `scores`.
    scores : the levels' places for polynomials, by default 0, 1, 2 and so on: right for widths that double.
    by : the contrasts are taken at each combination of the levels of these factors.

    p_adjusted takes all rows, those of all `by` levels together, as one family; intervals are for one row
    each. To confirm a claim use `contrast`, which needs no model.
    """
    by = names_of("by", by)
    labels, weights, notes = _means(fit, [*by, factor], at)
    names, coefficients = _contrast_rows(fit.design.factors[factor], factor, kind, reference, scores)
    named, combinations = [], []
    for group, rows in _groups(labels, by):
        for name, row in zip(names, coefficients, strict=True):
            named.append({**group, "factor": factor, **name})
            combinations.append(row @ weights[rows])
    return _combinations(fit, pd.DataFrame(named), np.array(combinations), notes, null=0.0, level=level, adjust=adjust)


def simple_effects(fit: LinearFit, factor: str, *, by: str | Sequence[str], **options: Any) -> Margins:
    """The effect of a factor at each level of another: `marginal_contrasts` with `by`, and its options.

    That an effect is significant at one level and not at another does not make them different: that is
    what `interaction_contrasts` tests.
    """
    return marginal_contrasts(fit, factor, by=by, **options)


def interaction_contrasts(
    fit: LinearFit,
    factor_a: str,
    factor_b: str,
    *,
    kind: Kind = "reference",
    at: Mapping[str, float] | None = None,
    adjust: Adjust = "holm",
    level: float = 0.95,
) -> Margins:
    """How the effect of one factor changes with another: differences of differences of marginal means.

    Every contrast of `factor_a` (see `marginal_contrasts`) times every contrast of `factor_b`. An additive
    model has none, and is refused: its answer would be 0 by construction.
    """
    if factor_a == factor_b:
        raise AnalysisError(f'expected two different factors; got "{factor_a}" twice')
    _, weights, notes = _means(fit, [factor_a, factor_b], at)
    levels = fit.design.factors
    names_a, rows_a = _contrast_rows(levels[factor_a], factor_a, kind, None, None)
    names_b, rows_b = _contrast_rows(levels[factor_b], factor_b, kind, None, None)
    combinations = np.kron(rows_a, rows_b) @ weights
    if np.allclose(combinations / np.abs(fit.design.x).max(axis=0), 0, atol=1e-9):
        raise AnalysisError(
            f'expected a model with an interaction of {factor_a} and {factor_b}; got "{fit.design.formula}". '
            f'Add "{factor_a}:{factor_b}"'
        )
    rows = [
        {f"{factor}_{key}": text for factor, name in ((factor_a, a), (factor_b, b)) for key, text in name.items()}
        for a in names_a
        for b in names_b
    ]
    return _combinations(fit, pd.DataFrame(rows), combinations, notes, null=0.0, level=level, adjust=adjust)


def polynomial_contrasts(scores: Sequence[float], degree: int) -> np.ndarray:
    """Orthogonal polynomial contrasts [degree, k] of k means at `scores`, each a least-squares coefficient.

    Row d gives the coefficient of the polynomial of degree d + 1 that has leading coefficient 1 and is
    orthogonal to the lower ones; the first is the slope.

    >>> polynomial_contrasts([0, 1, 2], 1).tolist()
    [[-0.5, 0.0, 0.5]]
    """
    places = np.asarray(scores, dtype=float)
    basis = [np.ones_like(places)]
    for power in range(1, degree + 1):
        column = places**power
        for lower in basis:
            column = column - lower * (lower @ column) / (lower @ lower)
        basis.append(column)
    return np.array([column / (column @ column) for column in basis[1:]])


def _means(
    fit: LinearFit, factors: Sequence[str], at: Mapping[str, float] | None
) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """The levels of `factors` crossed, the weights [m, p] of their marginal means, and what to warn of."""
    if not isinstance(fit, LinearFit):
        raise AnalysisError(f"expected a fitted model; got {type(fit).__name__}. Make one with fit(…)")
    design = fit.design
    if not factors or len(set(factors)) < len(factors):
        raise AnalysisError(f"expected different factors; got {', '.join(factors) or 'none'}")
    for name in factors:
        if name not in design.factors:
            what = "a covariate, which has no levels; use `at`" if name in design.covariates else "not in the model"
            raise AnalysisError(f'"{name}": {what}; {nearest(name, design.factors)}')
    covariates = dict(design.covariates)
    for name, value in (at or {}).items():
        if name not in covariates:
            raise AnalysisError(f'at: "{name}" is no covariate of the model; {nearest(name, covariates)}')
        require_number(f"at: {name}", value)
        covariates[name] = float(value)
    others = [name for name in design.factors if name not in factors]
    grid = _crossed({name: design.factors[name] for name in [*factors, *others]})
    x = design.rows(grid.assign(**covariates))
    labels = _crossed({name: design.factors[name] for name in factors})
    # The grid varies its last factors fastest, so the rows of one combination of `factors` are adjacent.
    weights = x.reshape(len(labels), -1, x.shape[1]).mean(axis=1)
    return labels, weights, _empty_cells(fit, grid)


def _empty_cells(fit: LinearFit, grid: pd.DataFrame) -> tuple[str, ...]:
    seen = len(np.unique(fit.design.level_codes, axis=0))
    empty = len(grid) - seen
    if not empty:
        return ()
    return (f"{empty} of {len(grid)} cells of the reference grid have no rows: the model alone predicts them",)


def _crossed(levels: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(list(levels.values()), names=list(levels))
    return index.to_frame(index=False).astype(object)


def _groups(labels: pd.DataFrame, by: Sequence[str]) -> list[tuple[dict[str, str], np.ndarray]]:
    """The rows of `labels` at each combination of `by`, which vary slowest."""
    size = len(labels) // max(len(labels[list(by)].drop_duplicates()) if by else 1, 1)
    return [
        ({name: labels[name].iloc[start] for name in by}, np.arange(start, start + size))
        for start in range(0, len(labels), size)
    ]


def _contrast_rows(
    levels: tuple[str, ...], factor: str, kind: Kind, reference: Any, scores: Sequence[float] | None
) -> tuple[list[dict[str, str]], np.ndarray]:
    """What each contrast of the levels is called, and its coefficients [number of contrasts, k]."""
    k = len(levels)
    require_choice("kind", kind, ("reference", "pairwise", "polynomial"))
    if scores is not None and kind != "polynomial":
        raise AnalysisError(f'scores are for kind="polynomial"; got kind="{kind}"')
    if reference is not None and kind != "reference":
        raise AnalysisError(f'a reference level is for kind="reference"; got kind="{kind}"')
    if kind == "polynomial":
        places = list(range(k)) if scores is None else list(scores)
        for place in places:
            require_number("scores", place)
        if len(places) != k or len(set(places)) < k:
            raise AnalysisError(f'factor "{factor}": expected {k} different scores, one a level; got {places}')
        degree = min(k - 1, len(DEGREES))
        return [{"contrast": name} for name in DEGREES[:degree]], polynomial_contrasts(places, degree)
    first = levels[0] if reference is None else level_text(reference)
    if first not in levels:
        raise AnalysisError(f'factor "{factor}": expected a reference among {", ".join(levels)}; got {reference}')
    if kind == "reference":
        pairs = [(str(first), other) for other in levels if other != first]
    else:
        pairs = [(levels[low], levels[high]) for low in range(k) for high in range(low + 1, k)]
    unit = dict(zip(levels, np.eye(k), strict=True))
    names = [{"level_from": low, "level_to": high} for low, high in pairs]
    return names, np.array([unit[high] - unit[low] for low, high in pairs])


def _combinations(
    fit: LinearFit,
    labels: pd.DataFrame,
    weights: np.ndarray,
    notes: tuple[str, ...],
    *,
    null: float | None,
    level: float,
    adjust: Adjust,
) -> Margins:
    require_choice("adjust", adjust, (*ADJUSTMENTS, "none"))
    estimate = weights @ fit.coefficients
    columns = t_columns(
        estimate, fit.standard_errors(weights), np.array([fit.df(row) for row in weights]), null=null, level=level
    )
    adjusted = columns["p"] if adjust == "none" else ADJUSTMENTS[adjust](columns["p"])
    family = "" if adjust == "none" else f"; {adjust} over {len(labels)}"
    return Margins(
        labels=labels.reset_index(drop=True),
        weights=weights,
        estimate=estimate,
        **columns,
        p_adjusted=np.asarray(adjusted),
        n_seeds=fit.n_seeds,
        method=f"{fit.method}; equal weights over the reference grid{family}",
        warnings=fit.warnings + notes,
        tested=null is not None,
    )
