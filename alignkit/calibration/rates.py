"""Rates of error with their Monte Carlo uncertainty, and which of them the simulation contradicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from alignkit.calibration.scenarios import Scenario

Side = Literal["equal", "at most", "reported"]
Section = Literal[
    "one claim", "family", "tuned", "models", "answers", "advice", "power", "power of grades", "comparison"
]
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Tally:
    """How often something happened in simulated studies, and what a correct method's rate would be.

    section : where it belongs in the report. What is in "comparison" is shown and not offered by alignkit: it
        need not be in bounds.
    side : "equal" where the method claims exactly `target`; "at most" where only more would be an error;
        "reported" where there is nothing to compare with.
    undefined : how many studies gave the method no answer; they count in `trials`, as not having happened.
    note : why there are no trials, where there are none.
    """

    section: Section
    method: str
    quantity: str
    hits: int
    trials: int
    target: float = float("nan")
    side: Side = "reported"
    undefined: int = 0
    note: str = ""

    def __add__(self, other: Tally) -> Tally:
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("hits", "trials", "undefined")}
        return Tally(**{**asdict(self), **counts})


def tally(
    section: Section,
    method: str,
    quantity: str,
    happened: np.ndarray,
    *,
    target: float = float("nan"),
    side: Side = "reported",
    defined: np.ndarray | None = None,
) -> Tally:
    """Count booleans, one per trial; `defined` says which trials gave an answer."""
    undefined = 0 if defined is None else int((~defined).sum())
    return Tally(section, method, quantity, int(happened.sum()), happened.size, target, side, undefined)


@dataclass(frozen=True)
class Rate:
    """One figure of the calibration: a rate over simulated studies with its simultaneous Monte Carlo interval.

    `inside` says whether the interval allows the target (for "at most": whether its lower end does); None
    where there is no target, or where the method refuses. `required` figures must be inside.
    """

    scenario: Scenario
    section: Section
    method: str
    quantity: str
    rate: float
    low: float
    high: float
    target: float
    side: Side
    inside: bool | None
    required: bool
    hits: int
    trials: int
    undefined: int
    note: str = ""


@dataclass(frozen=True)
class Calibration:
    """What the simulation found: every rate, and the settings it was found with."""

    rates: tuple[Rate, ...]
    replicates: int
    model_replicates: int
    seed: int
    confidence: float = CONFIDENCE
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def tested(self) -> int:
        """How many required figures were tested at once."""
        return sum(rate.required and rate.inside is not None for rate in self.rates)

    @property
    def outside(self) -> tuple[Rate, ...]:
        """The required figures that the simulation contradicts."""
        return tuple(rate for rate in self.rates if rate.required and rate.inside is False)

    def to_frame(self) -> pd.DataFrame:
        """One row per figure: the scenario's columns, then those of `Rate`."""
        return pd.DataFrame([_row(rate) for rate in self.rates])


def rates_of(
    tallies: Iterable[tuple[Scenario, Tally]], *, required_scenarios: Iterable[Scenario], confidence: float = CONFIDENCE
) -> tuple[Rate, ...]:
    """Each tally's rate with its Clopper-Pearson interval, simultaneous over all required figures (Bonferroni)."""
    tallies, ordinary = list(tallies), set(required_scenarios)
    required = [scenario in ordinary and of.section != "comparison" for scenario, of in tallies]
    tested = sum(
        must and of.side != "reported" and of.trials > 0 for must, (_, of) in zip(required, tallies, strict=True)
    )
    # Half of it in either tail. An "at most" is judged by its lower end alone, so all together hold a little
    # more than `confidence`.
    tail = (1 - confidence) / max(tested, 1) / 2
    rates = []
    for must, (scenario, of) in zip(required, tallies, strict=True):
        low, high = _clopper_pearson(of.hits, of.trials, tail)
        inside: bool | None = None
        if of.trials and of.side != "reported":
            inside = low <= of.target and (of.side == "at most" or of.target <= high)
        rate = of.hits / of.trials if of.trials else float("nan")
        rates.append(Rate(scenario=scenario, rate=rate, low=low, high=high, inside=inside, required=must, **asdict(of)))
    return tuple(rates)


def _clopper_pearson(hits: int, trials: int, tail: float) -> tuple[float, float]:
    if not trials:
        return float("nan"), float("nan")
    low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.isf(tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def _row(rate: Rate) -> dict[str, Any]:
    row = asdict(rate)
    scenario = row.pop("scenario")
    return {**scenario, **row}
