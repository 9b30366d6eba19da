"""The mixed model: layers in runs in seeds, with effects that vary over seeds, and tests that know it.

The likelihood is our own (`reml`); lme4, lmerTest and statsmodels are the oracles that it is tested against.
statsmodels' MixedLM could not carry the inference: where a variance is 0 its optimisers fail or return an
intercept of 0 as converged, it tests with z, and it gives no derivatives to compute Satterthwaite's degrees of
freedom from. Here those come from the same matrices as the steps of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.models.design import Design
from alignkit.stats.models.factorial import seed_codes
from alignkit.stats.models.linear import FTest, LinearFit, f_p, fit_words
from alignkit.stats.models.random_effects import is_constant, run_codes, seed_terms
from alignkit.stats.models.reml import (
    FIXED,
    Blocks,
    Component,
    Evaluation,
    Optimum,
    confounded,
    minimise,
    smallest_residual,
)

FEWEST_SEEDS = 3

BOUNDARY = 1e-6
"""A variance below this share of the residual variance is taken as 0: a ratio, whatever the unit."""

AGREE = 1e-4
"""Searches from two starts found the same optimum when their log-likelihoods differ by no more."""

# The variances to start from, as shares: rows that know nothing of each other, and rows that know nearly all.
STARTS = (1.0, 0.01)


@dataclass(frozen=True)
class Convergence:
    """Why the estimates are those of the largest likelihood.

    steps : scoring steps of the search that was taken.
    promised : the gradient at its end times the next step, which bounds how much further -2 log-likelihood
        would fall: 0 where the gradient is, and on the boundary where it points outwards.
    log_likelihoods : where the search ended from each start, one of residual variance alone and one with
        hardly any.
    """

    steps: int
    promised: float
    log_likelihoods: tuple[float, ...]


@shown(words=fit_words, table="anova")
@dataclass(frozen=True, eq=False, kw_only=True)
class MixedFit(LinearFit):
    """Coefficients of a mixed model with Satterthwaite's degrees of freedom; see `fit_mixed`.

    variance_components : one row per component, the residual last: `component`; `variance`, in the
        response's unit squared (of a slope, over the predictor's unit squared); `sd`; `share` of the total
        variance of a row, averaged over rows; and `at_boundary`, whether it is estimated as 0.
    icc : the correlation of two rows of one seed that share nothing else ("seed"), and, where runs have
        several rows, of two rows of one run ("run").
    log_likelihood : restricted, as lme4 counts it: comparable between models with the same fixed effects alone.
    n_runs : how many runs there are; rows, where none are named.
    not_separable : components left out because the rows cannot tell them from others, and which those are.
    """

    variance_components: pd.DataFrame
    icc: dict[str, float]
    log_likelihood: float
    convergence: Convergence
    n_runs: int
    not_separable: dict[str, tuple[str, ...]]
    variances: np.ndarray
    """[c], the estimates that the likelihood is largest at, the residual's first."""
    variance_covariance: np.ndarray
    """[c, c], the large-sample covariance of the variances, the residual's first."""
    derivatives: np.ndarray
    """[c, p, p], how `covariance` changes with each variance."""

    def df(self, weights: np.ndarray) -> float:
        """Satterthwaite's degrees of freedom of the combination `weights` [p]."""
        gradient = self.derivatives @ weights @ weights
        variance = float(self.variances @ gradient)
        uncertainty = float(gradient @ self.variance_covariance @ gradient)
        return 2 * variance**2 / uncertainty if uncertainty > 0 else float("nan")

    def f_test(self, weights: np.ndarray) -> FTest:
        """Whether all rows of `weights` [q, p] have a combination of 0: F, its df as in lmerTest.

        The combinations are turned into independent ones, each with Satterthwaite's df, and F has those of
        the F with the same mean (Fai and Cornelius, 1996; Kuznetsova et al., 2017). They are made
        orthonormal in the rows of the model first, so that neither the order of the levels nor the choice of
        combinations matters; lmerTest's own choice differs in the fourth digit or so. It supposes that an
        effect varies alike over seeds for all pairs of levels (sphericity).
        """
        weights = _orthonormal(np.atleast_2d(weights), self.design.x)
        sizes, vectors = np.linalg.eigh(weights @ self.covariance @ weights.T)
        turned = vectors.T @ weights
        q = len(turned)
        statistic = float(((turned @ self.coefficients) ** 2 / sizes).sum()) / q
        df = _pooled_df(np.array([self.df(row) for row in turned]))
        return FTest(statistic, q, df, f_p(statistic, q, df))


