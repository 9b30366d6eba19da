"""A claim's two arms: which runs they are, cell by cell, and which of their rates count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim
from alignkit.study.designs import cells_of, declared_factors, flat, levels_of
from alignkit.study.resolve import resolve

AS_RUN, WITHIN, BEST = "as run", "within one standard error", "own best"
COMMON, SHARED, EQUAL_STEP = "common to the seeds", "one for both arms", "equal step length"
"""How the rates are chosen whose runs count."""
TIE_DECIMALS = 12


@dataclass(frozen=True, eq=False)
class Arms:
    """The runs of a claim as positions in `records.runs`, -1 where there is none: `rows` [cells, 2, seeds, rates].

    A cell is a combination of all factors but the claim's; `cells` has the level of each. `paired` says that cells
    hold both arms; in a fraction none does. `twins` are the runs under BP, where they were asked for.
    """

    claim: Claim
    others: tuple[str, ...]
    cells: tuple[tuple[str | None, ...], ...]
    seeds: tuple[int, ...]
    rates: np.ndarray
    rows: np.ndarray
    tuned: bool
    paired: bool
    design: str | None
    twins: np.ndarray | None = None

    def levels(self, factor: str) -> list[str]:
        """The levels of another factor, as they come."""
        column = self.others.index(factor)
        return [level for level in dict.fromkeys(cell[column] for cell in self.cells) if level is not None]

    def at(self, factor: str, level: str) -> np.ndarray:
        """Which cells [cells] have this level."""
        column = self.others.index(factor)
        return np.array([cell[column] == level for cell in self.cells])


def arms_of(records: Records, claim: Claim, *, twins: bool = False) -> Arms:
    """The arms of a claim; `AnalysisError` where the records have none."""
    runs = records.runs
    if claim.factor not in records.factors:
        raise AnalysisError(f'"{claim.factor}" is not a factor of this study')
    wanted = [level_text(level) for level in claim.levels]
    at = _texts(runs[claim.factor])
    ruled = (runs["rule"] == claim.rule).to_numpy()
    design = claim.design or _first_design(records, at, ruled, wanted)
    chosen = ruled & np.isin(at, [str(level) for level in wanted])
    if design is not None:
        chosen &= _in(runs, design)
    if not chosen.any():
        raise AnalysisError(f"no run of {claim.rule} has one of its levels")
    others = tuple(name for name in _declared(records, design) if name != claim.factor)
    texts = {name: _texts(runs[name]) for name in others}
    others = tuple(name for name in others if len(set(texts[name][chosen])) > 1)
    where = np.flatnonzero(chosen)
    keys = list(zip(*(texts[name][where] for name in others), strict=True)) if others else [()] * len(where)
    cells = tuple(dict.fromkeys(keys))
    seeds = tuple(sorted({int(seed) for seed in runs["seed"].to_numpy()[where]}))
    tuned = bool(runs["replicate"].duplicated().any())
    lr = np.array([float(f"{rate:.9g}") for rate in runs["lr"].to_numpy(float)]) if tuned else np.zeros(len(runs))
    rates = np.unique(lr[where])
    rows = np.full((len(cells), 2, len(seeds), len(rates)), -1)
    cell, seed = {key: i for i, key in enumerate(cells)}, {each: i for i, each in enumerate(seeds)}
    place = (
        np.array([cell[key] for key in keys]),
        (at[where] == str(wanted[1])).astype(int),
        np.array([seed[int(each)] for each in runs["seed"].to_numpy()[where]]),
        np.searchsorted(rates, lr[where]),
    )
    if pd.Index(np.ravel_multi_index(place, rows.shape)).duplicated().any():
        raise AnalysisError("a cell has several runs of one seed and rate")
    rows[place] = where
    both = np.all(np.any(rows >= 0, axis=(2, 3)), axis=1)
    paired = bool(both.any())
    if paired:
        rows, cells = rows[both], tuple(key for key, kept in zip(cells, both, strict=True) if kept)
    elif np.any(np.all(rows < 0, axis=(0, 2, 3))):
        raise AnalysisError("no run has one of its levels")
    found = Arms(claim, others, cells, seeds, rates, rows, tuned, paired, design)
    if not twins:
        return found
    return Arms(**{**found.__dict__, "twins": _twins(runs, rows, lr)})


def _texts(column: pd.Series) -> np.ndarray:
    known = {}
    for value in column.tolist():
        key = (type(value), value if value == value else None)
        known[key] = level_text(value)
    return np.array([known[type(v), v if v == v else None] for v in column.tolist()], dtype=object)


def _in(runs: pd.DataFrame, design: str) -> np.ndarray:
    return np.array([design in str(names).split("+") for names in runs["designs"].fillna("")])


def _first_design(records: Records, at: np.ndarray, ruled: np.ndarray, wanted: list[str | None]) -> str | None:
    for name in records.study.designs:
        if set(wanted) <= set(at[ruled & _in(records.runs, name)]):
            return str(name)
    return None


def _declared(records: Records, design: str | None) -> tuple[str, ...]:
    if design is None or design not in records.study.designs:
        return records.factors
    return tuple(factor.name for factor in declared_factors(records.study, records.study.name)[design])


def _twins(runs: pd.DataFrame, rows: np.ndarray, lr: np.ndarray) -> np.ndarray:
    """The runs under BP of each arm and seed, [cells, 2, seeds, rates of BP]."""
    of: dict[str, list[int]] = {}
    for index, replicate in enumerate(runs["replicate"]):
        of.setdefault(replicate, []).append(index)
    first = rows.max(axis=-1)
    names = runs["bp_replicate"].to_numpy()
    rates = np.unique(lr[(runs["rule"] == "bp").to_numpy()]) if (runs["rule"] == "bp").any() else np.zeros(1)
    found = np.full((*first.shape, len(rates)), -1)
    for place in np.ndindex(first.shape):
        known = of.get(names[first[place]], []) if first[place] >= 0 else []
        found[place][np.searchsorted(rates, lr[known])] = known
    return found


def scores(runs: pd.DataFrame) -> np.ndarray:
    """What a seed judges a rate by, [runs]: validation accuracy, or minus the loss; NaN where the run diverged."""
    accuracy = runs["validation_accuracy"].to_numpy(float)
    score = np.where(np.isfinite(accuracy), accuracy, -runs["validation_loss"].to_numpy(float))
    return np.where(runs["diverged"].to_numpy(bool), np.nan, score)


def taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values [..., runs] at positions [...]; NaN at -1."""
    return np.where(rows >= 0, values[..., np.maximum(rows, 0)], np.nan)


