"""All the questions of a claim, and their answers: one difference of its arms per seed and question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.auditing.arms import (
    AS_RUN,
    BEST,
    COMMON,
    EQUAL_STEP,
    WITHIN,
    Arms,
    Choice,
    best_of,
    choices,
    common_best,
    frozen,
    scores,
    taken,
    within_error,
)
from alignkit.auditing.flips import chances
from alignkit.auditing.measured import Measured, over_layers
from alignkit.auditing.places import AVERAGE, BEST_CHECKPOINT, END, Place
from alignkit.columns import EXCESS, GAP
from alignkit.records.store import Records

AXES = ("place", "mode", "scale", "layer", "rates", "when", "cells", "seeds", "failed", "average")
"""What a question settles; together they tell it apart."""
ALL, LEARNING = "all", "both arms beat frozen hidden layers"
NOT_ALIGNED, LEFT_OUT = "not aligned", "left out"
MEAN, MEDIAN = "mean", "median"
MOST_LOST = 1 / 3
"""The share of the seeds without which a question is shown and not tested: few seeds cannot contradict many."""
ZERO = 1e-12
DECIMALS = 9
STEPS = 33
LEAST_HALF = 3
DECLARED_RATES = (AS_RUN, WITHIN, BEST, COMMON)


@dataclass
class Asked:
    """Questions as they are collected, each with its differences [seeds], turned the way the claim measures."""

    claim: str
    rows: list[tuple[str, ...]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    differences: list[np.ndarray] = field(default_factory=list)
    plateaus: dict[str, float] = field(default_factory=dict)

    def add(
        self, place: Place, differences: np.ndarray, n_cells: int, *, rates: str, scale: str = "", cells: str = ALL,
        seeds: str = ALL, failed: str = NOT_ALIGNED, average: str = MEAN,
    ) -> None:  # fmt: skip
        self.rows.append(
            (
                place.name,
                place.mode,
                scale or place.scale,
                place.layer,
                rates,
                place.when,
                cells,
                seeds,
                failed,
                average,
            )
        )
        self.places.append(place)
        self.cells.append(n_cells)
        self.differences.append(place.sign * differences)


class Tuned:
    """Values of places at one choice of rates: `values` [places, cells, 2, seeds], and which of them failed."""

    def __init__(self, records: Records, arms: Arms, places: Sequence[Place], choice: Choice) -> None:
        values = np.stack([place.values for place in places])
        rows, asked = arms.rows, choice.cells[:, None, None] & (arms.rows >= 0).any(axis=-1)
        self.values = np.where(asked, mean_over_rates(values, rows, choice.counts), np.nan)
        twins = self._twins(records, arms, places, choice, values)
        if twins is not None:
            self.values = self.values - np.where(asked, twins, np.nan)
        diverged = records.runs["diverged"].to_numpy(bool)
        alive = (rows >= 0) & ~diverged[np.maximum(rows, 0)] & choice.counts
        first = np.maximum(rows.max(axis=-1), 0)
        exists = np.stack([place.exists for place in places])[:, first] & asked
        known = np.isfinite(self.values)
        most = known.sum(axis=(1, 2, 3)) > 0.5 * np.maximum(exists.sum(axis=(1, 2, 3)), 1)
        self.failed = exists & ~known & (most[:, None, None, None] | ~alive.any(axis=-1))
        self.floor = np.stack([place.failed for place in places])[:, first]
        self.choice = choice

    @staticmethod
    def _twins(
        records: Records, arms: Arms, places: Sequence[Place], choice: Choice, values: np.ndarray
    ) -> np.ndarray | None:
        if arms.twins is None:
            return None
        score = taken(scores(records.runs), arms.twins)
        rules = {BEST: best_of, COMMON: lambda known: common_best(known, (2,))}
        own = rules[choice.name](score) if choice.name in rules else within_error(records.runs, arms.twins)
        counts = own if arms.tuned else arms.twins >= 0
        of_gap = np.array([place.response == GAP for place in places])
        excess = arms.claim.response.endswith(EXCESS)
        twins = mean_over_rates(values, arms.twins, counts)
        return np.where((of_gap | excess)[:, None, None, None], twins, 0.0)

    def with_failed(self, how: str) -> np.ndarray:
        """The values, failed runs as if not aligned or left out."""
        return np.where(self.failed, self.floor, self.values) if how == NOT_ALIGNED else self.values


def mean_over_rates(values: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean [..., cells, 2, seeds] over the runs that count; NaN where one of them has no value."""
    chosen = counts & (rows >= 0)
    n = chosen.sum(axis=-1)
    total = np.where(chosen, values[..., np.maximum(rows, 0)], 0.0).sum(axis=-1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def ask(records: Records, arms: Arms, places: Sequence[Place], measured: Measured) -> Asked:
    """The questions of a claim, the declared one first, with what the records answer."""
    claim = arms.claim
    asked = Asked(claim.name)
    every = choices(records, arms)
    subsets = list(_cell_subsets(records, arms, places, every[0]))
    failed = NOT_ALIGNED if claim.failed == "not_aligned" else LEFT_OUT
    ends = [place for place in places if place.when == END or place.declared]
    own_unit = places[0].scale
    for choice in every:
        of_lr = {"rates": _rate_words(choice)}
        asked.plateaus[_rate_words(choice)] = choice.plateau
        tuned = Tuned(records, arms, ends, choice)
        values = tuned.with_failed(failed)
        _every_place(asked, arms, ends, values, failed=failed, **of_lr)
        other = LEFT_OUT if failed == NOT_ALIGNED else NOT_ALIGNED
        _every_place(asked, arms, ends, tuned.with_failed(other), failed=other, **of_lr)
        _every_place(asked, arms, ends, values, failed=failed, average=MEDIAN, **of_lr)
        for scale, function in (("log", _log), ("rank", _rank)):
            of_unit = [index for index, place in enumerate(ends) if place.scale == own_unit]
            changed = function(values[of_unit])
            chosen = [ends[index] for index in of_unit]
            _every_place(asked, arms, chosen, changed, failed=failed, scale=scale, **of_lr)
        for name, mask in subsets:
            if name == LEARNING:
                _every_place(asked, arms, ends, values[:, mask], failed=failed, cells=name, **of_lr)
        if choice.name not in DECLARED_RATES:
            continue
        own = [index for index, place in enumerate(ends) if place.own_layer]
        chosen, of_layer = [ends[index] for index in own], values[own]
        for name, mask in subsets:
            if name != LEARNING:
                _every_place(asked, arms, chosen, of_layer[:, mask], failed=failed, cells=name, **of_lr)
        for place, differences, n in _differences(arms, chosen, of_layer, MEAN):
            for name, kept in _seed_subsets(arms.seeds):
                asked.add(place, np.where(kept, differences, np.nan), n, failed=failed, seeds=name, **of_lr)
    _over_training(asked, records, arms, places, every, failed)
    own_layer = [place for place in ends if place.own_layer and place.response != GAP]
    for how in dict.fromkeys((failed, LEFT_OUT, NOT_ALIGNED)):
        _equal_steps(asked, records, arms, own_layer, measured, failed=how)
    return asked


def _rate_words(choice: Choice) -> str:
    return choice.name if choice.lr is None else f"lr {choice.name}"


def _every_place(
    asked: Asked, arms: Arms, places: Sequence[Place], values: np.ndarray, *, average: str = MEAN, rates: str,
    failed: str, scale: str = "", cells: str = ALL,
) -> None:  # fmt: skip
    for place, differences, n in _differences(arms, places, values, average):
        asked.add(place, differences, n, rates=rates, failed=failed, scale=scale, cells=cells, average=average)


def _differences(
    arms: Arms, places: Sequence[Place], values: np.ndarray, average: str
) -> Iterator[tuple[Place, np.ndarray, int]]:
    """Per seed, the second arm less the first: within cells where they are paired, else of their means."""
    found, cells = contrast(values, paired=arms.paired, average=average)
    yield from ((place, found[index], int(cells[index])) for index, place in enumerate(places))


def contrast(values: np.ndarray, *, paired: bool, average: str = MEAN) -> tuple[np.ndarray, np.ndarray]:
    """Of values [places, cells, 2, seeds], the differences [places, seeds] and how many cells they are made of."""
    if not values.shape[1]:
        return np.full((len(values), values.shape[-1]), np.nan), np.zeros(len(values), dtype=int)
    if paired:
        differences = values[:, :, 1] - values[:, :, 0]
        cells = np.isfinite(differences).any(axis=2).sum(axis=1)
        return _over_cells(differences, average), cells
    sides = []
    for arm in (0, 1):
        there = np.isfinite(values[:, :, arm]).any(axis=(0, 2))
        side = values[:, there, arm]
        whole = np.isfinite(side).all(axis=1)
        sides.append(np.where(whole, _over_cells(side, average), np.nan))
    return sides[1] - sides[0], np.isfinite(values).any(axis=(2, 3)).sum(axis=1)


def _over_cells(values: np.ndarray, average: str) -> np.ndarray:
    known = np.isfinite(values).any(axis=1)
    filled = np.where(known[:, None], values, 0.0)
    summary = np.nanmean(filled, axis=1) if average == MEAN else np.nanmedian(filled, axis=1)
    return np.where(known, summary, np.nan)


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.where(values > 0, values, np.nan))


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks over a place's cells, arms and seeds, from 0 to 100."""
    flat = values.reshape(len(values), -1)
    known = np.isfinite(flat)
    ranks = stats.rankdata(np.where(known, flat, np.inf), axis=1)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, 100 * (ranks - 0.5) / n, np.nan).reshape(values.shape)


