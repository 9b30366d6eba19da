"""The rules by name. A rule says what teaches the hidden layers; each has a file of its own.

A study names a rule of the table below, or a class of the user's own as "module:Class". The classes
are imported when they are needed, so that a study can be read without torch.
"""

from __future__ import annotations

from typing import Any

from alignkit.errors import StudyError
from alignkit.settings.rules import RULES, check_rule, own_class


def rule_class(name: str) -> Any:
    """The class of a rule. Raises `StudyError` where a user's own cannot be imported or is no rule."""
    from alignkit.rules.base import Rule

    check_rule(name)
    found = own_class(RULES.get(name, name))
    if not (isinstance(found, type) and issubclass(found, Rule)) or found.__abstractmethods__:
        raise StudyError(
            f'rule "{name}": expected a subclass of alignkit.rules.base.Rule that defines '
            f"teaching_signal; got {found!r}"
        )
    return found
