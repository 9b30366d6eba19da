"""Each claim's two arms over the learning rate, where every seed tunes itself."""

from __future__ import annotations

from math import isfinite

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.claims.over_rates import Shift, shift_between
from alignkit.claims.verdict import Verdict
from alignkit.columns import digits_of, label_of
from alignkit.errors import AnalysisError
from alignkit.figures.rates import chart
from alignkit.report.section import Answer, Fold
from alignkit.report.tables import Table
from alignkit.text import ABSENT, change, count, listed, number, reading, row_label, sentence, unit

VALIDATION = ("validation_accuracy", "validation_loss")


def rates(analysis: Analysis) -> Answer | None:
    """The response and the validation accuracy of each claim's arms at every rate; None where nothing is tuned."""
    if analysis.study.tuning is None:
        return None
    folds, tables, turning, short = [], [], [], []
    for verdict in analysis.verdicts:
        try:
            curves = _curves(analysis, verdict)
        except AnalysisError as error:
            short.append(f"{verdict.claim.name}: {error}.")
            continue
        tables.append(curves.assign(claim=verdict.claim.name))
        differences = _differences(curves, verdict)
        if {value > 0 for value in differences.values()} == {True, False}:
            turning.append(verdict.claim.name)
        folds.append(_fold(verdict, curves, differences))
    if not folds:
        if short:
            raise AnalysisError("; ".join(line.removesuffix(".") for line in short))
        return None
    return Answer(
        _sentences(turning, len(folds)),
        (_whole(tables),),
        notes=(*short, *_gaps(tables), _SAME_RATE),
        folds=tuple(folds),
    )


_SAME_RATE = (
    "A difference at one rate is not the verdict's: both arms are held there at the same rate, which may suit one of "
    "them alone. The verdict lets every seed of each arm choose."
)


def _gaps(tables: list[pd.DataFrame]) -> list[str]:
    """Where a curve is broken because runs have no value, and what would stand for them is not known."""
    data = pd.concat(tables, ignore_index=True)
    broken = data[data["whole"] & (data["without"] > 0)]
    return [
        f"{listed(dict.fromkeys(part['claim']))}: the {label_of(str(name))} has no point where a run that failed has "
        "no value."
        for name, part in broken.groupby("response", sort=False)
    ]


def _curves(analysis: Analysis, verdict: Verdict) -> pd.DataFrame:
    own = analysis.over_rates(verdict.claim)
    if not own["mean"].notna().any():
        raise AnalysisError("there is no rate at which all runs of an arm have a value")
    score = VALIDATION[not analysis.every_run["validation_accuracy"].notna().any()]
    if verdict.claim.response == score:
        return own
    return pd.concat([own, analysis.over_rates(verdict.claim, response=score)], ignore_index=True)


def _differences(curves: pd.DataFrame, verdict: Verdict) -> dict[float, float]:
    """The second arm less the first, by rate, in the claim's response, where it is at least the smallest effect."""
    own = curves[curves["response"] == verdict.claim.response]
    by_level = own.pivot_table(index="lr", columns="level", values="mean", aggfunc="first")
    first, second = verdict.levels
    if not {first, second} <= set(by_level):
        return {}
    difference = (by_level[second] - by_level[first]).dropna()
    pairs = zip(difference.index.to_numpy(float), difference.to_numpy(float), strict=True)
    return {float(lr): float(value) for lr, value in pairs if abs(value) >= verdict.claim.smallest_effect}


def _sentences(turning: list[str], n: int) -> tuple[str, ...]:
    if not turning:
        return (f"In {count(n, 'claim')}, no effect that would matter changes its sign with the learning rate.",)
    plural = "the effect" if len(turning) == 1 else "the effects"
    says = "has" if len(turning) == 1 else "have"
    return (
        f"At one rate for both arms, {plural} of {listed(turning)} {says} one sign at some rates and the other at "
        "others: there the verdict is one on the tuned rates.",
    )


def _fold(verdict: Verdict, curves: pd.DataFrame, differences: dict[float, float]) -> Fold:
    claim, shift = verdict.claim, None
    if verdict.verdict == "not identifiable":
        try:
            shift = shift_between(curves[curves["response"] == claim.response])
        except AnalysisError:
            shift = None
    see = _shift_words(shift, verdict) if shift else _see(verdict, differences)
    drawn = chart(curves, claim=claim, see=see, shifted=shift.factor if shift else 1.0)
    notes = (_OUTPUT_RATE,) if shift else ()
    return Fold(f"{claim.practice or claim.statement}: {row_label(claim.factor, verdict.levels)}", (), (drawn,), notes)


_OUTPUT_RATE = (
    "Feedback of another length is another rate of the hidden layers alone. Where hidden and output layers share one "
    "rate, the shifted curves agree as far as the output layer's rate does not matter."
)


def _shift_words(shift: Shift, verdict: Verdict) -> str:
    response = verdict.claim.response
    digits = digits_of(response)
    before, after = (f"{number(value, digits)}{unit(response)}" for value in (shift.before, shift.after))
    apart = f" (they lie {before} apart as they are)" if isfinite(shift.before) else ""
    return (
        f"One curve, shifted: at {shift.factor:.2g} times its rate, {verdict.levels[1]} lies {after} from "
        f"{verdict.levels[0]}{apart}."
    )


def _see(verdict: Verdict, differences: dict[float, float]) -> str:
    response, label = verdict.claim.response, label_of(verdict.claim.response)
    if not differences:
        return f"At no rate that both arms were tried at do they differ by what matters to the {label}."
    low, high = min(differences, key=differences.__getitem__), max(differences, key=differences.__getitem__)
    first = f"{change(differences[low], response)} at rate {low:g}"
    if low == high:
        return f"{sentence(label)}: {first}, and at no other rate an effect that matters."
    return f"{sentence(label)}: from {first} to {change(differences[high], response)} at rate {high:g}."


def _whole(tables: list[pd.DataFrame]) -> Table:
    """Of each claim, the rates that its arms chose; every rate in the CSV."""
    data = pd.concat(tables, ignore_index=True)
    data = data[["claim", "response", "level", "lr", "mean", "low", "high", "n_seeds", "chosen", "whole", "without"]]
    rows = [
        (name, level_name, part)
        for (name, level_name), part in data.groupby(["claim", "level"], sort=False)
    ]  # fmt: skip
    caption = (
        "Each arm's learning rates: the one that most runs took, with their share, and the validation score of "
        "all runs of the arm there. The CSV has the response and the score at every rate."
    )
    return Table.each("rates", caption, rows, data, words=2, columns=[
        ("claim", lambda each: str(each[0])),
        ("arm", lambda each: str(each[1])),
        ("most chosen", lambda each: _most(each[2])),
        ("validation score there", lambda each: _there(each[2])),
    ])  # fmt: skip


def _most_chosen(part: pd.DataFrame) -> dict[str, float]:
    """The row of the rate that most runs of an arm took."""
    numbers = part.drop_duplicates("lr")[["lr", "chosen"]].to_numpy(float)
    lr, chosen = numbers[numbers[:, 1].argmax()]
    return {"lr": float(lr), "chosen": float(chosen)}


def _most(part: pd.DataFrame) -> str:
    best = _most_chosen(part)
    return f"{best['lr']:g} ({best['chosen']:.0%})"


def _there(part: pd.DataFrame) -> str:
    for name in VALIDATION:
        scores = part.loc[(part["response"] == name) & (part["lr"] == _most_chosen(part)["lr"]), "mean"].astype(float)
        if scores.notna().any():
            return reading(float(scores.iloc[0]), name)
    return ABSENT
