"""The runs of a study: their settings, and the ids that determine them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.columns import FORMAT_VERSION, MEASURE_COLUMNS, RUNS
from alignkit.designs import cell_text, cells_of, declared_factors, flat, levels_of, reads_feedback
from alignkit.errors import StudyError, nearest
from alignkit.rules import WITHOUT_FEEDBACK, rule_identity
from alignkit.settings import MEASURES, SECTIONS, Settings
from alignkit.stats import level_text, minimum_seeds
from alignkit.stats.summaries import EXCESS, GAP
from alignkit.study import Claim, Design, Study
from alignkit.validation import validated

ENGINE_VERSION = 2
"""Raised when the same settings and seed would train or measure differently, rounding apart."""

WITH_A_BETTER_SIDE = ("_angle_deg", "_cosine", "_accuracy", "_loss", GAP)
"""How the names of responses end of which more, or less, is better."""

Fingerprint = Callable[[Any], str]
Rates = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """An arm under one seed. `bp_run_id` is empty where the study has no BP."""

    run_id: str
    rule: str
    cell: str
    seed: int
    settings: Settings
    levels: dict[str, Any]
    designs: tuple[str, ...] = ()
    bp_run_id: str = ""


@dataclass(frozen=True)
class Plan:
    """All runs of a study, in the order of its designs, cells, rules and seeds."""

    study: Study
    runs: tuple[Run, ...]
    factors: tuple[str, ...]
    notes: tuple[str, ...] = ()
    source: str = "study"

    @property
    def cells(self) -> int:
        return len(
            {run.cell for run in self.runs if run.rule not in WITHOUT_FEEDBACK} or {run.cell for run in self.runs}
        )

    @property
    def tuned_rates(self) -> dict[str, list[float | None]]:
        """Learning rate and that of the output layer where a pilot tunes them, by rule, cell and designs."""
        if self.study.pilot is None:
            return {}
        return {
            f"{run.rule} | {run.cell} | {'+'.join(run.designs)}": [
                run.settings.training.lr,
                run.settings.training.output_lr,
            ]
            for run in self.runs
        }

    def to_json(self) -> str:
        runs = [
            {
                "run_id": run.run_id, "rule": run.rule, "cell": run.cell, "designs": "+".join(run.designs),
                "bp_run_id": run.bp_run_id, "seed": run.seed, "levels": run.levels,
            }
            for run in self.runs
        ]  # fmt: skip
        return json.dumps(
            {"format": FORMAT_VERSION, "study": self.study.name, "factors": list(self.factors), "runs": runs}, indent=0
        )


def expand(
    study: Study,
    *,
    fingerprint: Fingerprint,
    rates: Rates | None = None,
    seeds: tuple[int, ...] | None = None,
    source: str = "study",
) -> Plan:
    """The runs of a study.

    Parameters
    ----------
    fingerprint : of a data section: what identifies its content.
    rates : tuned (lr, output_lr) by `arm_id`; an arm without an entry is an error.
    seeds : in place of the study's own.

    Raises
    ------
    StudyError : an option or level that cannot be, named with its design.
    """
    declared = declared_factors(study, source)
    merged: dict[str, Run] = {}
    notes: list[str] = []
    for name, design in (study.designs or {"study": Design()}).items():
        place = f"{source}: designs.{name}"
        cells, note = cells_of(design, declared.get(name, ()), place)
        notes += [f"{name}: {note}"] if note else []
        base = resolve(study, flat(design.base), place)
        for cell in cells:
            settings = resolve(study, {**flat(design.base), **cell.overrides}, place)
            for rule, seed in itertools.product(study.rules, study.every_seed if seeds is None else seeds):
                levels = levels_of(rule, settings, declared, cell.levels)
                run = _run(settings, base, rule, seed, levels, "bp" in study.rules, fingerprint, rates, place)
                known = merged.get(run.run_id, run)
                merged[run.run_id] = _in_design(known, name)
    factors = tuple(dict.fromkeys(factor.name for factors in declared.values() for factor in factors))
    plan = Plan(study, tuple(merged.values()), factors, tuple(notes), source)
    for claim in study.claims:
        _check_claim(claim, plan, f"{source}: claim {claim.name}")
    return plan


def _check_claim(claim: Claim, plan: Plan, place: str) -> None:
    """A claim must be about something that the study runs."""
    known = {"factor": plan.factors, "rule": plan.study.rules, "design": tuple(plan.study.designs)}
    for kind, names in known.items():
        name = getattr(claim, kind)
        if name is not None and name not in names:
            raise StudyError(f'{place}: the study has no {kind} "{name}"; {nearest(name, names)}')
    responses = (*MEASURE_COLUMNS, *(name for name in RUNS if name.endswith(("_accuracy", "_loss"))), GAP)
    if claim.response.removesuffix(EXCESS) not in responses:
        raise StudyError(
            f'{place}: there is no response "{claim.response}"; {nearest(claim.response, responses)}, or a '
            "measure with _excess"
        )
    measure = claim.response.removesuffix(EXCESS)
    helps = "decrease" if measure.endswith(("_angle_deg", "_loss")) else "increase"
    if claim.practice and claim.direction != helps and measure.endswith(WITH_A_BETTER_SIDE):
        low, high = claim.levels
        raise StudyError(
            f"{place}: practice says what {claim.factor} = {high!r} asks of a practitioner, and the claim is that it "
            f"makes {claim.response} worse. Turn it round (levels = [{high!r}, {low!r}], direction = {helps!r}), or "
            "leave practice out: then it is a claim without a recommendation"
        )
    group = next((group for group, columns in MEASURES.items() if measure in columns), None)
    if group is not None and group not in plan.study.probe.groups:
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


def seed_notes(study: Study) -> tuple[str, ...]:
    """What to know before a run: claims that stay undecided whatever it shows, for want of seeds."""
    confirmatory = sum(claim.family == "confirmatory" for claim in study.claims)
    seeds, least = len(study.seed_list), minimum_seeds(max(confirmatory, 1))
    if not study.claims or seeds >= least:
        return ()
    family = f"a family of {confirmatory} claims" if confirmatory > 1 else "one claim"
    return (
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}: too few for the exact test of {family}, which takes {least} to "
        "reach p < .05. Those claims stay undecided whatever the runs show: plan more seeds, or fewer claims",
    )


def resolve(study: Study, overrides: Mapping[str, Any], place: str) -> Settings:
    """The study's settings with dotted `overrides`, validated."""
    raw = study.model_dump(include=set(SECTIONS), exclude_unset=True)
    if any(path.startswith("network.") for path in overrides):
        network = {path.split(".", 1)[1] for path in overrides if path.startswith("network.")}
        if "widths" in network:
            raw["network"] = {k: v for k, v in raw.get("network", {}).items() if k not in ("width", "depth")}
        elif network & {"width", "depth"}:
            raw["network"] = {k: v for k, v in raw.get("network", {}).items() if k != "widths"}
    for path, value in overrides.items():
        section, _, key = path.partition(".")
        if section not in SECTIONS or not key:
            raise StudyError(
                f'{place}: "{path}" is no option; expected section.key with a section of {", ".join(SECTIONS)}'
            )
        raw.setdefault(section, {})
        raw[section] = {**raw[section], key: value}
    return validated(Settings, raw, source=place)