def _cell_subsets(
    records: Records, arms: Arms, places: Sequence[Place], choice: Choice
) -> Iterator[tuple[str, np.ndarray]]:
    """Cells that are kept: where both arms learn, and all but those at each level of every other factor."""
    if arms.paired:
        column = "test_accuracy" if records.runs["test_accuracy"].notna().any() else "test_loss"
        floor = frozen(records, arms, column)
        if floor is not None:
            own = mean_over_rates(records.runs[column].to_numpy(float), arms.rows, choice.counts)
            known = np.isfinite(own).any(axis=2)
            mean = np.where(known, np.nanmean(np.where(known[..., None], own, 0.0), axis=2), np.nan)
            sign = 1 if column == "test_accuracy" else -1
            learning = (sign * (mean - floor) > 0).all(axis=1)
            if learning.any() and not learning.all():
                yield LEARNING, learning
    for factor in arms.others:
        levels = arms.levels(factor)
        for level in levels:
            left = ~arms.at(factor, level)
            if left.any() and not left.all() and (arms.paired or balanced(arms, left)):
                yield f"without {factor} {level}", left
            only = arms.at(factor, level)
            if len(levels) > 2 and (arms.paired or balanced(arms, only)):
                yield f"only {factor} {level}", only


def balanced(arms: Arms, kept: np.ndarray) -> bool:
    """Whether, in these cells of a fraction, both arms have each level of the other factors equally often."""
    there = (arms.rows >= 0).any(axis=(2, 3)) & kept[:, None]
    shares = [[arms.at(f, level)[there[:, arm]].mean() for f in arms.others for level in arms.levels(f)]
              for arm in (0, 1) if there[:, arm].any()]  # fmt: skip
    return len(shares) == 2 and bool(np.allclose(shares[0], shares[1]))


