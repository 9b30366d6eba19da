"""The simulated studies: what varies between them, and how their runs are drawn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

SEED_SD = 2.0
CELLS = 8
"""Cells per level in a paired study, or in one of practices: what a factor's contrast is averaged over."""
ADVISED = 10
"""Practices in a study that makes recommendations."""


@dataclass(frozen=True)
class Scenario:
    """A kind of study, in units of the first level's residual sd (that of one run about its cell and seed).

    n_seeds : seeds per study.
    effect_sd : sd over seeds of a factor's effect, the seed-by-factor variation.
    sd_ratio : residual sd at the last level over that at the first.
    missing : the chance that a run has no value, whatever its value.
    diverging : in studies of practices, the share of runs at the first one's last level that have no value, those
        with the highest residuals: not missing at random.
    skewed : residuals and seeds' effects are exponential, centred, instead of normal.
    """

    n_seeds: int
    effect_sd: float = 0.0
    sd_ratio: float = 1.0
    missing: float = 0.0
    diverging: float = 0.0
    skewed: bool = False

    @property
    def label(self) -> str:
        """The scenario in words, different for each."""
        parts = [f"{self.n_seeds} seeds"]
        parts += [f"effect varies over seeds (sd {self.effect_sd:g})"] if self.effect_sd else []
        parts += [f"sd ratio {self.sd_ratio:g}"] if self.sd_ratio != 1 else []
        parts += [f"{self.missing:.0%} missing"] if self.missing else []
        parts += [f"worst {self.diverging:.0%} of a level diverge"] if self.diverging else []
        parts += ["skewed"] if self.skewed else []
        return ", ".join(parts)

    @property
    def contrast_sd(self) -> float:
        """Sd over seeds of a factor's contrast in a complete paired study."""
        return float(np.sqrt(self.effect_sd**2 + (1 + self.sd_ratio**2) / CELLS))

    @property
    def factorial_sd(self) -> float:
        """The same of the two-level factor of `factorial_runs`, whose cells differ in their residual sd."""
        return float(np.sqrt(self.effect_sd**2 + (3 + 5 * self.sd_ratio**2) / 16))


GRID = tuple(
    Scenario(n_seeds, effect_sd, sd_ratio, missing)
    for n_seeds, effect_sd, sd_ratio, missing in itertools.product((6, 10, 20), (0.0, 0.5), (1.0, 3.0), (0.0, 0.1))
)
"""Seeds, with and without variation of the effect over seeds, equal and unequal variances, complete or not."""

DIVERGING = (Scenario(10, diverging=0.05), *(Scenario(n_seeds, diverging=0.3) for n_seeds in (6, 10, 20)))
"""Runs of one level diverge because they are the worst: for studies of practices, whose verdicts must stand it."""

SKEWED = tuple(Scenario(n_seeds, 0.5, 3.0, skewed=True) for n_seeds in (6, 10, 20))
"""Beyond what the methods suppose: differences that are not symmetric. Reported, not required to be in bounds."""


