"""The panel of a claim: the defensible ways to ask it again, fixed with the plan and before any run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from alignkit.columns import EXCESS, MEASURES, MODES, PLACES
from alignkit.settings.study_options import Settings
from alignkit.settings.types import Stage
from alignkit.study.claim import Claim
from alignkit.study.designs import cells_of, declared_factors, flat
from alignkit.study.resolve import resolve
from alignkit.study.study import Study

MOST_GRADED = 25
"""Graded rows of a panel: with more of them, few seeds could contradict nothing."""
_KINDS = ("_angle_deg", "_cosine")
Group = Literal["declared", "place", "layer", "rates", "step", "cells"]


@dataclass(frozen=True)
class Question:
    """One way to ask a claim: what is measured, where, at which rates, and over which cells.

    `graded` rows can contest a verdict; it is robust where it holds in every `core` row. A row that is not
    `comparable` compares signals of two kinds: `why` says so, and it is in neither.
    """

    key: str
    label: str
    group: Group
    response: str
    mode: str | None = None
    layer: int | str = "mean"
    rates: Literal["within", "best", "common"] = "within"
    cells: Literal["all", "learning"] = "all"
    equal_step: bool = False
    graded: bool = True
    core: bool = False
    comparable: bool = True
    why: str = ""


def panel_of(claim: Claim, study: Study) -> tuple[Question, ...]:
    """The questions of a claim, the declared one first."""
    declared = Question("declared", "as declared", "declared", claim.response, claim.mode, claim.layer, core=True)
    if not _comparable(claim, study, declared):
        declared = replace(declared, core=False, graded=False, comparable=False, why=_TWO_KINDS)
    rows = [declared, *_places(claim, study), *_layers(claim, study), *_rates(claim, study)]
    if "shallow" in study.rules and claim.rule != "shallow":
        label = "cells in which both arms beat frozen hidden layers"
        rows.append(replace(declared, key="learning", label=label, group="cells", cells="learning", core=False))
    asked: dict[tuple[object, ...], Question] = {}
    for row in rows:
        what = (row.response, row.mode or _first_mode(row.response, study), row.layer, row.rates, row.cells)
        asked.setdefault((*what, row.equal_step), row)
    return tuple(asked.values())


_TWO_KINDS = (
    "under batch statistics a batch norm makes the BP signal at the layer below sum to zero over the batch, and the "
    "teaching signal not: the arms are compared by signals of two kinds"
)


_SHARED_RATE = (
    "shown alone: one rate for all seeds, chosen by the same runs, so what another choice would change is in no "
    "interval and no p"
)


def _first_mode(response: str, study: Study) -> str | None:
    """The mode that a response without one is taken in; None for what has no mode."""
    return study.probe.mode if response in _moded() else None


def _moded() -> frozenset[str]:
    return frozenset(column.name for group, columns in MEASURES.items() if group != "step" for column in columns)


def _places(claim: Claim, study: Study) -> Iterator[Question]:
    kind = next((kind for kind in _KINDS if claim.response.removesuffix(EXCESS).endswith(kind)), None)
    excess = EXCESS if claim.response.endswith(EXCESS) else ""
    place = claim.response.removesuffix(EXCESS).removesuffix(kind or "")
    if kind is None or place not in PLACES:
        return
    known = {column.name for group in study.probe.groups for column in MEASURES[group]}
    for name, words in PLACES.items():
        response = f"{name}{kind}"
        if response not in known or name == "centred":
            continue
        for mode in (None,) if name == "step" else study.probe.every_mode:
            label = words if mode is None else f"{words} ({MODES[mode]})"
            row = Question(
                f"{name}-{mode}" if mode else name, label, "place", response + excess, mode, claim.layer, core=True
            )
            if _comparable(claim, study, row):
                yield row
                continue
            yield replace(row, core=False, graded=False, comparable=False, why=_TWO_KINDS)
            if f"centred{kind}" in known:
                yield replace(
                    row, key=f"centred-{mode}", label=f"{PLACES['centred']} ({MODES[str(mode)]})",
                    response=f"centred{kind}{excess}",
                )  # fmt: skip


def _layers(claim: Claim, study: Study) -> Iterator[Question]:
    if claim.response.removesuffix(EXCESS) not in {c.name for columns in MEASURES.values() for c in columns}:
        return
    for layer, words in (("first", "first hidden layer"), ("last", "last hidden layer"), ("mean", "all hidden layers")):
        row = Question(f"layer-{layer}", words, "layer", claim.response, claim.mode, layer)
        if layer != claim.layer and _comparable(claim, study, row):
            yield row


def _rates(claim: Claim, study: Study) -> Iterator[Question]:
    if study.tuning is None:
        return
    row = Question("best", "each seed's single best rate", "rates", claim.response, claim.mode, claim.layer, core=True)
    rows = [replace(row, rates="best")]
    if study.tuning.epochs is None:
        label = "the best rate common to all seeds"
        shared = replace(row, key="common", label=label, rates="common", graded=False, core=False, why=_SHARED_RATE)
        rows.append(shared)
        if "step" in study.probe.groups:
            rows.append(replace(row, key="equal-step", label="equal step length", group="step", equal_step=True))
    for each in rows:
        if _comparable(claim, study, each):
            yield each


def _comparable(claim: Claim, study: Study, row: Question) -> bool:
    """Whether a row compares signals of one kind: not at h, in batch statistics, across norms that follow the op."""
    mode = row.mode or study.probe.mode
    if not row.response.startswith("signal_") or mode == "eval":
        return True
    low, high = (_norms_after_op(settings) for settings in arms(claim, study))
    return low == high


def arms(claim: Claim, study: Study) -> tuple[Settings, Settings]:
    """The settings of a cell at each of a claim's two levels, all other factors at their first."""
    designs = [claim.design] if claim.design is not None else list(study.designs)
    declared = declared_factors(study, study.name)
    for name in designs:
        factor = next((factor for factor in declared.get(name, ()) if factor.name == claim.factor), None)
        if factor is None:
            continue
        design = study.designs[name]
        cells = cells_of(design, declared[name], study.name)[0]
        base = {**flat(design.base), **(cells[0].overrides if design.kind in ("grid", "fraction") else {})}
        found = []
        for level in claim.levels:
            match = next((each for each in factor.levels if str(each.value) == str(level)), None)
            found.append(resolve(study, {**base, **dict(match.overrides if match else ())}, study.name))
        return found[0], found[1]
    return study.settings, study.settings


