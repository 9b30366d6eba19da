"""What might be wrong with a factorial fit: unequal variances, seeds that carry it, terms that nearly coincide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.display import shown


@shown()
@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What might be wrong with a factorial fit.

    breusch_pagan, breusch_pagan_df, breusch_pagan_p : Koenker's (1981) form of the test that the residual
        variance does not follow the model's terms, seeds taken out as blocks. It takes rows as independent.
    condition_number : of the model matrix with columns of unit length; beyond 30, terms are nearly collinear.
    influence : one row per seed and coefficient: the estimate `without` the seed, its `change`, and the
        change in standard errors.
    """

    breusch_pagan: float
    breusch_pagan_df: int
    breusch_pagan_p: float
    condition_number: float
    influence: pd.DataFrame
    n_seeds: int

    def to_frame(self) -> pd.DataFrame:
        """One row per diagnostic: its value, and p where it is a test."""
        largest = self.influence["change_in_se"].abs().max()
        rows = [
            ("Breusch-Pagan", self.breusch_pagan, self.breusch_pagan_p),
            ("condition number", self.condition_number, float("nan")),
            ("largest change without one seed (standard errors)", float(largest), float("nan")),
        ]
        return pd.DataFrame(rows, columns=["diagnostic", "value", "p"])


def breusch_pagan(x: np.ndarray, residuals: np.ndarray) -> tuple[float, int, float]:
    """Whether squared residuals [n] follow the columns of x [n, p], the intercept among them: LM, df and p.

    Koenker's (1981) form, n times the R2 of that regression, which does not suppose normal errors. NaN
    where all squares are equal.
    """
    squares = residuals**2
    total = float(((squares - squares.mean()) ** 2).sum())
    fitted = x @ np.linalg.lstsq(x, squares, rcond=None)[0]
    lm = len(squares) * (1 - float(((squares - fitted) ** 2).sum()) / total) if total > 0 else float("nan")
    df = x.shape[1] - 1
    return lm, df, float(stats.chi2.sf(lm, df))