def draw(scenario: Scenario, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Mean 0, sd 1: normal, or exponential where the scenario is skewed (skewness 2)."""
    if scenario.skewed:
        return generator.exponential(size=shape) - 1.0
    return generator.normal(size=shape)


def paired_runs(scenario: Scenario, studies: int, claims: int, generator: np.random.Generator) -> np.ndarray:
    """Runs [studies, claims, seeds, 2 levels, cells] in which no factor has an effect on average.

    Claims are independent of each other, where an adjustment for their number has the least to spare.
    """
    n = scenario.n_seeds
    values = draw(scenario, (studies, claims, n, 2, CELLS), generator)
    values[..., 1, :] *= scenario.sd_ratio
    values[..., 1, :] += scenario.effect_sd * draw(scenario, (studies, claims, n, 1), generator)
    # Seeds and cells differ as well, so that a method which loses a run must not lose the balance.
    values += SEED_SD * generator.normal(size=(studies, claims, n, 1, 1)) + np.linspace(-3, 3, CELLS)
    return _with_holes(values, scenario, generator)


def factorial_runs(scenario: Scenario, studies: int, generator: np.random.Generator) -> np.ndarray:
    """Runs [studies, seeds, 2 levels of a, 4 levels of b] in which neither factor has an effect on average.

    `effect_sd` is the sd over seeds of the difference of any two levels of a factor; the last level of
    either factor has the other residual sd.
    """
    n = scenario.n_seeds
    values = draw(scenario, (studies, n, 2, 4), generator)
    values[:, :, 1, :] *= scenario.sd_ratio
    values[:, :, 0, 3] *= scenario.sd_ratio
    values += scenario.effect_sd * np.sqrt(0.5) * draw(scenario, (studies, n, 2, 1), generator)
    values += scenario.effect_sd * np.sqrt(0.5) * draw(scenario, (studies, n, 1, 4), generator)
    values += SEED_SD * generator.normal(size=(studies, n, 1, 1))
    return _with_holes(values, scenario, generator)


def layered_runs(scenario: Scenario, studies: int, generator: np.random.Generator) -> np.ndarray:
    """Layers [studies, seeds, 2 levels of a, 4 cells, 3 layers] in which neither a nor the layer has an effect.

    A run's layers share a deviation with sd 1 and have one each of half that; effects of `a` vary over
    seeds, and so do those of the layers.
    """
    n = scenario.n_seeds
    values = draw(scenario, (studies, n, 2, 4, 1), generator) + 0.5 * draw(scenario, (studies, n, 2, 4, 3), generator)
    values[:, :, 1] *= scenario.sd_ratio
    values += scenario.effect_sd * np.sqrt(0.5) * draw(scenario, (studies, n, 2, 1, 1), generator)
    values += scenario.effect_sd * np.sqrt(0.5) * draw(scenario, (studies, n, 1, 1, 3), generator)
    values += SEED_SD * generator.normal(size=(studies, n, 1, 1, 1))
    return _with_holes(values, scenario, generator)


def practice_levels() -> np.ndarray:
    """The levels, 0 or 1, of ten practices in a fraction of 16 cells [cells, practices]: orthogonal main effects."""
    shared = np.arange(2 * CELLS)[:, None] & np.arange(1, ADVISED + 1)
    return np.array([[bin(bits).count("1") % 2 for bits in row] for row in shared], dtype=float)


def practice_runs(scenario: Scenario, studies: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Angle and accuracy of runs [studies, seeds, cells] in which no practice has an effect on average.

    Half of an accuracy's residual variance is the angle's, turned: what aligns badly is less accurate. The
    other residual sd is that of the first practice's last level. A run that has no angle has no accuracy.
    """
    levels = practice_levels()
    residuals = draw(scenario, (2, studies, scenario.n_seeds, len(levels)), generator)
    residuals[1] = (residuals[1] - residuals[0]) * np.sqrt(0.5)
    last = levels[:, 0] == 1
    residuals[..., last] *= scenario.sd_ratio
    effects = scenario.effect_sd * draw(scenario, (2, studies, scenario.n_seeds, ADVISED), generator)
    values = residuals + effects @ levels.T + SEED_SD * generator.normal(size=(2, studies, scenario.n_seeds, 1))
    lost = generator.uniform(size=values.shape[1:]) < scenario.missing
    if scenario.diverging:
        worst = np.quantile(residuals[0][..., last], 1 - scenario.diverging, axis=(1, 2), keepdims=True)
        lost |= last & (residuals[0] > worst)
    values[:, lost] = np.nan
    return values[0], values[1]


def run_table(values: np.ndarray, names: tuple[str, ...]) -> pd.DataFrame:
    """One study's runs [seeds, ...] as a tidy table: a row per run, the axes after the seed in `names`."""
    places = zip(("seed", *names), np.indices(values.shape), strict=True)
    return pd.DataFrame({name: place.ravel() for name, place in places} | {"value": values.ravel()})


def _with_holes(values: np.ndarray, scenario: Scenario, generator: np.random.Generator) -> np.ndarray:
    if scenario.missing:
        values[generator.uniform(size=values.shape) < scenario.missing] = np.nan
    return values