def run_id(rule: str, settings: Settings, seed: int, fingerprint: Fingerprint) -> str:
    """A hash of everything that determines a run: defaults left out, so that a later option voids nothing."""
    return _hash(
        {"engine": ENGINE_VERSION, "rule": rule_identity(rule), "seed": seed, **_determinants(settings, fingerprint)}
    )


def arm_id(rule: str, settings: Settings, fingerprint: Fingerprint) -> str:
    """Identifies an arm apart from its learning rates, its probe and its streams: what a pilot tunes."""
    determined = _determinants(settings, fingerprint)
    for key in ("lr", "output_lr"):
        determined["training"].pop(key, None)
    for section in ("probe", "streams", *([] if reads_feedback(rule, settings) else ["feedback"])):
        determined.pop(section, None)
    return _hash({"rule": rule_identity(rule), **determined})


def _run(
    settings: Settings,
    base: Settings,
    rule: str,
    seed: int,
    levels: dict[str, Any],
    with_bp: bool,
    fingerprint: Fingerprint,
    rates: Rates | None,
    place: str,
) -> Run:
    def tuned(rule: str) -> Settings:
        own = settings if reads_feedback(rule, settings) else _without_feedback(settings, base)
        if rates is None:
            return own
        key = arm_id(rule, own, fingerprint)
        if key not in rates:
            raise StudyError(
                f"{place}: no tuned rate for rule {rule} with {cell_text(levels) or 'the base options'}. "
                "Run the pilot again: alignkit pilot STUDY"
            )
        lr, output_lr = rates[key]
        training = own.training.model_copy(update={"lr": lr, "output_lr": output_lr})
        return own.model_copy(update={"training": training})

    own = tuned(rule)
    bp_run_id = run_id("bp", tuned("bp"), seed, fingerprint) if with_bp else ""
    return Run(run_id(rule, own, seed, fingerprint), rule, cell_text(levels), seed, own, levels, bp_run_id=bp_run_id)


def _without_feedback(settings: Settings, base: Settings) -> Settings:
    """The design's base feedback in place of the cell's: cells that differ in it alone are one BP arm,
    whose bystander is the feedback of the base."""
    streams = settings.streams.model_copy(update={"feedback": base.streams.feedback})
    other_layers = base.network.hidden_layers != settings.network.hidden_layers
    if (base.feedback.points and other_layers) or (base.feedback.rank and base.data != settings.data):
        return settings  # what the base chose for its own layers and outputs may not fit
    return settings.model_copy(update={"feedback": base.feedback, "streams": streams})


def _in_design(run: Run, name: str) -> Run:
    designs = run.designs if name in run.designs else (*run.designs, name)
    return Run(run.run_id, run.rule, run.cell, run.seed, run.settings, run.levels, designs, run.bp_run_id)


def _determinants(settings: Settings, fingerprint: Fingerprint) -> dict[str, Any]:
    dumped = settings.model_dump(mode="json", exclude_defaults=True)
    sections = {section: dict(dumped.get(section, {})) for section in SECTIONS if section != "data"}
    return {"data": fingerprint(settings.data), **sections}


def _hash(determined: Any) -> str:
    text = json.dumps(determined, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
