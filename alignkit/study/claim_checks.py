"""Whether a study's claims are about something that it runs."""

from __future__ import annotations

from alignkit.columns import EXCESS, GAP, MEASURE_COLUMNS, MEASURES, RUNS, better_side
from alignkit.errors import StudyError, nearest
from alignkit.stats.tables.levels import level_text
from alignkit.study.claim import Claim
from alignkit.study.runs import Plan


def check_claim(claim: Claim, plan: Plan, place: str) -> None:
    """A claim must be about something that the study runs."""
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
    in_design = [run for run in plan.runs if claim.design is None or claim.design in run.designs]
    levels = {level_text(run.levels[claim.factor]) for run in in_design} - {None}
    for level in claim.levels:
        if level_text(level) not in levels:
            there = [str(level) for level in levels]
            left_out = f". If profile {plan.study.profile} left it out, let that name its claims too"
            raise StudyError(
                f"{place}: {claim.factor} has no level {level!r} there; {nearest(str(level), there)}"
                + (left_out if plan.study.profile else "")
            )
        arms = [
            run
            for run in in_design
            if run.rule == claim.rule and level_text(run.levels[claim.factor]) == level_text(level)
        ]
        deepest = max((run.settings.network.hidden_layers for run in arms), default=0)
        if claim.layer != "mean" and claim.layer > deepest:
            raise StudyError(
                f"{place}: expected a hidden layer that networks with {claim.factor} {level!r} have, 1 to {deepest}; "
                f'got layer = {claim.layer}. Name one of those, or "mean" for all'
            )