def _norms_after_op(settings: Settings) -> bool:
    """Whether a batch norm directly follows the weight op of some hidden layer."""
    network = settings.network
    for row in network.layers or (None,) * network.hidden_layers:
        norm = network.norm if row is None or row.norm is None else row.norm
        order: tuple[Stage, ...] = network.order if row is None or row.order is None else row.order
        if norm == "batch" and next(stage for stage in order if stage in ("norm", "activation")) == "norm":
            return True
    return False


def not_identifiable(claim: Claim, study: Study) -> str:
    """Why a claim's two arms cannot be told apart but by a learning rate; empty where they can.

    Under DFA with plain gradient descent, feedback of another length is another learning rate of the hidden layers,
    the output layer's held: to rounding at equal widths. Under FA it is a rate of each layer; under Adam and
    norm-matched updates it changes nothing beyond their epsilon.
    """
    low, high = arms(claim, study)
    training = low.training
    if low.model_copy(update={"feedback": high.feedback}) != high:
        return ""
    before, after = (s.feedback.model_dump(exclude={"normalised", "scale"}) for s in (low, high))
    if before != after or low.feedback == high.feedback:
        return ""
    if training.optimiser == "adam" or training.update == "norm_matched":
        return "feedback of another length changes nothing here beyond the optimiser's epsilon"
    if claim.rule == "fa":
        return "feedback of another length is another learning rate of each hidden layer"
    if claim.rule != "dfa":
        return ""
    widths = getattr(low.network, "hidden_widths", ())
    if len(set(widths)) == 1 or low.feedback.normalised == high.feedback.normalised:
        return "feedback of another length is another learning rate of the hidden layers, the output layer's held"
    return ""
