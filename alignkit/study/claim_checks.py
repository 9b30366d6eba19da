"""Whether a study's claims are about something that it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable

from alignkit.columns import EXCESS, GAP, MEASURE_COLUMNS, MEASURES, RUNS, better_side
from alignkit.errors import StudyError, nearest
from alignkit.settings.modules import import_class, is_own
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim, layer_number
from alignkit.study.hypotheses import moderator_hypotheses
from alignkit.study.runs import Plan
from alignkit.text import listed

Arms = dict[tuple[str, str | None], tuple[int, int]]
"""The fewest and the most hidden layers of any run under a rule at a level of a factor."""


def check_claims(plan: Plan) -> None:
    """Every claim must be about something that the study runs."""
    arms_of = functools.cache(lambda design, factor: _arms(plan, design, factor))
    for claim in plan.study.claims:
        _check_claim(claim, plan, f"{plan.source}: claim {claim.name}", arms_of)
        moderator_hypotheses(claim, plan.study)


def _arms(plan: Plan, design: str | None, factor: str) -> Arms:
    found: Arms = {}
    for run in plan.runs:
        if design is None or design in run.designs:
            arm = run.rule, level_text(run.levels[factor])
            depth = run.settings.network.hidden_layers
            least, most = found.get(arm, (depth, depth))
            found[arm] = min(least, depth), max(most, depth)
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
    if group is None and (claim.summary != "final" or claim.layer != "mean" or claim.mode is not None):
        in_mode = "" if claim.mode is None else f', mode "{claim.mode}"'
        raise StudyError(
            f'{place}: "{claim.response}" is one number per run, without layers or a course over training; got '
            f'summary "{claim.summary}", layer {claim.layer}{in_mode}. Leave '
            f"{'summary and layer' if claim.mode is None else 'summary, layer and mode'} out"
        )
    _check_mode(claim, plan, group, place)
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
        shallowest, deepest = deepest_arms.get((claim.rule, level_text(level)), (0, 0))
        if claim.layer == "mean":
            continue
        # one that is counted from the output would else leave the shallower networks out
        needed = claim.layer if isinstance(claim.layer, int) else 2 - layer_number(claim.layer, 1)
        has = deepest if isinstance(claim.layer, int) else shallowest
        if needed > has:
            ways = f"1 to {has}" if isinstance(claim.layer, int) else f'"last" to "last-{has - 1}"'
            raise StudyError(
                f"{place}: expected a hidden layer that networks with {claim.factor} {level!r} have, {ways}; "
                f'got layer = {claim.layer}. Name one of those, or "mean" for all'
            )


def _check_mode(claim: Claim, plan: Plan, group: str | None, place: str) -> None:
    """A claim's mode must be one that all its runs are measured in, when it needs them to be."""
    if claim.mode is None:
        return
    for run in plan.runs:
        if run.rule != claim.rule or (claim.design is not None and claim.design not in run.designs):
            continue
        probe = run.settings.probe
        if claim.mode not in probe.every_mode:
            raise StudyError(
                f"{place}: expected a mode that is measured, {listed(probe.every_mode)}; got mode = "
                f'"{claim.mode}". Add it to probe.modes, or leave mode out'
            )
        if claim.mode == probe.every_mode[0]:
            continue
        if group == "step" or (group is not None and _is_of_step(group)):
            raise StudyError(
                f"{place}: {claim.response} is of the last step of training, which stands with the first mode, "
                f'"{probe.every_mode[0]}"; got mode = "{claim.mode}". Leave mode out'
            )
        if claim.summary == "auc" and probe.modes_at == "end":
            raise StudyError(
                f'{place}: mode "{claim.mode}" is measured at the end alone, so it has no average over training; got '
                'summary = "auc". Set probe.modes_at = "all", or take summary = "final"'
            )


def _is_of_step(group: str) -> bool:
    return is_own(group) and "step" in import_class(group, what=f'measure "{group}"').needs
