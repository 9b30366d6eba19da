"""Whether a finding depends on how it was analysed: a specification curve over declared choices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import sign_patterns
from alignkit.stats.contrasts.location import SEED_MODELS
from alignkit.stats.contrasts.per_seed import SeedContrasts, seed_contrasts
from alignkit.stats.models.beta import beta_contrast
from alignkit.stats.sensitivity.scales import Scale
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.levels import level_text

NAN = float("nan")


class Effect(Protocol):
    """What a model of a whole table has to return: an estimate in the table's unit, its interval and its p."""

    @property
    def estimate(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float]: ...
    @property
    def p(self) -> float: ...


@dataclass(frozen=True)
class Specification:
    """One way to analyse a claim, and what it gives; `reason` says why where it gives nothing.

    `estimate` and `interval` are in the scale's own unit. `standardised` is the estimate over the sd of
    the per-seed effects on that scale, with the sign turned where larger values on the scale mean less of
    what the first scale measures, so that specifications compare. `agrees` says whether its sign is that
    of the first specification that could be estimated.
    """

    scale: str
    summary: str
    checkpoint: str
    model: str
    unit: str
    estimate: float = NAN
    interval: tuple[float, float] = (NAN, NAN)
    p: float = NAN
    standardised: float = NAN
    agrees: bool = False
    n_seeds: int = 0
    reason: str = ""
    warnings: tuple[str, ...] = ()


CHECKPOINTS = ("end", "half-way", "first epoch")
CHOICES = ("scale", "summary", "checkpoint", "model")


