"""Whether a response bends at a threshold of an ordered factor, such as the width of a bottleneck, and where.

Each seed gives one vector, its response at every level, and enters whole: with its own line, with all its
residuals flipped together, or left out. Nothing is supposed of how a seed's values at several levels correlate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from scipy import special

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import EXACT_UP_TO, sign_patterns
from alignkit.stats.contrasts.paired import paired_test, require_seeds
from alignkit.stats.tables.checks import (
    float_column,
    require_columns,
    require_count,
    require_level,
    require_seed_column,
)
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.levels import cell_column, level_column, level_order, level_text, numeric_levels

NAN = float("nan")


@dataclass(frozen=True)
class HeldOut:
    """How well a curve, fitted to the other seeds, predicts a seed that it has not seen.

    `rmse` is in the unit of the response, of each seed's values about their mean. `improvement` is what the
    segmented line takes off the mean squared error, with its t interval and sign-flip p over seeds.
    """

    model: str
    rmse: float
    improvement: float
    interval: tuple[float, float]
    p: float


@shown()
@dataclass(frozen=True)
class Threshold:
    """Where a response bends along an ordered factor, and whether it bends at all.

    `estimate` is the level of the bend and `interval` the hull of all bends that the seeds do not reject; both
    are in the unit of the factor. `slopes` are those below and above it, per doubling (per unit where the factor
    is not logged). `p` is that of the sup-F test against a straight line; it says nothing for a threshold
    rather than a smooth curve, which `verdict` rests on `held_out` for.
    """

    factor: str
    response: str
    verdict: Literal["threshold", "smooth curve", "line"]
    reason: str
    estimate: float
    interval: tuple[float, float]
    slopes: tuple[float, float]
    sup_f: float
    p: float
    df: tuple[int, int]
    n_seeds: int
    n_cells: int
    levels: tuple[float, ...]
    means: tuple[float, ...]
    held_out: tuple[HeldOut, ...]
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        errors = {f"rmse_{model.model}": model.rmse for model in self.held_out}
        return one_row(
            self, "factor", "response", "verdict", "reason", "estimate", "interval", "slope_below", "slope_above",
            "sup_f", "p", "n_seeds", "n_cells", *errors, "method", "warnings", slope_below=self.slopes[0],
            slope_above=self.slopes[1], **errors,
        )  # fmt: skip


def threshold(
    table: pd.DataFrame,
    *,
    factor: str,
    response: str = "value",
    seed: str = "seed",
    within: Sequence[str] = (),
    log2: bool = True,
    level: float = 0.95,
    per_gap: int = 8,
    draw_seed: int = 0,
) -> Threshold:
    """Whether `response` has a threshold along a numeric factor, or follows a line or a smooth curve.

    The segmented model is a line in x = log2(factor) whose slope changes by b at k: a_s + c_s x + b max(x - k, 0),
    with intercept and slope of each seed s. `table` has one row per seed and cell; cells are the levels of
    `factor` by those of the other factors, `within`, over which each seed is averaged.

    **Against a line** (b = 0): the largest F over k from the second to the second last level. Its usual p is
    invalid, since k means nothing under the null (Davies 1987). Here the null law is that of the residual vectors
    of the seeds under random signs, each vector whole: exact if a seed's residuals are as likely to have all their
    signs turned, whatever their variances and correlations.

    **Where**: all k0 at which the same test, of a further bend beside the one at k0, does not reject: as exact
    as the test. It may be all levels (there is no bend to place) or none (no single bend fits). A bend outside
    the second and second last level cannot be told from one there: the interval then ends with the levels.

    **Threshold or smooth**: rejecting a line is no threshold. The verdict is "threshold" only if, besides, the
    segmented line predicts held-out seeds better than each of a line, a quadratic in x, a saturating curve
    a + b 2^(-c x) and a sigmoid, at 1 - `level` by the sign-flip test over seeds. The last two are smooth in that
    they take two gaps between levels or more to go from 10% to 90%: what is sharper, these levels cannot tell from
    a bend. It is "smooth curve" if a line is rejected and that is not so, and "line" if no bend is shown, which is
    no proof of a line.

    Raises `AnalysisError` for fewer than four levels or six seeds. Do not use it to look for thresholds in many
    factors or responses without adjusting `p`; nor with levels so far apart that a smooth bend fits between two.
    """
    seeds, levels, n_cells, warnings = _seed_vectors(table, factor, response, seed, within)
    if log2 and min(levels) <= 0:
        raise AnalysisError(
            f'factor "{factor}": expected levels above 0 for log2; got {min(levels):g}. Use log2=False, or leave it out'
        )
    require_level(level)
    require_count("per_gap", per_gap)
    alpha = round(1 - level, 12)
    require_seeds(len(seeds), alpha=alpha)
    x = np.log2(levels) if log2 else np.asarray(levels)
    y = seeds - seeds.mean(axis=1, keepdims=True)
    knots = np.interp(np.arange(per_gap * (len(x) - 3) + 1) / per_gap, np.arange(len(x) - 2), x[1:-1])
    hinges = np.maximum(x[None, :] - knots[:, None], 0.0)
    line = np.stack([np.ones_like(x), x])
    signs = sign_patterns(len(y), seed=draw_seed)

    p, statistic, best = _bend_test(y, line, hinges, signs)
    bent = np.array([_bend_test(y, np.vstack([line, hinge]), hinges, signs)[0] for hinge in hinges])
    interval = _hull(x, knots, bent > alpha)
    slopes = np.linalg.lstsq(np.vstack([line, hinges[best]]).T, y.mean(axis=0), rcond=None)[0][1:]
    # Every seed its own line, one bend for all: the residual degrees of freedom of the F statistic.
    residual = float(((y - _projected(y, line)) ** 2).sum())
    df = (1, len(y) * (len(x) - 2) - 1)
    explained = statistic / len(y)
    sup_f = explained / ((residual - explained) / df[1]) if residual > explained else float("inf")
    held_out = _held_out(y, _models(tuple(x), tuple(knots)))
    verdict, reason = _judge(p, alpha, held_out, bool(np.isnan(interval[0])))
    unit = (lambda value: float(2.0**value)) if log2 else float
    patterns = f"{len(signs):,} sign patterns of whole seeds" + ("" if len(y) <= EXACT_UP_TO else ", drawn")
    return Threshold(
        factor=factor,
        response=response,
        verdict=verdict,
        reason=reason,
        estimate=unit(knots[best]),
        interval=(unit(interval[0]), unit(interval[1])),
        slopes=(float(slopes[0]), float(slopes.sum())),
        sup_f=float(sup_f),
        p=p,
        df=df,
        n_seeds=len(y),
        n_cells=n_cells,
        levels=tuple(float(value) for value in levels),
        means=tuple(float(value) for value in seeds.mean(axis=0)),
        held_out=held_out,
        method=f"sup-F over {len(knots)} bends on {'log2 ' if log2 else ''}{factor}, {patterns}; leave-one-seed-out",
        warnings=tuple(warnings),
    )


def _seed_vectors(
    table: pd.DataFrame, factor: str, response: str, seed: str, within: Sequence[str]
) -> tuple[np.ndarray, list[float], int, list[str]]:
    """The response by seed and level [seeds, levels], averaged over the cells that a seed has at every level."""
    within = [name for name in within if name != factor]
    require_columns(table, factor, response, seed, *within)
    texts = level_order(table[factor])
    numbers = numeric_levels(texts)
    if numbers is None or len(numbers) < 4:
        raise AnalysisError(
            f'factor "{factor}": expected four numeric levels or more; got {", ".join(texts) or "none"}. '
            "Add levels, or compare two of them by a contrast"
        )
    require_seed_column(table[seed])
    rows = table[table[factor].map(level_text).notna()]
    frame = pd.DataFrame(
        {
            "seed": rows[seed],
            "cell": cell_column(rows, within),
            "at": level_column(rows[factor]),
            "value": float_column(rows[response], response),
        }
    )
    if frame.duplicated(["seed", "cell", "at"]).any():
        raise AnalysisError(
            f"expected one row per {seed}, {factor} and cell; got several. Name every factor that varies in `within`"
        )
    wide = frame.pivot(index=["seed", "cell"], columns="at", values="value")[texts]
    # A cell that the design has at some levels only (a fraction) is no curve; a run without a value breaks one.
    planned = wide.notna().groupby(level="cell").any().all(axis=1)
    if not planned.any():
        raise AnalysisError(
            f'factor "{factor}": expected cells that occur at each of its {len(texts)} levels; got none. '
            "Give a curve over the factor, with the other factors fixed or crossed with it"
        )
    aside = int((~planned).sum())
    warnings = [f"{aside} of {len(planned)} cells left aside: not at every level of {factor}"] if aside else []
    wide = wide[planned.reindex(wide.index.get_level_values("cell")).to_numpy()]
    whole = wide.dropna()
    if len(whole) < len(wide):
        warnings.append(
            f"{len(wide) - len(whole)} of {len(wide)} curves left out: a value is missing at one level or more"
        )
    return whole.groupby(level="seed").mean().to_numpy(float), numbers, int(planned.sum()), warnings


def _projected(y: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Each row of y, projected on the rows of `span`."""
    basis = np.linalg.qr(span.T)[0]
    return np.asarray(y @ basis @ basis.T)


