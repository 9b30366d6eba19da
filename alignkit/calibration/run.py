"""The simulation: every scenario by every evaluation, in batches whose numbers depend on nothing but the seed."""

from __future__ import annotations

import math
import multiprocessing
import platform
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
import statsmodels

from alignkit import __version__
from alignkit.calibration.curves_and_mediation import evaluate_mediation, evaluate_thresholds
from alignkit.calibration.grades import evaluate_grades, evaluate_tuned
from alignkit.calibration.models import evaluate_layers, evaluate_models
from alignkit.calibration.paired import evaluate_paired
from alignkit.calibration.rates import Calibration, Tally, rates_of
from alignkit.calibration.recommendations import evaluate_advice
from alignkit.calibration.scenarios import DIVERGING, GRID, SKEWED, Scenario
from alignkit.errors import AnalysisError

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Evaluation:
    """What is done with simulated studies of every scenario, so many in a batch.

    share : of `replicates` (paired) or of `model_replicates` (everything else) that it is given.
    cost : about how long one study takes, in ms; it weighs the progress alone.
    applies : whether the evaluation has anything to do with a scenario.
    """

    run: Callable[[Scenario, int, np.random.Generator], list[Tally]]
    batch: int
    cost: Callable[[Scenario], float]
    paired: bool = False
    share: float = 1.0
    applies: Callable[[Scenario], bool] = lambda scenario: True

    def studies(self, replicates: int, model_replicates: int) -> int:
        """How many studies of each scenario it is given."""
        return math.ceil(self.share * (replicates if self.paired else model_replicates))


def _extreme(scenario: Scenario) -> bool:
    """Ten seeds with all variances as supposed or all against it at once, and runs that diverge."""
    corner = (scenario.effect_sd > 0) == (scenario.sd_ratio != 1) and not scenario.skewed
    return scenario.diverging > 0 or (scenario.n_seeds == 10 and corner)


def _tuned(n_seeds: int, effect_sds: tuple[float, ...] = (0.0, 0.5)) -> Callable[[Scenario], bool]:
    """Complete studies of so many seeds with equal variances: each seed then tunes itself."""
    wanted = {Scenario(n_seeds, effect_sd) for effect_sd in effect_sds}
    return lambda scenario: scenario in wanted


def _at_random(scenario: Scenario) -> bool:
    return not scenario.diverging


# Where a study takes long there are fewer of them, and fewer scenarios of recommendations and of tuned studies: with
# more than 16 seeds the panels of one take seconds.
EVALUATIONS = {
    "paired": Evaluation(
        evaluate_paired, 500, lambda of: 4.5 if of.n_seeds > 16 else 0.4, paired=True, applies=_at_random
    ),
    "tuned": Evaluation(evaluate_tuned, 100, lambda of: 25.0, applies=_tuned(10)),
    "grades": Evaluation(evaluate_grades, 25, lambda of: 150.0, applies=_tuned(10)),
    "tuned, many seeds": Evaluation(evaluate_tuned, 10, lambda of: 900.0, share=0.1, applies=_tuned(20, (0.5,))),
    "models": Evaluation(evaluate_models, 50, lambda of: 30.0, applies=_at_random),
    "layers": Evaluation(evaluate_layers, 50, lambda of: 18.0, applies=_at_random),
    "thresholds": Evaluation(
        evaluate_thresholds, 25, lambda of: 100.0 if of.n_seeds > 16 else 28.0, share=0.15, applies=_at_random
    ),
    "mediation": Evaluation(evaluate_mediation, 25, lambda of: 110.0, share=0.15, applies=_at_random),
    "advice": Evaluation(evaluate_advice, 10, lambda of: 2600.0 + 80.0 * of.n_seeds, share=0.06, applies=_extreme),
}


@dataclass(frozen=True)
class _Batch:
    evaluation: str
    scenario: Scenario
    number: int
    studies: int

    @property
    def cost(self) -> float:
        return self.studies * EVALUATIONS[self.evaluation].cost(self.scenario)


def calibrate(
    *,
    replicates: int = 10_000,
    model_replicates: int = 1_000,
    seed: int = 0,
    workers: int = 1,
    scenarios: Sequence[Scenario] = (*GRID, *DIVERGING),
    stress: Sequence[Scenario] = SKEWED,
    on_progress: Progress | None = None,
) -> Calibration:
    """How often every method errs, over simulated studies with a known truth.

    Each scenario is simulated `replicates` times for the paired methods and `model_replicates` times for the
    models, which are fitted one by one (a share of that for what takes long: `EVALUATIONS`); 0 leaves either out.
    Figures of `scenarios` are required to be in bounds, those of `stress` are shown beside them. The result
    depends on `seed` and the numbers of replicates, and not on `workers`.

    on_progress : called with the share that is done, and what was done last.
    """
    if workers < 1 or min(replicates, model_replicates) < 0 or replicates + model_replicates == 0:
        raise AnalysisError(
            "expected a number of replicates, and at least one worker; got "
            f"{replicates} and {model_replicates} replicates, {workers} workers"
        )
    batches = [
        _Batch(name, scenario, number, min(evaluation.batch, studies - start))
        for scenario in (*scenarios, *stress)
        for name, evaluation in EVALUATIONS.items()
        if evaluation.applies(scenario)
        for studies in [evaluation.studies(replicates, model_replicates)]
        for number, start in enumerate(range(0, studies, evaluation.batch))
    ]
    by_batch: dict[_Batch, list[Tally]] = {}
    done, total = 0.0, sum(batch.cost for batch in batches)
    for batch, tallies in _results(batches, seed, workers):
        by_batch[batch] = tallies
        done += batch.cost
        if on_progress is not None:
            on_progress(done / total, f"{batch.evaluation}: {batch.scenario.label}")
    merged: dict[tuple[Scenario, str, str], Tally] = {}
    for batch in batches:  # in the order of the batches, whichever finished first
        for tally in by_batch[batch]:
            key = (batch.scenario, tally.method, tally.quantity)
            merged[key] = merged[key] + tally if key in merged else tally
    rates = rates_of(((key[0], tally) for key, tally in merged.items()), required_scenarios=scenarios)
    return Calibration(rates, replicates, model_replicates, seed, versions=_versions())


def _results(batches: Iterable[_Batch], seed: int, workers: int) -> Iterator[tuple[_Batch, list[Tally]]]:
    if workers == 1:
        yield from ((batch, _evaluate(batch, seed)) for batch in batches)
        return
    # Spawned, so that workers share no state with a parent that may run threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_evaluate, batch, seed): batch for batch in batches}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:  # an interruption too: what waits must not run on
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _evaluate(batch: _Batch, seed: int) -> list[Tally]:
    what = zlib.crc32(f"{batch.evaluation}: {batch.scenario}".encode())
    generator = np.random.default_rng([seed, what, batch.number])
    return EVALUATIONS[batch.evaluation].run(batch.scenario, batch.studies, generator)


def _versions() -> dict[str, str]:
    modules = (np, scipy, pd, statsmodels)
    return {
        "alignkit": __version__,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in modules},
    }