def fit_mixed(
    table: pd.DataFrame,
    formula_or_factors: str | Sequence[str],
    *,
    response: str = "value",
    seed: str = "seed",
    run: str | None = "run_id",
    random: Sequence[str] | None = None,
    errors: str = "components",
) -> MixedFit:
    """How a response depends on factors where rows share runs, runs share seeds, and effects vary over seeds.

    Restricted maximum likelihood of: the fixed effects (a formula, or a list of factors with their
    pairwise interactions; see `Design.of`), a random intercept per seed, one per run within seeds where
    runs have several rows (layers), and for every term of `random` a deviation per seed: of each
    combination of levels, as `(1 | seed:term)` of lme4, or of the slope on a number, which is centred.

    run : the column that says which rows are of one run. Without such a column every row is its own run.
    random : terms whose effects vary over seeds, such as "norm" or "norm:width". By default all fixed terms
        that vary within seeds, so that a test of any of them is one against its variation over seeds. Terms
        that the rows cannot tell from the residual, the runs or others are left out of the default
        (`not_separable`), and refused where named. [] supposes that effects are the same in every seed:
        where they are not, its tests reject far too often.

    Tests are t and F with Satterthwaite's df, from the observed information as in lmerTest. A variance is
    reported as 0 where that is its best estimate, but standard errors take it untruncated, as Stroup and
    Littell (2002) advise, and df count it as unknown: stopped at 0 it would make tests of its effect careful
    with six seeds or more, and, taken as known to be 0 as lmerTest does, liberal with fewer. In a balanced
    design t, F and p are therefore those of the exact tests of repeated measures, on the boundary or not.

    Where cells are missing none of this is exact. With a fifth of 2 x 3 cells gone and 4 to 6 seeds (simulated
    at a nominal 5%, a variance at 0 in half to three quarters of the tables) main effects were rejected in 4
    to 6%, their interaction in 7 to 8%; with ten seeds in 4 to 7 and in 7%. Leaving a term at 0 out, as others
    do, gave the interaction 8 to 12%, and Kenward and Roger's (1997) test 5 to 7%, but main effects 1 to 4%.
    An interaction's p just below .05 in such a table is weak evidence.

    Do not use it to confirm a claim about one factor: `contrast` needs fewer assumptions. F tests of more
    than two levels suppose sphericity, and residuals are taken as equally variable everywhere; where
    variances differ (widths do), compare with `fit_factorial`, which corrects for it. Checkpoints of a run
    are not layers: their errors are serially correlated, which this has no component for.

    Raises `AnalysisError` for fewer than 3 seeds, a response that does not vary or is the same over all rows
    of a run, terms that the rows cannot tell apart, random terms with one level within seeds, and for robust
    or autoregressive `errors`, which a mixed model does not have.

    >>> rows = [(s, n, w, (s * s * w + n * w * s) % 7) for s in range(6) for n in (0, 1) for w in (1, 2)]
    >>> fit = fit_mixed(pd.DataFrame(rows, columns=["seed", "norm", "width", "value"]), "norm + width")
    >>> fit.n_seeds, list(fit.variance_components["component"])
    (6, ['seed', 'seed:norm', 'seed:width', 'residual'])
    """
    _require_components(errors)
    design = Design.of(table, formula_or_factors, response=response)
    block, seeds = seed_codes(table, design, seed)
    n, p = design.x.shape
    if len(seeds) < FEWEST_SEEDS:
        raise AnalysisError(
            f"a variance over seeds needs ≥ {FEWEST_SEEDS} seeds; got {len(seeds)}. Add seeds, or describe with "
            'fit_factorial(errors="pooled")'
        )
    if n <= p:
        raise AnalysisError(
            f"expected more rows than the {p} coefficients of {design.formula}; got {n}. Use fewer terms, or more seeds"
        )
    # An orthonormal model matrix and a response of unit variance: no unit can spoil the numbers.
    x, to_x = np.linalg.qr(design.x)
    left = design.centred - x @ (x.T @ design.centred)
    scale = float(np.sqrt(left @ left / (n - p)))
    if not scale > design.rounding:
        why = "is the same in every row" if np.ptp(design.y) == 0 else f"follows {design.formula} exactly"
        raise AnalysisError(
            f'expected a response that varies between seeds or runs; got "{design.response}", which {why}. '
            "There is no error to test against"
        )
    rows = table.loc[design.used]
    runs = run_codes(rows, run, block)
    ones = np.ones((n, 1))
    components = [Component(seed, np.zeros(n, int), ones)]
    if runs.max() + 1 < n:
        components.append(Component(f"{seed}:{run}", runs, ones))
    terms = seed_terms(rows, design, block, seed=seed, random=random)
    named = [] if random is None else [term.name for term in terms]
    components, blocks, not_separable = _separable([*components, *terms], x, design.centred / scale, block, named)
    floor = smallest_residual(blocks)
    optima = [_search(blocks, residual, floor) for residual in STARTS]
    best = min(optima, key=lambda optimum: optimum.at.deviance)
    at = best.at
    if not best.converged:
        raise AnalysisError(
            f"expected a likelihood with an optimum; the search was still {best.promised:.2g} from it after "
            f"{best.steps} steps. Name fewer terms in random, or use fit_factorial"
        )
    if at.variances[0] < 10 * floor:
        raise AnalysisError(
            f'expected "{design.response}" to vary within what {", ".join(blocks.names)} share; got no residual '
            "variance. If the rows of a run all hold the same value, keep one row per run; if they are few, name "
            "fewer terms in random"
        )
    boundary = np.array([False, *(at.variances[1:] < BOUNDARY * at.variances[0])])
    offset = (n - p) * np.log(scale) + float(np.linalg.slogdet(to_x)[1])
    log_likelihoods = tuple(float(-optimum.at.deviance / 2 - offset) for optimum in optima)
    warnings = [*design.missing_note]
    if boundary.any():
        names = [name for name, zero in zip(blocks.names, boundary[1:], strict=True) if zero]
        warnings.append(f"variance estimated as 0: {', '.join(names)}; standard errors take it untruncated")
    if max(log_likelihoods) - min(log_likelihoods) > AGREE:
        texts = ", ".join(f"{value:.3f}" for value in log_likelihoods)
        warnings.append(f"the likelihood has several optima (log-likelihoods {texts}); the best is taken")
    table_of_variances = _variances(components, at.variances * scale**2, boundary)
    change = at.covariance @ at.information @ at.covariance
    covariance = np.tensordot(_untruncated(at, boundary), change, 1)
    # Only in unbalanced tables may untruncated variances not add up to a covariance.
    if np.linalg.eigvalsh(covariance)[0] <= 1e-8 * np.linalg.eigvalsh(at.covariance)[0]:
        covariance = at.covariance
        warnings.append("standard errors are too long: with untruncated variances they would not be defined")
    back = np.linalg.inv(to_x)
    return MixedFit(
        design=design,
        coefficients=design.uncentred(back @ at.coefficients * scale),
        covariance=back @ covariance @ back.T * scale**2,
        n_seeds=len(seeds),
        method=_method(n, blocks.names, not_separable, at_zero=bool(boundary.any())),
        warnings=tuple(warnings),
        variance_components=table_of_variances,
        icc=_correlations(components, table_of_variances["share"], seed, run, runs),
        log_likelihood=max(log_likelihoods),
        convergence=Convergence(best.steps, best.promised, log_likelihoods),
        n_runs=int(runs.max()) + 1,
        not_separable=not_separable,
        variances=at.variances * scale**2,
        variance_covariance=_variance_covariance(at, interior=not boundary.any()) * scale**4,
        derivatives=back @ change @ back.T,
    )


