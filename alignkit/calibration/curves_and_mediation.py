"""Thresholds and mediation, one simulated study at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from alignkit.calibration.rates import Tally, tally
from alignkit.calibration.scenarios import CELLS, SEED_SD, Scenario, draw, paired_runs, run_table
from alignkit.stats.curves.thresholds import threshold
from alignkit.stats.mechanisms.mediation import mediation

ALPHA = 0.05
DOUBLINGS = np.arange(6.0)
"""log2 of the widths of a curve, the smallest one the unit."""
KNOT = 2.3
SLOPE = 2.0


def evaluate_thresholds(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Bends found in lines, bends placed wrongly, and smooth curves taken for thresholds.

    Curves have six widths and a residual of 1/sqrt(cells), that of a mean over cells; the residual sd at
    the largest width is `sd_ratio` times that, and slopes vary over seeds by `effect_sd` per doubling.
    """
    n = scenario.n_seeds
    residuals = draw(scenario, (studies, n, len(DOUBLINGS)), generator) / np.sqrt(CELLS)
    residuals[..., -1] *= scenario.sd_ratio
    slopes = scenario.effect_sd * draw(scenario, (studies, n, 1), generator)
    noise = residuals + slopes * DOUBLINGS + SEED_SD * generator.normal(size=(studies, n, 1))
    line, bend, smooth = (
        [threshold(_curve_table(study + SLOPE * curve), factor="width") for study in noise]
        for curve in (DOUBLINGS, np.maximum(DOUBLINGS - KNOT, 0), 2.0 ** (-0.5 * DOUBLINGS))
    )
    missed = [not one.interval[0] <= 2**KNOT <= one.interval[1] for one in bend]
    counted = (
        ("bend found in a line", [one.p < ALPHA for one in line]),
        ("bend not in its interval", missed),
        ("smooth curve called a threshold", [one.verdict == "threshold" for one in smooth]),
    )
    return [
        tally("answers", "threshold", quantity, np.array(wrong), target=ALPHA, side="at most")
        for quantity, wrong in counted
    ]


def _curve_table(values: np.ndarray) -> pd.DataFrame:
    table = run_table(values, ("width",))
    return table.assign(width=2.0 ** DOUBLINGS[table["width"]])


def evaluate_mediation(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Intervals of the indirect and direct effects that miss them, with and without an effect to carry.

    The mediator is a run as in the paired studies, moved by an effect of 1 where there is one; the outcome
    is half of it, plus a direct effect of the seeds' own, plus noise.
    """
    mediators = paired_runs(scenario, studies, 1, generator)[:, 0]
    own = scenario.effect_sd * draw(scenario, (studies, scenario.n_seeds, 1), generator)
    outcomes = 0.5 * mediators + draw(scenario, mediators.shape, generator)
    outcomes[:, :, 1] += 1.0 + own
    tallies = []
    for name, effect in (("no effect on the mediator", 0.0), ("an effect of 1", 1.0)):
        missed = []
        for mediator, outcome in zip(mediators, outcomes, strict=True):
            table = run_table(mediator, ("level", "cell")).rename(columns={"value": "mediator"})
            table["outcome"] = outcome.ravel() + 0.5 * effect * table["level"]
            table["mediator"] += effect * table["level"]
            effects = mediation(
                table, factor="level", levels=(0, 1), mediator="mediator", outcome="outcome", within=["cell"]
            ).effects
            truth = {"indirect": 0.5 * effect, "direct": 1.0}
            missed.append([not effects[key].interval[0] <= truth[key] <= effects[key].interval[1] for key in truth])
        for column, kind in enumerate(("indirect", "direct")):
            wrong = np.array(missed)[:, column]
            tallies.append(
                tally("answers", "mediation", f"{kind} not covered, {name}", wrong, target=ALPHA, side="at most")
            )
    return tallies
