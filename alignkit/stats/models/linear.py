"""What every fit of a model's fixed effects has in common: coefficients with their covariance, and joint tests.

How the covariance and its degrees of freedom come about is the fit's own business, so marginal means and contrasts
work alike on a fit within seeds, a pooled one and a mixed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.display import shown
from alignkit.stats.models.design import Design
from alignkit.stats.tables.checks import require_level, require_number
from alignkit.text import count


@dataclass(frozen=True)
class FTest:
    """A joint test that combinations of coefficients are all 0: F on `df` and `df_error` degrees of freedom.

    p has both multiplied by `epsilon`, a correction for components of unequal variance; 1 is none.
    """

    statistic: float
    df: float
    df_error: float
    p: float
    epsilon: float = 1.0


def fit_words(fit: LinearFit) -> str:
    """A fit in a line: its model and what that rests on."""
    sizes = [count(len(fit.coefficients), "coefficient"), count(fit.n_seeds, "seed")]
    warned = [count(len(fit.warnings), "warning")] if fit.warnings else []
    return f"{fit.design.response} ~ {fit.design.formula}: {', '.join([*sizes, *warned])}"


@shown(words=fit_words, table="anova")
@dataclass(frozen=True, eq=False, kw_only=True)
class LinearFit:
    """Coefficients [p] of a design and their covariance [p, p], in the unit of the response.

    `residual_df` are the degrees of freedom of every linear combination, unless a fit overrides `df`
    (Satterthwaite) and `f_test` (a joint test of several).
    """

    design: Design
    coefficients: np.ndarray
    covariance: np.ndarray
    n_seeds: int
    method: str
    residual_df: float = float("nan")
    warnings: tuple[str, ...] = ()

    def df(self, weights: np.ndarray) -> float:
        """Degrees of freedom of the combination `weights` [p] of the coefficients."""
        return self.residual_df

    def standard_errors(self, weights: np.ndarray) -> np.ndarray:
        """Standard errors [m] of combinations [m, p]; 0 where there is nothing but rounding."""
        errors = np.sqrt(np.maximum(((weights @ self.covariance) * weights).sum(axis=1), 0.0))
        return np.where(errors > self.design.rounding_of(weights), errors, 0.0)

    def f_test(self, weights: np.ndarray) -> FTest:
        """Whether all rows of `weights` [q, p], none implied by the others, have a combination of 0: Wald's F."""
        weights = np.atleast_2d(weights)
        values = weights @ self.coefficients
        statistic = float("nan")
        if (self.standard_errors(weights) > 0).all():
            statistic = float(values @ np.linalg.solve(weights @ self.covariance @ weights.T, values)) / len(weights)
        return FTest(statistic, len(weights), self.residual_df, f_p(statistic, len(weights), self.residual_df))

    def anova(self) -> pd.DataFrame:
        """One row per term but the intercept: F, df, df_error and p, each term given all the others (type III)."""
        rows = []
        for term, columns in self.design.terms.items():
            if term != "Intercept":
                test = self.f_test(np.eye(len(self.coefficients))[list(columns)])
                rows.append((term, test.df, test.df_error, test.statistic, test.p))
        return pd.DataFrame(rows, columns=["term", "df", "df_error", "F", "p"])

    def to_frame(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row per coefficient: estimate, standard error, t interval, t, df and p."""
        frame = pd.DataFrame({"coefficient": self.design.names, "estimate": self.coefficients})
        each = np.eye(len(self.coefficients))
        df = np.array([self.df(row) for row in each])
        return frame.assign(**t_columns(self.coefficients, self.standard_errors(each), df, level=level))


def t_columns(
    estimate: np.ndarray, se: np.ndarray, df: np.ndarray, *, null: float | None = 0.0, level: float = 0.95
) -> dict[str, np.ndarray]:
    """The t statistic of estimates against `null`, with interval and p; NaN where there is none, or no error."""
    if null is not None:
        require_number("null", null)
    require_level(level)
    usable = (se > 0) & (df > 0)
    safe_se, safe_df = np.where(usable, se, np.nan), np.where(usable, df, np.nan)
    t = (estimate - (np.nan if null is None else null)) / safe_se
    half = stats.t.ppf((1 + level) / 2, safe_df) * safe_se
    return {
        "se": se,
        "low": estimate - half,
        "high": estimate + half,
        "t": t,
        "df": df,
        "p": 2 * stats.t.sf(np.abs(t), safe_df),
    }


def f_p(statistic: float, df: float, df_error: float) -> float:
    """The upper tail of F; NaN without degrees of freedom."""
    return float(stats.f.sf(statistic, df, df_error)) if df > 0 and df_error > 0 else float("nan")
