"""From a study to its runs: factor levels, cells, fractions, and the ids that determine a run."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignkit.columns import FORMAT_VERSION, MEASURE_COLUMNS, RUNS
from alignkit.errors import StudyError, nearest
from alignkit.rules import WITHOUT_FEEDBACK
from alignkit.study import SECTIONS, Claim, Design, Settings, Study, validated

ENGINE_VERSION = 1
"""Raised when the same settings and seed would train or measure differently."""

Fingerprint = Callable[[Any], str]
Rates = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Level:
    """One level of a factor: its value in tables, and the options that it sets."""

    value: Any
    overrides: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Factor:
    """A column of the tables and the levels that it takes."""

    name: str
    levels: tuple[Level, ...]

    @property
    def paths(self) -> set[str]:
        return {path for level in self.levels for path, _ in level.overrides}


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
    notes: tuple[str, ...] = field(default=())

    @property
    def cells(self) -> int:
        return len(
            {run.cell for run in self.runs if run.rule not in WITHOUT_FEEDBACK} or {run.cell for run in self.runs}
        )

    def to_json(self) -> str:
        runs = [
            {
                "run_id": run.run_id, "rule": run.rule, "cell": run.cell, "designs": "+".join(run.designs),
                "bp_run_id": run.bp_run_id, "seed": run.seed, "levels": run.levels,
            }
            for run in self.runs
        ]  # fmt: skip
        return json.dumps({"format": FORMAT_VERSION, "factors": list(self.factors), "runs": runs}, indent=0)


def column_name(path: str) -> str:
    """The table column of an option: its key, with the section in front where that says more.

    >>> column_name("network.width"), column_name("feedback.normalised")
    ('width', 'feedback_normalised')
    """
    section, _, key = path.partition(".")
    return key.replace(".", "_") if section in ("network", "training") else path.replace(".", "_")


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
    declared = _declared_factors(study, source)
    merged: dict[str, Run] = {}
    notes: list[str] = []
    for name, design in (study.designs or {"study": Design()}).items():
        place = f"{source}: designs.{name}"
        cells, note = _cells(design, declared.get(name, ()), place)
        notes += [f"{name}: {note}"] if note else []
        for overrides in cells:
            settings = resolve(study, {**_flat(design.base), **overrides}, place)
            for rule, seed in itertools.product(study.rules, seeds or study.seed_list):
                run = _run(study, settings, rule, seed, declared, fingerprint, rates, place)
                known = merged.get(run.run_id, run)
                merged[run.run_id] = _in_design(known, name)
    factors = tuple(dict.fromkeys(factor.name for factors in declared.values() for factor in factors))
    plan = Plan(study, tuple(merged.values()), factors, tuple(notes))
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
    responses = (*MEASURE_COLUMNS, *(name for name in RUNS if name.endswith(("_accuracy", "_loss"))), "accuracy_gap")
    if claim.response.removesuffix("_excess") not in responses:
        raise StudyError(
            f'{place}: there is no response "{claim.response}"; {nearest(claim.response, responses)}, or a '
            "measure with _excess"
        )
    levels = {str(run.levels[claim.factor]) for run in plan.runs if claim.design is None or claim.design in run.designs}
    for level in claim.levels:
        if str(level) not in levels:
            raise StudyError(f"{place}: {claim.factor} has no level {level!r} there; {nearest(str(level), levels)}")


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
    return _hash({"engine": ENGINE_VERSION, "rule": rule, "seed": seed, **_determinants(settings, fingerprint)})


def arm_id(rule: str, settings: Settings, fingerprint: Fingerprint) -> str:
    """Identifies an arm apart from its learning rates, its probe and its streams: what a pilot tunes."""
    determined = _determinants(settings, fingerprint)
    for key in ("lr", "output_lr"):
        determined["training"].pop(key, None)
    for section in ("probe", "streams", *(["feedback"] if rule in WITHOUT_FEEDBACK else [])):
        determined.pop(section, None)
    return _hash({"rule": rule, **determined})


def _run(
    study: Study,
    settings: Settings,
    rule: str,
    seed: int,
    declared: dict[str, tuple[Factor, ...]],
    fingerprint: Fingerprint,
    rates: Rates | None,
    place: str,
) -> Run:
    def tuned(rule: str) -> Settings:
        own = _without_feedback(study, settings) if rule in WITHOUT_FEEDBACK else settings
        if rates is None:
            return own
        key = arm_id(rule, own, fingerprint)
        if key not in rates:
            raise StudyError(
                f"{place}: no tuned rate for rule {rule} with {_cell_text(levels) or 'the base options'}. "
                "Run the pilot again: alignkit pilot STUDY"
            )
        lr, output_lr = rates[key]
        return own.model_copy(update={"training": own.training.model_copy(update={"lr": lr, "output_lr": output_lr})})

    levels = _levels(rule, settings, declared)
    own = tuned(rule)
    bp_run_id = run_id("bp", tuned("bp"), seed, fingerprint) if "bp" in study.rules else ""
    return Run(run_id(rule, own, seed, fingerprint), rule, _cell_text(levels), seed, own, levels, bp_run_id=bp_run_id)


def _without_feedback(study: Study, settings: Settings) -> Settings:
    """The study's own feedback in place of the cell's: cells that differ in it alone are one BP arm,
    whose bystander is the feedback that the study's base names."""
    streams = settings.streams.model_copy(update={"feedback": study.streams.feedback})
    return settings.model_copy(update={"feedback": study.feedback, "streams": streams})


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