def _bend_test(y: np.ndarray, null: np.ndarray, hinges: np.ndarray, signs: np.ndarray) -> tuple[float, float, int]:
    """The p of a bend beyond the null model, its statistic, and which hinge has it.

    The statistic is max over k of (h_k' sum_s y_s)^2, with h_k the hinge less its projection on the null model, of
    unit length. Sign flips leave the seeds' total residual sum of squares as it is, so that F is monotone in it.
    """
    residual = y - _projected(y, null)
    directions = hinges - _projected(hinges, null)
    length = np.linalg.norm(directions, axis=1)
    usable = length > 1e-6 * np.linalg.norm(hinges, axis=1)
    # Nothing is left to test where the null model is saturated, or fits all seeds but for rounding.
    if not usable.any() or (residual**2).sum() <= 1e-20 * (y**2).sum():
        return 1.0, 0.0, 0
    directions = np.where(usable[:, None], directions, 0.0) / np.where(usable, length, 1.0)[:, None]
    scores = (signs @ (residual @ directions.T)) ** 2
    largest = scores.max(axis=1)
    # Patterns that differ by rounding alone are ties, and ties count against rejection.
    p = float(np.mean(largest >= largest[0] - 1e-10 * (residual**2).sum()))
    return p, float(largest[0]), int(scores[0].argmax())


