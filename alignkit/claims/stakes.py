"""What a difference in angle is worth in accuracy, by a dose-response curve in which the angle was imposed.

The curve that ships is of the study dose_response (design rates: the deltas of back-propagation turned by the angle in
every hidden layer; digits, three hidden layers of 64 tanh units; for each seed and angle the rate with the best
validation accuracy): `files/dose_curve.csv`, a row per seed and angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from alignkit.claims.cells import paired_cells
from alignkit.claims.verdict import Verdict
from alignkit.display import block, head_html, rows_html
from alignkit.errors import AnalysisError
from alignkit.records.rows import rows_of, summarised
from alignkit.records.store import Records
from alignkit.stats.curves.stakes import Worth, decrease_worth, worth
from alignkit.stats.tables.levels import level_order
from alignkit.study.claim import Claim
from alignkit.text import change, change_interval, level, with_interval

RULE, DOSE = "imposed_angle", "feedback_angle_deg"
ACCURACY = "test_accuracy"
POINT = 1.0
"""The smallest difference in accuracy that is called one that matters, in points."""
ANGLES = ("gradient_angle_deg", "delta_angle_deg", "step_angle_deg")
"""The angles that the curve imposes: of what the weights move along."""
CURVE = "three hidden layers of 64 tanh units on digits, each angle at its own tuned rate"
_FILE = Path(__file__).parent / "files" / "dose_curve.csv"


@dataclass(frozen=True)
class Stake:
    """What a claim's effect on an angle is worth in points of test accuracy, by a dose-response curve.

    `angles` are the two arms' means. `degrees` is the decrease from the first arm's mean that gains a point by the
    curve, NaN where no decrease does: the curve is flat from there on. `nil` says that the whole interval lies within
    a point.
    """

    claim: str
    worth: Worth
    angles: tuple[float, float]
    degrees: float
    curve: str

    @property
    def nil(self) -> bool:
        low, high = self.worth.interval
        return low > -POINT and high < POINT

    def sentence(self) -> str:
        """The stake in words."""
        text = f"by the dose\N{EN DASH}response curve worth {points_text(self.worth.estimate, self.worth.interval)}"
        if self.nil:
            return f"{text} of test accuracy, less than a point either way"
        if not isfinite(self.degrees):
            return f"{text} of test accuracy"
        return f"{text} of test accuracy; a point is gained by {level(self.degrees, ANGLES[0])} less"

    def __repr__(self) -> str:
        return f"Stake({self.claim}: {self.sentence()})"

    def _repr_html_(self) -> str:
        rows = [
            (f"{self.angles[0]:.1f}°", f"{self.angles[1]:.1f}°", points_text(self.worth.estimate, self.worth.interval))
        ]
        table = rows_html(rows, head=("from", "to", "worth [95%]"))
        return block(
            head_html("Stake", f"{self.claim}: {self.sentence()}"), table, notes=[self.curve, self.worth.method]
        )


def points_text(estimate: float, interval: tuple[float, float]) -> str:
    """A difference in accuracy with its interval."""
    return with_interval(change(estimate, ACCURACY), change_interval(interval, ACCURACY))


@cache
def shipped_curve() -> pd.DataFrame:
    """Test accuracy in points, [seed, imposed angle]."""
    rows = pd.read_csv(_FILE)
    return rows.pivot(index="seed", columns=DOSE, values=ACCURACY)


def curve_of(records: Records, *, design: str | None = None) -> pd.DataFrame:
    """The dose-response curve of a study that imposes angles, [seed, angle], for `stake(..., curve=)`.

    Where every angle ran at several rates, for every seed and angle the one with the best validation accuracy.
    """
    table = rows_of(summarised(records, ACCURACY), rule=RULE, design=design)
    if DOSE not in table or len(level_order(table[DOSE])) < 3:
        raise AnalysisError(f"expected runs of {RULE} at three angles or more; got none such")
    if (table.groupby(DOSE)["lr"].nunique() > 1).all():
        table = best_rates(table)
    return table.groupby(["seed", DOSE])["value"].mean().unstack().dropna().sort_index(axis=1)


def best_rates(table: pd.DataFrame) -> pd.DataFrame:
    """For each seed and angle the run with the best validation accuracy (the smallest rate of those)."""
    ordered = table.dropna(subset=["validation_accuracy"]).sort_values(
        ["validation_accuracy", "lr"], ascending=[False, True]
    )
    return ordered.drop_duplicates(["seed", DOSE])


def stake(records: Records, claim: Claim, *, curve: pd.DataFrame | None = None, of: str = "") -> Stake:
    """What a claim's effect on an angle is worth by a dose-response curve, the shipped one or another.

    `of` says in words what network another `curve` is of. `AnalysisError` says why there is no stake: the claim is not
    about an angle that the curve imposes, averaged over layers at the end of training; the network is not like the
    shipped curve's; no cell has both arms.
    """
    why = not_on_the_curve(claim)
    if not why and curve is None:
        why = unlike(records)
    if why:
        raise AnalysisError(f"claim {claim.name}: {why}")
    used = shipped_curve() if curve is None else curve
    pairs = paired_cells(records, claim)
    if pairs.before.shape[1] == 0:
        raise AnalysisError(f"claim {claim.name}: no cell has both arms under every seed")
    before, after = pairs.before.to_numpy(float), pairs.after.to_numpy(float)
    means = float(before.mean()), float(after.mean())
    return Stake(
        claim.name, worth(used, before, after), means, decrease_worth(used, angle=means[0], gain=POINT),
        of or (CURVE if curve is None else "a curve of one's own"),
    )  # fmt: skip


def not_on_the_curve(claim: Claim) -> str:
    """Why a curve over imposed angles does not speak of a claim; empty where it does."""
    if claim.response not in ANGLES:
        return f"the curve imposes the angle of the weight gradients, and the claim is about {claim.response}"
    if claim.summary != "final" or claim.layer != "mean":
        return "the curve imposes one angle in all hidden layers, and the claim is not about their mean at the end"
    return ""


def unlike(records: Records) -> str:
    """Why the shipped curve is not of a like network; empty where it is: dense layers on digits."""
    study = records.study
    if study.network.kind != "mlp" or study.data.name != "digits" or study.data.shuffle_labels:
        return f"no dose\N{EN DASH}response curve of a like network is at hand (the one that ships: {CURVE})"
    return ""


def stake_or_none(records: Records, claim: Claim) -> Stake | None:
    """The stake, None where there is none."""
    key = ("stake", claim.name)
    if key not in records.memo:
        try:
            records.memo[key] = stake(records, claim)
        except AnalysisError:
            records.memo[key] = None
    found: Stake | None = records.memo[key]
    return found


def nil_stake(records: Records, verdict: Verdict) -> str:
    """What a verdict on an angle must say whose stake is nil; empty for any other."""
    if verdict.verdict not in ("supported", "refuted"):
        return ""
    found = stake_or_none(records, verdict.claim)
    if found is None or not found.nil:
        return ""
    return f"this difference in angle has no stake in accuracy: {found.sentence()} ({found.curve})"


def nil_sentence(entry: dict[str, Any]) -> list[str]:
    """What the summary of a recommendation adds where its angle has no stake; nothing elsewhere."""
    if entry["stake"] is None or not entry["stake"]["nil"] or entry["verdict"] not in ("supported", "refuted"):
        return []
    return ["By the dose\N{EN DASH}response curve that angle is worth less than a point of accuracy, whichever way."]


def stake_entry(records: Records, claim: Claim) -> dict[str, Any] | None:
    """The stake for recommendations.json; None where there is none."""
    found = stake_or_none(records, claim)
    if found is None:
        return None
    return {
        "points": found.worth.estimate,
        "interval": list(found.worth.interval),
        "nil": found.nil,
        "degrees_for_a_point": found.degrees if isfinite(found.degrees) else None,
        "curve": found.curve,
    }
