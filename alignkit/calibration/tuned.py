"""Tuned studies with a known truth: every arm at every rate, drawn as arrays and as the records of a study."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from alignkit.calibration.scenarios import SEED_SD, Scenario, draw
from alignkit.records.store import Records
from alignkit.study.panel import Question
from alignkit.study.study import Study

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SAMPLES = 300
"""Validation samples that a rate is chosen by: one standard error of an accuracy of 90% is 1.7 points."""
FACTORS: dict[str, list[Any]] = {
    "network.activation": ["relu", "tanh"],
    "network.initialisation": ["pytorch", "orthogonal"],
    "network.dropout": [0.0, 0.1],
}
CLAIMS = tuple(path.removeprefix("network.") for path in FACTORS)
MODERATOR = CLAIMS[1]
"""The factor that may moderate the first claim."""
LEVELS = np.array(list(itertools.product((0, 1), repeat=len(FACTORS))))
"""The level of every factor in every cell [cells, factors]."""
PLACES = (("gradient", "batch"), ("delta", "batch"), ("delta", "eval"), ("gradient", "eval"), ("step", None))
"""Where the angle is measured and in which mode; the first is what the claims are about."""
BASE_ANGLE = 60.0
NOT_ALIGNED = 90.0
PER_RATE = 2.0
"""How much an angle changes from one rate to the next."""
PER_RATE_ACCURACY = 0.02
MOVES = 0.35
"""Sd of where the best rate lies, in rates: once over seeds, and again over the arms of a seed."""


@dataclass(frozen=True)
class Tuned:
    """Simulated studies at every rate, all without effects but those that were asked for.

    accuracy : of validation [studies, seeds, cells, rates].
    angle : [places, studies, seeds, cells, rates], the mean over two hidden layers.
    lean : how much larger it is in the first layer than on average, and smaller in the last [studies, seeds, cells].
    log_step : log length of the last step [studies, seeds, cells, rates].
    alive : whether a run did not diverge [studies, seeds, cells, rates].
    """

    accuracy: np.ndarray
    angle: np.ndarray
    lean: np.ndarray
    log_step: np.ndarray
    alive: np.ndarray

    def of(self, studies: slice) -> Tuned:
        """Some of the studies."""
        parts = (self.accuracy, self.lean, self.log_step, self.alive)
        accuracy, lean, log_step, alive = (part[studies] for part in parts)
        return Tuned(accuracy, self.angle[:, studies], lean, log_step, alive)

    def shifted(self, effects: np.ndarray) -> Tuned:
        """The studies with effects of the factors added, the same ones everywhere."""
        return replace(self, angle=self.angle + (LEVELS @ effects)[:, None])


def tuned_studies(
    scenario: Scenario, studies: int, generator: np.random.Generator, *, turn: float = 0.0, lognormal: bool = False
) -> Tuned:
    """Studies in which no factor has an effect on average, and accuracy has its peak at a rate of the arm's own.

    turn : how many rates further up the peak of the first factor's last level lies. Angles change with the rate, so
        the arms then differ where each is tuned.
    lognormal : a seed's effects are lognormal, centred and of the same sd, instead of normal.
    """
    shape, rates = (studies, scenario.n_seeds, len(LEVELS)), len(RATES)
    x = np.arange(rates) - (rates - 1) / 2
    peak = MOVES * (generator.normal(size=(*shape[:2], 1)) + generator.normal(size=shape)) + turn * (LEVELS[:, 0] - 0.5)
    truth = np.clip(0.9 - PER_RATE_ACCURACY * (x - peak[..., None]) ** 2, 0.1, 1.0)
    accuracy = generator.binomial(SAMPLES, truth) / SAMPLES
    of_seed = draw(scenario, (*shape[:2], len(FACTORS)), generator)
    if lognormal:
        of_seed = (np.exp(generator.normal(size=of_seed.shape)) - math.exp(0.5)) / math.sqrt(math.e * (math.e - 1))
    shared = scenario.effect_sd * of_seed @ LEVELS.T + SEED_SD * generator.normal(size=(*shape[:2], 1))
    # Half of a run's residual variance is that of its place: the same network, looked at in another way.
    shared += math.sqrt(0.5) * draw(scenario, shape, generator)
    angle = np.empty((len(PLACES), *shape, rates))
    for place in angle:
        own = math.sqrt(0.5) * draw(scenario, shape, generator)
        place[:] = BASE_ANGLE + PER_RATE * x + (shared + own)[..., None]
        place += 0.5 * generator.normal(size=place.shape)
    log_step = x * math.log(3) + 0.1 * generator.normal(size=accuracy.shape)
    return Tuned(accuracy, angle, generator.normal(size=shape), log_step, np.ones(accuracy.shape, dtype=bool))


def counting_rates(of: Tuned, rates: str) -> np.ndarray:
    """Which runs count for their replicate [studies, seeds, cells, rates]: as `records.tuning.chosen_rates`."""
    score = np.where(of.alive, of.accuracy, -np.inf)
    if rates == "within":
        best = score.max(axis=-1, keepdims=True)
        accuracy = np.clip(best, 0, 1)
        return of.alive & (score >= best - np.sqrt(accuracy * (1 - accuracy) / SAMPLES) - 1e-12)
    # Rounded, so that rates with the same accuracies are a tie, of which the smaller counts.
    chooses = score if rates == "best" else score.mean(axis=1, keepdims=True).round(12)
    return of.alive & (np.arange(len(RATES)) == chooses.argmax(axis=-1)[..., None])


def mean_over_rates(angle: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A replicate's angle; that of one that did not align where it diverged at every rate."""
    n = counts.sum(axis=-1)
    return np.where(n > 0, np.where(counts, angle, 0.0).sum(axis=-1) / np.maximum(n, 1), NOT_ALIGNED)


