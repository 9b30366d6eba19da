"""The marginal alternative to a mixed model: mean effects, with errors that hold whatever happens inside a seed."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from statsmodels.genmod.cov_struct import Exchangeable, Independence
from statsmodels.genmod.generalized_estimating_equations import GEE

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.models.design import Design, unit_columns
from alignkit.stats.models.factorial import seed_codes
from alignkit.stats.models.linear import FTest, LinearFit, f_p, fit_words

FEWEST_SEEDS = 6

Correlation = Literal["exchangeable", "independence"]


@shown(words=fit_words, table="anova")
@dataclass(frozen=True, eq=False, kw_only=True)
class MarginalFit(LinearFit):
    """Coefficients by generalised estimating equations, with a sandwich covariance over seeds; see `fit_gee`.

    correlation : the working correlation within a seed, and `within_seed`, its estimate (0 for independence).
    """

    correlation: Correlation
    within_seed: float

    def f_test(self, weights: np.ndarray) -> FTest:
        """Whether all rows of `weights` [q, p] have a combination of 0: Hotelling's F on q and df + 1 - q.

        A covariance from G seeds is known on G - 1 degrees of freedom; taking Wald's statistic for an F on
        q and G - 1 would reject too often for q > 1 (Pan and Wall, 2002). NaN where q leaves no df.
        """
        weights = np.atleast_2d(weights)
        q, nothing = len(weights), float("nan")
        df = self.residual_df + 1 - q
        covariance = weights @ self.covariance @ weights.T
        se = np.sqrt(np.diag(covariance))
        sizes = np.linalg.eigvalsh(covariance / np.outer(se, se)) if (se > 0).all() else np.zeros(1)
        if df < 1 or not sizes[0] > 1e-12 * sizes[-1]:
            return FTest(nothing, q, df, nothing)
        values = weights @ self.coefficients
        wald = float(values @ np.linalg.solve(covariance, values))
        statistic = wald * df / (self.residual_df * q)
        return FTest(statistic, q, df, f_p(statistic, q, df))


def fit_gee(
    table: pd.DataFrame,
    formula_or_factors: str | Sequence[str],
    *,
    response: str = "value",
    seed: str = "seed",
    correlation: Correlation = "exchangeable",
) -> MarginalFit:
    """How a response depends on factors on average over seeds, its errors free of any model of what seeds share.

    Generalised estimating equations (Liang and Zeger, 1986) with a normal response, rows of a seed clustered,
    and the covariance of Mancl and DeRouen (2001), which allows for the seeds having been fitted: the plain
    sandwich is too small with few seeds. In a balanced design its variance of a within-seed contrast is that
    of the paired t test times n_seeds / (n_seeds - 1), so its tests are slightly careful.

    correlation : what weighs the rows of a seed. "exchangeable", or "independence" for ordinary least
        squares. It matters in unbalanced tables alone, and a wrong one costs precision, not validity.

    t tests have n_seeds less the number of coefficients that are constant within seeds (the intercept and
    factors between seeds) degrees of freedom; joint tests have Hotelling's.

    Use it to see whether a mixed model's conclusion hangs on its variance components. Not with fewer
    than 6 seeds, nor with as many coefficients as seeds: the covariance has no more rank than seeds less
    one, and some combination of coefficients would seem to be known exactly. Both are refused
    (`AnalysisError`), as are terms that the rows cannot tell apart.
    Unlike a likelihood it is biased by rows that are missing because of other rows of their seed.

    >>> rows = [(s, n, w, w + 3 * n + (s * s + n * w) % 5) for s in range(8) for n in (0, 1) for w in (1, 2)]
    >>> fit = fit_gee(pd.DataFrame(rows, columns=["seed", "norm", "width", "value"]), "norm")
    >>> fit.n_seeds, fit.residual_df, fit.design.names
    (8, 7, ('Intercept', 'norm[0]'))
    """
    if correlation not in ("exchangeable", "independence"):
        raise AnalysisError(
            f'expected correlation to be "exchangeable" or "independence"; got {correlation!r}. For checkpoints, whose '
            "errors are serially correlated, summarise each run first"
        )
    design = Design.of(table, formula_or_factors, response=response)
    block, seeds = seed_codes(table, design, seed)
    n_seeds, p = len(seeds), design.x.shape[1]
    if n_seeds < FEWEST_SEEDS:
        raise AnalysisError(
            f"a sandwich covariance needs ≥ {FEWEST_SEEDS} seeds; got {n_seeds}. Add seeds, or use fit_mixed"
        )
    if p >= n_seeds:
        raise AnalysisError(
            f"a sandwich covariance of the {p} coefficients of {design.formula} needs ≥ {p + 1} seeds; got {n_seeds}. "
            "Use fewer terms, add seeds, or use fit_factorial, whose contrasts need no joint covariance"
        )
    if alone := [at for at in range(n_seeds) if np.linalg.matrix_rank(unit_columns(design.x[block != at])) < p]:
        raise AnalysisError(
            f"expected every coefficient of {design.formula} to rest on several seeds; got one that only {seed} "
            f"{seeds[alone[0]]} identifies. Use fewer terms, or add the runs that are missing"
        )
    # An orthonormal model matrix and a response of unit size, so that the search stops at the same place in any unit.
    x, to_x = np.linalg.qr(design.x)
    left = design.centred - x @ (x.T @ design.centred)
    scale = float(np.sqrt(left @ left / (len(left) - p))) if len(left) > p else 0.0
    if not scale > design.rounding:
        raise AnalysisError(
            f'expected "{design.response}" to vary beyond {design.formula}; got a response that the model fits '
            "exactly. There is no error to test against"
        )
    structure = Exchangeable() if correlation == "exchangeable" else Independence()
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        result = GEE(design.centred / scale, x, groups=block, cov_struct=structure).fit(
            cov_type="bias_reduced", maxiter=200, ctol=1e-9
        )
        covariance = np.asarray(result.cov_robust_bc)
    if not (result.converged and np.isfinite(covariance).all()):
        raise AnalysisError(
            "expected estimating equations with a solution; the search did not converge. Use fit_factorial, or "
            'correlation="independence"'
        )
    notes = dict.fromkeys(" ".join(str(item.message).split()) for item in caught)
    between = _constant_columns(design.x, block)
    back = np.linalg.inv(to_x)
    return MarginalFit(
        design=design,
        coefficients=design.uncentred(back @ np.asarray(result.params) * scale),
        covariance=back @ covariance @ back.T * scale**2,
        n_seeds=n_seeds,
        method=f"generalised estimating equations, {correlation} within {seed}, Mancl and DeRouen's covariance over "
        f"{n_seeds} seeds, t({n_seeds - between})",
        residual_df=n_seeds - between,
        warnings=(*design.missing_note, *notes),
        correlation=correlation,
        within_seed=float(structure.dep_params) if correlation == "exchangeable" else 0.0,
    )


def _constant_columns(x: np.ndarray, block: np.ndarray) -> int:
    """How many columns of x are constant within every seed, the intercept among them."""
    groups = pd.DataFrame(unit_columns(x)).groupby(block)
    return int(np.isclose(groups.max(), groups.min(), atol=1e-9).all(axis=0).sum())
