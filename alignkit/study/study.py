"""What a study says: the frozen, validated description that a TOML file is read into.

Its options lie in `settings/`, a class a section; its designs, claims and pilot here. `designs.py` turns a study into
cells and runs.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alignkit.errors import StudyError
from alignkit.settings.rules import check_rule
from alignkit.settings.study_options import SECTIONS, Settings
from alignkit.settings.types import Count, Name, Positive, Section, Seed
from alignkit.settings.validation import validated
from alignkit.study.claim import Claim


class Design(Section):
    """A set of cells. `grid` crosses all factors; `fraction` takes a regular fraction (1/2, 1/4, …) of
    the two-level factors, crossed with the others in full; `one_at_a_time` varies each factor alone from
    the base; `cells` lists them. `base` overrides the study's options for this design."""

    kind: Literal["grid", "fraction", "one_at_a_time", "cells"] = "grid"
    fraction: str = "1/2"
    factors: dict[str, Any] = Field(default_factory=dict)
    cells: tuple[dict[str, Any], ...] = ()
    base: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fraction_is_of_a_fraction(self) -> Design:
        if "fraction" in self.model_fields_set and self.kind != "fraction":
            raise ValueError(f'fraction belongs to kind = "fraction"; this design is a {self.kind}')
        return self

    @field_validator("fraction")
    @classmethod
    def _fraction_is_a_power_of_two(cls, fraction: str) -> str:
        numerator, _, denominator = fraction.partition("/")
        if numerator != "1" or not denominator.isdigit() or int(denominator) < 2 or int(denominator).bit_count() != 1:
            raise ValueError(f'expected "1/2", "1/4", "1/8" and so on; got "{fraction}"')
        return fraction


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected one or more different seeds; got {list(seeds)}")
    return seeds


class Pilot(Section):
    """How each arm's learning rate is tuned: the grid, seeds of its own, and where the outcome is kept.
    The smallest rate within one standard error of the best validation accuracy (for regression, loss) wins."""

    lr: tuple[Positive, ...]
    output_lr: tuple[Positive, ...] = ()
    seeds: tuple[Seed, ...] = (1000, 1001)
    epochs: Count | None = None
    rates: str | None = None

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _different(seeds)

    @field_validator("lr")
    @classmethod
    def _grid_is_not_empty(cls, lr: tuple[float, ...]) -> tuple[float, ...]:
        if not lr:
            raise ValueError("expected at least one learning rate; got none")
        return lr


class Profile(Section):
    """A smaller version of the study, for `--profile NAME`: other rules or seeds, other `options` ("section.key"),
    and of the designs, of their factors' `levels` and of the claims those that are named. What is left out stays as
    it is. `description` says what the profile cannot show; records and report name the profile that ran."""

    description: str = ""
    rules: tuple[str, ...] | None = None
    seeds: Count | tuple[Seed, ...] | None = None
    held_out_seeds: tuple[Seed, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    designs: tuple[str, ...] | None = None
    levels: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    claims: tuple[str, ...] | None = None


class Study(Settings):
    """A frozen description of an experiment. `study_file.load_study(path)` reads it from a TOML file, in one of its
    `profiles` where asked; `profile` then names it.

    `seeds` is a count, or a list. `held_out_seeds` run as the others do and take no part in any verdict: they
    are where a finding is confirmed."""

    name: Name
    title: str = ""
    description: str = ""
    rules: tuple[str, ...] = ("bp", "dfa")
    seeds: Count | tuple[Seed, ...] = 5
    held_out_seeds: tuple[Seed, ...] = ()
    designs: dict[Name, Design] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    pilot: Pilot | None = None
    profiles: dict[Name, Profile] = Field(default_factory=dict)
    profile: str = ""

    @field_validator("rules")
    @classmethod
    def _rules_exist(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            try:
                check_rule(rule)
            except StudyError as error:
                raise ValueError(str(error)) from None
        if not rules or len(set(rules)) != len(rules):
            raise ValueError(f"expected one or more different rules; got {list(rules)}")
        return rules

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: int | tuple[int, ...]) -> int | tuple[int, ...]:
        return _different(seeds) if isinstance(seeds, tuple) else seeds

    @field_validator("held_out_seeds")
    @classmethod
    def _held_out_seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _different(seeds) if seeds else seeds

    @field_validator("claims")
    @classmethod
    def _claims_differ(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        names = [claim.name for claim in claims]
        if len(set(names)) != len(names):
            raise ValueError(f"expected a different name for each claim; got {names}")
        return claims

    @model_validator(mode="after")
    def _pilot_has_seeds_of_its_own(self) -> Study:
        shared = sorted(set(self.pilot.seeds) & set(self.every_seed)) if self.pilot else []
        if shared:
            raise ValueError(
                f"pilot.seeds: expected seeds that the study itself does not use; got {shared} of both. "
                "Rates tuned on the seeds they are judged by are no longer tuned apart"
            )
        return self

    @model_validator(mode="after")
    def _held_out_seeds_are_held_out(self) -> Study:
        shared = sorted(set(self.held_out_seeds) & set(self.seed_list))
        if shared:
            raise ValueError(
                f"held_out_seeds: expected seeds that no verdict uses; got {shared} of seeds as well. Leave them out "
                "of one of the two"
            )
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))

    @property
    def every_seed(self) -> tuple[int, ...]:
        return (*self.seed_list, *self.held_out_seeds)

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.model_dump(include=set(SECTIONS), exclude_unset=True))

    @classmethod
    def parse(cls, raw: dict[str, Any], *, source: str = "study", own_modules: bool = True) -> Study:
        """Validate a study given as nested dictionaries; `source` names it in errors.

        Without `own_modules`, no module of the user's own is imported, and the options of its classes are taken as
        they stand.
        """
        return validated(cls, raw, source=source, own_modules=own_modules)

    def to_json(self) -> str:
        """The study as JSON, defaults left out, in its own order: what its records keep beside them."""
        dumped = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(dumped, indent=1, ensure_ascii=False)