def _hull(x: np.ndarray, knots: np.ndarray, accepted: np.ndarray) -> tuple[float, float]:
    """From the last rejected knot before the accepted ones to the first after, or the end of the levels."""
    inside = np.flatnonzero(accepted)
    if not len(inside):
        return NAN, NAN
    low = x[0] if inside[0] == 0 else knots[inside[0] - 1]
    high = x[-1] if inside[-1] == len(knots) - 1 else knots[inside[-1] + 1]
    return float(low), float(high)


@lru_cache(maxsize=8)
def _models(levels: tuple[float, ...], knots: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Each curve as projections about the mean [choice, level, level]: the choice that fits best is the fit."""
    x = np.array(levels)
    hinges = np.maximum(x[None, :] - np.array(knots)[:, None], 0.0)
    from_first, gap = x - x[0], np.diff(x).mean()
    # From nearly straight to two gaps between levels from 10% to 90%; a sharper change is no smooth curve here.
    steepness = np.geomspace(0.1, np.log(9), 12) / gap
    decays = np.geomspace(0.02, np.log2(9) / 2, 40) / gap
    middles = np.linspace(x[0], x[-1], 4 * len(x) - 3)
    choices = {
        "line": [x[None]],
        "quadratic": [np.stack([x, x**2])],
        "saturating": [2.0 ** -(decay * from_first)[None] for decay in decays],
        "sigmoid": [special.expit(slope * (x - middle))[None] for slope in steepness for middle in middles],
        "segmented": [np.stack([x, hinge]) for hinge in hinges],
    }
    projections = {}
    for name, spans in choices.items():
        bases = [np.linalg.qr((span - span.mean(axis=1, keepdims=True)).T)[0] for span in spans]
        projections[name] = np.stack([basis @ basis.T for basis in bases])
    return projections


def _held_out(y: np.ndarray, models: dict[str, np.ndarray]) -> tuple[HeldOut, ...]:
    n = len(y)
    others = (y.sum(axis=0) - y) / (n - 1)
    errors = {}
    for name, projections in models.items():
        fits = others @ projections  # [choice, seed, level]
        best = ((others - fits) ** 2).sum(axis=2).argmin(axis=0)
        errors[name] = ((y - fits[best, np.arange(n)]) ** 2).mean(axis=1)
    results = []
    for name, error in errors.items():
        rmse = float(np.sqrt(error.mean()))
        if name == "segmented":
            results.append(HeldOut(name, rmse, 0.0, (NAN, NAN), NAN))
        else:
            gain = paired_test(error - errors["segmented"])
            results.append(HeldOut(name, rmse, gain.estimate, gain.interval, gain.p))
    return tuple(results)


def _judge(
    p: float, alpha: float, held_out: tuple[HeldOut, ...], misfit: bool
) -> tuple[Literal["threshold", "smooth curve", "line"], str]:
    if p >= alpha:
        return "line", "a straight line is not rejected: these seeds show no bend"
    others = [model for model in held_out if model.model != "segmented"]
    equal = [model.model for model in others if not (model.improvement > 0 and model.p < alpha)]
    if misfit:
        return "smooth curve", "a straight line is rejected, and so is every single bend"
    if equal:
        return "smooth curve", (
            f"a straight line is rejected, but on held-out seeds a bend predicts no better than {' or '.join(equal)}"
        )
    names = " and ".join(model.model for model in others)
    return "threshold", f"a straight line is rejected, and on held-out seeds a bend predicts better than {names}"
