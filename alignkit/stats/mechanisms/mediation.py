"""Whether the effect of a practice on an outcome goes through a mediator: an association, with what it supposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.paired import require_seeds, sign_flip_p
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.mechanisms.association import (
    Association,
    Effect,
    WithinRuns,
    both_or_neither,
    effect_frame,
    jackknife,
    t_effect,
    within_association,
)
from alignkit.stats.tables.levels import level_column

NAN = float("nan")
POINTS = 2000  # at which the law of one factor of a product is taken
ASSUMPTION = (
    "alignment was not randomised: the indirect effect supposes that, at the same factor levels and seed, nothing "
    "else moves both mediator and outcome from run to run, and that a practice changes the outcome by other ways "
    "only through its direct effect"
)


@shown()
@dataclass(frozen=True)
class Mediation:
    """The effect of a factor on an outcome, and how much of it is associated with a mediator.

    `estimate`, `interval` and `p` are those of the indirect effect. `effects` holds by name: "total", "direct",
    "indirect", "factor on mediator" (a), "mediator on outcome" (b), "interaction" (how b differs between the
    levels), and "indirect at ..." with the b of either level alone. `proportion` is indirect / total with its Fieller
    interval, NaN unless the total is clearly not zero.

    `rho` is the sensitivity parameter of Imai, Keele and Yamamoto (2010): the correlation between what is left of
    mediator and outcome that an unmeasured common cause would need to bring about for the indirect effect to be
    zero. Near 0, little confounding would do: a cause that explains the share |rho| of what is left of both.
    """

    factor: str
    levels: tuple[str, str]
    mediator: str
    outcome: str
    estimate: float
    interval: tuple[float, float]
    p: float
    df: int
    n_seeds: int
    n_runs: int
    effects: dict[str, Effect]
    proportion: float
    proportion_interval: tuple[float, float]
    association: Association
    assumption: str
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def rho(self) -> float:
        """The residual correlation through confounding at which the indirect effect vanishes."""
        return self.association.correlation.estimate

    def indirect_at(self, rho: float) -> float:
        """The indirect effect if confounding alone correlated the residuals of mediator and outcome by `rho`.

        Imai, Keele and Yamamoto (2010), for linear models: a (s_Y / s_M) (r - rho sqrt((1 - r^2) / (1 - rho^2))),
        with r the observed correlation and s the residual standard deviations, the outcome's without the mediator.
        """
        if not -1 < rho < 1:
            raise AnalysisError(f"expected a correlation between -1 and 1; got {rho}")
        mediator, outcome = self.association.sds
        kept = self.rho - rho * np.sqrt((1 - self.rho**2) / (1 - rho**2))
        return float(self.effects["factor on mediator"].estimate * outcome / mediator * kept)

    def to_frame(self) -> pd.DataFrame:
        """One row per effect."""
        rows = [*self.effects.values(), Effect("proportion mediated", self.proportion, self.proportion_interval, NAN)]
        frame = effect_frame([*rows, self.association.correlation], self.df, self.n_seeds, self.method, self.warnings)
        frame.insert(0, "factor", self.factor)
        frame.insert(1, "level_from", self.levels[0])
        frame.insert(2, "level_to", self.levels[1])
        return frame


def mediation(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    mediator: str,
    outcome: str,
    seed: str = "seed",
    within: Sequence[str] = (),
    level: float = 0.95,
) -> Mediation:
    """How much of a factor's effect on `outcome` goes along with its effect on `mediator`.

    `table` has one row per seed and cell, cells being the levels of `factor` by those of the other factors,
    `within`. The total effect c and the effect a on the mediator are means of per-seed contrasts
    (`seed_contrasts`). The slope b of the outcome on the mediator comes from what is left of both after an
    intercept for every seed and every cell: from runs that differ by chance alone, not by design. Then

        indirect = a b        direct = c - a b        total = c

    which are the estimates of linear least squares with seed and cell intercepts. Variances are jackknifed over
    whole seeds; intervals are t intervals with n_seeds - 1 df, and for the indirect effects quantiles of the product
    of two independent t variables. Simulated with effects that vary between seeds, at 6, 10 and 20 seeds, that law
    covered the indirect effect at 95 to 100%, a t interval for the product at 92 to 100%, and the percentile and BCa
    bootstraps of whole seeds at 84 to 99%. The p of total and a is that of the exact sign-flip test.

    A run without mediator or outcome is left out of both, and counted. Noise in the mediator draws b towards 0,
    and with it the indirect effect.

    Raises `AnalysisError` for fewer than six seeds, or a mediator that varies with seed and cell alone.

    Do not call the indirect effect causal: the factor was randomised, the mediator was not (`assumption`). See
    `rho` and `indirect_at` for how much confounding it would stand; only an intervention on the mediator answers.
    """
    within = [name for name in within if name != factor]
    complete, _ = both_or_neither(table, mediator, outcome)
    on = {
        name: seed_contrasts(complete, factor=factor, levels=levels, response=name, seed=seed, within=within)
        for name in (mediator, outcome)
    }
    low, high = on[outcome].levels
    seeds = list(on[outcome].differences.index)
    require_seeds(len(seeds))
    at = level_column(complete[factor])
    rows = complete[at.isin([low, high]) & complete[seed].isin(seeds)]
    association = within_association(
        rows, mediator=mediator, outcome=outcome, seed=seed, within=[factor, *within], level=level
    )
    runs = WithinRuns.of(rows, mediator, outcome, seed, [factor, *within])
    is_high = (at[runs.index] == high).to_numpy()
    a_by_seed, c_by_seed = (on[name].differences.to_numpy(float) for name in (mediator, outcome))

    def paths(kept: np.ndarray) -> np.ndarray:
        a, c = a_by_seed[kept].mean(), c_by_seed[kept].mean()
        among = np.isin(runs.seeds, np.array(seeds)[kept])
        b = runs.slopes(among, np.ones((1, len(is_high))))[0]
        b_low, b_high = runs.slopes(among, np.stack([~is_high, is_high]).astype(float))
        return np.array([c, c - a * b, a * b, a, b, b_high - b_low, b_low, b_high])

    estimates, covariance = jackknife(paths, len(seeds))
    sd = np.sqrt(np.diag(covariance))
    df = len(seeds) - 1
    quantile = float(stats.t.ppf(0.5 + level / 2, df))
    names = ("total", "direct", "", "factor on mediator", "mediator on outcome", "interaction")
    effects = {
        name: t_effect(name, estimates[index], sd[index], df, quantile) for index, name in enumerate(names) if name
    }
    for name, differences in (("total", c_by_seed), ("factor on mediator", a_by_seed)):
        effects[name] = replace(effects[name], p=sign_flip_p(differences))
    for name, index in (("indirect", 4), (f"indirect at {low}", 6), (f"indirect at {high}", 7)):
        effects[name] = _product_effect(name, (estimates[3], sd[3]), (estimates[index], sd[index]), df, level)
    proportion, bounds = _fieller(estimates[2], estimates[0], covariance[np.ix_([2, 0], [2, 0])], quantile)
    notes = _notes(proportion, slopes_differ=effects["interaction"].p < 1 - level)
    indirect = effects["indirect"]
    return Mediation(
        factor=factor,
        levels=(low, high),
        mediator=mediator,
        outcome=outcome,
        estimate=indirect.estimate,
        interval=indirect.interval,
        p=indirect.p,
        df=df,
        n_seeds=len(seeds),
        n_runs=association.n_runs,
        effects=effects,
        proportion=proportion,
        proportion_interval=bounds,
        association=association,
        assumption=ASSUMPTION,
        method=f"{on[outcome].method}; seed and cell intercepts; jackknife over seeds, product of two t laws",
        warnings=(*association.warnings, *on[outcome].warnings, *notes),
    )


def _notes(proportion: float, *, slopes_differ: bool) -> list[str]:
    notes = []
    if np.isnan(proportion):
        notes.append("no proportion mediated: the total effect is not clearly different from zero")
    elif not 0 <= proportion <= 1:
        notes.append("direct and indirect effect have opposite signs: the proportion is no share")
    if slopes_differ:
        notes.append("the slope of the mediator differs between the levels: read the indirect effects at each")
    return notes


def _product_effect(
    name: str, first: tuple[float, float], second: tuple[float, float], df: int, level: float
) -> Effect:
    """The product of two estimates (value, sd) whose errors are independent t variables."""
    (a, sd_a), (b, sd_b) = first, second
    if not (sd_a > 0 and sd_b > 0):
        return Effect(name, float(a * b), (NAN, NAN), NAN)
    # Midpoints of equal probability, of which none is exactly at zero.
    draws = a + sd_a * stats.t.ppf((np.arange(POINTS) + 0.5) / POINTS, df)

    def below(value: float) -> float:
        return float(np.mean(special.stdtr(df, np.sign(draws) * (value / draws - b) / sd_b)))

    tail = (1 - level) / 2
    # Either factor lies further out than this with a chance of tail / 4, so both ends of the interval do not.
    far = float(stats.t.ppf(1 - tail / 8, df))
    reach = (abs(a) + far * sd_a) * (abs(b) + far * sd_b)
    low, high = (
        optimize.brentq(lambda value, share: below(value) - share, -reach, reach, args=(share,), xtol=1e-10 * reach)
        for share in (tail, 1 - tail)
    )
    side = below(0.0)
    return Effect(name, float(a * b), (float(low), float(high)), float(2 * min(side, 1 - side)))


def _fieller(over: float, under: float, covariance: np.ndarray, quantile: float) -> tuple[float, tuple[float, float]]:
    """A ratio and its Fieller interval; NaN unless what is below the line is clearly not zero."""
    square = under**2 - quantile**2 * covariance[1, 1]
    if not (square > 0 and covariance[1, 1] > 0):
        return NAN, (NAN, NAN)
    middle = over * under - quantile**2 * covariance[0, 1]
    rest = over**2 - quantile**2 * covariance[0, 0]
    spread = np.sqrt(max(middle**2 - square * rest, 0.0))
    return float(over / under), (float((middle - spread) / square), float((middle + spread) / square))