def _require_components(errors: str) -> None:
    if errors == "components":
        return
    if errors.lower().startswith(("ar", "auto")):
        mend = "Summarise each run first (its final value, or the area under its curve)"
    else:
        mend = "For errors robust to it use fit_gee, or fit_factorial, which supposes nothing within seeds"
    raise AnalysisError(
        f'expected errors="components", the only covariance that a mixed model has here; got {errors!r}. {mend}'
    )


def _separable(
    components: list[Component], x: np.ndarray, y: np.ndarray, block: np.ndarray, named: Sequence[str]
) -> tuple[list[Component], Blocks, dict[str, tuple[str, ...]]]:
    """The components that the rows can tell apart, their blocks, and those left out with what they are like."""
    blocks = Blocks.of(x, y, block, components)
    aliases = {components[k].name: others for k, others in confounded(blocks).items()}
    for name, others in aliases.items():
        if others == (FIXED,):
            raise AnalysisError(
                f"expected several seeds beside each other under the same fixed effects; got none whose {name} could "
                "vary. There is nothing to test against: use fewer terms, or add seeds"
            )
        if name in named:
            raise AnalysisError(
                f'random: expected terms with a variance of their own; got "{name}", which the rows cannot tell from '
                f"{' and '.join(others)}. Leave it out"
            )
    if aliases:
        components = [component for component in components if component.name not in aliases]
        blocks = Blocks.of(x, y, block, components)
    return components, blocks, aliases


