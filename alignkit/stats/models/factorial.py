"""The factorial model: what every factor and interaction does, with the seed as the unit of replication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.models.design import ROUNDING, Design, require_rank, unit_columns
from alignkit.stats.models.diagnostics import Diagnostics, breusch_pagan
from alignkit.stats.models.formula import Interactions
from alignkit.stats.models.linear import FTest, LinearFit, f_p, fit_words
from alignkit.stats.tables.checks import require_choice, require_columns, require_seed_column

Errors = Literal["seed", "pooled", "robust"]

MOST_LEFT_OUT = 0.2
"""The share of the seeds above which the others no longer stand for all of them."""

ANOVA_COLUMNS = (
    "term", "df", "df_error", "ss", "ss_error", "F", "epsilon", "p", "p_spherical", "partial_r2", "generalised_r2",
)  # fmt: skip


@shown(words=fit_words, table="anova")
@dataclass(frozen=True, eq=False, kw_only=True)
class FactorialFit(LinearFit):
    """Coefficients of a factorial model, averaged over seeds or pooled over rows; see `fit_factorial`.

    errors : where the covariance comes from. seeds : the seeds that were used.
    per_seed : [n_seeds, p], the coefficients fitted within each seed; None for a pooled fit.
    seed_of_row : [n], the position in `seeds` of each row of `design.x`.
    x_inverse : [p, p], the inverse of X'X (the mean over seeds of each seed's own, when fitted within
        seeds), which gives the terms their sums of squares.
    ss_error : the residual sum of squares of a pooled fit; NaN when fitted within seeds, where every
        term has an error of its own.
    """

    errors: Errors
    seeds: tuple[Any, ...]
    per_seed: np.ndarray | None
    seed_of_row: np.ndarray
    x_inverse: np.ndarray
    ss_error: float

    def f_test(self, weights: np.ndarray) -> FTest:
        """Whether all rows of `weights` [q, p] have a combination of 0.

        Within seeds: the F of repeated measures, MS / MS(by seed) of the orthonormalised combinations, on q
        and q (n_seeds - 1) degrees of freedom, both times Greenhouse and Geisser's (1959) epsilon in p.
        Pooled: Wald's F.
        """
        weights = np.atleast_2d(weights)
        if self.per_seed is None:
            return super().f_test(weights)
        return repeated_measures_f(self._per_seed(weights), weights @ self.x_inverse @ weights.T)[0]

    def anova(self) -> pd.DataFrame:
        """One row per term but the intercept, each term given all the others (type III).

        ss, ss_error : the term's sum of squares, and that which it is tested against: of the term by seed (the
            strata of aov, where all seeds have the same cells), or the residual of a pooled fit. With robust
            errors F is Wald's, not their ratio.
        epsilon : how far the term's components are from equal variances (1) to one that has it all (1/df).
            `p` is corrected by it; `p_spherical` is not, and supposes epsilon = 1.
        partial_r2 : ss / (ss + ss_error), the share of what the other terms leave. Within seeds the rest is
            the term's own variation over seeds, so it says how repeatable the effect is, not how large.
        generalised_r2 : ss / (ss + everything that the model's terms do not explain, differences between
            seeds included): comparable between terms and designs (Olejnik and Algina, 2003).

        Both shares are NaN where there is nothing to share but rounding.
        """
        unexplained = self._unexplained()
        rounding = len(self.design.y) * self.design.rounding**2
        rows = []
        for term, columns in self.design.terms.items():
            if term == "Intercept":
                continue
            weights = np.eye(len(self.coefficients))[list(columns)]
            scale = weights @ self.x_inverse @ weights.T
            if self.per_seed is None:
                values = weights @ self.coefficients
                ss, ss_error, test = float(values @ np.linalg.solve(scale, values)), self.ss_error, self.f_test(weights)
            else:
                test, ss, ss_error = repeated_measures_f(self._per_seed(weights), scale)
            spherical = f_p(test.statistic, test.df, test.df_error)
            rows.append(
                (
                    term, test.df, test.df_error, ss, ss_error, test.statistic, test.epsilon, test.p, spherical,
                    _share(ss, ss_error, rounding), _share(ss, unexplained, rounding),
                )
            )  # fmt: skip
        return pd.DataFrame(rows, columns=list(ANOVA_COLUMNS))

    def diagnostics(self) -> Diagnostics:
        """Whether the residuals' variance follows the factors, which seeds carry the estimates, and collinearity."""
        design = self.design
        blocks = _seed_columns(self.seed_of_row, len(self.seeds))
        full = np.hstack([design.x, blocks])
        full = unit_columns(full)
        residuals = design.centred - full @ np.linalg.lstsq(full, design.centred, rcond=None)[0]
        # Residuals of a model that fits exactly are rounding, and their squares say nothing.
        exact = np.abs(residuals).max() <= design.rounding
        lm, df, p = breusch_pagan(unit_columns(design.x), residuals * (not exact))
        se = np.sqrt(np.diag(self.covariance))
        influence = []
        for position, seed in enumerate(self.seeds):
            without = self._without(position)
            change = without - self.coefficients
            in_se = np.divide(change, se, out=np.full_like(change, np.nan), where=se > 0)
            influence += [(seed, *row) for row in zip(design.names, without, change, in_se, strict=True)]
        return Diagnostics(
            breusch_pagan=lm,
            breusch_pagan_df=df,
            breusch_pagan_p=p,
            condition_number=float(np.linalg.cond(design.x / np.linalg.norm(design.x, axis=0))),
            influence=pd.DataFrame(influence, columns=["seed", "coefficient", "without", "change", "change_in_se"]),
            n_seeds=self.n_seeds,
        )

    def _per_seed(self, weights: np.ndarray) -> np.ndarray:
        """Combinations [n_seeds, q] within seeds; those that differ by rounding alone are made equal."""
        assert self.per_seed is not None
        values = self.per_seed @ weights.T
        # The estimate of one seed is less exact than that of all.
        rounding = self.design.rounding_of(weights) * np.sqrt(self.n_seeds)
        exact = np.abs(values - values.mean(axis=0)).max(axis=0) <= rounding
        return np.where(exact, values[0], values)

    def _unexplained(self) -> float:
        # The model's own mean is over seeds; the rest is taken around the mean of the rows.
        effects = [column for column in range(len(self.coefficients)) if column not in self.design.terms["Intercept"]]
        residuals = self.design.centred - self.design.x[:, effects] @ self.coefficients[effects]
        return float(((residuals - residuals.mean()) ** 2).sum())

    def _without(self, position: int) -> np.ndarray:
        """The coefficients with one seed left out; NaN where the others cannot identify the model."""
        p = len(self.coefficients)
        if self.n_seeds < 2:
            return np.full(p, np.nan)
        if self.per_seed is not None:
            return np.delete(self.per_seed, position, axis=0).mean(axis=0)
        kept = self.seed_of_row != position
        codes = np.unique(self.seed_of_row[kept], return_inverse=True)[1]
        full = np.hstack([self.design.x[kept], _seed_columns(codes, len(self.seeds) - 1)])
        lengths = np.linalg.norm(full, axis=0)
        solution, _, rank, _ = np.linalg.lstsq(unit_columns(full), self.design.centred[kept], rcond=None)
        if rank < full.shape[1]:
            return np.full(p, np.nan)
        return self.design.uncentred(solution[:p] / lengths[:p])