def best_of(score: np.ndarray) -> np.ndarray:
    """Whether each rate, the last axis, is the best; the smaller one on a tie."""
    known = np.where(np.isnan(score), -np.inf, score)
    chosen = np.arange(score.shape[-1]) == known.argmax(axis=-1)[..., None]
    return chosen & np.isfinite(score)


def within_error(runs: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Whether each rate's validation accuracy lies within one standard error of the seed's best."""
    score = taken(scores(runs), rows)
    best = np.where(np.isnan(score), -np.inf, score).max(axis=-1, keepdims=True)
    regression = np.isnan(taken(runs["validation_accuracy"].to_numpy(float), rows)).all()
    if regression:
        of_loss = taken(_column(runs, "validation_loss_error"), rows)
        of_best = np.where(score == best, of_loss, np.inf).min(axis=-1, keepdims=True)
        error = np.where(np.isfinite(of_best), of_best, 0.0)
    else:
        n = taken(_column(runs, "validation_samples"), rows)
        share = np.clip(best, 0, 1)
        error = np.nan_to_num(np.sqrt(share * (1 - share) / n))
    return np.isfinite(score) & (np.nan_to_num(score, nan=-np.inf) >= best - error - 1e-12)


def _column(runs: pd.DataFrame, name: str) -> np.ndarray:
    return runs[name].to_numpy(float) if name in runs else np.full(len(runs), np.nan)


def common_best(score: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The rate with the best mean over `axes`, of those with a score everywhere there, as a choice of rates.

    Means of accuracies tie often: what rounding makes of a tie decides nothing.
    """
    mean = np.round(score.mean(axis=axes, keepdims=True), TIE_DECIMALS)
    return np.broadcast_to(best_of(mean), score.shape)


@dataclass(frozen=True, eq=False)
class Choice:
    """A rule for the rates: which runs `counts` [cells, 2, seeds, rates], and which `cells` it asks about.

    `plateau`, of a single rate `lr`: the share of its cells in which it is within one standard error of the best for
    either arm.
    """

    name: str
    counts: np.ndarray
    cells: np.ndarray
    lr: float | None = None
    plateau: float = float("nan")


def choices(records: Records, arms: Arms) -> list[Choice]:
    """The ways to choose rates that the records allow, the declared one first."""
    everywhere = np.ones(len(arms.cells), dtype=bool)
    score = taken(scores(records.runs), arms.rows)
    if not arms.tuned:
        return [Choice(AS_RUN, np.isfinite(score) | (arms.rows >= 0), everywhere)]
    found = [
        Choice(WITHIN, within_error(records.runs, arms.rows), everywhere),
        Choice(BEST, best_of(score), everywhere),
        Choice(COMMON, common_best(score, (2,)), everywhere),
    ]
    if arms.paired:
        found.append(Choice(SHARED, common_best(score, (1, 2)), everywhere))
    learnt, plateau = learns(records, arms, score), on_plateau(records, arms, score)
    for rate, lr in enumerate(arms.rates):
        tried = np.all(arms.rows[..., rate] >= 0, axis=(1, 2))
        cells = tried & learnt[:, :, rate].all(axis=1) if arms.paired else np.full(len(tried), tried.all())
        if cells.any():
            counts = np.zeros(score.shape, dtype=bool)
            counts[..., rate] = np.isfinite(score[..., rate])
            shared = plateau[cells][..., rate].all(axis=1) if arms.paired else plateau[..., rate]
            found.append(Choice(f"{lr:g}", counts, cells, float(lr), float(shared.mean())))
    return found


def learns(records: Records, arms: Arms, score: np.ndarray) -> np.ndarray:
    """Whether an arm learns at a rate [cells, 2, rates]: on average it validates better than frozen hidden layers.

    Without those, better than half way from chance to its best rate. Of a regression: wherever no seed diverged.
    """
    runs = records.runs
    accuracy = runs["validation_accuracy"].notna().any()
    if not accuracy:
        return np.isfinite(score).all(axis=2)
    chance = float(np.nan_to_num(1.0 / classes_of(runs)))
    alive = np.where(np.isnan(score), chance, score).mean(axis=2)
    floor = frozen(records, arms, "validation_accuracy")
    half = (alive.max(axis=-1) + chance) / 2
    limit = half if floor is None else np.where(np.isfinite(floor), floor, half)
    return np.asarray(alive > limit[..., None])


def on_plateau(records: Records, arms: Arms, score: np.ndarray) -> np.ndarray:
    """Whether a rate is about as good for an arm as its best [cells, 2, rates], by means over the seeds."""
    known = np.where(np.isfinite(score).all(axis=2), score.mean(axis=2), -np.inf)
    best = known.max(axis=-1, keepdims=True)
    samples = taken(_column(records.runs, "validation_samples"), arms.rows)
    n = float(np.nanmax(samples)) if np.isfinite(samples).any() else np.inf
    share = np.clip(best, 0, 1)
    return np.asarray(known >= best - np.sqrt(share * (1 - share) / n) - 1e-12) & np.isfinite(known)


def classes_of(runs: pd.DataFrame) -> float:
    """How many classes the data have; NaN where the records do not say."""
    known = runs["n_classes"].dropna() if "n_classes" in runs else pd.Series(dtype=float)
    return float(known.iloc[0]) if len(known) else float("nan")


def frozen(records: Records, arms: Arms, column: str) -> np.ndarray | None:
    """What frozen hidden layers reach in each arm's cell, [cells, 2], each seed at its best rate; None without them.

    A factor that their runs do not have tells no cells apart.
    """
    runs = records.runs
    chosen = (runs["rule"] == "shallow").to_numpy()
    if not chosen.any() or arms.claim.rule == "shallow":
        return None
    if arms.design is not None:
        inside = chosen & _in(runs, arms.design)
        chosen = inside if inside.any() else chosen
    rows = runs[chosen]
    known = scores(runs)[chosen]
    order = np.lexsort((-np.nan_to_num(known, nan=-np.inf), rows["replicate"].to_numpy(str)))
    rows = rows.iloc[order].drop_duplicates("replicate")
    factor = arms.claim.factor
    names = [name for name in (*arms.others, factor) if rows[name].notna().any()]
    keys = list(zip(*(_texts(rows[name]) for name in names), strict=True)) if names else [()] * len(rows)
    mean = rows[column].astype(float).groupby(pd.Series(keys, rows.index, dtype=object)).mean().to_dict()
    found = np.full((len(arms.cells), 2), np.nan)
    for index, cell in enumerate(arms.cells):
        levels: Mapping[str, Any] = dict(zip(arms.others, cell, strict=True))
        for arm, level in enumerate(arms.claim.levels):
            key = tuple(levels[name] if name != factor else level_text(level) for name in names)
            found[index, arm] = mean.get(key, np.nan)
    return found


def norm_follows(records: Records, arms: Arms) -> np.ndarray:
    """Whether a batch norm follows the weight op of a hidden layer, [cells, 2]: it makes the BP signal at the layer
    below sum to zero over the batch, where statistics are the batch's."""
    study, claim = records.study, arms.claim
    known: dict[tuple[str | None, ...], bool] = {}
    declared = declared_factors(study, study.name)
    for name in [arms.design] if arms.design in study.designs else list(study.designs):
        design = study.designs[str(name)]
        for cell in cells_of(design, declared[str(name)], study.name)[0]:
            settings = resolve(study, {**flat(design.base), **cell.overrides}, study.name, own_modules=False)
            levels = levels_of(claim.rule, settings, declared, cell.levels)
            key = tuple(level_text(levels.get(factor)) for factor in (*arms.others, claim.factor))
            known[key] = _norm_after_op(settings)
    found = np.zeros((len(arms.cells), 2), dtype=bool)
    for index, levels_there in enumerate(arms.cells):
        for arm, level in enumerate(claim.levels):
            found[index, arm] = known.get((*levels_there, level_text(level)), False)
    return found


def _norm_after_op(settings: Any) -> bool:
    network = settings.network
    layers = network.layers or [None]
    for layer in layers:
        norm = getattr(layer, "norm", None) or network.norm
        order = getattr(layer, "order", None) or network.order
        if norm == "batch" and order.index("norm") < order.index("activation"):
            return True
    return False