def contrasts(values: np.ndarray) -> np.ndarray:
    """Per-seed contrasts [studies, claims, seeds] of values [studies, seeds, cells]."""
    return np.moveaxis(values @ (2 * LEVELS - 1) / (len(LEVELS) / 2), -1, 1)


def level_contrasts(values: np.ndarray) -> np.ndarray:
    """The first claim's contrast at each level of its moderator [studies, levels, seeds]."""
    first, at = LEVELS[:, 0], LEVELS[:, CLAIMS.index(MODERATOR)]
    return np.stack(
        [
            values[..., (first == 1) & (at == level)].mean(axis=-1)
            - values[..., (first == 0) & (at == level)].mean(axis=-1)
            for level in (0, 1)
        ],
        axis=1,
    )


def question_contrasts(of: Tuned, question: Question) -> np.ndarray:
    """What a question of the panel finds [studies, claims, seeds]."""
    angle = of.angle[_place(question)]
    if question.equal_step:
        return _at_equal_steps(angle, of.log_step)
    if question.layer in ("first", "last"):
        angle = angle + (of.lean if question.layer == "first" else -of.lean)[..., None]
    return contrasts(mean_over_rates(angle, counting_rates(of, question.rates)))


def _place(question: Question) -> int:
    name = question.response.removesuffix("_angle_deg")
    mode = None if name == "step" else question.mode or "batch"
    return PLACES.index((name, mode))


def _at_equal_steps(angle: np.ndarray, log_step: np.ndarray, points: int = 33) -> np.ndarray:
    found = []
    for claim in range(len(CLAIMS)):
        # Both lists are in the order of the other factors: the n-th cells of the two are a pair.
        before, after = (np.flatnonzero(LEVELS[:, claim] == level) for level in (0, 1))
        low, high = log_step[:, :, before], log_step[:, :, after]
        start, end = np.maximum(low[..., 0], high[..., 0]), np.minimum(low[..., -1], high[..., -1])
        at = start[..., None] + (end - start)[..., None] * np.linspace(0, 1, points)
        difference = _interpolated(at, high, angle[:, :, after]) - _interpolated(at, low, angle[:, :, before])
        found.append(difference.mean(axis=(-1, -2)))
    return np.stack(found, axis=1)


