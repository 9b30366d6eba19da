"""The runs of a study: their settings, and the ids that determine them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignkit.columns import Column, show_columns
from alignkit.errors import StudyError
from alignkit.settings.measures import own_columns
from alignkit.settings.rules import RuleOptions, check_options, chosen_options
from alignkit.settings.study_options import Settings
from alignkit.study.claim_checks import check_claims
from alignkit.study.designs import (
    Factor,
    cell_text,
    cells_of,
    declared_factors,
    flat,
    levels_of,
    reads_feedback,
    require_few_runs,
)
from alignkit.study.identities import Fingerprint, arm_id, replicate_ids, run_ids
from alignkit.study.resolve import resolve
from alignkit.study.runs import Plan, Rates, Run
from alignkit.study.study import Design, Study
from alignkit.study.tuning import Tried, at_rate, best_rates, next_rate
from alignkit.study.watch import counted


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
    _refuse_rate_factors(study, declared, source)
    require_few_runs(study, study.every_seed if seeds is None else seeds, declared, source)
    merged: dict[str, Run] = {}
    notes: list[str] = []
    for name, design in (study.designs or {"study": Design()}).items():
        place = f"{source}: designs.{name}"
        cells, note = cells_of(design, declared.get(name, ()), place)
        notes += [f"{name}: {note}"] if note else []
        base = resolve(study, flat(design.base), place)
        check_options(study.rules, base.rule.written, source=place)
        for cell in counted("Planning cells", cells):
            settings = resolve(study, {**flat(design.base), **cell.overrides}, place)
            check_options(study.rules, settings.rule.written, source=place)
            under = {rule: _with_options(settings, rule, place) for rule in {*study.rules, "bp"}}
            for rule in study.rules:
                levels, with_bp = levels_of(rule, under[rule], declared, cell.levels), "bp" in study.rules
                own_seeds = study.seeds_of(rule) if seeds is None else seeds
                arm = _Arm(under, base, rule, levels, with_bp, fingerprint, place)
                for run in _tuned(arm, study, own_seeds) if study.tuning else _runs(arm, own_seeds, rates):
                    known = merged.get(run.run_id, run)
                    merged[run.run_id] = _in_design(known, name)
    own = own_columns(name for run in merged.values() for name in run.settings.probe.own_measures)
    factors = tuple(dict.fromkeys(factor.name for factors in declared.values() for factor in factors))
    plan = Plan(study, tuple(merged.values()), factors, tuple(notes), source, own)
    _check_names(own, factors, source)
    show_columns(column for columns in own.values() for column in columns)
    check_claims(plan)
    return plan


def _check_names(own: Mapping[str, tuple[Column, ...]], factors: tuple[str, ...], source: str) -> None:
    for measure, columns in own.items():
        for column in columns:
            if column.name in factors:
                raise StudyError(
                    f'{source}: measure "{measure}": expected columns with names of their own; got "{column.name}", '
                    "which is a factor of the study. Rename one of the two"
                )


def every_settings(study: Study, *, source: str = "study", own_modules: bool = True) -> Iterator[Settings]:
    """The settings of every cell of every design, as the study states them.

    Without `own_modules`, no module of the user's own is imported to check the options of its classes.
    """
    declared = declared_factors(study, source)
    for name, design in (study.designs or {"study": Design()}).items():
        place = f"{source}: designs.{name}"
        for cell in cells_of(design, declared.get(name, ()), place)[0]:
            yield resolve(study, {**flat(design.base), **cell.overrides}, place, own_modules=own_modules)


@dataclass(frozen=True)
class _Arm:
    """A cell under one rule, with its settings `under` every rule that it is compared with."""

    under: Mapping[str, Settings]
    base: Settings
    rule: str
    levels: dict[str, Any]
    with_bp: bool
    fingerprint: Fingerprint
    place: str

    def settings(self, rule: str) -> Settings:
        settings = self.under[rule]
        return settings if reads_feedback(rule, settings) else _without_feedback(settings, self.base)


def _runs(arm: _Arm, seeds: tuple[int, ...], rates: Rates | None) -> Iterator[Run]:
    """An arm under every seed."""

    def tuned(rule: str) -> Settings:
        own = arm.settings(rule)
        if rates is None:
            return own
        key = arm_id(rule, own, arm.fingerprint)
        if key not in rates:
            raise StudyError(
                f"{arm.place}: no tuned rate for rule {rule} with {cell_text(arm.levels) or 'the base options'}. "
                "Run the pilot again: alignkit pilot STUDY"
            )
        lr, output_lr = rates[key]
        training = own.training.model_copy(update={"lr": lr, "output_lr": output_lr})
        return own.model_copy(update={"training": training})

    own = tuned(arm.rule)
    identity, cell = run_ids(arm.rule, own, arm.fingerprint), cell_text(arm.levels)
    twin = run_ids("bp", tuned("bp"), arm.fingerprint) if arm.with_bp else lambda seed: ""
    for seed in seeds:
        yield Run(identity(seed), arm.rule, cell, seed, own, arm.levels, bp_run_id=twin(seed))


def _tuned(arm: _Arm, study: Study, seeds: tuple[int, ...]) -> Iterator[Run]:
    """An arm under every seed at every rate of its grid."""
    tuning, cell = study.tuning, cell_text(arm.levels)
    assert tuning is not None
    own, bp = arm.settings(arm.rule), arm.settings("bp") if arm.with_bp else None
    replicate = replicate_ids(arm.rule, own, arm.fingerprint)
    bp_replicate = replicate_ids("bp", bp, arm.fingerprint) if bp else lambda seed: ""
    bp_seeds = frozenset(study.seeds_of("bp"))
    for lr in tuning.rates(arm.rule):
        settings = at_rate(own, tuning, lr)
        identity = run_ids(arm.rule, settings, arm.fingerprint)
        like = bp is not None and lr in tuning.rates("bp")
        twin = run_ids("bp", at_rate(bp, tuning, lr), arm.fingerprint) if bp is not None and like else lambda seed: ""
        for seed in seeds:
            paired = seed in bp_seeds
            yield Run(
                identity(seed), arm.rule, cell, seed, settings, arm.levels, bp_run_id=twin(seed) if paired else "",
                replicate=replicate(seed), bp_replicate=bp_replicate(seed) if paired else "",
                tunes=tuning.epochs is not None, in_full=own if tuning.epochs is not None else None,
            )  # fmt: skip


def grown(plan: Plan, tried: Mapping[str, Sequence[Tried]], fingerprint: Fingerprint) -> Plan:
    """The plan with one more run for each replicate whose best rate is at the edge of what it tried.

    `tried` has what each replicate showed at its rates. The plan itself where no grid grows.
    """
    tuning = plan.study.tuning
    assert tuning is not None
    of: dict[str, list[Run]] = {}
    for run in plan.runs:
        if run.replicate in tried and run.tunes == (tuning.epochs is not None):
            of.setdefault(run.replicate, []).append(run)
    more = []
    for replicate, runs in of.items():
        rate = next_rate(tried[replicate], tuning.rates(runs[0].rule), extend=tuning.extend)
        if rate is not None and rate not in {run.settings.training.lr for run in runs}:
            settings = at_rate(runs[0].settings, tuning, rate)
            identity = run_ids(runs[0].rule, settings, fingerprint)(runs[0].seed)
            more.append(replace(runs[0], run_id=identity, settings=settings, bp_run_id=""))
    return replace(plan, runs=(*plan.runs, *more)) if more else plan


def with_full_runs(plan: Plan, tried: Mapping[str, Sequence[Tried]], fingerprint: Fingerprint) -> Plan:
    """The plan with a run in full for each replicate, at the best of the rates that its short runs tried."""
    tuning, more = plan.study.tuning, {}
    assert tuning is not None
    for run in plan.runs:
        best = best_rates(tried.get(run.replicate, ()))
        if best and run.replicate not in more and run.in_full is not None:
            settings = at_rate(run.in_full, tuning, best[0], full=True)
            identity = run_ids(run.rule, settings, fingerprint)(run.seed)
            more[run.replicate] = replace(
                run, run_id=identity, settings=settings, bp_run_id="", tunes=False, in_full=None
            )
    return replace(plan, runs=(*plan.runs, *more.values()))


def _refuse_rate_factors(study: Study, declared: Mapping[str, tuple[Factor, ...]], source: str) -> None:
    """A rate that each seed tunes is no factor."""
    for name, factors in declared.items() if study.tuning else ():
        for path in sorted({path for factor in factors for path in factor.paths} | set(flat(study.designs[name].base))):
            if path in ("training.lr", "training.output_lr"):
                raise StudyError(
                    f"{source}: designs.{name} sets {path}, which each seed tunes ([tuning]). Leave one of the two out"
                )


def _with_options(settings: Settings, rule: str, place: str) -> Settings:
    """The settings with those options of `[rule]` alone that the rule reads."""
    if not settings.rule.written:
        return settings
    return settings.model_copy(update={"rule": RuleOptions(**chosen_options(rule, settings.rule, source=place))})


def _without_feedback(settings: Settings, base: Settings) -> Settings:
    """The design's base feedback in place of the cell's: cells that differ in it alone are one BP arm,
    whose bystander is the feedback of the base."""
    streams = settings.streams.model_copy(update={"feedback": base.streams.feedback})
    other_layers = base.network.hidden_layers != settings.network.hidden_layers
    if (base.feedback.points and other_layers) or (base.feedback.rank and base.data != settings.data):
        return settings  # what the base chose for its own layers and outputs may not fit
    return settings.model_copy(update={"feedback": base.feedback, "streams": streams})


def _in_design(run: Run, name: str) -> Run:
    return run if name in run.designs else replace(run, designs=(*run.designs, name))
