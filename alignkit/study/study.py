"""What a study says: the frozen, validated description that Python code makes, or a TOML file is read into.

Its options lie in `settings/`, a class a section, its claims in `claim.py`; designs, pilot and profiles are here.
`designs.py` turns designs into cells, `plan.py` cells into runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alignkit.display import block, head_html, pairs_html, rows_html
from alignkit.errors import StudyError, has_control_characters, printable, quoted
from alignkit.settings.rules import check_rule
from alignkit.settings.study_options import SECTIONS, Settings
from alignkit.settings.types import Count, Name, Positive, Section, Seed
from alignkit.settings.validation import built, plain_values, validated
from alignkit.study.claim import Claim
from alignkit.study.toml_text import toml_text
from alignkit.study.tuning import Tuning
from alignkit.text import count, named

MOST_CLAIMS = 1_000
MOST_DESIGNS = 200


def _require_printable(raw: Any, key: str = "") -> None:
    """A study's words go to terminals, pages and figures, where control characters are obeyed or not allowed."""
    if isinstance(raw, str) and has_control_characters(raw):
        raise ValueError(
            f'{printable(key)}: expected text without control characters; got "{printable(raw)[:200]}". Leave them out'
        )
    if isinstance(raw, Mapping):
        for name, value in raw.items():
            _require_printable(name, f"{key}.{name}".lstrip("."))
            _require_printable(value, f"{key}.{name}".lstrip("."))
    elif isinstance(raw, list | tuple):
        for index, value in enumerate(raw):
            _require_printable(value, f"{key}.{index}")


@built
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
        found = re.fullmatch(r"1/([0-9]{1,6})", fraction)
        if found is None or int(found[1]) < 2 or int(found[1]).bit_count() != 1:
            raise ValueError(f'expected "1/2", "1/4", "1/8" and so on; got "{fraction[:40]}"')
        return fraction


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected one or more different seeds; got {quoted(list(seeds))}")
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


@built
class Study(Settings):
    """A frozen description of an experiment: made here, or read from a TOML file by `study.file.load_study(path)`, in
    one of its `profiles` where asked; `profile` then names it.

    `seeds` is a count, or a list. `held_out_seeds` run as the others do and take no part in any verdict: they
    are where a finding is confirmed, under `held_out_rules` alone where those are named. Sections, designs and claims
    are objects or dicts, whose keys are those of a study file. A study of one grid gives its `factors`
    alone, without `designs`.

    >>> study = Study(name="norms", network={"width": 32}, factors={"network.norm": ["none", "batch"]}, seeds=10)
    >>> print(study.to_toml())
    name = "norms"
    seeds = 10
    <BLANKLINE>
    [network]
    kind = "mlp"
    width = 32
    <BLANKLINE>
    [designs.study.factors]
    "network.norm" = ["none", "batch"]
    """

    name: Name
    title: str = ""
    description: str = ""
    rules: tuple[str, ...] = ("bp", "dfa")
    seeds: Count | tuple[Seed, ...] = 5
    held_out_seeds: tuple[Seed, ...] = ()
    held_out_rules: tuple[str, ...] | None = None
    designs: dict[Name, Design] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    pilot: Pilot | None = None
    tuning: Tuning | None = None
    profiles: dict[Name, Profile] = Field(default_factory=dict)
    profile: str = ""

    @model_validator(mode="before")
    @classmethod
    def _factors_make_a_design(cls, raw: Any) -> Any:
        return with_designs(raw)

    @model_validator(mode="before")
    @classmethod
    def _words_are_printable(cls, raw: Any) -> Any:
        _require_printable(raw)
        return raw

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

    @field_validator("designs")
    @classmethod
    def _designs_are_few(cls, designs: dict[str, Design]) -> dict[str, Design]:
        if len(designs) > MOST_DESIGNS:
            raise ValueError(
                f"expected at most {MOST_DESIGNS} designs; got {len(designs):,}. Make several studies of it"
            )
        return designs

    @field_validator("claims")
    @classmethod
    def _claims_differ(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        names = [claim.name for claim in claims]
        if len(names) > MOST_CLAIMS:
            raise ValueError(f"expected at most {MOST_CLAIMS:,} claims; got {len(names):,}. Make several studies of it")
        if len(set(names)) != len(names):
            raise ValueError(f"expected a different name for each claim; got {quoted(names)}")
        return claims

    @model_validator(mode="after")
    def _pilot_has_seeds_of_its_own(self) -> Study:
        shared = sorted(set(self.pilot.seeds) & set(self.every_seed)) if self.pilot else []
        if shared:
            raise ValueError(
                f"pilot.seeds: expected seeds that the study itself does not use; got {quoted(shared)} of both. "
                "Rates tuned on the seeds they are judged by are no longer tuned apart"
            )
        return self

    @model_validator(mode="after")
    def _rates_are_tuned_once(self) -> Study:
        if self.tuning is None:
            return self
        if self.pilot is not None:
            raise ValueError("tuning and pilot both choose learning rates. Leave one of the two out")
        for rule in self.tuning.rules:
            if rule not in self.rules:
                raise ValueError(f"tuning.rules: expected rules of the study, {list(self.rules)}; got {quoted(rule)}")
        return self

    @model_validator(mode="after")
    def _held_out_rules_are_run(self) -> Study:
        for rule in self.held_out_rules or ():
            if rule not in self.rules:
                raise ValueError(f"held_out_rules: expected rules of the study, {list(self.rules)}; got {quoted(rule)}")
        return self

    @model_validator(mode="after")
    def _held_out_seeds_are_held_out(self) -> Study:
        shared = sorted(set(self.held_out_seeds) & set(self.seed_list))
        if shared:
            raise ValueError(
                f"held_out_seeds: expected seeds that no verdict uses; got {quoted(shared)} of seeds as well. Leave "
                "them out of one of the two"
            )
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))

    @property
    def every_seed(self) -> tuple[int, ...]:
        return (*self.seed_list, *self.held_out_seeds)

    def seeds_of(self, rule: str) -> tuple[int, ...]:
        """The seeds that a rule runs under: without the held-out ones where only other rules have those."""
        apart = self.held_out_rules is not None and rule not in self.held_out_rules
        return self.seed_list if apart else self.every_seed

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.model_dump(include=set(SECTIONS), exclude_unset=True))

    @classmethod
    def parse(cls, raw: Mapping[str, Any], *, source: str = "study", own_modules: bool = True) -> Study:
        """Validate a study given as nested dictionaries; `source` names it in errors.

        Without `own_modules`, no module of the user's own is imported, and the options of its classes are taken as
        they stand.
        """
        return validated(cls, raw, source=source, own_modules=own_modules)

    def to_json(self) -> str:
        """The study as JSON, defaults left out, in its own order: what its records keep beside them.

        A claim's response is there whatever it is: its default was another one once.
        """
        dumped = self.model_dump(mode="json", exclude_defaults=True)
        for claim, written in zip(self.claims, dumped.get("claims", ()), strict=True):
            written["response"] = claim.response
        return json.dumps(dumped, indent=1, ensure_ascii=False)

    def __repr__(self) -> str:
        return f"Study({_words(self)})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return _html(self)

    def to_toml(self) -> str:
        """The text of a file that reads back as this study. What was left to its default is left out.

        Of a study in one of its profiles it is the smaller study by itself, which names no profile. Raises
        `StudyError` where a level is None, which TOML cannot say.
        """
        return toml_text(self.options())

    def options(self) -> dict[str, Any]:
        """The study as nested dictionaries, the way a file states it."""
        apart = {"profile", "profiles"} if self.profile else set()
        stated: dict[str, Any] = plain_values(self.model_dump(exclude_unset=True, exclude_none=True, exclude=apart))
        return stated