def _method(n: int, names: Sequence[str], not_separable: dict[str, tuple[str, ...]], *, at_zero: bool) -> str:
    alike = "".join(f"; {name} is not apart from {' and '.join(others)}" for name, others in not_separable.items())
    random = ", ".join(names) or "nothing but the residual"
    untruncated = ", errors with variances at 0 untruncated" if at_zero else ""
    return f"mixed model of {n:,} rows by REML, random {random}{alike}; Satterthwaite t and F{untruncated}"


def _search(blocks: Blocks, residual: float, floor: float) -> Optimum:
    others = np.full(len(blocks.names), (1 - residual) / max(len(blocks.names), 1))
    return minimise(blocks, np.concatenate([[residual], others]), floor=floor)


def _variances(components: Sequence[Component], variances: np.ndarray, boundary: np.ndarray) -> pd.DataFrame:
    natural = variances / np.array([1.0, *(component.unit for component in components)])
    frame = pd.DataFrame(
        {
            "component": ["residual", *(component.name for component in components)],
            "variance": natural,
            "sd": np.sqrt(natural),
            "share": variances / variances.sum(),
            "at_boundary": boundary,
        }
    )
    return pd.concat([frame[1:], frame[:1]], ignore_index=True)


def _correlations(
    components: Sequence[Component], share: pd.Series, seed: str, run: str | None, runs: np.ndarray
) -> dict[str, float]:
    icc = {"seed": float(sum(s for c, s in zip(components, share, strict=False) if c.name == seed))}
    if runs.max() + 1 < len(runs):
        # Whatever does not change within a run is shared by its rows.
        icc["run"] = float(sum(s for c, s in zip(components, share, strict=False) if is_constant(c, runs)))
    return icc


def _untruncated(at: Evaluation, boundary: np.ndarray) -> np.ndarray:
    """The variances as standard errors take them: after one step from the optimum that does not stop at 0.

    In a balanced design that is where mean squares equal their expectations.
    """
    return np.linalg.solve(at.expected, at.quadratic) if boundary.any() else at.variances


def _variance_covariance(at: Evaluation, *, interior: bool) -> np.ndarray:
    """The large-sample covariance of the variances; on the boundary, of the untruncated ones."""
    if interior and np.linalg.eigvalsh(at.observed)[0] > 0:
        return np.asarray(2 * np.linalg.inv(at.observed))
    return np.asarray(2 * np.linalg.inv(at.expected))


def _orthonormal(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Combinations of the same span [rank, p] that least squares on x would estimate independently."""
    root = np.linalg.inv(np.linalg.qr(x, mode="r"))
    scaled, size, _ = np.linalg.svd(weights @ root, full_matrices=False)
    kept = size > 1e-8 * size[0]
    return np.asarray((scaled[:, kept] / size[kept]).T @ weights)


def _pooled_df(df: np.ndarray) -> float:
    """The error df of an F of which the q independent parts have these df (Kuznetsova et al., 2017)."""
    if np.ptp(df) < 1e-8 * df.max():
        return float(df.mean())
    if (df <= 2).any():
        return 2.0
    mean = float((df / (df - 2)).sum())
    return 2 * mean / (mean - len(df))
