"""The Beta model of a share in (0, 1), with the seed as the unit of replication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special
from statsmodels.othermod.betareg import BetaModel

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.levels import cell_column, level_column


@shown()
@dataclass(frozen=True)
class BetaContrast:
    """The effect of a factor on the log odds of a share, in a Beta model with an intercept for every seed.

    `pseudo_values` are the jackknife's, one per seed: n times the estimate minus (n - 1) times the one
    without that seed. Their sd, over the root of n, is the standard error, and n - 1 are its df.
    """

    factor: str
    levels: tuple[str, str]
    response: str
    estimate: float
    interval: tuple[float, float]
    p: float
    df: int
    n_seeds: int
    pseudo_values: pd.Series
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(
            self, "factor", "levels", "response", "estimate", "interval", "p", "df", "n_seeds", "method", "warnings"
        )


def beta_contrast(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    within: Sequence[str] = (),
    response: str = "value",
    seed: str = "seed",
    level: float = 0.95,
) -> BetaContrast:
    """How a factor moves the mean of a share in (0, 1), such as (cosine + 1) / 2, in log odds.

    `table` is as for `seed_contrasts`. The mean's log odds are seed + cell + factor where cells have
    counterparts (pairs with a missing value left out), and seed + main effects in a fraction; the
    precision is one number (Ferrari and Cribari-Neto 2004). The likelihood takes runs as independent
    given their seed, which they are not, so its standard errors are not used: the error comes from
    leaving out one whole seed at a time, with a t interval and p.

    Raises `AnalysisError` for shares of 0 or 1, where the likelihood is infinite, with fewer than three
    seeds, and where the fit fails.
    """
    per_seed = seed_contrasts(table, factor=factor, levels=levels, response=response, seed=seed, within=within)
    seeds = list(per_seed.differences.index)
    rows = _compared(table, factor, per_seed.levels, within, response, seed)
    rows = rows[rows["_seed"].isin(seeds)]
    share = rows["_value"].to_numpy()
    outside = int(((share <= 0) | (share >= 1)).sum())
    if outside:
        raise AnalysisError(
            f'expected "{response}" strictly between 0 and 1; got {outside} of {len(share)} values outside or at a '
            "bound. Analyse another scale, or move cosines off ±1 by a limit declared beforehand"
        )
    n = len(seeds)
    if n < 3:
        raise AnalysisError(f"expected three seeds or more, to leave one out at a time; got {n}. Add seeds")
    # The factor's own column first, then the seeds' intercepts, then what else the rows hold constant.
    effect = (rows["_at"] == per_seed.levels[1]).to_numpy(float)[:, None]
    intercepts = pd.get_dummies(rows["_seed"]).reindex(columns=seeds).to_numpy(float)
    others = [pd.get_dummies(rows[name], drop_first=True).to_numpy(float) for name in rows.filter(regex="^_other")]
    design = np.hstack([effect, intercepts, *others])
    estimate = float(_fit(share, design)[0])
    without = []
    for name in seeds:
        keep = (rows["_seed"] != name).to_numpy()
        # Gone with the seed are its own intercept and cells that no other has.
        still = design[keep].any(axis=0)
        without.append(_fit(share[keep], design[keep][:, still])[0])
    pseudo_values = pd.Series(n * estimate - (n - 1) * np.array(without), index=per_seed.differences.index)
    jackknife = paired_test(pseudo_values, level=level)
    half = (jackknife.interval[1] - jackknife.interval[0]) / 2
    # The estimate is the model's own; the jackknife gives its error.
    p = float(2 * special.stdtr(n - 1, -abs(estimate) / (jackknife.sd / np.sqrt(n)))) if jackknife.sd > 0 else np.nan
    return BetaContrast(
        factor=factor,
        levels=per_seed.levels,
        response=response,
        estimate=estimate,
        interval=(estimate - half, estimate + half),
        p=p,
        df=n - 1,
        n_seeds=n,
        pseudo_values=pseudo_values,
        method=f"Beta model of {len(share):,} runs with seed intercepts; jackknife over {n} seeds",
        warnings=per_seed.warnings,
    )


def _compared(
    table: pd.DataFrame, factor: str, levels: tuple[str, str], within: Sequence[str], response: str, seed: str
) -> pd.DataFrame:
    """The rows that the contrast compares, with what it holds constant in the columns `_other…`."""
    names = [name for name in within if name != factor]
    rows = pd.DataFrame({name: level_column(table[name]).map(str) for name in names}, index=table.index)
    rows = rows.assign(_at=level_column(table[factor]), _seed=table[seed], _value=table[response].astype(float))
    rows = rows.assign(_cell=cell_column(table, names))
    rows = rows[rows["_at"].isin(levels)].dropna(subset=["_value", "_seed"])
    matched = rows.groupby(["_seed", "_cell"])["_at"].transform("size") == 2
    if matched.any():
        return rows.rename(columns={"_cell": "_other"})[matched]
    return rows.rename(columns={name: f"_other {name}" for name in names})


def _fit(share: np.ndarray, design: np.ndarray) -> np.ndarray:
    """The coefficients of maximum likelihood, by statsmodels.

    From least squares on the log odds, a trust region finds the maximum, and Newton's method takes it to the
    last digits. Each alone fails: the first where shares hardly vary, the second where they vary widely.
    """
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise AnalysisError(
            "the Beta model cannot tell the factor, the seeds and the other factors apart in these runs. "
            "Compare levels over cells that differ in the factor alone"
        )
    odds = special.logit(share)
    coefficients = np.linalg.lstsq(design, odds, rcond=None)[0]
    mean = special.expit(design @ coefficients)
    spread = np.mean(mean * (1 - mean) * (odds - design @ coefficients) ** 2)
    if spread > np.exp(-30):  # below, shares vary by rounding alone
        model, start = BetaModel(share, design), np.append(coefficients, -np.log(spread))
        options: dict[str, Any] = {"disp": False, "skip_hessian": True, "warn_convergence": False}
        try:
            with np.errstate(all="ignore"):
                near = model.fit(start, method="minimize", min_method="trust-exact", **options).params
                fit = model.fit(near, method="newton", maxiter=100, tol=1e-6, **options)
        except (ValueError, np.linalg.LinAlgError):  # not finite, or singular
            pass
        else:
            if fit.mle_retvals["converged"] and np.isfinite(fit.params).all():
                return np.asarray(fit.params[:-1])  # the last is the log of the precision
    raise AnalysisError("the Beta model did not converge. Look at the spread of the shares, or use another scale")