@shown()
@dataclass(frozen=True)
class SpecificationCurve:
    """One claim's contrast under every declared combination of choices; the first one is the primary.

    `sign_agreement` and `share_significant` are shares of the specifications that could be estimated.
    `p_joint` tests all of them at once: see `specification_curve`. `conclusion` is "agree" where signs and
    significance are the same throughout, "agree in sign" where only the sign is, else "disagree"; and
    `statement` says it in a sentence, with the choices that matter.
    """

    factor: str
    levels: tuple[str, str]
    specifications: tuple[Specification, ...]
    conclusion: Literal["agree", "agree in sign", "disagree", "not estimable"]
    statement: str
    sign_agreement: float
    share_significant: float
    p_joint: float
    alpha: float
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per specification, in the order declared: what a figure draws."""
        names = (
            *CHOICES,
            "unit",
            "estimate",
            "interval",
            "p",
            "standardised",
            "agrees",
            "n_seeds",
            "reason",
            "warnings",
        )
        return pd.concat([one_row(one, *names) for one in self.specifications], ignore_index=True)


def specification_curve(
    table_of: Callable[..., pd.DataFrame],
    *,
    factor: str,
    levels: tuple[Any, Any],
    within: Sequence[str] = (),
    scales: Sequence[Scale],
    summaries: Sequence[str] = ("final", "auc"),
    checkpoints: Sequence[str] = CHECKPOINTS,
    models: Sequence[str] = tuple(SEED_MODELS),
    other_models: Mapping[str, Callable[[pd.DataFrame], Effect]] | None = None,
    seed: str = "seed",
    alpha: float = 0.05,
    draw_seed: int = 0,
) -> SpecificationCurve:
    """Whether a contrast keeps its sign and significance over scales, summaries, checkpoints and models.

    `table_of(response=…, summary=…, checkpoint=…)` gives a table with a row per run: `seed`, the factors,
    and `value`, the response summarised up to that checkpoint. `scales`
    say which response to ask for and how to transform it. `models` are names of `SEED_MODELS`, made on
    one difference per seed; `other_models` are functions of the (transformed) table, such as a mixed
    model or GEE. A scale marked `beta` is analysed by `beta_contrast` alone.

    The primary specification is the first of each list: it is declared, and it alone decides. The others
    say how far that decision hangs on it. Never choose among them by p, and do not read the share of
    significant ones as evidence: they use the same seeds, and no share of true nulls is known.

    `p_joint` is a test of no effect in any of the per-seed contrasts (Simonsohn, Simmons and Nelson 2020):
    whole seeds change sign in all specifications together, and the median standardised mean is compared
    with its distribution over all sign patterns, exactly up to 16 seeds. Only seeds that every
    specification has take part. Like the primary test it is two-sided.

    A specification that cannot be estimated (a checkpoint that no run has, a cosine of 1 under Fisher's
    transform) stays in the result with its reason, and is counted.
    """
    unknown = [name for name in models if name not in SEED_MODELS]
    unknown += [name for name in other_models or {} if name in (*SEED_MODELS, "beta")]
    if unknown or not (scales and summaries and checkpoints and (models or other_models)):
        raise AnalysisError(
            f"expected one choice or more of each kind, and models among {', '.join(SEED_MODELS)}; "
            f"got {', '.join(unknown) or 'an empty list'}. Give a model of your own a name of its own in other_models"
        )
    table_of = cache(table_of)  # scales of one response share its tables
    specifications: list[Specification] = []
    effects: list[pd.Series] = []
    for scale, summary, checkpoint in itertools.product(scales, summaries, checkpoints):
        names = ("beta",) if scale.beta else (*models, *(other_models or {}))
        blank = [Specification(scale.name, summary, checkpoint, name, scale.unit) for name in names]
        try:
            table = table_of(response=scale.response, summary=summary, checkpoint=checkpoint)
            if "value" not in table.columns:
                raise AnalysisError(f'expected a column "value" in the table; got {", ".join(map(str, table.columns))}')
            table = table.assign(value=scale.transform(table["value"].to_numpy(dtype=float)))
            per_seed = seed_contrasts(table, factor=factor, levels=levels, response="value", seed=seed, within=within)
        except AnalysisError as error:
            specifications += [replace(one, reason=str(error)) for one in blank]
            continue
        if not scale.beta:
            effects.append(scale.orientation * per_seed.differences)
        fits: dict[str, Callable[[], Any]] = {
            "beta": partial(beta_contrast, table, factor=factor, levels=levels, within=within, seed=seed),
            **{name: partial(fit, per_seed.differences.to_numpy()) for name, fit in SEED_MODELS.items()},
            **{name: partial(fit, table) for name, fit in (other_models or {}).items()},
        }
        specifications += [_estimated(one, fits[one.model], per_seed, scale) for one in blank]
    orientation = {scale.name: scale.orientation for scale in scales}
    signs = [orientation[one.scale] * np.sign(one.estimate) for one in specifications]
    first = next((sign for sign, one in zip(signs, specifications, strict=True) if not one.reason), NAN)
    specifications = [
        replace(one, agrees=bool(sign * first > 0)) for sign, one in zip(signs, specifications, strict=True)
    ]
    conclusion, statement = _conclusion(specifications, alpha)
    done = [one for one in specifications if not one.reason]
    lost = len(specifications) - len(done)
    warnings = [f"{lost} of {len(specifications)} specifications could not be estimated"] if lost else []
    if specifications[0].reason:
        warnings.append(f"the primary specification could not be estimated: {specifications[0].reason}")
    return SpecificationCurve(
        factor=factor,
        levels=(str(level_text(levels[0])), str(level_text(levels[1]))),
        specifications=tuple(specifications),
        conclusion=conclusion,
        statement=statement,
        sign_agreement=float(np.mean([one.agrees for one in done])) if done else NAN,
        share_significant=float(np.mean([one.p < alpha for one in done])) if done else NAN,
        p_joint=_joint_p(effects, draw_seed),
        alpha=alpha,
        method=f"{len(specifications)} specifications; joint sign flips of whole seeds",
        warnings=tuple(warnings),
    )


def _estimated(blank: Specification, fit: Callable[[], Any], per_seed: SeedContrasts, scale: Scale) -> Specification:
    """What a model gives on a scale, or why it gives nothing."""
    try:
        result = fit()
    except AnalysisError as error:
        return replace(blank, reason=str(error))
    sd = float((result.pseudo_values if scale.beta else per_seed.differences).std())
    return replace(
        blank,
        estimate=float(result.estimate),
        interval=(float(result.interval[0]), float(result.interval[1])),
        p=float(result.p),
        standardised=scale.orientation * float(result.estimate) / sd if sd > 0 else NAN,
        n_seeds=len(per_seed.differences),
        warnings=per_seed.warnings,
    )


def _conclusion(
    specifications: Sequence[Specification], alpha: float
) -> tuple[Literal["agree", "agree in sign", "disagree", "not estimable"], str]:
    done = [one for one in specifications if not one.reason]
    if not done:
        return "not estimable", f"not estimable: {specifications[0].reason}"
    n = len(done)
    opposite = [one for one in done if not one.agrees]
    significant = [one for one in done if one.p < alpha]
    if opposite:
        clear = sum(one in opposite for one in significant)
        return "disagree", (
            f"disagree: {len(opposite)} of {n} specifications lack the sign of the primary one "
            f"({clear} of them significant at {alpha:g}){_where(opposite, done)}"
        )
    if len(significant) in (0, n):
        what = "all are significant" if significant else "none is significant"
        return "agree", f"agree: all {n} specifications have one sign, and {what} at {alpha:g}"
    few, name = (significant, "significant")
    if len(significant) > n / 2:
        few, name = [one for one in done if not one.p < alpha], "not significant"
    return "agree in sign", (
        f"agree in sign: all {n} specifications have one sign; {len(few)} are {name} at {alpha:g}{_where(few, done)}"
    )


def _where(few: Sequence[Specification], done: Sequence[Specification]) -> str:
    """Which choices the few have in common: per kind of choice, the one that they are most frequent at."""
    notes = []
    for choice in CHOICES:
        values = list(dict.fromkeys(getattr(one, choice) for one in done))
        counts = {
            value: [sum(getattr(one, choice) == value for one in group) for group in (few, done)] for value in values
        }
        value = max(values, key=lambda value: counts[value][0] / counts[value][1])
        here, of = counts[value]
        # Said only where it stands out from the rest.
        if len(values) > 1 and here / of > 1.2 * len(few) / len(done):
            notes.append((here / of, f"{choice} {value} ({here} of {of})"))
    notes.sort(key=lambda note: -note[0])
    return f", most often at {', '.join(text for _, text in notes)}" if notes else ""


def _joint_p(effects: Sequence[pd.Series], draw_seed: int) -> float:
    """Two-sided p of the median standardised mean, when whole seeds change sign in all specifications at once."""
    table = pd.concat(effects, axis="columns", join="inner").dropna() if effects else pd.DataFrame()
    sd = table.std()
    values = (table.loc[:, sd > 0] / sd[sd > 0]).to_numpy()
    n = len(values)
    if n < 2 or not values.size:
        return NAN
    sizes = np.abs(np.median(sign_patterns(n, seed=draw_seed) @ values, axis=1))
    # The first pattern is the observed one; rounding must not undo a tie.
    return float(np.mean(sizes >= sizes[0] * (1 - 1e-12)))