def _seed_subsets(seeds: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    place = np.arange(len(seeds))
    if len(seeds) > LEAST_HALF:
        for index, seed in enumerate(seeds):
            yield f"without {seed}", place != index
    if len(seeds) >= 2 * LEAST_HALF:
        yield "first of each two", place % 2 == 0
        yield "second of each two", place % 2 == 1


def _over_training(
    asked: Asked, records: Records, arms: Arms, places: Sequence[Place], every: Sequence[Choice], failed: str
) -> None:
    """The best checkpoint and the average over training, at rates whose course was recorded."""
    chosen = [place for place in places if place.when in (BEST_CHECKPOINT, AVERAGE)]
    if not chosen:
        return
    lr = records.study.tuning.trajectory_lr if records.study.tuning is not None else None
    for choice in every:
        if arms.tuned and (lr is None or choice.lr is None or not np.isclose(choice.lr, lr)):
            continue
        values = Tuned(records, arms, chosen, choice).with_failed(failed)
        _every_place(asked, arms, chosen, values, failed=failed, rates=_rate_words(choice))


def _equal_steps(
    asked: Asked, records: Records, arms: Arms, places: Sequence[Place], measured: Measured, *, failed: str
) -> None:
    """Both arms at steps of one length: interpolated along their rates, over the lengths that both reach."""
    excess = arms.claim.response.endswith(EXCESS)
    if not places or excess or not (arms.tuned and arms.paired) or "update_ratio" not in measured.frame:
        return
    ratio = over_layers(measured.end("update_ratio")[:, 0], measured.depth, arms.claim.layer)
    if not np.isfinite(ratio).any():
        return
    lengths = taken(np.log(np.where(ratio > 0, ratio, np.nan)), arms.rows)
    values = taken(np.stack([place.values for place in places]), arms.rows)
    alive = np.isfinite(taken(scores(records.runs), arms.rows))
    if failed == NOT_ALIGNED:  # dead: it takes steps, and has no signal
        floor = taken(np.stack([np.where(place.exists, place.failed, np.nan) for place in places]), arms.rows)
        most = np.isfinite(values).sum(axis=(1, 2, 3, 4)) > 0.5 * np.isfinite(lengths).sum()
        values = np.where(np.isnan(values) & alive & most[:, None, None, None, None], floor, values)
    found = np.full((len(places), len(arms.cells), len(arms.seeds)), np.nan)
    for index, cell, seed in np.ndindex(found.shape):
        sides = [(lengths[cell, arm, seed], values[index, cell, arm, seed], alive[cell, arm, seed]) for arm in (0, 1)]
        found[index, cell, seed] = _at_equal_lengths(*sides)
    for index, place in enumerate(places):
        known = np.isfinite(found[index]).any(axis=1).sum()
        if known and place.when == END:
            asked.add(place, _over_cells(found[index][None], MEAN)[0], int(known), rates=EQUAL_STEP, failed=failed)


def _at_equal_lengths(
    before: tuple[np.ndarray, np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> float:
    curves = []
    for length, value, alive in (before, after):
        known = np.isfinite(length) & np.isfinite(value) & alive
        order = np.argsort(length[known], kind="stable")
        curves.append((length[known][order], value[known][order]))
    if any(len(length) < 2 for length, _ in curves):
        return float("nan")
    start, end = max(length[0] for length, _ in curves), min(length[-1] for length, _ in curves)
    if not end > start:
        return float("nan")
    at = np.linspace(start, end, STEPS)
    low, high = (np.interp(at, *curve) for curve in curves)
    return float(np.mean(high - low))


def answers(asked: Asked, *, verdict: str, direction: float, margin: float, unit: str) -> tuple[pd.DataFrame, int]:
    """A row per question with its estimate, interval and how it stands to the verdict; and how many coincided.

    `plateau` is the share of cells in which a single rate is within one standard error of the best for either arm.
    `direction` is the sign that the verdict has; 0 for equivalence, whose opposite is a difference beyond the margin,
    so that only questions in the claim's unit can contradict it. `p_opposite` is adjusted over all questions that are
    tested.
    """
    differences = np.stack(asked.differences)
    n = np.isfinite(differences).sum(axis=1)
    kept = _different(asked, differences, n >= 2)
    coincide = int((n >= 2).sum()) - len(kept)
    differences, n = differences[kept], n[kept]
    places = [asked.places[index] for index in kept]
    signs = np.array([place.sign for place in places])
    estimate = np.nanmean(differences, axis=1)
    half = stats.t.ppf(0.975, n - 1) * np.nanstd(differences, axis=1, ddof=1) / np.sqrt(n)
    table = pd.DataFrame([asked.rows[index] for index in kept], columns=list(AXES))
    comparable = np.array([place.comparable for place in places])
    of_unit = (table["scale"] == unit).to_numpy()
    tested = comparable & (n > (1 - MOST_LOST) * differences.shape[1])
    scale = np.nanmax(np.abs(differences), axis=1)
    null = np.abs(estimate) <= ZERO * np.maximum(scale, 1.0)
    if direction:
        side = np.where(null, 0, np.where(np.sign(estimate) == direction, 1, -1))
        p = _p(differences * -direction, tested)
    else:
        side = np.where(of_unit, np.where(np.abs(estimate) <= margin, 1, -1), 0)
        tested &= of_unit
        both = np.concatenate([differences - margin, -differences - margin])
        twice = _p(both, np.concatenate([tested, tested])).reshape(2, -1)
        p = np.where(np.isnan(twice).all(axis=0), np.nan, np.fmin(twice[0], twice[1]))
    table["plateau"] = [asked.plateaus.get(rates, np.nan) for rates in table["rates"]]
    table["response"] = [place.response for place in places]
    table["declared"] = np.arange(len(kept)) == 0
    # In the question's own unit and direction again.
    table["estimate"], table["low"] = signs * estimate, signs * estimate - half
    table["high"] = signs * estimate + half
    table["n_seeds"], table["n_cells"] = n, [asked.cells[index] for index in kept]
    table["side"] = [("opposite", "zero", "same")[each + 1] for each in side]
    table["comparable"], table["tested"], table["p_opposite"] = comparable, tested, p
    table["why"] = [place.why for place in places]
    table.insert(0, "claim", asked.claim)
    table["verdict"] = verdict
    return table, coincide


def _p(differences: np.ndarray, tested: np.ndarray) -> np.ndarray:
    found = np.full(len(differences), np.nan)
    found[tested] = chances(differences[tested])
    return found


def _different(asked: Asked, differences: np.ndarray, usable: np.ndarray) -> list[int]:
    """The questions whose answers are not, seed by seed, those of an earlier one."""
    known: set[tuple[str, bytes]] = set()
    kept = []
    rounded = np.round(differences, DECIMALS) + 0.0
    for index in np.flatnonzero(usable):
        key = (asked.rows[index][AXES.index("scale")], rounded[index].tobytes())
        if key not in known:
            known.add(key)
            kept.append(int(index))
    return kept