def _words(study: Study) -> str:
    parts = [
        count(len(study.designs), "design") if study.designs else "one cell",
        *([count(len(study.claims), "claim")] if study.claims else []),
        named("rule", study.rules),
        count(len(study.seed_list), "seed"),
        *([f"{len(study.held_out_seeds)} held out"] if study.held_out_seeds else []),
        *([f"profile {study.profile}"] if study.profile else []),
    ]
    return f"{study.name!r}: {', '.join(parts)}"


def _html(study: Study) -> str:
    """The study at a glance: the options that it states, what varies, and its claims."""
    stated = study.options()
    sections = {name: _options_text(stated.get(name, {})) for name in (*SECTIONS, "pilot", "tuning")}
    designs = {
        f"design {name}": f"{design.kind}: {_options_text(design.factors) or count(len(design.cells), 'cell')}"
        for name, design in study.designs.items()
    }
    claims = [
        (claim.name, claim.statement, f"{claim.factor}: {claim.levels[0]} to {claim.levels[1]}",
         f"{claim.response} {claim.direction}s by {claim.smallest_effect:g} or more", claim.family)
        for claim in study.claims
    ]  # fmt: skip
    table = rows_html(claims, head=("claim", "statement", "from, to", "what it predicts", "family")) if claims else ""
    return block(head_html("Study", _words(study)), pairs_html({"title": study.title, **sections, **designs}), table)


def _options_text(options: Mapping[str, Any], place: str = "") -> str:
    """Options in a line, those of tables within by their dotted names."""
    parts = []
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            parts.append(_options_text(value, f"{place}{key}."))
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            parts.append(f"{place}{key} = {text}")
    return "; ".join(parts)


def with_designs(raw: Any) -> Any:
    """What a study states, with `factors` of its own as those of its one design, which is called "study"."""
    if not isinstance(raw, Mapping) or "factors" not in raw:
        return raw
    if "designs" in raw:
        raise ValueError("factors make a design of their own: move them to one of designs, or leave designs out")
    stated = {key: value for key, value in raw.items() if key != "factors"}
    return {**stated, "designs": {"study": {"factors": raw["factors"]}}}
