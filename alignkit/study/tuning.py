"""The learning rate as part of the experiment: every arm trains at every rate, and each seed tunes itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pydantic import Field, field_validator, model_validator

from alignkit.settings.probe import ProbeOptions
from alignkit.settings.study_options import Settings
from alignkit.settings.types import Count, Index, Positive, Section

QUIET = {"log_steps": 0, "every_epochs": 0, "steps": (), "start": False}
"""Probe options of a run that is measured at its end alone."""


def _grid(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len(rates) < 2 or list(rates) != sorted(set(rates)):
        raise ValueError(f"expected two or more learning rates, each larger than the one before; got {list(rates)}")
    return rates


class Tuning(Section):
    """The learning rate is a factor, and each seed tunes itself by its own validation accuracy.

    Every arm trains at every rate of `lr` under every seed; `rules` gives single rules a grid of their own. The output
    layer has the hidden layers' rate, or `output_lr` throughout. A seed's response is its mean over the rates whose
    validation accuracy lies within one standard error of its best (for regression: of the loss); rates that diverged
    are out. So a replicate is the whole procedure, and intervals hold what tuning adds.

    Where a seed's best rate is at the edge of its grid, that seed's grid grows by the same ratio, at most `extend`
    rates a side. `trajectory_lr` is the one rate at which all checkpoints are measured, the others at the end
    alone. With `epochs`, the grid trains that long and is not measured; each seed then trains in full at its best rate.
    """

    lr: tuple[Positive, ...]
    output_lr: Positive | None = None
    rules: dict[str, tuple[Positive, ...]] = Field(default_factory=dict)
    extend: Index = 4
    trajectory_lr: Positive | None = None
    epochs: Count | None = None

    @field_validator("lr")
    @classmethod
    def _rates_rise(cls, lr: tuple[float, ...]) -> tuple[float, ...]:
        return _grid(lr)

    @field_validator("rules")
    @classmethod
    def _grids_rise(cls, rules: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        return {rule: _grid(rates) for rule, rates in rules.items()}

    @model_validator(mode="after")
    def _trajectory_is_run(self) -> Tuning:
        for rates in (self.lr, *self.rules.values()):
            if self.trajectory_lr is not None and self.trajectory_lr not in rates:
                raise ValueError(
                    f"trajectory_lr: expected a rate of every grid; got {self.trajectory_lr:g}, which is not in "
                    f"{list(rates)}"
                )
        if self.trajectory_lr is not None and self.epochs is not None:
            raise ValueError(
                "trajectory_lr belongs to a grid that trains in full; with epochs, each seed's full run has the "
                "trajectory. Leave one of the two out"
            )
        return self

    def rates(self, rule: str) -> tuple[float, ...]:
        """The grid of a rule."""
        return self.rules.get(rule, self.lr)


def at_rate(settings: Settings, tuning: Tuning, lr: float, *, full: bool = False) -> Settings:
    """The settings of a run of the grid at `lr`; of the run in full that follows a short grid where `full`."""
    changed: dict[str, object] = {"lr": lr, "output_lr": tuning.output_lr}
    probe: ProbeOptions = settings.probe
    if tuning.epochs is not None and not full:
        changed["epochs"] = tuning.epochs
        probe = probe.model_copy(update={**QUIET, "measures": ()})
    elif tuning.trajectory_lr not in (None, lr) and not full:
        probe = probe.model_copy(update=QUIET)
    training = settings.training.model_copy(update=changed)
    return settings.model_copy(update={"training": training, "probe": probe})


@dataclasses.dataclass(frozen=True)
class Tried:
    """What a replicate showed at one rate: a validation score (higher is better; None where it diverged)."""

    lr: float
    score: float | None


def best_rates(tried: Sequence[Tried]) -> tuple[float, ...]:
    """The rates with the best score: several on a tie, none where all diverged."""
    scores = [one.score for one in tried if one.score is not None]
    return tuple(one.lr for one in tried if scores and one.score == max(scores))


def next_rate(tried: Sequence[Tried], grid: Sequence[float], *, extend: int) -> float | None:
    """The rate that a replicate tries next, beyond the edge that its best lies at; None where it needs none.

    >>> rates = [Tried(0.1, 0.7), Tried(0.3, 0.8), Tried(1.0, 0.9)]
    >>> next_rate(rates, [0.1, 0.3, 1.0], extend=4)
    3.33333
    """
    best, known = best_rates(tried), sorted(one.lr for one in tried)
    if len(best) != 1 or best[0] not in (known[0], known[-1]):
        return None
    above = best[0] == known[-1]
    beyond = [lr for lr in known if (lr > grid[-1] if above else lr < grid[0])]
    if len(beyond) >= extend:
        return None
    ratio = grid[-1] / grid[-2] if above else grid[0] / grid[1]
    return float(f"{best[0] * ratio:.6g}")


def at_edge(tried: Sequence[Tried]) -> bool:
    """Whether a replicate's best rate is the smallest or the largest that it tried."""
    best, known = best_rates(tried), [one.lr for one in tried]
    return len(known) > 1 and len(best) == 1 and best[0] in (min(known), max(known))