def _interpolated(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y over x [..., rates], which rises, at [..., points] within its range."""
    left = (at[..., None] > x[..., None, 1:-1]).sum(axis=-1)
    x0, x1, y0, y1 = (np.take_along_axis(values, left + step, axis=-1) for values in (x, y) for step in (0, 1))
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


@lru_cache(maxsize=8)
def tuned_study(n_seeds: int, margin: float) -> Study:
    """The study whose records these are: a claim for every factor, the first with a moderator."""
    claims: list[dict[str, Any]] = [
        {"name": name, "statement": name, "practice": name, "factor": name, "levels": FACTORS[f"network.{name}"],
         "direction": "decrease", "smallest_effect": margin, "design": "practices"}
        for name in CLAIMS
    ]  # fmt: skip
    claims[0]["moderators"] = [MODERATOR]
    return Study.parse(
        {
            "name": "tuned", "rules": ["dfa"], "seeds": n_seeds, "network": {"depth": 2}, "tuning": {"lr": RATES},
            "probe": {"modes": ["batch", "eval"], "measures": ["delta", "gradient", "step"]},
            "designs": {"practices": {"kind": "grid", "factors": FACTORS}}, "claims": claims,
        }
    )  # fmt: skip


def tuned_records(of: Tuned, number: int, study: Study) -> Records:
    """The records of one of the simulated studies, as a study that tunes itself leaves them."""
    accuracy, alive = of.accuracy[number], of.alive[number]
    seed, cell, rate = (axis.ravel() for axis in np.indices(accuracy.shape))
    replicate = np.char.add(np.char.add(seed.astype(str), "/"), cell.astype(str))
    levels = {
        name: np.array(FACTORS[f"network.{name}"], dtype=object)[LEVELS[cell, k]] for k, name in enumerate(CLAIMS)
    }
    values, lr = accuracy.ravel(), np.array(RATES)[rate]
    runs = pd.DataFrame(
        {
            "run_id": np.char.add(np.char.add(replicate, "/"), rate.astype(str)), "rule": "dfa",
            "cell": cell.astype(str), "designs": "practices", "seed": seed, "held_out": False, **levels,
            "replicate": replicate, "bp_run_id": "", "bp_replicate": "", "lr": lr, "output_lr": lr,
            "train_accuracy": values, "validation_accuracy": values, "test_accuracy": values, "train_loss": 0.1,
            "validation_loss": 0.1, "validation_loss_error": 0.01, "test_loss": 0.1, "validation_samples": SAMPLES,
            "n_classes": 10, "diverged": ~alive.ravel(),
        }
    )  # fmt: skip
    parts = []
    for mode, layer in itertools.product(("batch", "eval"), (1, 2)):
        lean = (of.lean[number] if layer == 1 else -of.lean[number])[..., None]
        table = pd.DataFrame(
            {
                "run_id": runs["run_id"], "step": 1, "epoch": 1.0, "mode": mode, "layer": layer, "width": 64,
                "signal": "teaching",
            }
        )  # fmt: skip
        for place, angle in zip(PLACES, of.angle, strict=True):
            if place[1] in (mode, None):
                there = place[1] == mode or mode == "batch"
                column = np.where(alive & there, angle[number] + lean, np.nan)
                table[f"{place[0]}_angle_deg"] = column.ravel()
        table["update_ratio"] = np.where(alive & (mode == "batch"), np.exp(of.log_step[number]), np.nan).ravel()
        parts.append(table)
    layers = pd.concat(parts, ignore_index=True)
    layers["order"] = layers.groupby("run_id", sort=False).ngroup()
    layers = layers.sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)
    checkpoints = layers.drop_duplicates("run_id")[["run_id", "step", "epoch", "mode"]].reset_index(drop=True)
    return Records(study, runs, checkpoints, layers, CLAIMS)
