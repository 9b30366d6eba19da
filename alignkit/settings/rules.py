"""The rules by name, without importing them: a study can be read without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict

from alignkit.errors import StudyError, nearest
from alignkit.settings.modules import code_identity, import_class, is_own
from alignkit.settings.types import Section
from alignkit.settings.validation import validated

RULES = {
    "bp": "alignkit.rules.bp:BP",
    "dfa": "alignkit.rules.dfa:DFA",
    "fa": "alignkit.rules.fa:FA",
    "imposed_angle": "alignkit.rules.imposed_angle:ImposedAngle",
    "shallow": "alignkit.rules.shallow:Shallow",
}
WITHOUT_FEEDBACK = frozenset({"bp", "shallow"})
"""Rules whose training no feedback option changes: cells that differ in those alone share a run."""


class RuleOptions(Section):
    """The section `[rule]`: options that rules declare themselves, each in a class `Options` of its own.

    A rule takes those that it declares; the runs of other rules do not depend on them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def written(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def check_rule(name: str) -> None:
    """Raise `StudyError` unless `name` is a rule of the table or has the form "module:Class"."""
    if name not in RULES and not is_own(name):
        raise StudyError(f'no rule is called "{name}"; {nearest(name, RULES)}, or "module:Class" for one of your own')


def rule_identity(name: str) -> str:
    """What a run's id takes for a rule: its name, and for a user's own a hash of its module's code as well."""
    return name if name in RULES else code_identity(name)


def own_class(name: str) -> Any:
    """What "module:Class" names. Raises `StudyError` where it cannot be imported."""
    return import_class(name, what=f'rule "{name}"')


def options_of(name: str) -> type[Section]:
    """The class of a rule's options; one without a field where it declares none."""
    found = Section if name in RULES else getattr(own_class(name), "Options", Section)
    if not (isinstance(found, type) and issubclass(found, Section)):
        raise StudyError(
            f'rule "{name}": expected Options to be a subclass of alignkit.settings.types.Section; got {found!r}'
        )
    return found


def chosen_options(name: str, written: RuleOptions, *, source: str) -> dict[str, Any]:
    """The options that a rule reads, defaults filled in; nothing of a section that is empty.

    Raises `StudyError` where a value is not what the rule's `Options` say.
    """
    if not written.written:
        return {}
    model = options_of(name)
    read = {key: value for key, value in written.written.items() if key in model.model_fields}
    return validated(model, read, source=f"{source}: rule (of {name})").model_dump()


def identifying_options(name: str, written: RuleOptions) -> dict[str, Any]:
    """The options that a rule reads and that are not at their defaults, as JSON has them."""
    if not written.written:
        return {}
    model = options_of(name)
    read = {key: value for key, value in written.written.items() if key in model.model_fields}
    return model.model_validate(read).model_dump(mode="json", exclude_defaults=True)


def check_options(names: Iterable[str], keys: Iterable[str], *, source: str) -> None:
    """Raise `StudyError` unless some rule of a study declares each of the options."""
    keys, names = list(keys), list(names)
    declared = {key for name in names for key in options_of(name).model_fields} if keys else set()
    for key in keys:
        if key not in declared:
            mend = nearest(key, declared) if declared else "leave it out"
            raise StudyError(f"{source}: rule.{key}: no rule of {', '.join(names)} has such an option; {mend}")


def display_of(name: str) -> dict[str, str]:
    """How a rule of the user's own is to be shown: its `display_name` and its `colour`, where it has them."""
    if name in RULES:
        return {}
    found = {key: getattr(own_class(name), key, None) for key in ("display_name", "colour")}
    return {key: str(value) for key, value in found.items() if value}