def _declared_factors(study: Study, source: str) -> dict[str, tuple[Factor, ...]]:
    return {
        name: tuple(_factors(design.factors, f"{source}: designs.{name}")) + tuple(_listed_factors(design))
        for name, design in study.designs.items()
    }


def _factors(raw: Mapping[str, Any], place: str, prefix: str = "") -> Iterator[Factor]:
    """Factors as a study writes them: `section.key = [levels]`, or a name with a table of named levels."""
    for key, value in raw.items():
        path = f"{prefix}{key}"
        section = path.split(".")[0]
        if section in SECTIONS:
            if isinstance(value, dict):
                yield from _factors(value, place, prefix=f"{path}.")
                continue
            if not isinstance(value, list) or not value or "." not in path:
                raise StudyError(f"{place}.factors.{path}: expected section.key = [level, level, …]; got {value!r}")
            yield Factor(column_name(path), tuple(Level(_plain(level), ((path, level),)) for level in value))
        elif isinstance(value, dict) and value and all(isinstance(level, dict) for level in value.values()):
            levels = tuple(Level(level, tuple(_flat(overrides).items())) for level, overrides in value.items())
            yield Factor(key, levels)
        else:
            raise StudyError(
                f'{place}.factors.{path}: expected "section.key" = [levels] with a section of {", ".join(SECTIONS)}, '
                "or a name with a "
                f'table of levels, each setting options ("network.activation" = "tanh"); got {value!r}'
            )


def _listed_factors(design: Design) -> Iterator[Factor]:
    """The options that listed cells set, each a factor."""
    values: dict[str, list[Any]] = {}
    for cell in design.cells:
        for path, value in _flat(cell).items():
            if value not in values.setdefault(path, []):
                values[path].append(value)
    for path, levels in values.items():
        yield Factor(column_name(path), tuple(Level(_plain(level), ((path, level),)) for level in levels))


def _cells(design: Design, factors: tuple[Factor, ...], place: str) -> tuple[list[dict[str, Any]], str]:
    """The cells of a design as dotted overrides, and a note on what a fraction gives up."""
    for factor in factors:
        values = [str(level.value) for level in factor.levels]
        if len(set(values)) != len(values):
            raise StudyError(f"{place}.factors: {factor.name} names a level twice: {values}. Leave one out")
    if design.kind == "cells":
        if not design.cells:
            raise StudyError(
                f'{place}: kind = "cells" needs at least one cell; got none. Add cells = [{{"network.width" = 32}}, …]'
            )
        return [_flat(cell) for cell in design.cells], ""
    if design.cells:
        raise StudyError(f'{place}: cells belong to kind = "cells"; this design is a {design.kind}')
    if design.kind == "one_at_a_time":
        alone = [dict(level.overrides) for factor in factors for level in factor.levels]
        return [{}, *alone], ""
    if design.kind == "fraction":
        return _fraction(design, factors, place)
    return [_combined(levels) for levels in itertools.product(*(factor.levels for factor in factors))], ""


def _combined(levels: tuple[Level, ...]) -> dict[str, Any]:
    return {path: value for level in levels for path, value in level.overrides}


