"""Whether a study's claims are about something that it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable

from alignkit.columns import EXCESS, GAP, MEASURE_COLUMNS, MEASURES, RUNS, better_side
from alignkit.errors import StudyError, nearest
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim
from alignkit.study.runs import Plan

Arms = dict[tuple[str, str | None], int]
"""The most hidden layers of any run under a rule at a level of a factor."""


def check_claims(plan: Plan) -> None:
    """Every claim must be about something that the study runs."""
    arms_of = functools.cache(lambda design, factor: _arms(plan, design, factor))
    for claim in plan.study.claims:
        _check_claim(claim, plan, f"{plan.source}: claim {claim.name}", arms_of)


def _arms(plan: Plan, design: str | None, factor: str) -> Arms:
    found: Arms = {}
    for run in plan.runs:
        if design is None or design in run.designs:
            arm = run.rule, level_text(run.levels[factor])
            found[arm] = max(found.get(arm, 0), run.settings.network.hidden_layers)
    return found


def _check_claim(claim: Claim, plan: Plan, place: str, arms_of: Callable[[str | None, str], Arms]) -> None:
    known = {"factor": plan.factors, "rule": plan.study.rules, "design": tuple(plan.study.designs)}
    for kind, names in known.items():
        name = getattr(claim, kind)
        if name is not None and name not in names:
            raise StudyError(f'{place}: the study has no {kind} "{name}"; {nearest(name, names)}')
    own = {column.name: measure for measure, columns in plan.own_columns.items() for column in columns}
    responses = (*MEASURE_COLUMNS, *own, *(name for name in RUNS if name.endswith(("_accuracy", "_loss"))), GAP)
    if claim.response.removesuffix(EXCESS) not in responses:
        raise StudyError(
            f'{place}: there is no response "{claim.response}"; {nearest(claim.response, responses)}, or a '
            "measure with _excess"
        )
    measure = claim.response.removesuffix(EXCESS)
    helps = {"higher": "increase", "lower": "decrease"}.get(better_side(measure))
    if claim.practice and helps is not None and claim.direction != helps:
        low, high = claim.levels
        raise StudyError(
            f"{place}: practice says what {claim.factor} = {high!r} asks of a practitioner, and the claim is that it "
            f"makes {claim.response} worse. Turn it round (levels = [{high!r}, {low!r}], direction = {helps!r}), or "
            "leave practice out: then it is a claim without a recommendation"
        )
    group = own.get(measure) or next(
        (group for group, columns in MEASURES.items() if measure in (column.name for column in columns)), None
    )
    if group is not None and group not in own.values() and group not in plan.study.probe.groups:
        raise StudyError(f'{place}: {measure} is not measured. Add "{group}" to probe.measures')
    if group is None and claim.response.endswith(EXCESS):
        raise StudyError(f'{place}: "{claim.response}": only measures of layers have an excess over the bystander')
    if group is None and (claim.summary != "final" or claim.layer != "mean"):
        raise StudyError(
            f'{place}: "{claim.response}" is one number per run, without layers or a course over training; got '
            f'summary "{claim.summary}", layer {claim.layer}. Leave summary and layer out'
        )
    if claim.response == GAP or claim.response.endswith(EXCESS):
        if "bp" not in plan.study.rules:
            raise StudyError(f'{place}: {claim.response} is taken from runs of back-propagation. Add "bp" to rules')
        if claim.rule == "bp":
            others = [rule for rule in plan.study.rules if rule != "bp"]
            raise StudyError(
                f'{place}: expected a rule that {claim.response} compares with "bp"; got rule = "bp" itself; '
                f"{nearest('bp', others)}"
            )
    deepest_arms = arms_of(claim.design, claim.factor)
    levels = {level for _, level in deepest_arms} - {None}
    for level in claim.levels:
        if level_text(level) not in levels:
            there = [str(level) for level in levels]
            left_out = f". If profile {plan.study.profile} left it out, let that name its claims too"
            raise StudyError(
                f"{place}: {claim.factor} has no level {level!r} there; {nearest(str(level), there)}"
                + (left_out if plan.study.profile else "")
            )
        deepest = deepest_arms.get((claim.rule, level_text(level)), 0)
        if claim.layer != "mean" and claim.layer > deepest:
            raise StudyError(
                f"{place}: expected a hidden layer that networks with {claim.factor} {level!r} have, 1 to {deepest}; "
                f'got layer = {claim.layer}. Name one of those, or "mean" for all'
            )
