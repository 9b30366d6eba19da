"""What effects on angles are worth in accuracy, by a curve in which the angle was imposed."""

from __future__ import annotations

import math

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.stakes import CURVE, POINT, Stake, not_on_the_curve
from alignkit.claims.verdict import Verdict
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.text import change, change_interval, count, level, listed, sentence

ANGLE, ACCURACY = "gradient_angle_deg", "test_accuracy"
METHOD = (
    f"The curve: {CURVE}; the angle of the weight gradients was imposed, not observed. A claim's worth is the curve's "
    "difference between its arms' angles, cell by cell; the interval holds the seeds of the study and of the curve. It "
    "is a scale to read an angle by: what a practice does to accuracy by other ways is not in it."
)


def stakes(analysis: Analysis) -> Answer | None:
    """For each claim on an angle of the weights' movement, what its effect is worth in points of test accuracy."""
    asked = [verdict for verdict in analysis.verdicts if verdict.n_seeds and not not_on_the_curve(verdict.claim)]
    if not asked:
        return None
    why = analysis.unlike_the_curve()
    if why:
        return Answer((f"{sentence(why)}: what these angles are worth in accuracy is not known.",))
    found: list[tuple[Verdict, Stake]] = []
    reasons: list[str] = []
    for verdict in asked:
        try:
            found.append((verdict, analysis.stake(verdict.claim)))
        except AnalysisError as error:
            reasons.append(str(error))
    if not found:
        raise AnalysisError("; ".join(reasons))
    nil = [verdict for verdict, one in found if one.nil]
    names = listed(verdict.claim.name for verdict in nil)
    by = "By the dose\N{EN DASH}response curve,"
    if nil:
        which = "every effect on an angle here" if len(nil) == len(found) else names
        verb = "is" if len(nil) in (1, len(found)) else "are"
        text = f"{by} {which} {verb} worth less than a point of test accuracy, whichever way."
    else:
        text = f"{by} every effect on an angle here may be worth a point of test accuracy."
    flat = [verdict.claim.name for verdict, one in found if not math.isfinite(one.degrees)]
    sentences = [text]
    if flat:
        which = "any of these claims' first arms" if len(flat) == len(found) else f"the first arm of {listed(flat)}"
        sentences.append(
            f"From the angle of {which} no decrease gains a point: the curve is flat there, and no margin in degrees "
            "can be read from it."
        )
    beyond = max(one.worth.clipped for _, one in found)
    notes = [METHOD, *(f"{sentence(reason)}." for reason in reasons)]
    if beyond:
        notes.append(f"Angles beyond the curve's last, 90°, are read there: at most {beyond:.1%} of a claim's angles.")
    return Answer(tuple(sentences), (_table(found),), (), tuple(notes))


def _table(found: list[tuple[Verdict, Stake]]) -> Table:
    data = pd.DataFrame(
        {
            "claim": one.claim, "angle_from": one.angles[0], "angle_to": one.angles[1], "points": one.worth.estimate,
            "low": one.worth.interval[0], "high": one.worth.interval[1], "nil": one.nil,
            "degrees_for_a_point": one.degrees, "n_seeds": one.worth.n_seeds, "n_curve_seeds": one.worth.n_curve_seeds,
        }
        for _, one in found
    )  # fmt: skip
    caption = (
        f"Effects on angles and what they are worth in points of test accuracy. Nil: the whole interval lies within "
        f"{count(int(POINT), 'point')}. A dash: no decrease of the first arm's angle gains a point."
    )
    return Table.each("stakes", caption, found, data, words=1, columns=[
        ("claim", lambda of: of[0].claim.name),
        ("from", lambda of: level(of[1].angles[0], ANGLE)),
        ("to", lambda of: level(of[1].angles[1], ANGLE)),
        ("worth", lambda of: change(of[1].worth.estimate, ACCURACY)),
        ("95% interval", lambda of: change_interval(of[1].worth.interval, ACCURACY)),
        ("nil", lambda of: "yes" if of[1].nil else "no"),
        ("decrease that gains a point", lambda of: level(of[1].degrees, ANGLE)),
    ])  # fmt: skip