def _fraction(design: Design, factors: tuple[Factor, ...], place: str) -> tuple[list[dict[str, Any]], str]:
    """A regular fraction of the two-level factors, of the highest resolution and least aberration."""
    halvings = int(design.fraction.partition("/")[2]).bit_length() - 1
    two_level = [factor for factor in factors if len(factor.levels) == 2]
    basic = len(two_level) - halvings
    if basic < 2:
        raise StudyError(
            f"{place}: a fraction of {design.fraction} needs at least {halvings + 2} factors of two levels; "
            f'got {len(two_level)}. Add factors, or use kind = "grid"'
        )
    generators = best_generators(len(two_level), halvings)
    chosen = set()
    for signs in itertools.product((0, 1), repeat=basic):
        generated = [sum(signs[i] for i in word) + len(word) + 1 for word in generators]
        chosen.add((*signs, *(value % 2 for value in generated)))
    cells = []
    for levels in itertools.product(*(enumerate(factor.levels) for factor in factors)):
        row = tuple(index for factor, (index, _) in zip(factors, levels, strict=True) if len(factor.levels) == 2)
        if row in chosen:
            cells.append(_combined(tuple(level for _, level in levels)))
    words = [tuple(sorted((*word, basic + i))) for i, word in enumerate(generators)]
    resolution = len(min(defining_words(words), key=len))
    relations = ", ".join("·".join(two_level[i].name for i in word) for word in words)
    return cells, f"fraction {design.fraction} of resolution {resolution}; constant: {relations}"


def defining_words(words: list[tuple[int, ...]]) -> list[frozenset[int]]:
    """All products of a fraction's defining words: the effects that are constant over its cells."""
    products = []
    for size in range(1, len(words) + 1):
        for some in itertools.combinations(words, size):
            product: frozenset[int] = frozenset()
            for word in some:
                product = product ^ frozenset(word)
            products.append(product)
    return products


def best_generators(factors: int, halvings: int) -> list[tuple[int, ...]]:
    """For each generated factor, the basic factors whose product it is.

    Searches all choices for the highest resolution, then the fewest shortest words.
    """
    basic = factors - halvings
    subsets = [s for size in range(basic, 1, -1) for s in itertools.combinations(range(basic), size)]
    best: tuple[tuple[int, int], list[tuple[int, ...]]] | None = None
    for choice in itertools.islice(itertools.combinations(subsets, halvings), 200_000):
        lengths = [len(word) for word in defining_words([(*s, basic + i) for i, s in enumerate(choice)])]
        score = (-min(lengths), lengths.count(min(lengths)))
        if best is None or score < best[0]:
            best = (score, list(choice))
    if best is None:
        raise StudyError(
            f"a fraction of 1/{2**halvings} of {factors} two-level factors leaves too few cells. Take a larger fraction"
        )
    return best[1]


def _levels(rule: str, settings: Settings, declared: dict[str, tuple[Factor, ...]]) -> dict[str, Any]:
    """The level of every factor of the study that these settings stand for; None where none applies."""
    found: dict[str, Any] = {}
    for factor in (factor for factors in declared.values() for factor in factors):
        if rule in WITHOUT_FEEDBACK and all(
            path.split(".")[0] == "feedback" or path == "streams.feedback" for path in factor.paths
        ):
            found[factor.name] = None
            continue
        if found.get(factor.name) is not None:
            continue
        if len(factor.paths) == 1 and factor.name == column_name(next(iter(factor.paths))):
            found[factor.name] = _plain(_option(settings, next(iter(factor.paths))))
        else:
            matching = (
                level.value
                for level in factor.levels
                if all(_same(_option(settings, p), v) for p, v in level.overrides)
            )
            found[factor.name] = next(matching, None)
    return found


def _option(settings: Settings, path: str) -> Any:
    section, _, key = path.partition(".")
    return getattr(getattr(settings, section), key, None)


def _same(option: Any, written: Any) -> bool:
    return bool(_plain(option) == _plain(written))


def _plain(value: Any) -> Any:
    """A level as a table holds it: lists become text, a missing option stays missing."""
    if isinstance(value, list | tuple):
        return "-".join(str(_plain(item)) for item in value)
    if hasattr(value, "model_dump"):
        value = value.model_dump(exclude_unset=True)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _cell_text(levels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in levels.items() if value is not None)


def _flat(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys: {"network": {"width": 8}} → {"network.width": 8}."""
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path in SECTIONS:
            flat.update(_flat(value, f"{path}."))
        else:
            flat[path] = value
    return flat
