"""Smaller versions of a study, declared in its file: fewer epochs, seeds or levels, and said to be so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignkit.errors import StudyError, nearest
from alignkit.settings.study_options import SECTIONS
from alignkit.settings.validation import validated
from alignkit.study.designs import column_name, declared_factors
from alignkit.study.study import Profile, Study, with_designs

RATES = ("pilot", "tuning")
"""Sections that say how learning rates are chosen; a study has one of them or none."""


def with_profile(raw: Mapping[str, Any], name: str, *, source: str) -> dict[str, Any]:
    """A study's nested dictionaries as the profile `name` changes them; `profile` then names it.

    Raises `StudyError` where the study has no such profile, or the profile names a factor, level or section that
    the study does not have.
    """
    whole = validated(Study, raw, source=source)
    raw = with_designs(raw)
    declared_factors(whole, source)
    if name not in whole.profiles:
        known = nearest(name, whole.profiles) if whole.profiles else f"it declares none. Add [profiles.{name}] to it"
        raise StudyError(f'{source}: the study has no profile "{name}"; {known}')
    profiles, profile = raw["profiles"], whole.profiles[name]
    place = f"{source}: profiles.{name}"
    changed = {key: value for key, value in raw.items() if key != "profiles"}
    changed |= {"profile": name, "profiles": {name: profiles[name]}}  # its description goes with the records
    for key in ("rules", "seeds", "held_out_seeds"):
        value = getattr(profile, key)
        if value is not None:
            changed[key] = list(value) if isinstance(value, tuple) else value
    for path, value in _dotted(profile.options).items():
        section, _, key = path.partition(".")
        if section not in (*SECTIONS, *RATES) or not key:
            raise StudyError(
                f'{place}.options: "{path}" is no option; expected section.key with a section of '
                f"{', '.join((*SECTIONS, *RATES[:-1]))} or {RATES[-1]}"
            )
        if section in RATES and getattr(whole, section) is None:
            raise StudyError(
                f"{place}.options: {path}: the study has no [{section}]. Add [{section}] to it, or leave this out"
            )
        changed[section] = {**changed.get(section, {}), key: value}
    designs = changed.get("designs", {})
    if profile.designs is not None:
        for design in profile.designs:
            if design not in designs:
                raise StudyError(f'{place}.designs: no design is called "{design}"; {nearest(design, designs)}')
        designs = {design: designs[design] for design in profile.designs}
    factors = {found for design in designs.values() for found in _factors(design.get("factors", {}))}
    for factor, wanted in profile.levels.items():
        if factor not in factors:
            raise StudyError(f'{place}.levels: no factor is called "{factor}"; {nearest(factor, sorted(factors))}')
        there = {str(level) for design in designs.values() for level in _levels(design.get("factors", {}), factor)}
        for level in wanted:
            if str(level) not in there:
                raise StudyError(f"{place}.levels.{factor}: no level {level!r}; {nearest(str(level), sorted(there))}")
    changed["designs"] = {
        design: {**options, "factors": _kept(options.get("factors", {}), profile, f"{place}.levels: design {design}")}
        if options.get("factors")
        else options
        for design, options in designs.items()
    }
    if profile.claims is not None:
        declared = [claim.get("name", "") for claim in raw.get("claims", [])]
        for claim in profile.claims:
            if claim not in declared:
                raise StudyError(f'{place}.claims: no claim is called "{claim}"; {nearest(claim, declared)}')
        changed["claims"] = [claim for claim in raw.get("claims", []) if claim.get("name") in profile.claims]
    return changed


def _dotted(options: dict[str, Any]) -> dict[str, Any]:
    """Options as "section.key", also where they are written as tables of sections."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        inner = value if key in (*SECTIONS, *RATES) and isinstance(value, dict) else None
        found |= {key: value} if inner is None else {f"{key}.{name}": each for name, each in inner.items()}
    return found


def _factors(factors: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The factors that a design declares, by their columns, each with its levels."""
    found: dict[str, Any] = {}
    for key, value in factors.items():
        path = f"{prefix}{key}"
        if path.split(".")[0] not in SECTIONS:
            found[key] = value
        elif isinstance(value, dict):
            found |= _factors(value, f"{path}.")
        else:
            found[column_name(path)] = value
    return found


def _levels(factors: dict[str, Any], name: str) -> list[Any]:
    return list(_factors(factors).get(name, ()))


def _kept(factors: dict[str, Any], profile: Profile, place: str, prefix: str = "") -> dict[str, Any]:
    """The factors of a design with those of its levels that a profile keeps."""
    found: dict[str, Any] = {}
    for key, value in factors.items():
        path = f"{prefix}{key}"
        in_section = path.split(".")[0] in SECTIONS
        name = column_name(path) if in_section else key
        if in_section and isinstance(value, dict):
            found[key] = _kept(value, profile, place, f"{path}.")
        elif name not in profile.levels:
            found[key] = value
        else:
            wanted = {str(level) for level in profile.levels[name]}
            kept = [level for level in value if str(level) in wanted]
            if not kept:
                raise StudyError(f"{place}: none of its levels of {name} is kept. Leave the design out of `designs`")
            found[key] = {level: value[level] for level in kept} if isinstance(value, dict) else kept
    return found