def fit_factorial(
    table: pd.DataFrame,
    formula_or_factors: str | Sequence[str],
    *,
    response: str = "value",
    seed: str = "seed",
    interactions: Interactions | None = None,
    errors: Errors = "seed",
) -> FactorialFit:
    """How a response depends on factors and their interactions, in the unit of the response.

    `table` has a row per seed and cell (or several). The model is a formula, or a list of factors with
    `interactions` up to an order (2 by default, "all", or 1 for main effects); see `Design.of`.

    errors="seed" fits the model within every seed. The estimate of any combination of coefficients is the
    mean over seeds of that combination, its variance the variance over seeds over their number, and its
    df one less: in balanced data a contrast is exactly the mean of `seed_contrasts`. Nothing is supposed
    about what happens inside a seed. Seeds whose own rows cannot identify the model are left out and
    counted. With fewer than two left, or more than a fifth left out, the fit is refused: cells are seldom
    missing by chance (runs diverge), and the seeds that are complete need not be like the others.
    `fit_mixed` keeps their rows, but supposes other things (equal variances, and runs that are missing for
    reasons that the other runs show), so a table does not change to it by itself.

    errors="pooled" is least squares with the seed as a block, to describe: where effects vary between
    seeds its intervals are too short and its tests reject too often. errors="robust" is the same with HC3
    errors (MacKinnon and White, 1985), for variances that differ between cells, as with the width, whose
    cosines have a null sd of 1/√width. It mends no dependence within seeds.

    Do not use pooled or robust errors for a confirmatory test, and do not feed this checkpoints or
    layers as if they were runs: see `fit_mixed` for layers.

    Raises `AnalysisError` for terms that the rows cannot tell apart, which it names.

    >>> rows = [(s, w, n, w + s * (n == "yes")) for s in range(4) for w in (1, 2) for n in ("no", "yes")]
    >>> table = pd.DataFrame(rows, columns=["seed", "width", "norm", "value"])
    >>> fit = fit_factorial(table, ["width", "norm"])
    >>> fit.n_seeds, fit.residual_df, fit.design.names[2], round(float(fit.coefficients[2]), 9)
    (4, 3, 'norm[no]', -0.75)
    """
    require_choice("errors", errors, ("seed", "pooled", "robust"))
    design = Design.of(table, formula_or_factors, response=response, interactions=interactions)
    codes, seeds = seed_codes(table, design, seed)
    if errors == "seed":
        kept = _identified(design, codes, seeds)
        warnings = design.missing_note
        if len(kept) < len(seeds):
            lost = len(seeds) - len(kept)
            if lost > MOST_LEFT_OUT * len(seeds):
                raise AnalysisError(
                    f"expected at most a fifth of the seeds without rows that identify the {design.x.shape[1]} "
                    f"coefficients of {design.formula}; got {lost} of {len(seeds)}. Use the mixed model, which keeps "
                    'them (fit with method="mixed", or fit_mixed), use fewer terms, or add the runs that are missing'
                )
            warnings += (f"{lost} of {len(seeds)} seeds left out: their own rows do not identify the model",)
            # As if they had never run: covariates are centred and averaged over the other seeds alone.
            used = design.used.copy()
            used[used] = np.isin(codes, kept)
            rows = table[used]
            design = Design.of(rows, formula_or_factors, response=response, interactions=interactions)
            codes, seeds = seed_codes(rows, design, seed)
            design = replace(design, used=used)
        return _fit_within(design, codes, seeds, seed, warnings)
    return _fit_pooled(design, codes, seeds, seed, errors)


