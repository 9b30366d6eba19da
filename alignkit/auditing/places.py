"""Where a claim can be asked: the measures that stand for its response, in every mode and layer that was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alignkit.auditing.arms import Arms, classes_of, norm_follows
from alignkit.auditing.measured import Measured, has_layer, over_layers, time_average
from alignkit.columns import EXCESS, GAP, MODES, PLACES, better_side, label_of, unit_of
from alignkit.records.store import Records

KINDS = {"_angle_deg": "degrees", "_cosine": "cosine"}
LAYERS: tuple[int | str, ...] = ("mean", "first", "last", "last-1", "median")
ACCURACIES = ("test_accuracy", "validation_accuracy", "train_accuracy")
LOSSES = ("test_loss", "validation_loss")
END, BEST_CHECKPOINT, AVERAGE = "end", "best checkpoint", "average over training"
TWO_KINDS = (
    "under batch statistics a batch norm makes the BP signal at the layer below sum to zero over the batch, and the "
    "teaching signal not: the arms are compared by signals of two kinds"
)


@dataclass(frozen=True, eq=False)
class Place:
    """One measure of every run: `values` [runs], NaN where it has none; `exists` [runs] says which could have one.

    `sign` is -1 where more of it is less of what the claim measures, `failed` [runs] what a run shows that did not
    align and did not learn. A place that is not `comparable` compares signals of two kinds: `why`.
    """

    response: str
    name: str
    mode: str
    scale: str
    layer: str
    when: str
    values: np.ndarray
    exists: np.ndarray
    failed: np.ndarray
    sign: float = 1.0
    declared: bool = False
    own_layer: bool = False
    comparable: bool = True
    why: str = ""


def places_of(records: Records, arms: Arms, measured: Measured) -> list[Place]:
    """Every place at which a claim can be asked, the declared one first."""
    claim = arms.claim
    base = claim.response.removesuffix(EXCESS)
    if base in measured.frame.columns and base not in records.runs.columns:
        found = list(_of_measures(records, arms, measured, base))
    else:
        found = list(_of_runs(records, claim.response))
    return sorted(found, key=lambda place: not place.declared)


def _of_runs(records: Records, response: str) -> Iterator[Place]:
    runs = records.runs
    accuracy = response in (*ACCURACIES, GAP)
    names = [response]
    if accuracy:
        names += [*ACCURACIES, *([GAP] if (runs["rule"] == "bp").any() else []), *LOSSES]
    for name in dict.fromkeys(names):
        values = _per_run(records, name)
        if not np.isfinite(values).any():
            continue
        failed = np.full(len(runs), np.nan)
        if name in ACCURACIES:
            failed[:] = 100.0 / classes_of(runs)
        yield Place(
            name, label_of(name), "", unit_of(name) or "own unit", "", END, values, np.ones(len(runs), dtype=bool),
            failed, sign=_sign(response, name), declared=name == response, own_layer=True,
        )  # fmt: skip


def _per_run(records: Records, name: str) -> np.ndarray:
    runs = records.runs
    if name == GAP:
        return runs["test_accuracy"].to_numpy(float) * 100
    values = runs[name].to_numpy(float) * (100 if name in ACCURACIES else 1)
    return np.where(np.isfinite(values), values, np.nan)


def _sign(response: str, other: str) -> float:
    sides = {better_side(response), better_side(other)}
    return -1.0 if sides == {"lower", "higher"} else 1.0


def _of_measures(records: Records, arms: Arms, measured: Measured, base: str) -> Iterator[Place]:
    claim = arms.claim
    kind = next((kind for kind in KINDS if base.endswith(kind) and base.removesuffix(kind) in PLACES), None)
    columns = [base]
    if kind is not None:
        every = [f"{place}{other}" for other in (kind, *KINDS) for place in PLACES]
        columns += [name for name in dict.fromkeys(every) if name in measured.frame.columns and name != base]
    follows = norm_follows(records, arms)
    differ = bool((follows[:, 0] != follows[:, 1]).any() if arms.paired else follows[:, 0].any() != follows[:, 1].any())
    layers = tuple(dict.fromkeys([claim.layer, *LAYERS]))
    for column in columns:
        ends = measured.end(column)
        if not np.isfinite(ends).any():
            continue
        course = measured.course(column)
        place = next((place for place in PLACES if kind and column.startswith(f"{place}_")), column)
        scale = next((KINDS[each] for each in KINDS if kind and column.endswith(each)), unit_of(column) or "own unit")
        failed = {"degrees": 90.0, "cosine": 0.0}.get(scale, np.nan) if not claim.response.endswith(EXCESS) else np.nan
        for index, mode in enumerate(measured.modes):
            if (place == "step" and index) or not np.isfinite(ends[:, index]).any():
                continue
            two_kinds = place == "signal" and mode != "eval" and differ
            of_claim = column == base and (mode == claim.mode or (claim.mode is None and index == 0))
            for layer in layers:
                exists = has_layer(measured.depth, layer)
                for when, values in _values(measured, ends[:, index], course if index == 0 else None, layer):
                    declared_when = AVERAGE if claim.summary == "auc" else END
                    yield Place(
                        column, PLACES.get(place, label_of(column)), "" if place == "step" else MODES.get(mode, mode),
                        scale, str(layer), when, values, exists, np.full(len(values), failed),
                        sign=_sign(base, column), own_layer=layer == claim.layer,
                        declared=of_claim and layer == claim.layer and when == declared_when,
                        comparable=not two_kinds, why=TWO_KINDS if two_kinds else "",
                    )  # fmt: skip


def _values(
    measured: Measured, ends: np.ndarray, course: np.ndarray | None, layer: int | str
) -> Iterator[tuple[str, np.ndarray]]:
    yield END, over_layers(ends, measured.depth, layer)
    if course is None or course.shape[1] < 2:
        return
    by_step = over_layers(course, measured.depth, layer)
    yield AVERAGE, time_average(by_step, measured.epochs)
    best = measured.best_place
    chosen = np.where(best >= 0, np.take_along_axis(by_step, np.maximum(best, 0)[:, None], axis=1)[:, 0], np.nan)
    yield BEST_CHECKPOINT, chosen