def seed_codes(table: pd.DataFrame, design: Design, seed: str) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Which seed each row of a design has, as a position among the seeds, and the seeds."""
    require_columns(table, seed)
    if seed in design.factors or seed in design.covariates:
        raise AnalysisError(
            f'expected a model without the seed; got "{design.formula}", which has {seed}. Leave it out: '
            "the seed is the block, not a factor"
        )
    used = table[seed][design.used]
    require_seed_column(used)
    codes, seeds = pd.factorize(used.array)
    return codes, tuple(pd.Series(seeds).tolist())


def repeated_measures_f(values: np.ndarray, scale: np.ndarray) -> tuple[FTest, float, float]:
    """Whether q combinations [n_seeds, q] have mean zero, one row per seed; and the two sums of squares.

    `scale` [q, q] is their covariance within a seed but for a factor, were all errors alike: it makes the
    combinations orthonormal. p has Greenhouse and Geisser's correction; see `FactorialFit.f_test`.
    """
    n, q = values.shape
    # With scale = C C', the combinations C^-1 z have unit variances and no covariances.
    z = np.linalg.solve(np.linalg.cholesky(scale), values.T).T
    centred = z - z.mean(axis=0)
    ss, ss_error = n * float(z.mean(axis=0) @ z.mean(axis=0)), float((centred**2).sum())
    if n < 2 or ss_error <= ROUNDING**2 * ss:
        nothing = float("nan")
        return FTest(nothing, q, q * (n - 1), nothing, nothing), ss, ss_error
    spread = centred.T @ centred
    epsilon = float(np.trace(spread) ** 2 / (q * (spread**2).sum()))
    statistic = ss * (n - 1) / ss_error
    p = f_p(statistic, q * epsilon, q * (n - 1) * epsilon)
    return FTest(statistic, q, q * (n - 1), p, epsilon), ss, ss_error


def _identified(design: Design, codes: np.ndarray, seeds: tuple[Any, ...]) -> list[int]:
    """The seeds, as positions, whose own rows identify every coefficient; at least two, or `AnalysisError`."""
    p = design.x.shape[1]
    scaled = design.x / np.linalg.norm(design.x, axis=0)
    kept = [
        position for position in range(len(seeds)) if np.linalg.matrix_rank(scaled[codes == position], tol=1e-7) == p
    ]
    if len(kept) < 2:
        raise AnalysisError(
            f"expected at least two seeds whose own rows identify the {p} coefficients of {design.formula}; got "
            f"{len(kept)} of {len(seeds)}. Use fewer terms, add the runs that are missing, or describe with "
            'errors="pooled"'
        )
    return kept


def _fit_within(
    design: Design, codes: np.ndarray, seeds: tuple[Any, ...], seed: str, warnings: tuple[str, ...]
) -> FactorialFit:
    n, p = len(seeds), design.x.shape[1]
    coefficients, inverses = [], []
    for position in range(n):
        q, r = np.linalg.qr(design.x[codes == position])
        coefficients.append(np.linalg.solve(r, q.T @ design.centred[codes == position]))
        inverse = np.linalg.inv(r)
        inverses.append(inverse @ inverse.T)
    per_seed = np.array(coefficients)
    covariance = np.cov(per_seed, rowvar=False).reshape(p, p) / n
    if not (np.sqrt(np.diag(covariance)) > design.rounding_of(np.eye(p))).any():
        warnings += ("all seeds agree exactly: no variance to build an interval on",)
    return FactorialFit(
        design=design,
        coefficients=design.uncentred(per_seed.mean(axis=0)),
        covariance=covariance,
        n_seeds=n,
        method=f"least squares within each {seed}, mean over {n} seeds, t({n - 1})",
        residual_df=n - 1,
        warnings=warnings,
        errors="seed",
        seeds=seeds,
        per_seed=design.uncentred(per_seed),
        seed_of_row=codes,
        x_inverse=np.mean(inverses, axis=0),
        ss_error=float("nan"),
    )


def _fit_pooled(
    design: Design, codes: np.ndarray, seeds: tuple[Any, ...], seed: str, errors: Literal["pooled", "robust"]
) -> FactorialFit:
    n, p = design.x.shape
    blocks = _seed_columns(codes, len(seeds))
    # The block goes first, so that a factor which never varies within a seed is named, and not the seed.
    moved = {"Intercept": (0,), seed: tuple(range(1, len(seeds)))}
    moved |= {
        term: tuple(column + len(seeds) - 1 for column in columns)
        for term, columns in design.terms.items()
        if term != "Intercept"
    }
    require_rank(np.hstack([design.x[:, :1], blocks, design.x[:, 1:]]), moved)
    full = np.hstack([design.x, blocks])
    df = n - full.shape[1]
    if df < 1:
        raise AnalysisError(
            f"expected more rows than the {full.shape[1]} coefficients of {design.formula} and {len(seeds)} seeds; "
            f"got {n}. Use fewer terms, or more seeds"
        )
    q, r = np.linalg.qr(full)
    solution = np.linalg.solve(r, q.T @ design.centred)
    inverse = np.linalg.inv(r)
    bread = inverse @ inverse.T
    residuals = design.centred - full @ solution
    ss_error = float(residuals @ residuals)
    covariance = bread * ss_error / df
    method = f"least squares over {n:,} rows, {seed} as a block of {len(seeds)}"
    if errors == "robust":
        leverage = (q**2).sum(axis=1)
        if (leverage > 1 - 1e-8).any():
            raise AnalysisError(
                f"expected every row to have others beside it for HC3 errors; got {int((leverage > 1 - 1e-8).sum())} "
                'rows that the model fits exactly. Use fewer terms, or errors="seed"'
            )
        scaled = full * (residuals / (1 - leverage))[:, None]
        covariance = bread @ (scaled.T @ scaled) @ bread
        method += ", HC3 errors"
    warnings = [*design.missing_note, "rows of one seed are taken as independent: describes, does not confirm"]
    return FactorialFit(
        design=design,
        coefficients=design.uncentred(solution[:p]),
        covariance=covariance[:p, :p],
        n_seeds=len(seeds),
        method=f"{method} (descriptive)",
        residual_df=df,
        warnings=tuple(warnings),
        errors=errors,
        seeds=seeds,
        per_seed=None,
        seed_of_row=codes,
        x_inverse=bread[:p, :p],
        ss_error=ss_error,
    )


def _seed_columns(codes: np.ndarray, n_seeds: int) -> np.ndarray:
    """Seeds as deviations from their mean, [n, n_seeds - 1]: the intercept is then that of the mean seed."""
    return np.vstack([np.eye(n_seeds - 1), -np.ones((1, n_seeds - 1))])[codes]


def _share(ss: float, rest: float, rounding: float) -> float:
    return ss / (ss + rest) if ss + rest > rounding else float("nan")
